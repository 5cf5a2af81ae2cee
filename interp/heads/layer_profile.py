"""In which layers the heads of each kind live, in one model or in two of different shape."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from scipy.stats import wasserstein_distance
from torch import Tensor

from interp.display import Displayed
from interp.heads.atlas import HeadAtlas
from interp.heads.compare import common_kinds, model_name
from interp.plots import head_heatmap
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci

PERMUTATIONS = 1000


@dataclass(frozen=True, eq=False)
class LayerProfile(Saved, Displayed):
    """In which layers the heads of each kind live; `layer_profile` makes one.

    Attributes:
        model: Its name.
        kinds: Of the rows below.
        means: Mean score over the heads of a layer.
        low, high: Its 95% bootstrap interval over samples.
        named: Heads of a layer that are named after the kind.
        heads: Heads in a layer.
    """

    model: str
    kinds: tuple[str, ...]
    means: Float[Tensor, "kinds layer"]
    low: Float[Tensor, "kinds layer"]
    high: Float[Tensor, "kinds layer"]
    named: Int[Tensor, "kinds layer"]
    heads: int

    def to_frame(self) -> pd.DataFrame:
        """One row a kind and layer.

        Columns: kind, layer, depth (0 the first layer, 1 the last), mean, ci_low, ci_high, named,
        share (of the layer's heads that are named).
        """
        layers = self.means.shape[1]
        return pd.DataFrame(
            [
                {
                    "kind": kind,
                    "layer": layer,
                    "depth": layer / max(layers - 1, 1),
                    "mean": self.means[row, layer].item(),
                    "ci_low": self.low[row, layer].item(),
                    "ci_high": self.high[row, layer].item(),
                    "named": int(self.named[row, layer]),
                    "share": int(self.named[row, layer]) / self.heads,
                }
                for row, kind in enumerate(self.kinds)
                for layer in range(layers)
            ]
        )

    def plot(self) -> go.Figure:
        """Named heads of each layer, one heatmap row a kind."""
        figure = head_heatmap(
            self.named.float(),
            title=f"Where the heads of {self.model} live",
            colorbar="named heads",
            across="layer",
            hover=[
                [
                    f"{kind}, layer {layer}: {count} of {self.heads}"
                    for layer, count in enumerate(row)
                ]
                for kind, row in zip(self.kinds, self.named.tolist(), strict=True)
            ],
        )
        ticks = {"tickvals": list(range(len(self.kinds))), "ticktext": list(self.kinds)}
        return figure.update_yaxes(**ticks, tickmode="array", title_text="", automargin=True)

    def __repr__(self) -> str:
        layers = self.means.shape[1]
        return f"LayerProfile({self.model}: {len(self.kinds)} kinds x {layers} layers)"


def layer_profile(atlas: HeadAtlas) -> LayerProfile:
    """Mean score and number of named heads in every layer, for each kind of an atlas."""
    scores, named = list(atlas.scores.values()), atlas.named()
    ends = [bootstrap_ci(score.values.nanmean(dim=1)) for score in scores]
    counts = torch.zeros(len(scores), atlas.shape[0], dtype=torch.long)
    for row, kind in enumerate(atlas.kinds):
        for head in named[kind]:
            counts[row, head.layer] += 1
    return LayerProfile(
        model=model_name(atlas),
        kinds=atlas.kinds,
        means=torch.stack([score.grid.nanmean(dim=1).float() for score in scores]),
        low=torch.stack([low.float() for low, _ in ends]),
        high=torch.stack([high.float() for _, high in ends]),
        named=counts,
        heads=atlas.shape[1],
    )


@dataclass(frozen=True, eq=False)
class DepthDifference(Saved, Displayed):
    """Where each kind lives in two models of different shape; `compare_depths` makes one.

    Attributes:
        first, second: Names of the models.
        rows: One row a kind, as `to_frame` gives it.
    """

    first: str
    second: str
    rows: list[dict[str, Any]] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row a kind.

        Columns: kind, named_a, named_b, share_a, share_b (of all heads), depth_a, depth_b (mean
        over named heads of the layer's place from 0, first, to 1, last), distance (how far depth
        has to be moved to turn one distribution into the other, from 0 to 1), p (share of random
        divisions of the same heads between the models with at least that distance).
        """
        return pd.DataFrame(self.rows)

    def plot(self) -> go.Figure:
        """Share of named heads by kind, one bar a model."""
        frame = self.to_frame()
        figure = go.Figure(
            [
                go.Bar(x=frame["kind"], y=frame[f"share_{which}"], name=name)
                for which, name in (("a", self.first), ("b", self.second))
            ]
        )
        figure.update_layout(
            title=f"Kinds of head in {self.first} and {self.second}", template="plotly_white"
        )
        return figure.update_yaxes(title_text="share of all heads")


def compare_depths(a: HeadAtlas, b: HeadAtlas, *, seed: int = 0) -> DepthDifference:
    """How many heads of each kind two models have, and how deep: for models of any shape.

    Raises:
        MetricError: Atlases without a common kind.
    """
    named = a.named(), b.named()
    rows = []
    for kind in common_kinds(a, b):
        first, second = (
            _depths(each[kind], atlas) for each, atlas in zip(named, (a, b), strict=True)
        )
        distance, p = _moved(first, second, seed=seed)
        rows.append(
            {
                "kind": kind,
                "named_a": len(first),
                "named_b": len(second),
                "share_a": len(first) / math.prod(a.shape),
                "share_b": len(second) / math.prod(b.shape),
                "depth_a": _mean(first),
                "depth_b": _mean(second),
                "distance": distance,
                "p": p,
            }
        )
    return DepthDifference(model_name(a), model_name(b), rows)


def _depths(heads: tuple[Head, ...], atlas: HeadAtlas) -> list[float]:
    return [head.layer / max(atlas.shape[0] - 1, 1) for head in heads]


def _moved(first: list[float], second: list[float], *, seed: int) -> tuple[float, float]:
    """Wasserstein distance of two sets of depths, and its permutation p-value."""
    if not first or not second:
        return math.nan, math.nan
    distance = float(wasserstein_distance(first, second))
    pooled = torch.tensor(first + second)
    generator = torch.Generator().manual_seed(seed)
    as_far = 1
    for _ in range(PERMUTATIONS - 1):
        mixed = pooled[torch.randperm(len(pooled), generator=generator)]
        other = wasserstein_distance(mixed[: len(first)], mixed[len(first) :])
        as_far += bool(other >= distance - 1e-9)
    return distance, as_far / PERMUTATIONS


def _mean(numbers: list[float]) -> float:
    return sum(numbers) / len(numbers) if numbers else math.nan
