"""The two colour scales of the project, both safe for colour-blind readers and in print.

`SEQUENTIAL` runs from paper to ink with steadily falling lightness, so that it survives a grey
photocopy; it is ColorBrewer's YlGnBu with a paler end. `DIVERGING` is ColorBrewer's RdBu: white at
zero, red below and blue above, as TransformerLens users know it. Each has a twin for dark pages, in
which zero is dark.
"""

from __future__ import annotations

from collections.abc import Sequence

SEQUENTIAL = (
    "#f5f9f7",
    "#d9efe3",
    "#a8dbc9",
    "#6cc3c1",
    "#3aa3c0",
    "#2a7db6",
    "#28559f",
    "#232f78",
    "#0f1a4a",
)
DIVERGING = (
    "#67001f",
    "#b2182b",
    "#d6604d",
    "#f4a582",
    "#fddbc7",
    "#f7f7f7",
    "#d1e5f0",
    "#92c5de",
    "#4393c3",
    "#2166ac",
    "#053061",
)
MISSING = "#c9c9c9"
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


def blend(scale: Sequence[str], place: float) -> str:
    """The colour at `place` (0 to 1) of a scale of `#rrggbb` colours, linear between its stops.

    >>> blend(("#000000", "#ffffff"), 0.5)
    '#808080'
    """
    steps = min(max(place, 0.0), 1.0) * (len(scale) - 1)
    left = min(int(steps), len(scale) - 2)
    low, high = _rgb(scale[left]), _rgb(scale[left + 1])
    mixed = (round(a + (b - a) * (steps - left)) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed)


def luminance(color: str) -> float:
    """Relative luminance (WCAG 2) of a `#rrggbb` colour: 0 is black, 1 is white.

    >>> luminance("#ffffff"), luminance("#000000")
    (1.0, 0.0)
    """
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in (channel / 255 for channel in _rgb(color))
    ]
    return round(sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True)), 6)


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
