"""Pairs of a relation, and which of them are demonstrated, tuned on and judged on."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import FileFormatError, TaskError, one_line
from interp.json_file import read_json
from interp.models import Model
from interp.saved import Saved
from interp.tasks import Task
from interp.tasks.functions import InContextFunction
from interp.tasks.words import Group, keep_single_tokens, pairs, relations

Pair = tuple[str, str]
SHARES = (0.5, 0.2)
"""Shares of the pairs that are demonstrated and tuned on; the rest is judged on."""


@dataclass(frozen=True)
class Relation(Saved):
    """Inputs and outputs of a function, in three parts that share no pair.

    Attributes:
        name: Of the relation.
        train: Pairs that demonstrations and dummy queries are taken from.
        dev: Queries on which a layer, or weights, are chosen.
        test: Queries on which results are reported.
    """

    name: str
    train: tuple[Pair, ...]
    dev: tuple[Pair, ...]
    test: tuple[Pair, ...]

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All of them."""
        return self.train + self.dev + self.test

    def __repr__(self) -> str:
        return f"Relation({self.name!r}, {len(self.train)}/{len(self.dev)}/{len(self.test)} pairs)"


def relation(
    model: Model, source: str | Path | Task | Relation | Sequence[Pair], *, seed: int = 0
) -> Relation:
    """The pairs that are one token each for this model, split at random.

    Args:
        model: Whose tokenizer decides which pairs are kept.
        source: A relation's name, its task, a JSON file of `[{"input": ..., "output": ...}]`, or
            pairs of words (without the space before them).
        seed: Of the split.

    Raises:
        TaskError: No such relation, or fewer than 10 pairs of single tokens.
        FileFormatError: A file of another kind.
    """
    if isinstance(source, Relation):
        return source
    name, found = _named(source)
    words, _ = keep_single_tokens(model, {"pairs": Group(found, at_least=10)}, name)
    kept = list(dict.fromkeys(words["pairs"]))
    random.Random(f"{name} {seed}").shuffle(kept)
    first = max(1, round(SHARES[0] * len(kept)))
    second = first + max(1, round(SHARES[1] * len(kept)))
    return Relation(name, tuple(kept[:first]), tuple(kept[first:second]), tuple(kept[second:]))


def _named(source: str | Path | Task | Sequence[Pair]) -> tuple[str, list[Pair]]:
    if isinstance(source, InContextFunction) and source.relation is not None:
        return source.relation, pairs(source.relation)
    if isinstance(source, Task):
        raise TaskError(
            f"Task {source.name!r} has no pairs of inputs and outputs; use a relation such as "
            f"{relations()[0]!r}."
        )
    if isinstance(source, str) and source in relations():
        return source, pairs(source)
    if isinstance(source, str | Path):
        return Path(source).stem, read_pairs(Path(source))
    return "pairs", [(a, b) for a, b in source]


def read_pairs(path: Path) -> list[Pair]:
    """The pairs of a JSON file of `[{"input": ..., "output": ...}]`.

    Raises TaskError for no file, FileFormatError for one of another kind.
    """
    if not path.exists():
        raise TaskError(
            f"No relation is called {str(path)!r}, and no file; known: {', '.join(relations())}."
        )
    shape = 'a list of {"input": ..., "output": ...}'
    try:
        data = read_json(path, way_out=f"give {shape}")
        return [(_word(pair["input"]), _word(pair["output"])) for pair in data]
    except (ValueError, TypeError, LookupError) as error:
        raise FileFormatError(f"{path} is not {shape} ({one_line(error)}).") from error


def _word(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r:.80} is no word")
    return value.strip()
