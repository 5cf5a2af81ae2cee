"""Colours of the report: a value becomes a CSS class, painted for light or dark by the style sheet.

Cells carry a class (`s0` to `s40` sequential, `d0` to `d40` diverging) instead of a colour, because
zero should recede into the page in both themes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from interp.plots.colors import (
    DIVERGING,
    DIVERGING_DARK,
    SEQUENTIAL,
    SEQUENTIAL_DARK,
    blend,
    luminance,
)

STEPS = 40


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
    return _rules("s", SEQUENTIAL, SEQUENTIAL_DARK) + _rules("d", DIVERGING, DIVERGING_DARK)


def _rules(prefix: str, light: Sequence[str], dark: Sequence[str]) -> str:
    rules = []
    for step in range(STEPS + 1):
        day, night = (blend(scale, step / STEPS) for scale in (light, dark))
        ink = f"light-dark({_ink(day)},{_ink(night)})"
        rules.append(f".{prefix}{step}{{fill:light-dark({day},{night})}}")
        rules.append(f".{prefix}{step}+.number{{fill:{ink}}}")
    return "\n".join(rules) + "\n"


def _ink(color: str) -> str:
    return "#10161d" if luminance(color) > 0.2 else "#f7fafc"
