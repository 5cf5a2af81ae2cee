"""How many heads can go? The metric as the least important heads are taken out, one share more
after another, beside heads taken out in random order.

After Michel, Levy and Neubig 2019.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import Intervention, Operation, run
from interp.engine.ablation import operation_of
from interp.errors import InterventionError
from interp.heads.importance.gradient import gradient_importance
from interp.heads.tables import columns, together
from interp.models import Model
from interp.plots import DIVERGING, MISSING
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import Head
from interp.sites import heads as all_heads

SHARES = tuple(step / 20 for step in range(1, 21))
"""5% to 100% in steps of 5%."""


@dataclass(frozen=True, eq=False)
class PruningCurve(Saved, Displayed):
    """The metric after each step of pruning.

    Attributes:
        shares: Share of all heads that is out after each step, as asked for.
        pruned: The heads that are out after each step.
        values: The metric on each prompt after each step.
        random: The same for several random orders of the heads, the control.
        clean: The metric of the model left as it is.
        metric: Name of the metric.
        method: What took the place of the heads.
        provenance: Where it comes from.
    """

    shares: tuple[float, ...]
    pruned: tuple[tuple[Head, ...], ...]
    values: Float[Tensor, "steps prompts"]
    random: Float[Tensor, "draws steps prompts"]
    clean: Float[Tensor, " prompts"]
    metric: str
    method: str
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a step.

        Columns: share, heads (that are out), metric with ci_low and ci_high (95%, over prompts),
        random with random_low and random_high (95%, over the random orders), gain (metric minus
        random) with gain_low and gain_high (95%, over prompts, paired), n.
        """
        return pd.DataFrame(
            {
                "share": self.shares,
                "heads": [len(some) for some in self.pruned],
                **columns("metric", self.values, ("ci_low", "ci_high")),
                **columns("random", self.random.mean(dim=-1).T, ("random_low", "random_high")),
                **columns("gain", self.values - self.random.mean(dim=0), ("gain_low", "gain_high")),
                "n": len(self.clean),
            }
        )

    def plot(self) -> go.Figure:
        """The metric against the share of heads that are out, with its control."""
        frame = self.to_frame()
        figure = go.Figure()
        for name, low, high, label, color in (
            ("random", "random_low", "random_high", "random order", MISSING),
            ("metric", "ci_low", "ci_high", "least important first", DIVERGING[-2]),
        ):
            bars = {"array": frame[high] - frame[name], "arrayminus": frame[name] - frame[low]}
            figure.add_scatter(
                x=frame["share"],
                y=frame[name],
                error_y={"type": "data", "thickness": 1, **bars},
                name=label,
                marker_color=color,
            )
        title = f"Pruning heads of {self.provenance['model']} ({self.method} ablation)"
        figure.add_hline(y=self.clean.mean().item(), line_dash="dot", annotation_text="all heads")
        figure.update_layout(title=title, template="plotly_white", yaxis_title=self.metric)
        figure.update_xaxes(title_text="share of heads pruned", tickformat=".0%")
        return figure

    def __repr__(self) -> str:
        middle = len(self.shares) // 2 - 1 if len(self.shares) > 1 else 0
        return (
            f"PruningCurve({self.metric} {self.clean.mean():.3f}; without "
            f"{self.shares[middle]:.0%} of the heads {self.values[middle].mean():.3f}, in random "
            f"order {self.random[:, middle].mean():.3f}; n = {len(self.clean)} prompts)"
        )


def prune(
    model: Model,
    prompts: PromptSet,
    *,
    shares: Sequence[float] = SHARES,
    recompute: bool = False,
    normalized: bool = True,
    importance: str = "loss",
    method: str = "zero",
    metric: str | Callable[..., Any] = "logit_diff",
    draws: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> PruningCurve:
    """Take out the least important heads of the whole model, a larger share at each step.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> curve = prune(model, prompts, shares=(0.25, 0.5), draws=2)
    >>> [len(some) for some in curve.pruned]
    [12, 24]

    The importance is that of `gradient_importance`, on the same prompts; every value of the curve
    is an exact run with these heads out.

    Args:
        model: In eval mode.
        prompts: What importance and metric are measured on.
        shares: Of all heads, in rising order; each is rounded to whole heads.
        recompute: Measure the importance anew at each step, with the pruned heads out; by default
            it is measured once.
        normalized: Rank by the importance divided by its layer's L2 norm, as the paper does. It
            spreads the pruned heads over layers, which costs more where layers matter unequally.
        importance: Metric whose gradient is the importance; a name with a gradient.
        method: What takes the place of pruned heads, "zero" as in the paper or "mean"; the gates
            of the importance close to the same.
        metric: What is measured after each step: a name in METRICS, or a function as
            `interp.ablate` takes it.
        draws: Random orders of the control.
        seed: Of the random orders.
        progress: Show bars.

    Raises:
        InterventionError: Shares that do not rise within (0, 1], fewer than 2 draws, an unknown
            method.
        PromptError, MetricError, ModelError: What their names say.
    """
    rising = [*shares] == sorted(set(shares))
    if not shares or not rising or shares[0] <= 0 or shares[-1] > 1:
        raise InterventionError(
            f"shares is {list(shares)}; give shares of the heads that rise from above 0 to at most "
            "1, such as (0.25, 0.5, 1.0)."
        )
    if draws < 2:
        raise InterventionError(f"draws is {draws}; an interval needs 2 random orders or more.")
    every = all_heads(model)
    counts = [math.floor(share * len(every) + 0.5) for share in shares]
    how: dict[str, Any] = {"metric": importance, "method": method, "progress": progress}

    def ranked(out: tuple[Head, ...]) -> list[Head]:
        return gradient_importance(model, prompts, out=out, **how).order(normalized=normalized)

    order: tuple[Head, ...] = ()
    for count in counts if recompute else counts[-1:]:
        if count > len(order):
            order += tuple(ranked(order)[: count - len(order)])
    generator = torch.Generator().manual_seed(seed)
    shuffled = [
        tuple(every[index] for index in torch.randperm(len(every), generator=generator).tolist())
        for _ in range(draws)
    ]
    steps = [tuple(each[:count]) for each in (order, *shuffled) for count in counts]
    found = run(
        model,
        prompts,
        [_taken_out(some, operation_of(method, "all", 0)) for some in steps if some],
        metric=metric,
        method=method,
        progress=progress,
        recompute=recompute,
        normalized=normalized,
        importance=importance,
        draws=draws,
        order_seed=seed,
    )
    values = found.clean.repeat(len(steps), 1)  # steps too small for a single head change nothing
    values[torch.tensor([bool(some) for some in steps])] = found.values
    by_order = values.unflatten(0, (1 + draws, len(counts)))
    return PruningCurve(
        shares=tuple(shares),
        pruned=tuple(steps[: len(counts)]),
        values=by_order[0],
        random=by_order[1:],
        clean=found.clean,
        metric=found.metric,
        method=method,
        provenance=found.provenance,
    )


def _taken_out(some: tuple[Head, ...], operation: Operation) -> Intervention:
    return Intervention.at(together(some), operation)
