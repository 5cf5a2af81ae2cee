"""How results show themselves in a notebook: a line, and a table.

Words of prompts, models and files are not to be trusted: everything is escaped.
"""

from __future__ import annotations

import html
from typing import Any, Protocol, runtime_checkable

import pandas as pd

ROWS = 40
"""Rows of a table that are shown at most: the first and the last ones."""


@runtime_checkable
class HasFrame(Protocol):
    """A result with a table."""

    def to_frame(self) -> Any:
        """The table."""


class Displayed:
    """A result that a notebook shows by its line, and by its table if it has one."""

    def _repr_html_(self) -> str:
        return as_html(self, self.to_frame()) if isinstance(self, HasFrame) else as_html(self)


def as_html(result: object, *parts: pd.DataFrame | str, digits: int = 3) -> str:
    """A result as HTML: its `repr`, then tables, and lines of text between them.

    >>> print(as_html(7, "5 < 6"))
    <p><b>7</b></p><p>5 &lt; 6</p>
    """
    shown = (
        f"<p>{html.escape(part)}</p>" if isinstance(part, str) else _table(part, digits)
        for part in parts
        if isinstance(part, pd.DataFrame) or part
    )
    return f"<p><b>{html.escape(repr(result))}</b></p>{''.join(shown)}"


def _table(frame: pd.DataFrame, digits: int) -> str:
    """A table; its index only if it says something: it has a name, or words."""
    index = frame.index
    numbered = pd.api.types.is_integer_dtype(index) and index.name is None
    with pd.option_context("display.max_colwidth", 200):
        return str(
            frame.to_html(
                index=not numbered,
                float_format=f"{{:z.{digits}f}}".format,
                na_rep="",
                border=0,
                max_rows=ROWS,
                show_dimensions=len(frame) > ROWS,
            )
        )
