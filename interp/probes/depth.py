"""At which depth does a concept appear? Jumping and converging points (Jin et al. 2024).

With acc_i the accuracy of the probe of layer i of d, and beta_i = acc_i / acc_(i-1):

    jump       = min{i / d : beta_i >= 1.1}
    converging = max{i / d : |beta_i - 1| < .03}

Layer 0 is the embedding and layer i what leaves the i-th block: the residual stream itself, not the
normed input of an MLP. We are unsure of the .03, so it is an argument. A curve that is flat at the
end converges at 1 by this definition, however early it became flat; `settled` is the first depth
after which no beta leaves the .03 again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import ProbeError
from interp.plots import DIVERGING, MISSING
from interp.probes.result import ProbeResult
from interp.probes.scores import accuracy, bootstrap_weights, interval
from interp.saved import Saved

POINTS = ("jump", "converging", "settled")


@dataclass(frozen=True, eq=False)
class Depth(Saved, Displayed):
    """Three points of a curve of accuracies, as shares of the depth; NaN where there is none.

    Attributes:
        resampled: Each point for the test prompts as they are (first row), and for resamples.
        accuracy: Of the task, for each layer, the embedding first.
        rise: Least beta of a jump.
        flat: Least |beta - 1| of a change.
        n: Test prompts.
        provenance: Of the probes.
    """

    resampled: dict[str, Float[Tensor, " resamples"]]
    accuracy: Float[Tensor, " layer"]
    rise: float
    flat: float
    n: int
    provenance: dict[str, Any]

    def __getitem__(self, point: str) -> float:
        """The point "jump", "converging" or "settled". Raises ProbeError for any other."""
        if point not in self.resampled:
            raise ProbeError(f"No point of a curve is called {point!r}; there are {POINTS}.")
        return float(self.resampled[point][0])

    def to_frame(self) -> pd.DataFrame:
        """One row a point.

        Columns: point, depth (0 to 1), low and high (the middle 95% of the resamples of the test
        prompts that have the point), exists (in what share of the resamples), n.
        """
        rows = []
        for point, values in self.resampled.items():
            low, high = interval(values)
            exists = float((~values[1:].isnan()).double().mean())
            rows.append((point, self[point], float(low), float(high), exists, self.n))
        return pd.DataFrame(rows, columns=["point", "depth", "low", "high", "exists", "n"])

    def plot(self) -> go.Figure:
        """The accuracy by depth; dashed lines are the points, the shades their intervals."""
        figure = go.Figure()
        depths = torch.linspace(0, 1, len(self.accuracy)).tolist()
        figure.add_scatter(x=depths, y=self.accuracy.tolist(), line={"color": DIVERGING[-2]})
        for row in self.to_frame().dropna().itertuples():
            figure.add_vrect(x0=row.low, x1=row.high, fillcolor=MISSING, opacity=0.3, line_width=0)
            figure.add_vline(x=row.depth, line_dash="dash", annotation_text=row.point)
        figure.update_layout(title=f"Depth, n = {self.n} test prompts", template="plotly_white")
        figure.update_xaxes(title_text="depth")
        figure.update_yaxes(title_text="accuracy", range=[0, 1])
        return figure

    def __repr__(self) -> str:
        told = ", ".join(f"{point} {self[point]:.2f}" for point in POINTS)
        return f"Depth({told} of the depth; n = {self.n} test prompts)"


def depth(
    result: ProbeResult, *, rise: float = 1.1, flat: float = 0.03, resamples: int = 1000
) -> Depth:
    """Jumping and converging points of probes of the residual stream.

    Args:
        result: Of `interp.probes.linear.probe` with kind="resid".
        rise: Least beta of a jump.
        flat: Least |beta - 1| that counts as a change.
        resamples: Of the test prompts.

    Raises:
        ProbeError: Probes of outputs of attention or MLPs, or of a single layer.
    """
    if result.provenance.get("kind", "resid") != "resid" or len(result.layers) < 2:
        raise ProbeError(
            "Depth is read off probes of the whole residual stream; give probe(..., kind='resid')."
        )
    task = result.judged["task"]
    weights = bootstrap_weights(result.n, resamples=resamples)
    curves = accuracy(task.truth, task.probabilities, weights)
    return Depth(
        resampled=points(curves, rise=rise, flat=flat),
        accuracy=curves[0],
        rise=rise,
        flat=flat,
        n=result.n,
        provenance=result.provenance,
    )


def points(
    curves: Float[Tensor, "rows layer"], *, rise: float = 1.1, flat: float = 0.03
) -> dict[str, Float[Tensor, " rows"]]:
    """The points of each curve of accuracies, which begins with the embedding.

    >>> found = points(torch.tensor([[0.5, 0.51, 0.8, 0.9, 0.9]]))
    >>> {point: at.tolist() for point, at in found.items()}
    {'jump': [0.5], 'converging': [1.0], 'settled': [0.75]}
    """
    beta = curves[:, 1:] / curves[:, :-1]
    at = torch.arange(1, curves.shape[1]).to(curves) / (curves.shape[1] - 1)
    still = (beta - 1).abs() < flat
    before = (at * ~still).amax(dim=1)  # the depth of the last change; 0 if there is none
    nowhere = torch.full_like(before, torch.nan)
    jump = torch.where(beta >= rise, at, torch.inf).amin(dim=1)
    converging = (at * still).amax(dim=1)
    return {
        "jump": torch.where(jump.isinf(), nowhere, jump),
        "converging": torch.where(converging > 0, converging, nowhere),
        "settled": torch.where(before < 1, before, nowhere),
    }
