"""Any other result as a section of a report: its own words, and its numbers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

import pandas as pd

from interp.errors import InterpError
from interp.report.frame import frame_table
from interp.report.parts import Block, Claim, Section, provenance_rows

ROWS = 500
LONGEST = 600
"""Characters of a result's own words."""
NO_VERDICT = "No verdict: numbers only."


def other_section(result: Any, results: Sequence[object] = ()) -> Section:
    """What a result says of itself, and the first 500 rows of its table.

    Raises:
        InterpError: no result of interp, or one without a table of its own.
    """
    if not shows_itself(result):
        raise InterpError(
            f"A report cannot show a {type(result).__name__}; pass a HeadAtlas, SweepResult, "
            "TrainingCurves, or any other result of interp with a to_frame() that needs nothing."
        )
    frame = result.to_frame()
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    known = getattr(result, "provenance", {})
    known = known if isinstance(known, Mapping) else {}
    left = max(0, len(frame) - ROWS)
    command = str(known.get("command", ""))
    verdict = getattr(result, "verdict", None)
    judges = isinstance(verdict, str)
    told = repr(result)
    told = told if len(told) <= LONGEST else f"{told[:LONGEST]}…"
    cut = f"the first {ROWS} of {len(frame)} rows; {left} are left out" if left else ""
    name = _words(type(result).__name__)
    task = known.get("relation") or known.get("task")
    about = [str(each) for each in (task, known.get("model")) if each]
    return Section(
        heading=f"{name} ({', '.join(about)})" if about else name,
        lead=told if judges else f"{told} {NO_VERDICT}",
        claims=(_claim(str(verdict), name),) if judges else (),
        blocks=(
            Block(
                "Numbers",
                _first_line(result),
                tables=(frame_table(f"{name}: {cut or f'all {len(frame)} rows'}", frame[:ROWS]),),
            ),
        ),
        limits=(
            "The report has no words of its own for this kind of result: it shows the table as it "
            "is, and does not judge it.",
            *([f"The table shows {cut}; to_frame() has all."] if left else []),
            *([] if command else ["No command was kept with this result."]),
        ),
        provenance=provenance_rows(known),
        command=command,
    )


def shows_itself(result: object) -> bool:
    """Whether it is a result with a table that can be had without more arguments."""
    make = getattr(result, "to_frame", None)
    if make is None or not is_dataclass(result) or isinstance(result, type):
        return False
    needed = inspect.signature(make).parameters.values()
    return all(each.default is not each.empty for each in needed)


def _claim(verdict: str, name: str) -> Claim:
    """The result's own verdict; the report cannot weigh it, and so calls none of them found."""
    said = verdict[0].upper() + verdict[1:].rstrip(".")
    return Claim(
        f"{name}: {said}.",
        "In the result's own words, which this page does not weigh; the numbers, their controls "
        "and n stand in its table.",
        "doubtful",
    )


def _words(name: str) -> str:
    """A class's name as words.

    >>> _words("LayerProfile"), _words("EffectiveOV"), _words("ICLScore")
    ('Layer profile', 'Effective OV', 'ICL score')
    """
    words = re.findall(r"[A-Z]+(?=[A-Z][a-z]|\d|$)|[A-Z]?[a-z]+|\d+", name)
    first, *others = words or [name]
    return " ".join([first, *(word if word.isupper() else word.lower() for word in others)])


def _first_line(result: object) -> str:
    """Of the class's docstring; dataclasses without one get a signature, which says nothing."""
    told = inspect.getdoc(type(result)) or ""
    return "" if told.startswith(f"{type(result).__name__}(") else told.split("\n")[0]
