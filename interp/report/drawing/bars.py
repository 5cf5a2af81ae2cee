"""Horizontal bars with their intervals as SVG: one site a bar, the first on top."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from interp.report.parts import number

NAMES, PLOT, ROW, TOP = 150, 380, 21, 8
"""Room for the names, for the bars, for one bar, and above them."""
LONGEST = 22
"""Letters of a name; the tip has them all."""


def bars(
    effects: Sequence[float],
    *,
    low: Sequence[float],
    high: Sequence[float],
    names: Sequence[str],
    tips: Sequence[str],
    label: str,
    digits: int,
    usual: tuple[float, float] | None = None,
) -> Markup:
    """Bars from zero, red below and blue above, with whiskers.

    Args:
        effects: One number a bar.
        low, high: Ends of the interval of each; NaN where there is none.
        names: What each bar is.
        tips: Text shown when a bar is pointed at.
        label: What a screen reader says in place of the picture.
        digits: After the point, of the numbers under the axis.
        usual: Between which most of all sites are: a grey band behind the bars.
    """
    reached = [0.0, *effects, *(end for end in (*low, *high, *(usual or ())) if math.isfinite(end))]
    least, most = min(reached), max(reached)
    span = (most - least) or 1.0
    bottom = TOP + ROW * len(names)

    def x(value: float) -> float:
        return NAMES + 10 + (value - least) / span * (PLOT - 20)

    parts = []
    if usual is not None:
        parts.append(
            f'<rect x="{x(usual[0]):.1f}" y="{TOP}" width="{x(usual[1]) - x(usual[0]) + 1:.1f}" '
            f'height="{bottom - TOP}" fill="var(--line)"/>'
        )
    for i, (effect, name, tip) in enumerate(zip(effects, names, tips, strict=True)):
        y = TOP + ROW * i
        begin, end = sorted((x(0.0), x(effect)))
        color = "var(--above)" if effect > 0 else "var(--below)"
        shown = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
        parts.append(f'<text class="end last" x="{NAMES}" y="{y + 14}">{escape(shown)}</text>')
        parts.append(
            f'<rect x="{begin:.1f}" y="{y + 3}" width="{max(1.0, end - begin):.1f}" '
            f'height="{ROW - 7}" fill="{color}" data-tip="{escape(tip)}"/>'
        )
        if math.isfinite(low[i] + high[i]):
            middle = y + ROW / 2 - 0.5
            parts.append(
                f'<line x1="{x(low[i]):.1f}" x2="{x(high[i]):.1f}" y1="{middle}" y2="{middle}" '
                'stroke="var(--ink)" stroke-width="1.4"/>'
            )
    parts.append(
        f'<line class="axis" x1="{x(0.0):.1f}" x2="{x(0.0):.1f}" y1="{TOP}" y2="{bottom}"/>'
    )
    for value in _ticks(least, most):
        written = number(value, sign=True, digits=digits) if value else "0"
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{bottom + 16}">{written}</text>')
    width, height = NAMES + PLOT, bottom + 22
    return Markup(
        f'<svg class="bars" role="img" aria-label="{escape(label)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    )


def _ticks(least: float, most: float) -> list[float]:
    """Both ends, and zero where it stands clear of them."""
    far = 0.12 * (most - least)
    return sorted({end for end in (least, most) if abs(end) > far} | {0.0})
