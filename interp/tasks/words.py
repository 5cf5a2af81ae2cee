"""Word lists from `data/`, and which of their words a tokenizer keeps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from interp.errors import TaskError
from interp.models import Model
from interp.resources import data_dir

Words = Mapping[str, tuple[Any, ...]]
"""The entries of each group: `str`, or a tuple of them."""


@dataclass(frozen=True)
class Group:
    """Words that a task draws from.

    Attributes:
        entries: Words; or tuples of words that belong together, such as a country and its capital.
        at_least: How many must be single tokens for the task to make sense.
        glued: The parts of an entry are written without space between them, as in the year 17|32.
    """

    entries: Sequence[str | tuple[str, ...]]
    at_least: int = 1
    glued: bool = False


@cache
def read(path: str) -> Any:
    """A JSON file of `data/`, by its path without the ending."""
    return json.loads((data_dir() / f"{path}.json").read_text(encoding="utf-8"))


@cache
def relations() -> list[str]:
    """Names of the relations in `data/relations/`."""
    return sorted(path.stem for path in (data_dir() / "relations").glob("*.json"))


def pairs(relation: str) -> list[tuple[str, str]]:
    """Input and output words of a relation in `data/relations/`."""
    return [(pair["input"], pair["output"]) for pair in read(f"relations/{relation}")]


def keep_single_tokens(
    model: Model, groups: Mapping[str, Group], task: str
) -> tuple[Words, dict[str, str]]:
    """The words that are one token each after a space, and `"kept/all"` for each group.

    Raises:
        TaskError: Fewer than `at_least` words of a group remain.
    """
    words, kept = {}, {}
    for name, group in groups.items():
        words[name] = tuple(e for e in group.entries if _is_kept(model, e, group.glued))
        kept[name] = f"{len(words[name])}/{len(group.entries)}"
        if len(words[name]) < group.at_least:
            raise TaskError(
                f"Task {task!r} needs {group.at_least} {name} that are single tokens, and this "
                f"tokenizer keeps {kept[name]}; use another task, or a tokenizer with more whole "
                "words."
            )
    return words, kept


def _is_kept(model: Model, entry: str | tuple[str, ...], glued: bool) -> bool:
    parts = [entry] if isinstance(entry, str) else list(entry)
    if not glued:
        return all(model.single_token(f" {part}") is not None for part in parts)
    alone = [model.single_token(f" {parts[0]}"), *(model.single_token(part) for part in parts[1:])]
    return model.encode(" " + "".join(parts)) == alone
