"""Contrast pairs: one prompt, an answer that shows a behavior and one that does not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp import tasks
from interp.errors import FileFormatError, TaskError, one_line
from interp.json_file import read_json_lines
from interp.models import Model
from interp.prompts import PromptSet
from interp.saved import Saved, fitted, register
from interp.tasks import Task
from interp.tasks.words import keep_single_tokens
from interp.vectors.demonstrations import QA, Shown, Template
from interp.vectors.relation import SHARES, relation

ENOUGH = 8
"""Fewest contrast pairs that can be divided into those to learn, to tune and to judge from."""


SHAPE = '{"prompt": ..., "positive": ..., "negative": ...}'
"""A line of a file."""


@register
@dataclass(frozen=True)
class Contrast:
    """A prompt and two answers, one token each, as they stand in the text: `" yes"`."""

    prompt: str
    positive: str
    negative: str


@dataclass(frozen=True)
class Behavior(Saved):
    """Contrast pairs of one behavior, in three parts that share no pair.

    Attributes:
        name: Of the behavior.
        train: Pairs that its vector is made of.
        dev: Pairs on which a layer is chosen.
        test: Pairs on which results are reported.
    """

    name: str
    train: tuple[Contrast, ...]
    dev: tuple[Contrast, ...]
    test: tuple[Contrast, ...]

    def __repr__(self) -> str:
        parts = f"{len(self.train)}/{len(self.dev)}/{len(self.test)}"
        return f"Behavior({self.name!r}, {parts} pairs)"


def behavior(name: str, contrasts: Sequence[Contrast], *, seed: int = 0) -> Behavior:
    """Contrast pairs divided at random: half to learn from, a fifth to tune, the rest to judge.

    >>> pairs = [Contrast(f"Q: {word}\\nA:", " yes", " no") for word in "abcdefghij"]
    >>> behavior("agreement", pairs)
    Behavior('agreement', 5/2/3 pairs)

    Raises TaskError for fewer than 8 different pairs.
    """
    kept = list(dict.fromkeys(contrasts))
    if len(kept) < ENOUGH:
        raise TaskError(
            f"Behavior {name!r} has {len(kept)} different contrast pairs; give {ENOUGH} or more."
        )
    random.Random(f"{name} {seed}").shuffle(kept)
    first = round(SHARES[0] * len(kept))
    second = first + max(1, round(SHARES[1] * len(kept)))
    return Behavior(name, tuple(kept[:first]), tuple(kept[first:second]), tuple(kept[second:]))


def between_relations(
    model: Model, positive: str, negative: str, *, template: Template = QA, seed: int = 0
) -> Behavior:
    """Questions without demonstrations that two relations answer: hot -> hottest, or hotter?

    Args:
        model: Whose tokenizer decides which pairs are kept.
        positive: The relation that is steered to, as `relation` takes it.
        negative: The one that is steered from.
        template: How a question is written.
        seed: Of the split.

    Raises TaskError for relations that share fewer than 8 inputs.
    """
    one, other = (relation(model, name) for name in (positive, negative))
    answers, space = dict(other.pairs), " " if template.space else ""
    found = [
        Contrast(Shown((), (x, y)).text(template), space + y, space + answers[x])
        for x, y in sorted(one.pairs)
        if x in answers and answers[x] != y
    ]
    return behavior(f"{one.name}, not {other.name}", found, seed=seed)


def from_task(
    model: Model,
    task: str | Task,
    *,
    n: int = 100,
    answers: tuple[str, str] | None = None,
    seed: int = 0,
) -> Behavior:
    """Prompts of a task, steered from its wrong answer to its right one, or between two words.

    With "facts_vs_context" the right answer is what the text says and the wrong one what the model
    remembers. `answers=(" yes", " no")` steers coin flips to one answer, whatever is right.

    Raises TaskError for an unknown task, and for one without wrong answers if none are given.
    """
    source = tasks.get(task) if isinstance(task, str) else task
    words, _ = keep_single_tokens(model, source.groups(), source.name)
    rng, found = random.Random(f"{source.name} {seed}"), []
    for _ in range(n):
        example = source.draw(rng, words)
        if answers is None and not example.wrong:
            raise TaskError(
                f"Task {source.name!r} has no wrong answers; say which two with answers=."
            )
        found.append(Contrast(example.clean, *(answers or (example.answer[0], example.wrong[0]))))
    return behavior(source.name if answers is None else answers[0].strip(), found, seed=seed)


def read_contrasts(path: str | Path, *, seed: int = 0) -> Behavior:
    """One contrast pair a line: `{"prompt": "...", "positive": " yes", "negative": " no"}`.

    Raises:
        FileFormatError: A file that cannot be read or is of another kind; names the line.
        TaskError: Fewer than 8 pairs.
    """
    path = Path(path)
    lines = read_json_lines(path, way_out=f"each line is {SHAPE}")
    found = [_parsed(path, *line) for line in lines]
    try:
        return behavior(path.stem, found, seed=seed)
    except TaskError as error:
        raise TaskError(f"{path} is too short: {error}") from error


def _parsed(path: Path, number: int, told: Any) -> Contrast:
    try:
        return fitted(Contrast, **{name: told[name] for name in ("prompt", "positive", "negative")})
    except (ValueError, TypeError, LookupError) as error:
        raise FileFormatError(
            f"Line {number} of {path} is no {SHAPE} ({one_line(error)})."
        ) from error


def asked(model: Model, contrasts: Sequence[Contrast]) -> PromptSet:
    """The prompts, each with its two answers.

    Raises PromptError for answers of several tokens.
    """
    return PromptSet.from_strings(
        model,
        [each.prompt for each in contrasts],
        answer=[(each.positive,) for each in contrasts],
        wrong=[(each.negative,) for each in contrasts],
        task="steering",
    )
