"""Curves and points with their intervals as SVG, told apart by colour, dash and shape alike.

Colours are variables of the page's theme, given as presentation attributes: those follow light and
dark, and a page whose policy forbids inline styles allows them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from markupsafe import Markup, escape

from interp.report.parts import interval, number

Pixel = float | int
WIDTH, LEFT, RIGHT, TOP = 470, 46, 14, 14
NAMES = 168
"""Room for the names of rows."""
MAIN = (
    ("var(--mark)", "none"),
    ("var(--below)", "7 3"),
    ("var(--above)", "2 3"),
    ("var(--ink)", "9 3"),
)
CONTROL = (("var(--soft)", "4 4"), ("var(--soft)", "1 4"), ("var(--soft)", "9 3 2 3"))
SHAPES = ("circle", "diamond", "square", "triangle")


@dataclass(frozen=True)
class Series:
    """One number a place, with the ends of its interval where there is one; NaN leaves a gap.

    Controls are grey.
    """

    name: str
    values: Sequence[float]
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    control: bool = False

    @classmethod
    def of(
        cls,
        frame: pd.DataFrame,
        column: str,
        name: str,
        *,
        ends: tuple[str, str] | None = None,
        control: bool = False,
    ) -> Series:
        """A column of a table, and the columns with the ends of its interval."""
        low, high = (None, None) if ends is None else (frame[end].tolist() for end in ends)
        return cls(name, frame[column].astype(float).tolist(), low, high, control)

    def tip(self, place: int, where: str) -> str:
        """Words for one point."""
        told = f"{where}: {self.name} {number(self.values[place], digits=3)}"
        if self.low is None or self.high is None:
            return told
        return f"{told} ({interval(self.low[place], self.high[place], digits=3)})"


@dataclass(frozen=True)
class Scale:
    """Values to pixels."""

    low: float
    high: float
    begin: Pixel
    end: Pixel

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self.begin + share * (self.end - self.begin)

    @property
    def ticks(self) -> list[float]:
        """Round numbers between both ends, four to seven."""
        rough = (self.high - self.low) / 4
        power = 10 ** math.floor(math.log10(rough))
        step = max(each for each in (1, 2, 5) if each * power <= rough * 1.0001) * power
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(step * i) for i in range(first, last + 1)]


def curves(
    series: Sequence[Series],
    places: Sequence[str],
    *,
    label: str,
    across: str,
    at: Sequence[float] | None = None,
    limits: tuple[float, float] | None = None,
    level: tuple[str, float] | None = None,
) -> Markup:
    """Values over one axis; intervals are bands.

    Args:
        series: The main one first.
        places: Names of the places on the axis.
        label: What a screen reader says in place of the picture.
        across: What the axis is.
        at: Where the places stand; evenly by default.
        limits: Ends of the vertical axis; those of the numbers and zero by default.
        level: Name and value of a dotted line, such as chance.
    """
    stands = [float(i) for i in range(len(places))] if at is None else list(at)
    height = 190
    y = Scale(*(limits or _reach(series, level)), TOP + height, TOP)
    x = Scale(stands[0], stands[-1] + (stands[0] == stands[-1]), LEFT + 8, WIDTH - RIGHT - 8)
    parts = []
    for tick in y.ticks:
        parts.append(_line(LEFT, y(tick), WIDTH - RIGHT, y(tick)))
        parts.append(_text("tick layer", LEFT - 6, y(tick) + 4, _tick(tick)))
    step = max(1, math.ceil(len(places) * (2 + max(map(len, places))) * 6.5 / (WIDTH - LEFT)))
    for i in range(0, len(places), step):
        parts.append(_text("tick", x(stands[i]), TOP + height + 17, places[i]))
    parts.append(_text("tick", (LEFT + WIDTH - RIGHT) / 2, TOP + height + 34, across))
    if level is not None:
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(level[1]):.1f}" y2="{y(level[1]):.1f}"'
        parts.append(f'<line {ends} stroke="var(--ink)" stroke-dasharray="1 4"/>')
    styles = _styles(series)
    for one, (color, dash) in reversed(list(zip(series, styles, strict=True))):
        parts += _curve(one, [x(place) for place in stands], y, places, color, dash, across)
    samples = [_sample(*style) for style in styles]
    names = [one.name for one in series]
    if level is not None:
        samples.append(_sample("var(--ink)", "1 4"))
        names.append(f"{level[0]} ({number(level[1])})")
    under, bottom = _legend(names, samples, TOP + height + 54)
    return _svg(bottom, label, parts + under)


def points(
    series: Sequence[Series],
    rows: Sequence[str],
    *,
    label: str,
    across: str,
    limits: tuple[float, float] | None = None,
    level: tuple[str, float] | None = None,
) -> Markup:
    """Values row by row, with their intervals as whiskers; the arguments are those of `curves`."""
    shared = any(sum(math.isfinite(one.values[i]) for one in series) > 1 for i in range(len(rows)))
    spread = 8 if shared else 0
    height = 22 + spread * (len(series) - 1)
    x = Scale(*(limits or _reach(series, level)), NAMES + 8, WIDTH - RIGHT)
    bottom = TOP + height * len(rows)
    parts = []
    for tick in x.ticks:
        parts.append(_line(x(tick), TOP, x(tick), bottom))
        parts.append(_text("tick", x(tick), bottom + 16, _tick(tick)))
    parts.append(_text("tick", (NAMES + WIDTH - RIGHT) / 2, bottom + 33, across))
    if level is not None:
        parts.append(
            f'<line x1="{x(level[1]):.1f}" x2="{x(level[1]):.1f}" y1="{TOP}" y2="{bottom}" '
            'stroke="var(--ink)" stroke-dasharray="1 4"/>'
        )
    styles = _styles(series)
    for i, row in enumerate(rows):
        middle = TOP + (i + 0.5) * height
        parts.append(_text("end last", NAMES, middle + 4, _cut(row, 26)))
        for k, (one, (color, _)) in enumerate(zip(series, styles, strict=True)):
            if math.isfinite(one.values[i]):
                y = middle + spread * (k - (len(series) - 1) / 2)
                parts += _point(one, i, row, x, y, color, SHAPES[k % len(SHAPES)])
    shapes = [_shape(SHAPES[k % len(SHAPES)], 8, 0, color) for k, (color, _) in enumerate(styles)]
    names = [one.name for one in series]
    if level is not None:
        shapes.append(_sample("var(--ink)", "1 4"))
        names.append(f"{level[0]} ({number(level[1])})")
    under, end = _legend(names, shapes, bottom + 53)
    return _svg(end, label, parts + under)


def _styles(series: Sequence[Series]) -> list[tuple[str, str]]:
    """Colour and dash of each; the controls have greys of their own."""
    found: list[tuple[str, str]] = []
    seen = {True: 0, False: 0}
    for one in series:
        styles = CONTROL if one.control else MAIN
        found.append(styles[seen[one.control] % len(styles)])
        seen[one.control] += 1
    return found


def _reach(series: Sequence[Series], level: tuple[str, float] | None) -> tuple[float, float]:
    every = [0.0] if level is None else [0.0, level[1]]
    for one in series:
        for values in (one.values, one.low or (), one.high or ()):
            every += [value for value in values if math.isfinite(value)]
    low, high = min(every), max(every)
    return (low, high) if high > low else (low, low + 1)


def _curve(
    one: Series,
    x: Sequence[float],
    y: Scale,
    places: Sequence[str],
    color: str,
    dash: str,
    across: str,
) -> list[str]:
    known = [i for i, value in enumerate(one.values) if math.isfinite(value)]
    parts = []
    if one.low is not None and one.high is not None:
        there = [i for i in known if math.isfinite(one.low[i] + one.high[i])]
        up = [f"{x[i]:.1f},{y(one.high[i]):.1f}" for i in there]
        down = [f"{x[i]:.1f},{y(one.low[i]):.1f}" for i in reversed(there)]
        band = " ".join(up + down)
        parts.append(f'<polygon points="{band}" fill="{color}" fill-opacity=".14"/>')
    line = " ".join(f"{x[i]:.1f},{y(one.values[i]):.1f}" for i in known)
    width = 1.5 if one.control else 2.2
    parts.append(
        f'<polyline points="{line}" fill="none" stroke="{color}" stroke-width="{width}" '
        f'stroke-dasharray="{dash}"/>'
    )
    for i in known:
        tip = escape(one.tip(i, f"{across} {places[i]}"))
        parts.append(
            f'<circle cx="{x[i]:.1f}" cy="{y(one.values[i]):.1f}" r="3.2" fill="{color}" '
            f'data-tip="{tip}"/>'
        )
    return parts


def _point(one: Series, i: int, row: str, x: Scale, y: Pixel, color: str, shape: str) -> list[str]:
    parts = []
    if one.low is not None and one.high is not None and math.isfinite(one.low[i] + one.high[i]):
        ends = f'x1="{x(one.low[i]):.1f}" x2="{x(one.high[i]):.1f}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line {ends} stroke="{color}" stroke-width="1.6"/>')
    return [*parts, _shape(shape, x(one.values[i]), y, color, tip=one.tip(i, row))]


def _shape(shape: str, x: Pixel, y: Pixel, color: str, *, tip: str = "") -> str:
    told = f' data-tip="{escape(tip)}"' if tip else ""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="{color}"{told}/>'
    corners = {
        "diamond": ((0, -5.5), (5.5, 0), (0, 5.5), (-5.5, 0)),
        "square": ((-4, -4), (4, -4), (4, 4), (-4, 4)),
        "triangle": ((0, -5), (5, 4), (-5, 4)),
    }[shape]
    where = " ".join(f"{x + dx:.1f},{y + dy:.1f}" for dx, dy in corners)
    return f'<polygon points="{where}" fill="{color}"{told}/>'


def _sample(color: str, dash: str) -> str:
    return (
        f'<line x1="0" x2="20" y1="0" y2="0" stroke="{color}" stroke-width="2.2" '
        f'stroke-dasharray="{dash}"/>'
    )


def _legend(names: Sequence[str], samples: Sequence[str], top: Pixel) -> tuple[list[str], int]:
    """Samples with their names, in as many lines as they need, and where they end."""
    parts, x, y = [], 8.0, top
    for name, sample in zip(names, samples, strict=True):
        told = _cut(name, 60)
        width = 26 + 6.6 * len(told) + 18
        if x > 8 and x + width > WIDTH:
            x, y = 8.0, y + 18
        parts.append(f'<g transform="translate({x:.1f} {y:.1f})">{sample}</g>')
        parts.append(_text("end", x + 26, y + 4, told))
        x += width
    return parts, round(y + 12)


def _tick(value: float) -> str:
    return f"{value:g}".replace("-", "−")


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def _line(x1: Pixel, y1: Pixel, x2: Pixel, y2: Pixel) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="var(--line)"/>'


def _text(kind: str, x: Pixel, y: Pixel, words: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(words)}</text>'


def _svg(height: int, label: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" role="img" aria-label="{escape(label)}" width="{WIDTH}" '
        f'height="{height}" viewBox="0 0 {WIDTH} {height}">{"".join(parts)}</svg>'
    )
