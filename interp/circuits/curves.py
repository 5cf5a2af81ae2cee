"""How faithful are circuits of every size? The curve of MIB, with CPR and CMD."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.ablations import ablation_of, require_shape, run_circuits
from interp.circuits.circuit import Circuit
from interp.circuits.evaluate import Averager, faithfulness_of, interval, mean, resampler
from interp.circuits.select import greedy, importance, top_n
from interp.circuits.shape import Shape
from interp.display import Displayed
from interp.errors import CircuitError, did_you_mean
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all edges, as in MIB."""
SELECTIONS = ("top", "greedy")
COLORS = (DIVERGING[-2], DIVERGING[1], "#1b7837", "#762a83", "#8c510a", "#444444")


@dataclass(frozen=True, eq=False)
class Curve(Saved, Displayed):
    """The metric of the circuits of several sizes, under one ablation or several.

    Attributes:
        sizes: Shares of all edges.
        edges: How many edges each size keeps.
        values: The metric of each circuit on each prompt.
        clean: The metric of the whole model.
        empty: The metric with no edge kept.
        random: The metric of circuits of these sizes from random rankings of the edges.
        ablations: What takes the place of everything outside.
        metric: Name of the metric.
        provenance: Where it comes from.
    """

    sizes: tuple[float, ...]
    edges: tuple[int, ...]
    values: Float[Tensor, "ablations sizes prompts"]
    clean: Float[Tensor, " prompts"]
    empty: Float[Tensor, "ablations prompts"]
    random: Float[Tensor, "ablations draws sizes prompts"]
    ablations: tuple[str, ...]
    metric: str
    provenance: dict[str, Any]

    def faithfulness(self) -> Float[Tensor, "ablations sizes"]:
        """The f of each circuit, a ratio of means; see `Evaluation.faithfulness`."""
        return self._f(self.values)

    def ci(self) -> tuple[Float[Tensor, "ablations sizes"], Float[Tensor, "ablations sizes"]]:
        """95% bootstrap interval of `faithfulness`, over prompts."""
        return interval(self._f(self.values, resampler(len(self.clean))))

    def to_frame(self) -> pd.DataFrame:
        """One row an ablation and size.

        Columns: ablation, size, edges, metric, f, f_low, f_high, random_f (mean over random
        rankings), n.
        """
        f, (low, high) = self.faithfulness(), self.ci()
        random = self._f(self.random).mean(dim=1)
        rows = [
            {
                "ablation": ablation,
                "size": size,
                "edges": self.edges[column],
                self.metric: self.values[row, column].mean().item(),
                "f": f[row, column].item(),
                "f_low": low[row, column].item(),
                "f_high": high[row, column].item(),
                "random_f": random[row, column].item(),
                "n": len(self.clean),
            }
            for row, ablation in enumerate(self.ablations)
            for column, size in enumerate(self.sizes)
        ]
        return pd.DataFrame(rows)

    def areas(self) -> pd.DataFrame:
        """One row an ablation and area: what sums up the whole curve.

        "CPR" is the integral of f over the share k of edges, higher is better and not bounded;
        "CMD" that of |1 - f|, lower is better (MIB, Mueller et al. 2025: by linear trapezoids,
        from the smallest size to the largest). MIB takes CPR from edges ranked by their sign and
        CMD from those ranked by size. Most of the weight is on the largest circuits, so that
        "CPR_log" and "CMD_log" are the same over log k, as a mean: 1 and 0 for a circuit that is
        faithful at every size.

        Columns: ablation, area, value, ci_low and ci_high (95%, over prompts), random (mean over
        random rankings), n.
        """
        resampled = self._f(self.values, resampler(len(self.clean))).movedim(-1, 0)
        rows = []
        for area in AREAS:
            value, random = self._area(self.faithfulness(), area), self._f(self.random)
            low, high = interval(self._area(resampled, area).movedim(0, -1))
            chance = self._area(random, area).mean(dim=1)
            for row, ablation in enumerate(self.ablations):
                rows.append(
                    {
                        "ablation": ablation,
                        "area": area,
                        "value": value[row].item(),
                        "ci_low": low[row].item(),
                        "ci_high": high[row].item(),
                        "random": chance[row].item(),
                        "n": len(self.clean),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """f against the share of edges, on a logarithmic axis; dots are random rankings."""
        f, (low, high), random = self.faithfulness(), self.ci(), self._f(self.random).mean(dim=1)
        figure = go.Figure()
        for row, ablation in enumerate(self.ablations):
            color = COLORS[row % len(COLORS)]
            figure.add_scatter(
                x=self.sizes,
                y=f[row].tolist(),
                error_y={
                    "type": "data",
                    "array": (high - f)[row].tolist(),
                    "arrayminus": (f - low)[row].tolist(),
                    "thickness": 1,
                },
                name=ablation,
                marker_color=color,
            )
            figure.add_scatter(
                x=self.sizes,
                y=random[row].tolist(),
                name=f"{ablation}, random ranking",
                marker_color=color,
                line={"dash": "dot", "width": 1},
            )
        figure.add_hline(y=1, line_color=MISSING)
        figure.update_layout(
            title=f"Circuits of {self.provenance['model']} by size",
            template="plotly_white",
            yaxis_title=f"share of {self.metric} (f)",
        )
        figure.update_xaxes(title_text="share of edges kept", type="log", tickformat=".1%")
        return figure

    def __repr__(self) -> str:
        areas = self.areas().set_index(["ablation", "area"])["value"]
        told = ", ".join(
            f"{name}: CPR {areas[name, 'CPR']:.3f}, CMD {areas[name, 'CMD']:.3f}"
            for name in self.ablations
        )
        return f"Curve({told}; {len(self.sizes)} sizes, n = {len(self.clean)} prompts)"

    def _f(
        self, values: Float[Tensor, "ablations ... prompts"], average: Averager = mean
    ) -> Tensor:
        """f of each ablation, against its own empty circuit."""
        return torch.stack(
            [
                faithfulness_of(mine, self.clean, empty, "f", average)
                for mine, empty in zip(values, self.empty, strict=True)
            ]
        )

    def _area(self, f: Float[Tensor, "*rows sizes"], name: str) -> Float[Tensor, "*rows"]:
        k = torch.tensor(self.sizes, dtype=torch.float64)
        height = (1 - f).abs() if name.startswith("CMD") else f
        if name.endswith("log"):
            return torch.trapezoid(height, k.log(), dim=-1) / (k[-1] / k[0]).log()
        return torch.trapezoid(height, k, dim=-1)


AREAS = ("CPR", "CMD", "CPR_log", "CMD_log")


def curve(
    model: Model,
    prompts: PromptSet,
    circuit: Circuit,
    *,
    ablations: Sequence[str] = ("counterfactual",),
    sizes: Sequence[float] = SIZES,
    rank: str = "abs",
    select: str = "top",
    over: str = "template",
    fit: PromptSet | None = None,
    metric: str | Callable[..., Any] = "logit_diff",
    random: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> Curve:
    """The metric of the circuits of the best edges, at each size and under each ablation.

    All sizes and random rankings run side by side, once for each ablation.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> sweep = interp.attribute(model, prompts, method="eap", progress=False)
    >>> scored = Circuit.from_edges(model, [], scores=sweep.effects.mean(dim=-1))
    >>> found = curve(model, prompts, scored, sizes=(0.1, 1.0), random=1, progress=False)
    >>> found.edges, f"{found.faithfulness()[0, 1].item():.3f}"
    ((362, 3628), '1.000')

    Args:
        model: In eval mode.
        prompts: What it is judged on: others than those the scores were found on.
        circuit: Its scores rank the edges; which of them it keeps does not matter.
        ablations: Some of ABLATIONS; see `ablation_of`, also for `over` and `fit`.
        sizes: Shares of all edges in rising order; each is rounded down to whole edges.
        rank: "abs" takes the largest scores in size first. "signed" takes the lowest first: scores
            are corrupt minus clean, and an edge that helps lowers the metric when it is patched.
        select: "top" takes the first edges wherever they are, "greedy" those that lead to the
            logits; see `interp.circuits.select`.
        over: Over which tokens means are taken.
        fit: Prompts that optimal constants are learned on.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        random: Random rankings, the control.
        seed: Of the random rankings and of resampling.
        progress: Show a bar.

    Raises:
        CircuitError: Another shape, edges without a score, an unknown rank, selection or ablation,
            or sizes that do not rise within (0, 1].
        PromptError, MetricError, InterventionError, ModelError: What their names say.
    """
    require_shape(model, [circuit])
    if len(sizes) < 2 or list(sizes) != sorted(set(sizes)) or sizes[0] <= 0 or sizes[-1] > 1:
        raise CircuitError(
            f"sizes is {list(sizes)}; give two or more shares of the edges that rise from above 0 "
            "to at most 1, such as (0.01, 0.1, 1.0)."
        )
    if not ablations:
        raise CircuitError("There is no ablation; give at least one, such as 'counterfactual'.")
    total, generator = len(circuit.kept), torch.Generator().manual_seed(seed)
    counts = [math.floor(size * total + 1e-9) for size in sizes]
    own = _importances(circuit, rank)
    rankings = [own, *(torch.rand(total, generator=generator) for _ in range(random))]
    kept = [
        circuit.keeping(_selected(each, circuit.shape, count, select))
        for each in rankings
        for count in counts
    ]
    found = []
    for name in ablations:
        operation = ablation_of(
            model, prompts, name, over=over, fit=fit, seed=seed, progress=progress
        )
        found.append(
            run_circuits(model, prompts, kept, operation, metric=metric, progress=progress)
        )
    values = torch.stack([each.values.unflatten(0, (1 + random, len(sizes))) for each in found])
    return Curve(
        sizes=tuple(sizes),
        edges=tuple(counts),
        values=values[:, 0],
        clean=found[0].clean,
        empty=torch.stack([each.empty for each in found]),
        random=values[:, 1:],
        ablations=tuple(ablations),
        metric=found[0].metric,
        provenance=provenance(
            model,
            prompts,
            ablations=list(ablations),
            over=over,
            metric=found[0].metric,
            rank=rank,
            select=select,
            scores=circuit.provenance,
            random=random,
            random_seed=seed,
        ),
    )


def _importances(circuit: Circuit, rank: str) -> Float[Tensor, " edges"]:
    """Raises CircuitError for an unknown rank, and without scores."""
    if circuit.scores.isnan().any():
        raise CircuitError(
            f"{int(circuit.scores.isnan().sum())} of {len(circuit.scores)} edges have no score, "
            "so that they have no rank; give a circuit that was found by attribution on all "
            "edges, or use evaluate for a circuit of one size."
        )
    return importance(circuit.scores, rank)


def _selected(
    importances: Float[Tensor, " edges"], shape: Shape, count: int, select: str
) -> Bool[Tensor, " edges"]:
    """Raises CircuitError for an unknown way to select."""
    if select not in SELECTIONS:
        raise CircuitError(f"There is no selection {select!r}: {did_you_mean(select, SELECTIONS)}")
    return top_n(importances, count) if select == "top" else greedy(importances, shape, count)
