"""`overlap`: which kinds are named after the same heads, and whether by more than chance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
import plotly.graph_objects as go
import torch
from scipy.stats import hypergeom

from interp.display import Displayed
from interp.errors import MetricError
from interp.heads.atlas import HeadAtlas
from interp.heads.compare import model_name
from interp.plots import head_heatmap
from interp.saved import Saved, register
from interp.sites import Head


@register
@dataclass(frozen=True)
class Pair:
    """How many heads two kinds share.

    Attributes:
        a, b: The kinds.
        n_a, n_b: Heads named after each.
        shared: Heads named after both.
        iou: Shared heads as a share of all that are named after either; NaN if there are none.
        chance: Expected `iou` if as many heads were named at random.
        p: Chance that random heads share at least as many.
    """

    a: str
    b: str
    n_a: int
    n_b: int
    shared: int
    iou: float
    chance: float
    p: float


@dataclass(frozen=True)
class Overlap(Saved, Displayed):
    """Which kinds share heads; `overlap` makes one.

    Attributes:
        model: Its name.
        kinds: Those compared.
        pairs: Every two of them.
        heads: Heads of the model.
    """

    model: str
    kinds: tuple[str, ...]
    pairs: tuple[Pair, ...]
    heads: int

    def to_frame(self) -> pd.DataFrame:
        """One row a pair of kinds: a, b, n_a, n_b, shared, iou, chance, p."""
        return pd.DataFrame([vars(pair) for pair in self.pairs])

    def plot(self) -> go.Figure:
        """A kind x kind heatmap of the intersection over union."""
        grid = torch.eye(len(self.kinds))
        hover = [[kind] * len(self.kinds) for kind in self.kinds]
        place = {kind: index for index, kind in enumerate(self.kinds)}
        for pair in self.pairs:
            for row, column in ((pair.a, pair.b), (pair.b, pair.a)):
                grid[place[row], place[column]] = pair.iou
                hover[place[row]][place[column]] = (
                    f"{pair.a} and {pair.b}: {pair.shared} of {pair.n_a} and {pair.n_b} heads"
                    f"<br>IoU {pair.iou:.2f}, by chance {pair.chance:.2f}, p = {pair.p:.2g}"
                )
        figure = head_heatmap(
            grid,
            title=f"Heads of several kinds in {self.model}",
            colorbar="intersection over union",
            hover=hover,
            across="",
        )
        ticks = {"tickvals": list(range(len(self.kinds))), "ticktext": list(self.kinds)}
        figure.update_xaxes(**ticks, tickmode="array", showticklabels=True)
        return figure.update_yaxes(**ticks, tickmode="array", title_text="", automargin=True)

    def __repr__(self) -> str:
        most = sorted(self.pairs, key=lambda pair: pair.p)[:1]
        best = "".join(f"; {pair.a} and {pair.b} share {pair.shared}" for pair in most)
        return f"Overlap({self.model}: {len(self.kinds)} kinds, {self.heads} heads{best})"


def overlap(atlas: HeadAtlas, threshold: float | None = None) -> Overlap:
    """Which kinds are named after the same heads, and whether by more than chance.

    Args:
        atlas: Of two or more kinds.
        threshold: Name heads from this score on; by default each kind has its own.

    Chance is the hypergeometric distribution: heads named after one kind drawn at random from all
    heads of the model, of whatever layer. Kinds that live in the same layers for any reason thus
    overlap by more than this chance.

    Raises:
        MetricError: An atlas of a single kind.
    """
    if len(atlas.kinds) < 2:
        raise MetricError(
            f"An overlap is between kinds and this atlas has {atlas.kinds[0]!r} alone; scan more."
        )
    named, heads = atlas.named(threshold), math.prod(atlas.shape)
    pairs = tuple(_pair(a, b, named, heads) for a, b in combinations(atlas.kinds, 2))
    return Overlap(model_name(atlas), atlas.kinds, pairs, heads)


def _pair(a: str, b: str, named: dict[str, tuple[Head, ...]], heads: int) -> Pair:
    first, second = set(named[a]), set(named[b])
    shared, n_a, n_b = len(first & second), len(first), len(second)
    drawn = hypergeom(heads, n_a, n_b)
    fewest, most = max(0, n_a + n_b - heads), min(n_a, n_b)
    if n_a + n_b == 0:
        iou = chance = math.nan
    else:
        iou = shared / (n_a + n_b - shared)
        chance = sum(drawn.pmf(k) * k / (n_a + n_b - k) for k in range(fewest, most + 1))
    return Pair(a, b, n_a, n_b, shared, iou, float(chance), float(drawn.sf(shared - 1)))
