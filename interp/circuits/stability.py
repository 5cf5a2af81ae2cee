"""Would other prompts give the same circuit? Ranks and top edges under resampling of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from scipy.stats import spearmanr
from torch import Tensor

from interp.circuits.evaluate import interval
from interp.circuits.select import importance, top_n
from interp.display import Displayed
from interp.engine.result import SweepResult
from interp.errors import CircuitError
from interp.plots.colors import DIVERGING, MISSING
from interp.progress import track
from interp.saved import Saved
from interp.sites import Site

SIZES = (10, 20, 50, 100, 200, 500)


@dataclass(frozen=True, eq=False)
class Stability(Saved, Displayed):
    """How much a ranking of sites changes when prompts are resampled.

    Attributes:
        sites: What was ranked.
        sizes: Numbers of top sites.
        jaccard: Intersection over union of the top sites of two resamples, pair by pair.
        spearman: Rank correlation of all importances between two resamples, pair by pair.
        frequency: In what share of all resamples each site is among the top.
        n: Prompts.
        provenance: That of the scores.
    """

    sites: tuple[Site, ...]
    sizes: tuple[int, ...]
    jaccard: Float[Tensor, "sizes pairs"]
    spearman: Float[Tensor, " pairs"]
    frequency: Float[Tensor, "sizes sites"]
    n: int
    provenance: dict[str, Any]

    def steady(self, size: int, *, share: float = 0.9) -> tuple[Site, ...]:
        """The sites that are among the top `size` in at least this share of resamples.

        Raises:
            CircuitError: A size that was not measured.
        """
        if size not in self.sizes:
            raise CircuitError(f"The size {size} was not measured; give one of {self.sizes}.")
        often = self.frequency[self.sizes.index(size)] >= share
        return tuple(self.sites[i] for i in often.nonzero()[:, 0].tolist())

    def to_frame(self) -> pd.DataFrame:
        """One row a size.

        Columns: size, jaccard (mean over pairs of resamples), low and high (the middle 95% of
        pairs), chance (of two random sets of this size), steady (sites among the top in 90% of
        resamples), n.
        """
        low, high = interval(self.jaccard)
        share = torch.tensor(self.sizes) / len(self.sites)
        return pd.DataFrame(
            {
                "size": self.sizes,
                "jaccard": self.jaccard.mean(dim=-1).tolist(),
                "low": low.tolist(),
                "high": high.tolist(),
                "chance": (share / (2 - share)).tolist(),
                "steady": [len(self.steady(size)) for size in self.sizes],
                "n": self.n,
            }
        )

    def plot(self) -> go.Figure:
        """Jaccard against size, with the middle 95% of pairs; the dotted line is chance."""
        frame = self.to_frame()
        figure = go.Figure()
        figure.add_scatter(
            x=frame["size"],
            y=frame["jaccard"],
            error_y={
                "type": "data",
                "array": frame["high"] - frame["jaccard"],
                "arrayminus": frame["jaccard"] - frame["low"],
                "thickness": 1,
            },
            name="between resamples",
            marker_color=DIVERGING[-2],
        )
        figure.add_scatter(
            x=frame["size"],
            y=frame["chance"],
            name="chance",
            line={"color": MISSING, "dash": "dot"},
        )
        model = self.provenance["model"]
        figure.update_layout(title=f"Stability of top sites of {model}", template="plotly_white")
        figure.update_xaxes(title_text="top sites", type="log")
        figure.update_yaxes(title_text="intersection over union", range=[0, 1])
        return figure

    def __repr__(self) -> str:
        told = ", ".join(
            f"top {size} {mean:.2f}"
            for size, mean in zip(self.sizes, self.jaccard.mean(dim=-1).tolist(), strict=True)
        )
        return (
            f"Stability(Jaccard between resamples: {told}; Spearman {self.spearman.mean():.2f}; "
            f"n = {self.n} prompts)"
        )


def stability(
    sweep: SweepResult,
    *,
    sizes: Sequence[int] | None = None,
    rank: str = "abs",
    pairs: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Stability:
    """Rank the sites again and again, each time on prompts drawn with replacement.

    This is the bootstrap's estimate of how far the rankings of two prompt sets of this size differ.

    Args:
        sweep: Scores of each site on each prompt, such as those of `interp.attribute`.
        sizes: Numbers of top sites; by default those of 10 to 500 that are less than all.
        rank: "abs" or "signed"; see `interp.circuits.select.importance`.
        pairs: Pairs of resamples.
        seed: Of the draws.
        progress: Show a bar.

    Raises:
        CircuitError: Fewer than two prompts, prompts that were not run, no pairs, or sizes that the
            sweep does not have.
    """
    scores, total = sweep.effects.double(), len(sweep.sites)
    count = scores.shape[1]
    wanted = [size for size in SIZES if size < total] if sizes is None else list(sizes)
    _require(scores, wanted, pairs)
    generator = torch.Generator().manual_seed(seed)
    jaccard = torch.zeros(len(wanted), pairs, dtype=torch.float64)
    spearman = torch.zeros(pairs, dtype=torch.float64)
    times = torch.zeros(len(wanted), total, dtype=torch.float64)
    for pair in track(range(pairs), "Resampling prompts", shown=progress):
        picks = torch.randint(count, (2, count), generator=generator)
        first, second = (importance(scores[:, some].mean(dim=-1), rank) for some in picks)
        spearman[pair] = float(spearmanr(first.numpy(), second.numpy()).statistic)
        for row, size in enumerate(wanted):
            one, other = top_n(first, size), top_n(second, size)
            jaccard[row, pair] = _iou(one, other)
            times[row] += one.double() + other.double()
    return Stability(
        sites=sweep.sites,
        sizes=tuple(wanted),
        jaccard=jaccard,
        spearman=spearman,
        frequency=times / (2 * pairs),
        n=count,
        provenance={**sweep.provenance, "rank": rank, "resampling_seed": seed},
    )


def _iou(one: Bool[Tensor, " sites"], other: Bool[Tensor, " sites"]) -> float:
    return float((one & other).sum() / (one | other).sum())


def _require(scores: Float[Tensor, "sites prompts"], sizes: list[int], pairs: int) -> None:
    total, count = scores.shape
    if count < 2:
        raise CircuitError(f"The sweep has {count} prompt; resampling needs several.")
    if scores.isnan().any():
        raise CircuitError(
            "Some prompts of the sweep were not run; give a sweep of all sites on all prompts."
        )
    if pairs < 1:
        raise CircuitError(f"pairs is {pairs}; give at least 1, such as 100.")
    for size in sizes:
        if not 1 <= size <= total:
            raise CircuitError(f"The size {size} is not between 1 and the {total} sites ranked.")
