"""How well does a feature vector say what its path adds to an observable?"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.plots.colors import DIVERGING, MISSING
from interp.saved import Saved
from interp.sites import Site
from interp.stats import bootstrap_ci


@dataclass(frozen=True, eq=False)
class Contribution(Saved, Displayed):
    """What a path adds to an observable on each prompt, predicted by a feature vector and measured.

    Attributes:
        path: The components.
        observable: Its name.
        predicted: From `y · x`, with the constants of the linearisation.
        measured: From what the first component of the path wrote.
        random: The same as predicted, from random directions, without constants.
        provenance: Model, prompts, observable, path.
    """

    path: tuple[Site, ...]
    observable: str
    predicted: Float[Tensor, " prompts"]
    measured: Float[Tensor, " prompts"]
    random: Float[Tensor, "draws prompts"] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    @property
    def r2(self) -> float:
        """Squared correlation of predicted and measured over prompts; NaN if one is constant."""
        return float(_r2(self.predicted[None], self.measured)[0])

    @property
    def random_r2(self) -> Float[Tensor, " draws"]:
        """The same for each random direction: the control."""
        return _r2(self.random, self.measured)

    @property
    def slope(self) -> float:
        """Of measured on predicted: below 1 where the linearisation overstates."""
        away = self.predicted - self.predicted.mean()
        return float(away @ self.measured / away.square().sum())

    def to_frame(self) -> pd.DataFrame:
        """One row.

        Columns: path, measured (mean), error (mean |predicted - measured|, with ci_low and ci_high,
        95% over prompts), slope, r2, random_r2 (mean over random directions), n.
        """
        error = (self.predicted - self.measured).abs()
        low, high = bootstrap_ci(error)
        return pd.DataFrame(
            {
                "path": [" > ".join(map(str, self.path))],
                "measured": self.measured.mean().item(),
                "error": error.mean().item(),
                "ci_low": low.item(),
                "ci_high": high.item(),
                "slope": self.slope,
                "r2": self.r2,
                "random_r2": self.random_r2.nanmean().item(),
                "n": len(error),
            }
        )

    def plot(self) -> go.Figure:
        """Measured against predicted, one point a prompt; the line is where they are equal."""
        figure = go.Figure()
        ends = [float(self.predicted.min()), float(self.predicted.max())]
        figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": MISSING})
        figure.add_scatter(
            x=self.predicted.tolist(),
            y=self.measured.tolist(),
            mode="markers",
            name="prompts",
            marker_color=DIVERGING[-2],
        )
        figure.update_layout(title=repr(self), template="plotly_white")
        figure.update_xaxes(title_text="predicted, logits")
        figure.update_yaxes(title_text="measured, logits")
        return figure

    def __repr__(self) -> str:
        through = " > ".join(map(str, self.path)) or "the unembedding"
        return (
            f"Contribution({self.observable} through {through}: r2 {self.r2:.2f}, random "
            f"{self.random_r2.nanmean():.2f}; n = {len(self.measured)} prompts)"
        )


def _r2(values: Float[Tensor, "rows prompts"], other: Tensor) -> Float[Tensor, " rows"]:
    """Squared correlation of each row with the other values."""
    one = values - values.mean(dim=-1, keepdim=True)
    two = other - other.mean()
    return (one @ two).square() / (one.square().sum(dim=-1) * two.square().sum())
