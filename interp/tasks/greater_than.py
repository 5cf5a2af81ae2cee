"""Greater-than: a year after the one that was named."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from interp.errors import TaskError
from interp.tasks.task import Example, Task
from interp.tasks.template import fill
from interp.tasks.words import Group, Words, read

CENTURIES = tuple(range(11, 18))
YEARS = tuple(f"{year:02}" for year in range(1, 100))


@dataclass(frozen=True)
class GreaterThan(Task):
    """The war lasted from the year 1732 to the year 17 -> 33 to 99 (Hanna et al. 2023).

    Every later year is right and every other year is wrong, as the published probability difference
    counts them. The counterfactual begins in the year 01. Only years that the tokenizer cuts after
    the century are used. Roles: EVENT, CENTURY and YEAR of the first
    year, and CENTURYB, where the second begins.
    """

    name: ClassVar[str] = "greater_than"
    description: ClassVar[str] = "a two-digit year later than the first"

    def groups(self) -> dict[str, Group]:
        years = [(str(century), year) for century in CENTURIES for year in YEARS]
        return {
            "events": Group(read("words/events")),
            "years": Group(years, at_least=20, glued=True),
        }

    def example(self, rng: random.Random, words: Words) -> Example:
        event = rng.choice(words["events"])
        fit = _first_years(words["years"])
        century, year = rng.choice(words["years"])
        while (century, year) not in fit:  # the embedded models' training hangs on these draws
            century, year = rng.choice(words["years"])
        later = [end for start, end in words["years"] if start == century and end > year]
        sooner = [end for start, end in words["years"] if start == century and end <= year]
        template = "The {EVENT} lasted from the year {CENTURY}{YEAR} to the year {CENTURYB}"
        first = {"EVENT": event, "CENTURY": century, "CENTURYB": century}
        clean, roles = fill(template, {**first, "YEAR": year})
        corrupt, _ = fill(template, {**first, "YEAR": YEARS[0]})
        return Example(
            clean=clean,
            corrupt=corrupt,
            answer=tuple(later),
            wrong=tuple(sooner),
            roles=roles,
            key=f"greater {event} {century} {year}",
        )


@cache
def _first_years(years: tuple[tuple[str, str], ...]) -> set[tuple[str, str]]:
    """Years that have a later one, in a century whose year 01 is there for the counterfactual."""
    last = {century: max(year for start, year in years if start == century) for century, _ in years}
    fit = {
        (century, year)
        for century, year in years
        if (century, YEARS[0]) in years and YEARS[0] < year < last[century]
    }
    if not fit:
        raise TaskError(
            "No century has both its year 01 and a later one as single tokens in this tokenizer; "
            "use another task."
        )
    return fit
