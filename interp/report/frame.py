"""A data frame as a table of a report."""

from __future__ import annotations

from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

import pandas as pd

from interp.report.parts import Cell, Table


def frame_table(
    caption: str,
    frame: pd.DataFrame,
    columns: Mapping[str, str] | None = None,
    *,
    digits: int = 3,
) -> Table:
    """Every row, in all columns or in those that are given: name in the frame -> name shown."""
    named = {str(column): str(column) for column in frame} if columns is None else columns
    shown = {name: title for name, title in named.items() if name in frame}
    values = [frame[name].tolist() for name in shown]
    rows = tuple(tuple(_cell(value) for value in row) for row in zip(*values, strict=True))
    return Table(caption, tuple(shown.values()), rows, digits)


def _cell(value: Any) -> Cell:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, list | tuple):
        return ", ".join(str(_cell(each)) for each in value)
    return "" if value is None else str(value)
