"""Which site of a sweep stands in which cell: layers by heads, by positions, by parts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from interp.engine import SweepResult
from interp.report.sweeps.words import NOUNS, inner, position_of
from interp.sites import MLP, Attn, Head, K, Pattern, Q, Resid, Site, V

OF_HEADS = (Head, Q, K, V, Pattern)
STREAMS = ("resid pre", "attention", "resid mid", "MLP", "resid post")
"""Parts of a layer that are of no head, in the order in which a model computes them."""
FEW = 6
"""Cells of the smallest grid."""
MOST_GRIDS = 4
"""Positions up to which each has a grid of layers by heads."""
MOST_HEADS = 20
"""Rows of a grid of heads by positions, where there are more of them."""

Name = str | int
Sites = dict[int, Site]
"""Sites with their rows in the sweep."""


@dataclass(frozen=True)
class Grid:
    """A picture: `cells` says for a row and a column which row of the sweep stands there.

    `left_out` are rows of the sweep for which there is no room.
    """

    title: str
    rows_are: str
    columns_are: str
    rows: tuple[Name, ...]
    columns: tuple[Name, ...]
    cells: dict[tuple[Name, Name], int]
    left_out: tuple[int, ...] = ()

    @property
    def is_worth_drawing(self) -> bool:
        """Whether there are several cells, and half of them taken: not of a few chosen sites."""
        return len(self.cells) >= max(FEW, 0.5 * len(self.rows) * len(self.columns))


def grids_of(sweep: SweepResult) -> list[Grid]:
    """The pictures of a sweep; sites that are in none of them are better drawn as bars."""
    whole = {row: site for row, site in enumerate(sweep.sites) if position_of(site) is None}
    placed = {row: site for row, site in enumerate(sweep.sites) if row not in whole}
    found = [_streams(whole)] if any(map(_stream, whole.values())) else []
    for name in STREAMS:
        if some := {row: site for row, site in placed.items() if _stream(site) == name}:
            found.append(_grid(f"Layer by position: {name}", "layer", "position", some, _layer))
    for kind in OF_HEADS:
        for sites in (whole, placed):
            if some := {row: site for row, site in sites.items() if isinstance(inner(site), kind)}:
                found += _heads(sweep, NOUNS[kind][0], some)
    return [grid for grid in found if grid.is_worth_drawing]


def _streams(whole: Sites) -> Grid:
    some = {row: site for row, site in whole.items() if _stream(site) is not None}
    return _grid("Layer by part", "layer", "part", some, _layer, _stream)


def _heads(sweep: SweepResult, noun: str, some: Sites) -> list[Grid]:
    """Layers by heads at each position, or the strongest heads by many positions."""
    positions = dict.fromkeys(map(position_of, some.values()))
    if len(positions) <= MOST_GRIDS:
        return [
            _grid(
                f"Layer by {noun}{'' if position is None else f' at {position}'}",
                "layer",
                noun,
                {row: site for row, site in some.items() if position_of(site) == position},
                _layer,
                _index,
            )
            for position in positions
        ]
    means = sweep.effects.nanmean(dim=-1).abs().nan_to_num(-1.0).tolist()
    best = dict.fromkeys(inner(some[row]) for row in sorted(some, key=lambda row: -means[row]))
    strongest = list(best)[:MOST_HEADS]
    kept = {row: site for row, site in some.items() if inner(site) in strongest}
    left = len(best) - MOST_HEADS
    also = f" (the {left} weakest are left out)" if left > 0 else ""
    grid = _grid(f"{noun.capitalize()} by position{also}", noun, "position", kept, _name)
    return [replace(grid, left_out=tuple(row for row in some if row not in kept))]


def _grid(
    title: str,
    rows_are: str,
    columns_are: str,
    some: Sites,
    row_of: Callable[[Site], Any],
    column_of: Callable[[Site], Any] = position_of,
) -> Grid:
    cells = {(row_of(site), column_of(site)): row for row, site in some.items()}
    rows, columns = (_in_order(names) for names in zip(*cells, strict=True))
    if columns_are == "part":
        columns = tuple(name for name in STREAMS if name in columns)
    return Grid(title, rows_are, columns_are, rows, columns, cells)


def _in_order(names: Iterable[Name]) -> tuple[Name, ...]:
    """Numbers from the lowest to the highest; with names among them, as they come."""
    unique = tuple(dict.fromkeys(names))
    numbers = [name for name in unique if isinstance(name, int)]
    return tuple(sorted(numbers)) if len(numbers) == len(unique) else unique


def _stream(site: Site) -> str | None:
    match inner(site):
        case Resid(_, point):
            return f"resid {point}"
        case Attn():
            return "attention"
        case MLP():
            return "MLP"
    return None


def _layer(site: Site) -> int:
    return inner(site).layer


def _name(site: Site) -> str:
    return str(inner(site))


def _index(site: Site) -> int | None:
    match inner(site):
        case Head() | Q() | Pattern() as part:
            return part.head
        case K() | V() as part:
            return part.group
    return None
