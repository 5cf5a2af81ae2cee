"""What does each head contribute, whichever others are there? Shapley values by sampling.

After Held and Yang 2023. The value of a head is what the metric loses when the head is taken out,
averaged over the orders in which all heads could be taken out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.engine import Intervention, SweepResult, run
from interp.engine.ablation import operation_of
from interp.errors import InterventionError, SiteError
from interp.heads.tables import columns, control_columns, together
from interp.models import Model
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import Head, Site
from interp.sites import resolve as resolve_sites

ROUND = 8
"""Permutations that run at once, between two looks at which heads are decided."""
FEWEST = 8
"""Samples below which no head is decided: the range of fewer says too little."""

Coalition = frozenset[int]
"""The heads that are out, by their number among the players."""


@dataclass(frozen=True, eq=False)
class Shapley(Saved, Displayed):
    """Shapley values of heads.

    Attributes:
        heads: The players; all other heads stay in the model.
        values: What taking out each head costs the metric on each prompt: the mean over the
            permutations in which it was sampled; NaN for a head never sampled.
        bound: How far each head's mean over prompts may be from that of all permutations, on
            these prompts (empirical Bernstein; infinite for a head never sampled).
        n: Permutations in which each head was sampled.
        decided: Whether the bound has excluded the threshold, so that sampling stopped.
        alone: What taking out each head alone costs the metric on each prompt.
        clean: The metric of the model left as it is.
        none_left: The metric with all players out.
        metric: Name of the metric.
        method: What took the place of the heads.
        provenance: Where it comes from; it has truncate, threshold, delta and reach.
    """

    heads: tuple[Head, ...]
    values: Float[Tensor, "heads prompts"]
    bound: Float[Tensor, " heads"]
    n: Int[Tensor, " heads"]
    decided: Bool[Tensor, " heads"]
    alone: Float[Tensor, "heads prompts"]
    clean: Float[Tensor, " prompts"]
    none_left: Float[Tensor, " prompts"]
    metric: str
    method: str
    provenance: dict[str, Any]

    @property
    def mean(self) -> Float[Tensor, " heads"]:
        """The value of each head, over all prompts."""
        return self.values.mean(dim=-1)

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """The value of each head in its place; NaN for heads that did not play."""
        return self._placed(self.values).mean(dim=-1)

    @property
    def surplus(self) -> Float[Tensor, " prompts"]:
        """Sum of the values minus what the players are worth together (clean minus none left).

        The law of efficiency says that it is zero. That holds exactly where every head was sampled
        in every permutation: nothing truncated, nothing stopped.
        """
        return self.values.sum(dim=0) - (self.clean - self.none_left)

    def agreement(self) -> float:
        """Rank correlation (Spearman) of the values with the effects of single ablations."""
        ranks = pd.DataFrame({"value": self.mean, "alone": self.alone.mean(dim=-1)}).dropna().rank()
        return float(ranks["value"].corr(ranks["alone"]))

    def to_frame(self) -> pd.DataFrame:
        """One row a head, in order of layer and head.

        Columns: head, value, bound (over permutations), ci_low and ci_high (95%, over prompts),
        permutations (sampled), decided, alone (what it costs to take out this head alone), others
        (mean value of the other players of the layer, the control), difference (value minus others,
        with difference_low and difference_high, over prompts), n (prompts).
        """
        layers = torch.tensor([head.layer for head in self.heads])
        heads = torch.tensor([head.head for head in self.heads])
        control = {
            name: torch.tensor(column).view(self._shape)[layers, heads].tolist()
            for name, column in control_columns(self._placed(self.values)).items()
        }
        return pd.DataFrame(
            {
                "head": [str(head) for head in self.heads],
                **columns("value", self.values, ("ci_low", "ci_high")),
                "bound": self.bound.tolist(),
                "permutations": self.n.tolist(),
                "decided": self.decided.tolist(),
                "alone": self.alone.mean(dim=-1).tolist(),
                **control,
                "n": len(self.clean),
            }
        )

    def plot(self) -> go.Figure:
        """Heatmap of the values."""
        return head_heatmap(
            self.grid,
            title=f"Shapley values of the heads of {self.provenance['model']}",
            colorbar=f"share of {self.metric}",
            diverging=True,
        )

    @property
    def _shape(self) -> tuple[int, int]:
        geometry = self.provenance["geometry"]
        return geometry["n_layers"], geometry["n_heads"]

    def _placed(
        self, values: Float[Tensor, "heads prompts"]
    ) -> Float[Tensor, "layer head prompts"]:
        grid = values.new_full((*self._shape, values.shape[-1]), torch.nan)
        for head, row in zip(self.heads, values, strict=True):
            grid[head.layer, head.head] = row
        return grid

    def __repr__(self) -> str:
        best = self.mean.nan_to_num(-math.inf).argsort(descending=True)[:3].tolist()
        named = ", ".join(f"{self.heads[i]} {self.mean[i]:+.3f}" for i in best)
        return (
            f"Shapley({self.metric}: {named}; {int(self.decided.sum())} of {len(self.heads)} heads "
            f"decided, {int(self.n.min())} to {int(self.n.max())} permutations, "
            f"n = {len(self.clean)} prompts)"
        )


def shapley(
    model: Model,
    prompts: PromptSet,
    heads: Iterable[Site | str] | None = None,
    *,
    metric: str | Callable[..., Any] = "logit_diff",
    method: str = "zero",
    permutations: int = 128,
    truncate: float = 0.5,
    threshold: float | None = 0.0,
    delta: float = 0.1,
    reach: float | None = None,
    seed: int = 0,
    progress: bool = True,
) -> Shapley:
    """Estimate the Shapley value of every head by taking heads out in random orders.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> full = {"truncate": 0.0, "threshold": None}
    >>> found = shapley(model, prompts, ["3.5", "4.1"], permutations=4, **full)
    >>> bool(found.surplus.abs().max() < 1e-4)
    True

    A sample is one permutation: the metric before a head is taken out minus the metric after, mean
    over the prompts. The bound of a mean of n samples with standard deviation sigma and range R is

        sigma sqrt(2 ln(3 / delta) / n) + 3 R ln(3 / delta) / n      (Audibert et al. 2007),

    where the code published with the paper has lost the square root over n. It holds for one head
    at one time, with a chance of 1 - `delta`: with many heads, looked at after each round, some
    decisions will be wrong. Pass a smaller `delta`, divided by heads and rounds, to exclude that.

    A truncated permutation is no sample for the heads that are still in. A value is then the mean
    over larger coalitions alone, and values need not add up: pass truncate=0.0 for Shapley values
    proper. What a decided head costs is not run again.

    Args:
        model: In eval mode.
        prompts: What it is run on.
        heads: The players; every head by default.
        metric: A name in METRICS, or a function as `interp.ablate` takes it. Larger is taken to be
            better: with "loss" a useful head has a negative value.
        method: What takes the place of a head: "zero" or "mean", as in `interp.ablate`.
        permutations: How many to draw at most; they run in rounds of 8.
        truncate: End a permutation when at most this share of the players is left; 0 for never.
        threshold: Stop sampling a head when its bound excludes this value: 0 decides its sign.
            None samples every head to the end.
        delta: Chance that a bound fails.
        reach: Width R of the interval in which samples can lie, such as 2 for an accuracy. None
            takes the width of what was seen of each head so far, as the races of `interp.screen`
            do; the bound is then approximate, and no head is decided by fewer than 8 samples.
        seed: Of the permutations.
        progress: Show a bar.

    Raises:
        SiteError: Sites that are no heads, or that the model lacks.
        InterventionError: Options out of their range, or an unknown method.
        PromptError, MetricError, ModelError: What their names say.
    """
    players = _players(model, heads)
    _require_options(permutations, truncate, delta, reach)
    game = _Game(model, prompts, players, method, metric)
    generator = torch.Generator().manual_seed(seed)
    orders = [
        torch.randperm(len(players), generator=generator).tolist() for _ in range(permutations)
    ]
    removals = sum(len(players) - i > truncate * len(players) for i in range(len(players)))
    drawn = torch.full((permutations, len(players)), torch.nan, dtype=torch.float64)
    total = torch.zeros(len(players), len(prompts), dtype=torch.float64)
    open_ = torch.ones(len(players), dtype=torch.bool)
    alone, everyone = [frozenset([i]) for i in range(len(players))], frozenset(range(len(players)))
    game.play([*alone, everyone])
    for start in track(range(0, permutations, ROUND), "Permutations", shown=progress):
        some = range(start, min(start + ROUND, permutations))
        steps = [(row, i) for row in some for i in range(removals) if open_[orders[row][i]]]
        game.play([frozenset(orders[row][:k]) for row, i in steps for k in (i, i + 1)])
        for row, i in steps:
            before, after = (game.known[frozenset(orders[row][:k])] for k in (i, i + 1))
            drawn[row, orders[row][i]] = (before - after).mean()
            total[orders[row][i]] += before - after
        n, bound = (~drawn.isnan()).sum(dim=0), bernstein(drawn, delta=delta, reach=reach)
        if threshold is not None:
            open_ &= ~(((drawn.nanmean(dim=0) - threshold).abs() > bound) & (n >= FEWEST))
    dtype = game.clean.dtype
    return Shapley(
        heads=players,
        values=(total / n[:, None]).to(dtype),
        bound=bound.to(dtype),
        n=n,
        decided=~open_,
        alone=torch.stack([game.clean - game.known[each] for each in alone]),
        clean=game.clean,
        none_left=game.known[everyone],
        metric=game.sweep.metric,
        method=method,
        provenance={
            **game.sweep.provenance,
            "permutations": permutations,
            "truncate": truncate,
            "threshold": threshold,
            "delta": delta,
            "reach": reach,
            "order_seed": seed,
        },
    )


def bernstein(
    samples: Float[Tensor, "draws heads"], *, delta: float, reach: float | None = None
) -> Float[Tensor, " heads"]:
    """Empirical Bernstein bound of the mean of each head's samples; NaN is a sample not drawn.

    `reach` is the width of their range, None for that of what was drawn of each head. The
    bound is infinite for fewer than two samples.

    >>> bernstein(torch.tensor([[0.0], [1.0]] * 500), delta=0.1)
    tensor([0.0514])
    """
    n = (~samples.isnan()).sum(dim=0)
    spread = (samples - samples.nanmean(dim=0)).square().nanmean(dim=0).sqrt()
    top, bottom = (sign * (sign * samples).nan_to_num(-torch.inf).amax(dim=0) for sign in (1, -1))
    width = top - bottom if reach is None else reach
    log = math.log(3 / delta)
    bound = spread * (2 * log / n).sqrt() + 3 * width * log / n
    return torch.where(n < 2, torch.inf, bound)


class _Game:
    """The metric on each prompt for every coalition that has been taken out so far."""

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        players: tuple[Head, ...],
        method: str,
        metric: str | Callable[..., Any],
    ) -> None:
        self.model, self.prompts, self.players = model, prompts, players
        self.operation = operation_of(method, "all", 0)
        self.how: dict[str, Any] = {"metric": metric, "method": method, "progress": False}
        self.known: dict[Coalition, Float[Tensor, " prompts"]] = {}
        self.sweep: SweepResult

    def play(self, coalitions: Sequence[Coalition]) -> None:
        """Run those that are not known."""
        new = [each for each in dict.fromkeys(coalitions) if each not in self.known]
        if not new:
            return
        self.sweep = run(
            self.model,
            self.prompts,
            [self._without(each) for each in new],
            **self.how,
        )
        self.known |= zip(new, self.sweep.values, strict=True)
        self.known[frozenset()] = self.clean

    @property
    def clean(self) -> Float[Tensor, " prompts"]:
        """The metric with all heads."""
        return self.sweep.clean

    def _without(self, out: Coalition) -> Intervention:
        return Intervention.at(together(self.players[i] for i in out), self.operation)


def _players(model: Model, heads: Iterable[Site | str] | None) -> tuple[Head, ...]:
    found = sorted(resolve_sites(heads, model))
    for site in found:
        if not isinstance(site, Head):
            raise SiteError(f"{site} is not an attention head; give heads, such as 5.1.")
    return tuple(site for site in found if isinstance(site, Head))


def _require_options(permutations: int, truncate: float, delta: float, reach: float | None) -> None:
    if permutations < 1:
        raise InterventionError(f"permutations is {permutations}; draw at least one.")
    if not 0 <= truncate < 1:
        raise InterventionError(
            f"truncate is {truncate}; give the share of heads from 0 (never truncate) to below 1."
        )
    if not 0 < delta < 1:
        raise InterventionError(f"delta is {delta}; a chance lies between 0 and 1, such as 0.1.")
    if reach is not None and reach <= 0:
        raise InterventionError(f"reach is {reach}; the width of an interval is above 0.")
