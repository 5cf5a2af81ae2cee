"""Colours of the report: a value becomes a CSS class, painted for light or dark by the style sheet.

Cells carry a class (`s0` to `s40` sequential, `d0` to `d40` diverging) instead of a colour, because
zero should recede into the page in both themes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from interp.plots.colors import DIVERGING, SEQUENTIAL, blend, luminance

STEPS = 40
SEQUENTIAL_DARK = (
    "#202a36",
    "#1d4159",
    "#205d7c",
    "#297e99",
    "#3d9fa8",
    "#6cc0ad",
    "#a9ddb8",
    "#e9f9d8",
)
DIVERGING_DARK = (
    "#ffc3b3",
    "#f58d73",
    "#d15a45",
    "#93392f",
    "#552a2b",
    "#262c36",
    "#1f3f5e",
    "#27628f",
    "#3f8ec3",
    "#79b8e6",
    "#c4e2fb",
)


def color_class(value: float, low: float, high: float, *, diverging: bool) -> str:
    """CSS class of a value on the scale from `low` to `high`.

    >>> color_class(0.5, 0.0, 1.0, diverging=False), color_class(0.5, -1.0, 1.0, diverging=True)
    ('s20', 'd30')
    """
    if not math.isfinite(value):
        return "missing"
    step = round(min(max((value - low) / (high - low), 0.0), 1.0) * STEPS)
    return f"{'d' if diverging else 's'}{step}"


def scale_css() -> str:
    """Rules for every step of both scales in both themes, with a text colour that reads on it."""
    light = _rules("s", SEQUENTIAL) + _rules("d", DIVERGING)
    dark = _rules("s", SEQUENTIAL_DARK) + _rules("d", DIVERGING_DARK)
    return f"{light}\n@media screen and (prefers-color-scheme:dark){{\n{dark}}}\n"


def _rules(prefix: str, scale: Sequence[str]) -> str:
    rules = []
    for step in range(STEPS + 1):
        color = blend(scale, step / STEPS)
        ink = "#10161d" if luminance(color) > 0.2 else "#f7fafc"
        rules.append(f".{prefix}{step}{{fill:{color}}}.{prefix}{step}+.number{{fill:{ink}}}")
    return "\n".join(rules) + "\n"
