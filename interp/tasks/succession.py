"""Succession: what comes next in a sequence that everybody knows."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from interp.errors import TaskError, did_you_mean
from interp.tasks.task import Example, Task
from interp.tasks.words import Group, Words, read

START = "List:"


@dataclass(frozen=True)
class Succession(Task):
    """List: Monday, Tuesday, Wednesday, -> Thursday (after Gould et al. 2023).

    Days, months and their prefixes are cyclic. The counterfactual is another stretch of the same
    series, and the wrong answer what follows there. Roles: LAST, the last item named.

    Args:
        series: One of numbers (to 200), number_words, ordinals, days, months, day_prefixes,
            month_prefixes, letters; or None for all of them.
    """

    name: ClassVar[str] = "succession"
    description: ClassVar[str] = "the next item of numbers, words, days, months, letters"
    series: str | None = None

    def __post_init__(self) -> None:
        known = read("words/series")
        if self.series is not None and self.series not in known:
            raise TaskError(
                f"No series is called {self.series!r}: {did_you_mean(self.series, known)}"
            )

    def groups(self) -> dict[str, Group]:
        names = [self.series] if self.series else list(read("words/series"))
        return {
            name: Group(read("words/series")[name]["items"], at_least=4 if self.series else 0)
            for name in names
        }

    def example(self, rng: random.Random, words: Words) -> Example:
        names = [name for name, items in words.items() if len(_starts(name, items, 3)) >= 2]
        if not names:
            raise TaskError(
                "No series has three single-token items in a row in this tokenizer; use another "
                "task."
            )
        name = rng.choice(names)
        length = rng.randint(3, 6)
        while len(starts := _starts(name, words[name], length)) < 2:
            length -= 1
        start, other = rng.sample(starts, 2)
        clean, corrupt = _stretch(name, start, length), _stretch(name, other, length)
        text = f"{START} {', '.join(clean[:-1])},"
        return Example(
            clean=text,
            corrupt=f"{START} {', '.join(corrupt[:-1])},",
            answer=(f" {clean[-1]}",),
            wrong=(f" {corrupt[-1]}",),
            roles={"LAST": (len(text) - 1 - len(clean[-2]), len(text) - 1)},
            key=f"succession {name} {clean[0]}",
            template=name,
        )

    def document(self, rng: random.Random, words: Words) -> str:
        """A stretch of 4 to 16 items that does not begin where a held-out prompt begins."""
        first = self.draw(rng, words, "train")
        items = read("words/series")[first.template]["items"]
        start = items.index(first.clean.removeprefix(f"{START} ").split(",")[0])
        cyclic = read("words/series")[first.template]["cyclic"]
        longest = rng.randint(4, 16)
        length = longest if cyclic else min(longest, len(items) - start)
        return f"{START} {', '.join(_stretch(first.template, start, length))}."


def _stretch(name: str, start: int, length: int) -> list[str]:
    items = read("words/series")[name]["items"]
    return [items[(start + step) % len(items)] for step in range(length)]


@cache
def _starts(name: str, kept: tuple[str, ...], length: int) -> list[int]:
    """Where a stretch of `length` kept items begins; past the end only in a cyclic series."""
    series, known = read("words/series")[name], set(kept)
    count = len(series["items"])
    last = count if series["cyclic"] else count - length + 1
    return [start for start in range(last) if known.issuperset(_stretch(name, start, length))]
