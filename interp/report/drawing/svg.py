"""Heatmaps, strips and curves as SVG: small, sharp in print, and safe: every text is escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from markupsafe import Markup, escape
from torch import Tensor

from interp.report.drawing.theme import STEPS, color_class
from interp.report.parts import number

LEFT, TOP = 26, 22
"""Room for the layer and head numbers."""
LETTER, SLANT_RISE, SLANT_RUN = 8, 4.5, 5.0
"""Pixels that a letter of a name takes: level, and how far a slanted one goes up and right."""


def heatmap(
    grid: Float[Tensor, "layer head"],
    *,
    label: str,
    tips: Sequence[Sequence[str]],
    limits: tuple[float, float],
    diverging: bool = False,
    digits: int = 2,
    small: bool = False,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
) -> Markup:
    """A layer x head grid, layer 0 on top, with the numbers written in where they fit.

    Args:
        grid: the numbers; NaN is drawn grey.
        label: what a screen reader says in place of the picture.
        tips: text shown when a cell is pointed at.
        limits: values at the two ends of the colour scale.
        diverging: a scale centred on zero.
        digits: after the point, of the numbers written in.
        small: half size without numbers, for a control beside its result.
        rows, columns: names in place of layer and head numbers, such as tokens or tasks.
    """
    layers, heads = grid.shape
    width, height = (18, 14) if small else _cell(heads)
    written = not small and width >= 28
    rows = [clipped(name) for name in rows or map(str, range(layers))]
    columns = [clipped(name) for name in columns or map(str, range(heads))]
    slanted = any(len(name) * LETTER > width for name in columns)
    left = max(LEFT, 12 + LETTER * max(map(len, rows)))
    top = max(TOP, 12 + round(SLANT_RISE * max(map(len, columns)))) if slanted else TOP
    parts = [
        _slanted(left + (head + 0.5) * width, top - 6, columns[head])
        if slanted
        else _text("tick", left + (head + 0.5) * width, top - 8, columns[head])
        for head in range(0, heads, _stride(width, 14 if slanted else 18))
    ]
    for layer, (row, row_tips) in enumerate(zip(grid.tolist(), tips, strict=True)):
        y = top + layer * height
        if layer % _stride(height, 14) == 0:
            parts.append(_text("tick layer", left - 8, y + height / 2 + 4, rows[layer]))
        for head, (value, tip) in enumerate(zip(row, row_tips, strict=True)):
            x = left + head * width
            shade = color_class(value, *limits, diverging=diverging)
            parts.append(
                f'<rect class="{shade}" x="{x}" y="{y}" width="{width - 1}" height="{height - 1}" '
                f'rx="2" data-tip="{escape(tip)}"/>'
            )
            if written:
                middle = x + (width - 1) / 2
                parts.append(_text("number", middle, y + height / 2 + 3.5, short(value, digits)))
    over = round(SLANT_RUN * len(columns[-1])) if slanted else 0
    return _svg(left + heads * width + over, top + layers * height, label, parts, "heatmap")


def legend(low: str, high: str, *, diverging: bool = False, middle: str = "") -> Markup:
    """The colour scale with words at its ends."""
    prefix, width = "d" if diverging else "s", 5
    parts = [
        f'<rect class="{prefix}{step}" x="{step * width}" y="0" width="{width + 0.5}" height="9"/>'
        for step in range(STEPS + 1)
    ]
    end = (STEPS + 1) * width
    parts += [
        _text("end", 0, 24, low),
        _text("end middle", end / 2, 24, middle),
        _text("end last", end, 24, high),
    ]
    return _svg(end, 30, f"Colour scale from {low} to {high}", parts, "legend")


def strip(
    values: Float[Tensor, " heads"], names: Sequence[str], *, label: str, unit: str, digits: int = 2
) -> Markup:
    """Every head as one mark along an axis, so that an outlier is seen against all the others."""
    low, high = min(0.0, values.min().item()), max(0.0, values.max().item())
    span = (high - low) or 1.0
    width, middle = 460, 30

    def place(value: float) -> float:
        return 28 + (value - low) / span * (width - 56)

    parts = [f'<line class="axis" x1="12" x2="{width - 12}" y1="{middle}" y2="{middle}"/>']
    for value, name in zip(values.tolist(), names, strict=True):
        parts.append(
            f'<circle class="mark" cx="{place(value):.1f}" cy="{middle}" r="5.5" '
            f'data-tip="{escape(name)}: {number(value, sign=True, digits=digits)} {escape(unit)}"/>'
        )
    labelled: list[float] = []
    longest = max(map(len, names))
    for i in values.abs().argsort(descending=True)[:4].tolist():
        x = place(values[i].item())
        if all(abs(x - other) > max(28, LETTER * longest) for other in labelled):
            labelled.append(x)
            half = LETTER * len(names[i]) / 2
            parts.append(_text("name", min(max(x, half), width - half), middle - 13, names[i]))
    for value in sorted({low, 0.0, high}):
        written = number(value, sign=True, digits=digits) if value else "0"
        parts.append(_text("tick", place(value), middle + 24, written))
    return _svg(width, middle + 32, label, parts, "strip")


def lines(
    curves: Sequence[Float[Tensor, " points"]],
    names: Sequence[str],
    places: Sequence[float],
    *,
    label: str,
    first: str,
    last: str,
    band: tuple[float, float] | None = None,
) -> Markup:
    """Curves over one axis, the last of them drawn strong, on top of the others.

    Args:
        curves: One number a place; NaN leaves a gap.
        names: Of the curves; shown when one is pointed at.
        places: Where the points stand on the axis, ascending.
        label: What a screen reader says in place of the picture.
        first, last: Words at the ends of the axis.
        band: A stretch of the axis that is shaded.
    """
    known = torch.stack(list(curves))[torch.stack(list(curves)).isfinite()]
    low, high = min(0.0, known.min().item()), max(0.0, known.max().item())
    width, height, span = 520, 170, (high - low) or 1.0
    left, reach = 44, (places[-1] - places[0]) or 1.0

    def x(place: float) -> float:
        return left + (min(max(place, places[0]), places[-1]) - places[0]) / reach * (width - 56)

    def y(value: float) -> float:
        return 12 + (high - value) / span * (height - 24)

    parts = []
    if band is not None:
        begin, end = x(band[0]), x(band[1])
        parts.append(
            f'<rect class="band" x="{begin:.1f}" y="12" width="{max(2, end - begin):.1f}" '
            f'height="{height - 24}"/>'
        )
    for value in sorted({low, 0.0, high}):
        parts.append(
            f'<line class="axis" x1="{left}" x2="{width - 12}" y1="{y(value):.1f}" '
            f'y2="{y(value):.1f}"/>' + _text("tick layer", left - 6, y(value) + 4, short(value))
        )
    for drawn, (curve, name) in enumerate(zip(curves, names, strict=True), 1):
        points = " ".join(
            f"{x(place):.1f},{y(value):.1f}"
            for place, value in zip(places, curve.tolist(), strict=True)
            if math.isfinite(value)
        )
        strong = " strong" if drawn == len(curves) else ""
        parts.append(
            f'<polyline class="curve{strong}" points="{points}" data-tip="{escape(name)}"/>'
        )
    parts.append(_text("end", left, height + 8, first))
    parts.append(_text("end last", width - 12, height + 8, last))
    return _svg(width, height + 16, label, parts, "lines")


def short(value: float, digits: int = 2) -> str:
    """A number that fits a cell: two figures, or as many digits after the point as asked for.

    >>> short(0.934), short(-2.14), short(0.001), short(1.0), short(0.0012, 4), short(25.0)
    ('.93', '−2.1', '0', '1', '.0012', '25')
    """
    if not math.isfinite(value):
        return ""
    size = abs(value)
    written = f"{size:.{digits}f}" if size < 1 else f"{size:.1f}" if size < 10 else f"{size:.0f}"
    if float(written) in (0, 1):
        written = f"{float(written):.0f}"
    return f"{'−' if value < 0 and float(written) else ''}{written.removeprefix('0') or '0'}"


def all_tips(
    names: Sequence[Sequence[str]], grid: Float[Tensor, "layer head"], after: str = ""
) -> list[list[str]]:
    """Plain tips, `5.1: 0.930`, with the same words after each."""
    return [
        [f"{name}: {value:.3f}{after}" for name, value in zip(row_names, row, strict=True)]
        for row_names, row in zip(names, torch.as_tensor(grid).tolist(), strict=True)
    ]


def _text(kind: str, x: float | int, y: float | int, words: str) -> str:
    return f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(words)}</text>'


def _slanted(x: float | int, y: float | int, words: str) -> str:
    return f'<text class="tick slanted" transform="translate({x:g} {y:g}) rotate(-42)">' + (
        f"{escape(words)}</text>"
    )


def clipped(name: str, most: int = 18) -> str:
    """A name that fits beside a drawing; its tips and tables have all of it.

    >>> clipped("colored_objects"), clipped("a name that is far too long")
    ('colored_objects', 'a name that is fa…')
    """
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _cell(heads: int) -> tuple[int, int]:
    """Width and height: room for a number up to 16 heads, as small as can be pointed at beyond."""
    return min(46, max(16, 640 // heads)), 30 if heads <= 16 else 16


def _stride(size: int, wanted: int) -> int:
    """Label every so many rows, so that labels do not touch."""
    return max(1, math.ceil(wanted / size))


def _svg(width: int, height: int, label: str, parts: Sequence[str], kind: str) -> Markup:
    return Markup(
        f'<svg class="{kind}" role="img" aria-label="{escape(label)}" width="{width}" '
        f'height="{height}" viewBox="0 0 {width} {height}">{"".join(parts)}</svg>'
    )
