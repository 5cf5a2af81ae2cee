"""What several paths of a question answer together: plain and weighted majorities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import MetricError, did_you_mean
from interp.plots.colors import DIVERGING, SEQUENTIAL
from interp.saved import Saved
from interp.stats import bootstrap_ci

PLAIN = "SC"
COUNTS = (1, 2, 5, 10, 20, 40)
"""Numbers of paths."""


@dataclass(frozen=True, eq=False)
class Votes(Saved, Displayed):
    """How often votes are right.

    Attributes:
        methods: Names of the votes; the first is "SC", self-consistency (Wang et al. 2023).
        counts: Numbers of paths that vote.
        accuracy: The share of votes that are right, for each question.
    """

    methods: tuple[str, ...]
    counts: tuple[int, ...]
    accuracy: Float[Tensor, "methods counts questions"]

    def of(self, method: str, count: int) -> Float[Tensor, " questions"]:
        """The accuracy of one vote on each question.

        Raises MetricError for one that was not held.
        """
        if method not in self.methods:
            raise MetricError(f"No vote is called {method!r}: {did_you_mean(method, self.methods)}")
        if count not in self.counts:
            raise MetricError(f"No vote has {count} paths; give one of {self.counts}.")
        return self.accuracy[self.methods.index(method), self.counts.index(count)]

    def to_frame(self) -> pd.DataFrame:
        """One row for each vote and number of paths.

        Columns: vote, paths, accuracy (mean over questions), low, high (95%, over questions), gain
        (accuracy minus that of plain voting with as many paths, paired by question), gain_low,
        gain_high, n (questions).
        """
        low, high = bootstrap_ci(self.accuracy)
        gain = self.accuracy - self.accuracy[:1]
        gain_low, gain_high = bootstrap_ci(gain)
        columns = {
            "accuracy": self.accuracy.mean(dim=-1),
            "low": low,
            "high": high,
            "gain": gain.mean(dim=-1),
            "gain_low": gain_low,
            "gain_high": gain_high,
        }
        return pd.DataFrame(
            {
                "vote": [method for method in self.methods for _ in self.counts],
                "paths": [count for _ in self.methods for count in self.counts],
                **{name: values.flatten().tolist() for name, values in columns.items()},
                "n": self.accuracy.shape[-1],
            }
        )

    def plot(self) -> go.Figure:
        """Accuracy against the number of paths, with 95% intervals over questions."""
        figure = go.Figure()
        colors = [DIVERGING[1], SEQUENTIAL[6], SEQUENTIAL[3], SEQUENTIAL[5], SEQUENTIAL[8]]
        for color, (method, rows) in zip(
            colors, self.to_frame().groupby("vote", sort=False), strict=False
        ):
            figure.add_scatter(
                x=rows["paths"],
                y=rows["accuracy"],
                error_y={
                    "type": "data",
                    "array": rows["high"] - rows["accuracy"],
                    "arrayminus": rows["accuracy"] - rows["low"],
                    "thickness": 1,
                },
                name=method,
                line_color=color,
            )
        figure.update_layout(title="Votes of several paths", template="plotly_white")
        figure.update_xaxes(title_text="paths", type="log", tickvals=list(self.counts))
        figure.update_yaxes(title_text="share of questions answered right")
        return figure

    def __repr__(self) -> str:
        means = self.accuracy[:, -1].mean(dim=-1).tolist()
        told = ", ".join(
            f"{name} {mean:.3f}" for name, mean in zip(self.methods, means, strict=True)
        )
        return f"Votes(of {self.counts[-1]} paths: {told}; n = {self.accuracy.shape[-1]} questions)"


def votes(
    given: Int[Tensor, "questions paths"],
    right: Int[Tensor, " questions"],
    weights: Mapping[str, Float[Tensor, "questions paths"]],
    *,
    counts: tuple[int, ...] = COUNTS,
) -> Votes:
    """Hold plain votes and votes by weights, with several numbers of paths.

    With k of N paths, the paths of a question are dealt into N // k groups and the accuracies of
    their votes averaged, so that small votes are not left to one draw. Numbers of paths above N are
    left out, and N itself is taken in.

    Args:
        given: The label that each path gives; -1 for none, which does not vote.
        right: The right label of each question.
        weights: A weight for each path, 0 or more, under the name of its vote.
        counts: Numbers of paths.
    """
    labels = int(max(given.max(), right.max())) + 1
    total = given.shape[1]
    held = tuple(sorted({count for count in counts if count < total} | {total}))
    schemes = {PLAIN: torch.ones_like(given, dtype=torch.float64), **weights}
    accuracy = torch.stack(
        [
            torch.stack([_accuracy(given, weight, right, labels, count) for count in held])
            for weight in schemes.values()
        ]
    )
    return Votes(tuple(schemes), held, accuracy)


def _accuracy(
    given: Int[Tensor, "questions paths"],
    weights: Float[Tensor, "questions paths"],
    right: Int[Tensor, " questions"],
    labels: int,
    count: int,
) -> Float[Tensor, " questions"]:
    """The share of right votes of `count` paths each.

    Ties are broken at random; what counts is the expectation of that, 1/m where m labels tie.
    """
    groups = given.shape[1] // count
    cast = given[:, : groups * count].unflatten(1, (groups, count))
    weight = weights[:, : groups * count].unflatten(1, (groups, count)).nan_to_num().double()
    chosen = torch.nn.functional.one_hot(cast.clamp(min=0), labels) * (cast >= 0)[..., None]
    tally = (chosen * weight[..., None]).sum(dim=2).masked_fill(chosen.sum(dim=2) == 0, -torch.inf)
    best = tally.max(dim=-1, keepdim=True).values
    tied = (tally >= best - 1e-9) & tally.isfinite()
    share = tied.double() / tied.sum(dim=-1, keepdim=True).clamp(min=1)
    return share.gather(-1, right[:, None, None].expand(-1, groups, 1))[..., 0].mean(dim=-1)
