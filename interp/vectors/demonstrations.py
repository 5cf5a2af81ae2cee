"""Prompts that show a relation by examples, and those that do not.

Q: hot\nA: cold\n\n  Q: tall\nA: short\n\n  Q: wet\nA:   ->  dry
└─ demonstrations ─────────────────────┘   └ query ┘
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from interp.errors import TaskError
from interp.models import Model
from interp.prompts import PromptSet
from interp.saved import register
from interp.vectors.relation import Pair, Relation


@register
@dataclass(frozen=True)
class Template:
    """How a pair is written: `{x}` and `{y}` stand for its input and output.

    `demo` is a whole demonstration, `query` a demonstration up to its answer, which follows a space
    if `space` is set. The last token of `query` is the separator, at which vectors are taken and
    put in.
    """

    demo: str = "Q: {x}\nA: {y}\n\n"
    query: str = "Q: {x}\nA:"
    space: bool = True


QA = Template()
"""Todd et al. 2024, and the embedded models' training."""
ARROW = Template("example:{x}->{y}\n", "example:{x}->", space=False)
"""Hendel et al. 2023."""


@register
@dataclass(frozen=True)
class Shown:
    """One prompt: demonstrations, then a query and its answer."""

    demos: tuple[Pair, ...]
    query: Pair

    def text(self, template: Template = QA) -> str:
        """The prompt; the answer follows it."""
        shown = "".join(template.demo.format(x=x, y=y) for x, y in self.demos)
        return shown + template.query.format(x=self.query[0])

    def asking(self, query: Pair) -> Shown:
        """The same demonstrations before another query."""
        return replace(self, query=query)

    @property
    def alone(self) -> Shown:
        """The query without demonstrations."""
        return replace(self, demos=())

    def shuffled(self, rng: random.Random) -> Shown:
        """The outputs of the demonstrations turned round, so that none stands with its input."""
        turn = rng.randrange(1, len(self.demos))
        outputs = [y for _, y in self.demos[turn:] + self.demos[:turn]]
        demos = tuple((x, y) for (x, _), y in zip(self.demos, outputs, strict=True))
        return replace(self, demos=demos)


def show(
    relation: Relation, n: int, *, shots: int = 5, split: str = "test", seed: int = 0
) -> list[Shown]:
    """`n` prompts: demonstrations from the training pairs, queries from a split in turn.

    A query of the split "train" is not among its own demonstrations. With fewer queries than `n`
    they come again, with other demonstrations.

    Raises TaskError if there are too few pairs.
    """
    rng = random.Random(f"{relation.name} {split} {shots} {seed}")
    queries = list(getattr(relation, split))
    if len(relation.train) < shots + 1 or not queries:
        raise TaskError(
            f"{relation!r} has {len(relation.train)} training pairs, and {shots} demonstrations "
            f"with a query need {shots + 1}; use fewer shots."
        )
    rng.shuffle(queries)
    found = []
    for i in range(n):
        query = queries[i % len(queries)]
        others = [pair for pair in relation.train if pair != query]
        found.append(Shown(tuple(rng.sample(others, shots)), query))
    return found


def prompts_of(
    model: Model,
    shown: Sequence[Shown],
    *,
    corrupt: Iterable[Shown] | None = None,
    template: Template = QA,
    wrong: Sequence[str] | None = None,
    task: str = "functions",
) -> PromptSet:
    """Tokens of these prompts; the separator is their last token, END.

    `wrong` is one wrong answer for each; `corrupt` are counterfactuals of the same length.
    """
    space = " " if template.space else ""
    return PromptSet.from_strings(
        model,
        [each.text(template) for each in shown],
        corrupt=None if corrupt is None else [each.text(template) for each in corrupt],
        answer=[(space + each.query[1],) for each in shown],
        wrong=None if wrong is None else [(space + each,) for each in wrong],
        task=task,
        notes={"shots": len(shown[0].demos) if shown else 0},
    )
