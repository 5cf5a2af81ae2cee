"""Retrieval: find one needle among distractors of its own kind."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

from interp.errors import TaskError
from interp.tasks.task import Example, Task, is_held_out
from interp.tasks.words import Group, Words, read

QUESTION = "\nQ: {}\nA:"


@dataclass(frozen=True)
class Retrieval(Task):
    """Codes: pen = 17, Mary = 85, cup = 40. Q: Mary A: -> 85.

    The counterfactual asks for another key of the same list. Roles: KEY and VALUE of the needle,
    QUERY in the question.

    Args:
        pairs: Length of the list: the needle and `pairs - 1` distractors.
        depth: Where the needle stands, from 0 (first) to 1 (last); None for anywhere.
    """

    name: ClassVar[str] = "retrieval"
    description: ClassVar[str] = "the value of one key in a list of key-value pairs"
    pairs: int = 8
    depth: float | None = None

    def __post_init__(self) -> None:
        if self.pairs < 2:
            raise TaskError(f"pairs={self.pairs} leaves no distractor; use 2 or more.")
        if self.depth is not None and not 0 <= self.depth <= 1:
            raise TaskError(f"depth={self.depth} is outside 0 (first) to 1 (last).")

    def groups(self) -> dict[str, Group]:
        return {
            "keys": Group(read("words/objects") + read("words/names"), at_least=self.pairs),
            "values": Group([str(number) for number in range(1, 100)], at_least=self.pairs),
        }

    def example(self, rng: random.Random, words: Words) -> Example:
        listed = _bindings(rng, words, self.pairs)
        needle = rng.randrange(self.pairs)
        if self.depth is not None:
            needle = round(self.depth * (self.pairs - 1))
        key, value = listed[needle]
        other, wrong = rng.choice([pair for pair in listed if pair[0] != key])
        before = _state(listed[:needle]) + (", " if needle else " ")
        text = _state(listed) + "."
        clean = text + QUESTION.format(key)
        key_at, value_at = len(before), len(before) + len(f"{key} = ")
        query_at = len(text) + QUESTION.index("{")
        return Example(
            clean=clean,
            corrupt=text + QUESTION.format(other),
            answer=(f" {value}",),
            wrong=(f" {wrong}",),
            roles={
                "KEY": (key_at, key_at + len(key)),
                "VALUE": (value_at, value_at + len(value)),
                "QUERY": (query_at, query_at + len(key)),
            },
            key=_key((key, value)),
            context=tuple(map(_key, listed)),
            template=f"{self.pairs} pairs, needle {needle}",
        )

    def document(self, rng: random.Random, words: Words) -> str:
        """A list of 2 to 12 pairs, none of them held out, and questions about up to 6 of them."""
        count = rng.randint(2, 12)
        listed = _bindings(rng, words, count)
        while any(is_held_out(_key(pair)) for pair in listed):
            listed = [
                _bindings(rng, words, 1)[0] if is_held_out(_key(pair)) else pair for pair in listed
            ]
            listed = list({key: (key, value) for key, value in listed}.values())
        asked = rng.sample(listed, min(len(listed), 6))
        answers = (QUESTION.format(key) + f" {value}" for key, value in asked)
        return _state(listed) + "." + "".join(answers)


def _bindings(rng: random.Random, words: Words, count: int) -> list[tuple[str, str]]:
    return list(
        zip(rng.sample(words["keys"], count), rng.sample(words["values"], count), strict=True)
    )


def _key(pair: tuple[str, str]) -> str:
    return f"retrieval {pair[0]} {pair[1]}"


def _state(listed: list[tuple[str, str]]) -> str:
    stated = ", ".join(f"{key} = {value}" for key, value in listed)
    return f"Codes: {stated}" if stated else "Codes:"
