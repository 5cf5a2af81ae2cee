"""What a report is made of: analyses speak in these parts, and one template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from interp.plots.widget import Widget

Verdict = Literal["found", "doubtful", "not found"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class Claim:
    """One sentence that the numbers say, how sure it is, and the numbers."""

    statement: str
    evidence: str
    verdict: Verdict


Cell = str | int | float
"""Words, or a number, which the page rounds and the files keep whole."""


@dataclass(frozen=True)
class Table:
    """The first column names its row; the others are set flush right.

    Attributes:
        caption: What it shows, with its n.
        columns: One name a column.
        rows: One cell a column.
        digits: After the point, of numbers that are not whole.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    digits: int = 2


@dataclass(frozen=True)
class Figure:
    """A drawing with its title and caption.

    Attributes:
        title, caption: Words above and below.
        drawing: SVG, or a widget.
        legend: The colour scale, where it has one.
        data: Every number that is drawn: folded under the figure, and downloaded with it.
        role: A control stands smaller beside the main figure; a wide one has a row of its own.
    """

    title: str
    drawing: Markup | Widget
    caption: str
    legend: Markup | None = None
    data: Table | None = None
    role: Literal["main", "control", "wide"] = "main"


@dataclass(frozen=True)
class Block:
    """One question: what the numbers mean, their pictures, and tables of the most telling."""

    heading: str
    meaning: str
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()


@dataclass(frozen=True)
class Section:
    """One result: its claims, its blocks, what it cannot say, and how it was made.

    Attributes:
        heading, lead: What was asked, and how it was answered.
        claims: What the numbers say; the first is the main one.
        blocks: The evidence.
        limits: What the numbers cannot say, and what failed.
        provenance: Labelled lines on model, prompts and versions.
        command: What makes the numbers again, in the shell or in Python.
        baselines: What the model does clean, corrupt and ablated, where there is such a thing.
    """

    heading: str
    lead: str
    claims: tuple[Claim, ...]
    blocks: tuple[Block, ...]
    limits: tuple[str, ...]
    provenance: tuple[tuple[str, str], ...]
    command: str
    baselines: Table | None = None


LABELS = {
    "model": "Model",
    "weights_hash": "Weights hash",
    "n": "Prompts (n)",
    "seq_len": "Random tokens a copy",
    "dtype": "Number format",
    "notes": "Prompts drawn with",
}


def provenance_rows(provenance: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Labelled lines of a result's provenance; the command is shown on its own."""
    rows = []
    for name, value in provenance.items():
        if name == "command" or value is None:
            continue
        if isinstance(value, Mapping):
            value = ", ".join(f"{key} {entry}" for key, entry in value.items())
        rows.append((LABELS.get(name, name.replace("_", " ").capitalize()), str(value)))
    return tuple(rows)


def tally(claims: Sequence[Claim]) -> str:
    """How many claims there are of each verdict: `5 found, 1 doubtful, 1 not found`."""
    verdicts = [claim.verdict for claim in claims]
    counts = {verdict: verdicts.count(verdict) for verdict in VERDICTS}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)


def listed(names: list[str], *, most: int = 4) -> str:
    """Names as English: `1.3`, `1.3 and 2.0`, `1.3, 2.0, 2.1, 2.2 and 5 more`.

    >>> listed(["1.3", "2.0", "2.1"])
    '1.3, 2.0 and 2.1'
    """
    shown = names if len(names) <= most else [*names[:most], f"{len(names) - most} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def grid_table(caption: str, grid: Float[Tensor, "layer head"]) -> Table:
    """Every number of a layer x head grid, for reading, copying and screen readers."""
    rows = tuple((layer, *row) for layer, row in enumerate(grid.tolist()))
    return Table(caption, ("Layer", *map(str, range(grid.shape[1]))), rows, digits=3)


def of(n: int) -> str:
    """Sample size as it is written everywhere, in one piece: `n = 10`."""
    return f"n\u00a0=\u00a0{n}"


def decimals(reach: float) -> int:
    """Digits after the point that show two figures of a number of this size; two at the least.

    >>> decimals(3.1), decimals(0.05), decimals(0.0012), decimals(0.0)
    (2, 3, 4, 2)
    """
    return 2 if reach == 0 else min(6, max(2, 1 - math.floor(math.log10(reach))))


def interval(low: float, high: float, *, digits: int = 2) -> str:
    """A confidence interval as the tables write it; there is none of a single prompt.

    >>> interval(-0.25, 1.5)
    '−0.25 to 1.50'
    """
    if not math.isfinite(low + high):
        return "no interval"
    return f"{number(low, digits=digits)} to {number(high, digits=digits)}"


def cell(value: Cell, digits: int) -> str:
    """What a table shows: words as they are, numbers rounded, nothing for what is missing.

    >>> cell("5.1", 2), cell(7, 2), cell(-0.5, 2), cell(math.nan, 2)
    ('5.1', '7', '−0.50', '')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value}".replace("-", "−")
    return number(value, digits=digits) if math.isfinite(value) else ""


def number(value: float, *, sign: bool = False, digits: int = 2) -> str:
    """A number with a real minus sign; what rounds to zero has no sign.

    >>> number(-1.234), number(0.5, sign=True), number(-0.001), number(-0.001, digits=3)
    ('−1.23', '+0.50', '0.00', '−0.001')
    """
    written = f"{value:{'+' if sign else ''}.{digits}f}"
    if float(written) == 0:
        return f"{0:.{digits}f}"
    return written.replace("-", "−")
