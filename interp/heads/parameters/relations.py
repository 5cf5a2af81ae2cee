"""Relations between words, as pairs of a source and a target that a head may map to each other."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.errors import TaskError
from interp.models import Model
from interp.prompts import PromptSet
from interp.saved import register
from interp.tasks import words

Pairs = Sequence[Sequence[str]]
"""Source and target of each pair."""

CATEGORIES: dict[str, tuple[str, ...]] = {
    "algorithmic": ("copying", "name_copying", "next_year", "first_letter", "last_letter"),
    "knowledge": ("capital", "language", "superclass", "company", "workplace"),
    "linguistic": (
        *("antonym", "comparative", "superlative", "past_tense"),
        *("pronoun", "synonym", "homophone", "compound"),
    ),
    "translation": ("spanish", "french"),
}
"""The 20 relations of MAPS (Elhelo & Geva 2024) by category, with our names and our own words."""

YEARS = range(1900, 2020)


def published_relations() -> dict[str, list[tuple[str, str]]]:
    """The 20 relations of MAPS. A source with several right targets stands in several pairs.

    Copying, letters and years follow a rule; the others are word lists in `data/relations_maps/`.
    The words that are copied and spelled are the sources of antonyms, synonyms and superclasses.

    >>> published_relations()["next_year"][0], len(published_relations())
    (('1900', '1901'), 20)
    """
    written = {
        name: [
            (entry["input"], target)
            for entry in words.read(f"relations_maps/{name}")
            for target in entry["outputs"]
        ]
        for kind in ("knowledge", "linguistic", "translation")
        for name in CATEGORIES[kind]
    }
    named = ("antonym", "synonym", "superclass")
    common = dict.fromkeys(source.lower() for name in named for source, _ in written[name])
    return {
        "copying": [(word, word) for word in common],
        "name_copying": [(name, name) for name in words.read("words/names")],
        "next_year": [(str(year), str(year + 1)) for year in YEARS],
        "first_letter": [(word, word[0]) for word in common],
        "last_letter": [(word, word[-1]) for word in common],
        **written,
    }


def task_relations() -> dict[str, list[tuple[str, str]]]:
    """The relations of the task "functions", which the embedded models were trained on.

    >>> task_relations()["capital"][0]
    ('France', 'Paris')
    """
    return {name: words.pairs(name) for name in words.relations()}


@register
@dataclass(frozen=True, eq=False)
class Relation:
    """The pairs of a relation that are single tokens for a model.

    Attributes:
        name: What it is called.
        pairs: Source and target of each, as given.
        sources: Their tokens.
        targets: Their tokens.
        shuffled: For each pair, the target of another that is not right for this source; -1 where
            all targets are right for it.
    """

    name: str
    pairs: tuple[tuple[str, str], ...]
    sources: Int[Tensor, " pairs"]
    targets: Int[Tensor, " pairs"]
    shuffled: Int[Tensor, " pairs"]

    @property
    def copies(self) -> bool:
        """Whether every source is its own target."""
        return bool((self.sources == self.targets).all())

    def answers(self, source: int) -> list[int]:
        """Every target that is right for a source."""
        return self.targets[self.sources == source].unique().tolist()


def keep_pairs(
    model: Model,
    relations: Mapping[str, Pairs],
    *,
    min_pairs: int = 30,
    leading_space: bool = True,
    seed: int = 0,
) -> tuple[list[Relation], dict[str, str]]:
    """Relations of which enough pairs are single tokens, and `"kept/all"` of those left out.

    Args:
        model: Whose tokenizer decides.
        relations: Pairs of words by name; a pair that is given twice counts once.
        min_pairs: A relation with fewer single-token pairs is left out.
        leading_space: Put a space before each word, as in running text. False takes the words as
            they are written.
        seed: Of the shuffled targets.

    Raises:
        TaskError: No relation remains, or an entry is no pair of words.
    """
    kept, left_out = [], {}
    space = " " if leading_space else ""
    for name, given in relations.items():
        pairs = list(dict.fromkeys(_pair(name, pair) for pair in given))
        tokens = {
            pair: (model.single_token(space + pair[0]), model.single_token(space + pair[1]))
            for pair in pairs
        }
        whole = [pair for pair in pairs if None not in tokens[pair]]
        if len(whole) < max(min_pairs, 1):
            left_out[name] = f"{len(whole)}/{len(pairs)}"
            continue
        sources, targets = torch.tensor([tokens[pair] for pair in whole]).T
        shuffled = _shuffled(sources, targets, seed)
        kept.append(Relation(name, tuple(whole), sources, targets, shuffled))
    if not kept:
        counts = ", ".join(f"{name} {count}" for name, count in left_out.items())
        raise TaskError(
            f"No relation has {min_pairs} pairs that are single tokens for {model.id} "
            f"({counts or 'none were given'}); give pairs of words that its tokenizer keeps whole, "
            "or a smaller min_pairs."
        )
    return kept, left_out


def few_shot(
    model: Model,
    relation: Relation,
    *,
    shots: int = 5,
    space: bool = True,
    n: int = 100,
    seed: int = 0,
) -> PromptSet:
    """Prompts of some pairs and one more source, written as in the task "functions".

    Every target that is right for the source is an answer, and one of another source is wrong.

    Args:
        model: Whose tokens those of the relation are.
        relation: Its pairs are drawn with replacement between prompts, and without within one.
        shots: Pairs before the source that is asked for.
        space: Whether the tokens of the words begin with a space.
        n: Number of prompts.
        seed: Of the draws.

    Raises:
        TaskError: Too few sources, or a tokenizer without the words around pairs.
    """
    sources = relation.sources.unique().tolist()
    if len(sources) <= shots:
        raise TaskError(
            f"{relation.name!r} has {len(sources)} sources, and prompts of {shots} shots need "
            f"{shots + 1}; use fewer shots."
        )
    gap = "" if space else " "
    question, answer = known_tokens(model, f"Q:{gap}"), known_tokens(model, f"\nA:{gap}")
    end = known_tokens(model, "\n\n")
    rng = random.Random(seed)
    rows, right, wrong = [], [], []
    for _ in range(n):
        *demos, asked = rng.sample(sources, shots + 1)
        row = [] if model.bos_id is None else [model.bos_id]
        for source in demos:
            row += [*question, source, *answer, rng.choice(relation.answers(source)), *end]
        rows.append([*row, *question, asked, *answer])
        right.append(relation.answers(asked))
        wrong.append(int(relation.shuffled[relation.sources == asked][0]))
    return PromptSet.from_tokens(
        rows,
        answer=right,
        wrong=None if -1 in wrong else wrong,
        task=f"maps: {relation.name}",
        notes={"seed": seed, "shots": shots},
    )


def known_tokens(model: Model, text: str) -> list[int]:
    """The tokens of a text. Raises TaskError if the tokenizer does not know one."""
    tokens = model.encode(text)
    if model.tokenizer.unk_token_id in tokens:
        raise TaskError(
            f"The tokenizer of {model.id} does not know all of {text!r}; give prompts or templates "
            "in words that it has."
        )
    return tokens


def _pair(name: str, pair: Sequence[str]) -> tuple[str, str]:
    if isinstance(pair, str) or len(pair) != 2:
        raise TaskError(
            f"The relation {name!r} has the entry {pair!r}; give pairs of words, such as "
            "('hot', 'cold')."
        )
    return pair[0], pair[1]


def _shuffled(
    sources: Int[Tensor, " pairs"], targets: Int[Tensor, " pairs"], seed: int
) -> Int[Tensor, " pairs"]:
    """For each pair a target drawn from the pairs of other sources, wrong for its own."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.full_like(targets, -1)
    for at, source in enumerate(sources):
        right = targets[sources == source]
        wrong = targets[~torch.isin(targets, right)]
        if len(wrong):
            drawn[at] = wrong[torch.randint(len(wrong), (1,), generator=generator)]
    return drawn
