"""How much of what a model does, does a circuit do alone?"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.ablations import (
    ablation_of,
    require_ablation,
    require_shape,
    run_circuits,
)
from interp.circuits.circuit import Circuit
from interp.circuits.random_circuits import random_circuits
from interp.display import Displayed, as_html
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.stored import metric_identity
from interp.errors import CircuitError, did_you_mean
from interp.models import Model
from interp.plots import site_bars
from interp.plots.colors import MISSING
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.workers import Engine, engine_or_here
from interp.workers.opened import opened

FORMS = ("f", "f_mean_of_ratios", "share", "difference")
RESAMPLES = 1000
RESULT = "evaluation.safetensors"
"""The file in a run's folder that holds the whole evaluation, for `Evaluation.load`."""

Averager = Callable[[Float[Tensor, "*rows prompts"]], Tensor]
"""From values to their mean over prompts `[*rows]`, or over resamples of them `[*rows resamples]`.
"""


@dataclass(frozen=True, eq=False)
class Evaluation(Saved, Displayed):
    """The metric of some circuits, each of them alone, beside their controls.

    Attributes:
        circuits: The circuits by name.
        values: The metric of each on each prompt, with everything outside it ablated.
        clean: The metric of the whole model.
        empty: The metric with no edge kept.
        random: The metric of random circuits of the size of each.
        metric: Name of the metric.
        ablation: What takes the place of everything outside.
        provenance: Where it comes from.
        control: The same circuits in another model, such as an untrained one.
    """

    circuits: dict[str, Circuit]
    values: Float[Tensor, "circuits prompts"]
    clean: Float[Tensor, " prompts"]
    empty: Float[Tensor, " prompts"]
    random: Float[Tensor, "circuits draws prompts"]
    metric: str
    ablation: str
    provenance: dict[str, Any] = field(default_factory=dict)
    control: Evaluation | None = None

    def faithfulness(self, form: str = "f") -> Float[Tensor, " circuits"]:
        """How close each circuit comes to the model, in float64.

        With F the mean of the metric over prompts, C the circuit, M the model and 0 the model with
        no edge kept, `form` is

        - "f": (F(C) - F(0)) / (F(M) - F(0)), a ratio of means (MIB, Mueller et al. 2025);
        - "f_mean_of_ratios": the mean of each prompt's own such ratio, which one prompt with a
          small gap can decide, and which is not finite where a gap is 0;
        - "share": F(C) / F(M), a ratio of means (the 87% of Wang et al. 2023);
        - "difference": F(M) - F(C), in units of the metric. Wang et al. report its size; the sign
          is kept, so that its interval can contain 0.

        Raises:
            CircuitError: An unknown form.
        """
        return faithfulness_of(self.values, self.clean, self.empty, form)

    def ci(self, form: str = "f") -> tuple[Float[Tensor, " circuits"], Float[Tensor, " circuits"]]:
        """95% bootstrap interval of `faithfulness`.

        Prompts are resampled with what every run made of them; NaN for one prompt.
        """
        resampled = resampler(len(self.clean))
        return interval(faithfulness_of(self.values, self.clean, self.empty, form, resampled))

    @property
    def gap(self) -> tuple[float, float, float]:
        """What ablating everything costs, F(M) - F(0), with its 95% interval.

        An f is a share of it, and says nothing where the interval contains 0.
        """
        lost = self.clean.double() - self.empty.double()
        low, high = interval(resampler(len(lost))(lost))
        return lost.mean().item(), low.item(), high.item()

    @property
    def costs_nothing(self) -> str:
        """Why an f says nothing here, as a sentence; empty where it says something."""
        gap, low, high = self.gap
        if low > 0 or high < 0 or len(self.clean) < 2:
            return ""
        return (
            f"Ablating everything ({self.ablation}) changes {self.metric} by {gap:.2f} ({low:.2f} "
            f"to {high:.2f}), an interval that contains 0, so that shares of it mean nothing; use "
            "another ablation, or a task whose counterfactual takes the answer away."
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a circuit.

        Columns: circuit, edges, edge_share (of all edges), metric; gap, gap_low, gap_high (what
        ablating everything costs, of which f is a share); f, f_low, f_high;
        f_mean_of_ratios; share; difference, difference_low, difference_high; random_f (mean over
        random circuits), gain (f minus random_f), gain_low, gain_high, p (the share of circuits
        with an f as close to 1, among the random ones and this one); control_metric, control_f
        (of the control model); n. Intervals are 95%, over prompts; columns without a control are
        left out.
        """
        random = faithfulness_of(self.random, self.clean, self.empty)
        f, (low, high) = self.faithfulness(), self.ci()
        difference_low, difference_high = self.ci("difference")
        edges = [int(circuit.kept.sum()) for circuit in self.circuits.values()]
        gap, gap_low, gap_high = self.gap
        columns: dict[str, Any] = {
            "circuit": list(self.circuits),
            "edges": edges,
            "edge_share": [
                kept / len(circuit.kept)
                for kept, circuit in zip(edges, self.circuits.values(), strict=True)
            ],
            self.metric: self.values.mean(dim=-1).tolist(),
            "gap": gap,
            "gap_low": gap_low,
            "gap_high": gap_high,
            "f": f.tolist(),
            "f_low": low.tolist(),
            "f_high": high.tolist(),
            "f_mean_of_ratios": self.faithfulness("f_mean_of_ratios").tolist(),
            "share": self.faithfulness("share").tolist(),
            "difference": self.faithfulness("difference").tolist(),
            "difference_low": difference_low.tolist(),
            "difference_high": difference_high.tolist(),
        }
        if random.shape[1]:
            gain_low, gain_high = self._gain_ci()
            as_close = ((1 - random).abs() <= (1 - f[:, None]).abs()).sum(dim=1)
            columns |= {
                "random_f": random.mean(dim=1).tolist(),
                "gain": (f - random.mean(dim=1)).tolist(),
                "gain_low": gain_low.tolist(),
                "gain_high": gain_high.tolist(),
                "p": ((1 + as_close) / (1 + random.shape[1])).tolist(),
            }
        if self.control is not None:
            columns |= {
                "control_metric": self.control.values.mean(dim=-1).tolist(),
                "control_f": self.control.faithfulness().tolist(),
            }
        return pd.DataFrame({**columns, "n": len(self.clean)})

    def plot(self) -> go.Figure:
        """The f of each circuit, with its interval; grey dots are random circuits."""
        f, (low, high) = self.faithfulness().tolist(), self.ci()
        names = list(self.circuits)
        figure = site_bars(
            f,
            low=low.tolist(),
            high=high.tolist(),
            names=names,
            title=f"Circuits of {self.provenance['model']} alone ({self.ablation} ablation)",
            across=f"share of {self.metric} (f)",
            hover=[f"{name}: {value:.3f}" for name, value in zip(names, f, strict=True)],
        )
        random = faithfulness_of(self.random, self.clean, self.empty)
        figure.add_scatter(
            x=random.flatten().tolist(),
            y=[name for name in names for _ in range(random.shape[1])],
            mode="markers",
            marker={"color": MISSING, "line": {"color": "#444444", "width": 1}},
            name="random circuits",
        )
        return figure

    def __repr__(self) -> str:
        found = zip(self.circuits, self.faithfulness().tolist(), strict=True)
        told = ", ".join(f"{name} {f:.3f}" for name, f in found)
        return (
            f"Evaluation(f of {self.metric}, {self.ablation} ablation: {told}; "
            f"n = {len(self.clean)} prompts, {self.random.shape[1]} random circuits each)"
        )

    def _repr_html_(self) -> str:
        whole, none = self.clean.mean().item(), self.empty.mean().item()
        told = f"The model {whole:.3f}, no edges {none:.3f}."
        return as_html(self, told, self.costs_nothing, self.to_frame())

    def _gain_ci(self) -> tuple[Tensor, Tensor]:
        resampled = resampler(len(self.clean))
        own = faithfulness_of(self.values, self.clean, self.empty, "f", resampled)
        random = faithfulness_of(self.random, self.clean, self.empty, "f", resampled)
        return interval(own - random.mean(dim=1))


def evaluate(
    model: Model,
    prompts: PromptSet,
    circuits: Circuit | Mapping[str, Circuit],
    *,
    ablation: str = "counterfactual",
    over: str = "template",
    fit: PromptSet | None = None,
    metric: str | Callable[..., Any] = "logit_diff",
    random: int = 10,
    control: Model | None = None,
    seed: int = 0,
    run: str | Path | None = None,
    engine: Engine | None = None,
    command: str | None = None,
    progress: bool = True,
) -> Evaluation:
    """The metric of circuits alone, everything outside them ablated; all run side by side.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> whole = Circuit.from_nodes(model, interp.sites.heads(model), mlps=True)
    >>> found = evaluate(model, prompts, whole, random=0, progress=False)
    >>> f"{found.faithfulness().item():.3f}"
    '1.000'

    Args:
        model: In eval mode.
        prompts: What it is judged on: others than those the circuits were found on.
        circuits: One circuit, or several by name.
        ablation: One of ABLATIONS; see `ablation_of`, also for `over` and `fit`.
        over: Over which tokens means are taken.
        fit: Prompts that optimal constants are learned on.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        random: Random circuits of the size of each, the control; see `random_circuits`.
        control: Another model in which the same circuits are run, such as `model.untrained()`.
        seed: Of the random circuits and of resampling.
        run: A folder in which what is computed is kept as it comes. The same call with the same
            folder goes on where it was stopped, and gives the same bits on the same machine; a
            call that differs in model, prompts, circuits or options is refused. What the control
            gives is kept beside it, in a folder whose name ends in "-control".
        engine: Who computes: this process by default, or an engine of `interp.workers`.
        command: The shell line that does the same, for the provenance and the run.
        progress: Show a bar.

    Raises:
        CircuitError: Circuits of another shape, none, or an unknown ablation.
        RunError: A folder that holds something else or another run; that another process writes;
            or that cannot be written.
        PromptError, MetricError, InterventionError, ModelError: What their names say.
    """
    named = {"circuit": circuits} if isinstance(circuits, Circuit) else dict(circuits)
    require_shape(model, list(named.values()))
    require_ablation(prompts, ablation, over=over, fit=fit)
    measure, engine = resolve_metric(metric), engine_or_here(engine)
    drawn = [[circuit, *random_circuits(circuit, random, seed=seed)] for circuit in named.values()]
    about: dict[str, Any] = {"ablation": ablation, "over": over, "metric": measure.name}
    about |= {"random": random, "random_seed": seed}
    about |= {} if fit is None else {"fit_hash": fit.hash}
    about |= {} if command is None else {"command": command}
    source = provenance(model, prompts, **about) | {"device": engine.where(model)}
    asked: dict[str, Any] = {
        "metric": metric_identity(measure),
        "circuits": {name: _hash(circuit) for name, circuit in named.items()},
        "order": list(named),
    }
    asked |= {} if fit is None else {"fit_hash": fit.identity}
    asked |= {} if control is None else {"control": control.weights_hash}
    with opened(
        run,
        model,
        engine,
        kind="evaluation",
        result=RESULT,
        about=source | asked,
        prompts=prompts,
        command=command,
    ) as store:
        operation = ablation_of(
            model, prompts, ablation, over=over, fit=fit, seed=seed, progress=progress
        )
        flat = [each for those in drawn for each in those]
        how: dict[str, Any] = {"metric": metric, "engine": engine, "progress": progress}
        ran = run_circuits(model, prompts, flat, operation, run=store, **how)
        values = ran.values.unflatten(0, (len(named), 1 + random))
        other = None
        if control is not None:
            how |= {"ablation": ablation, "over": over, "fit": fit, "seed": seed}
            beside = None if run is None else f"{Path(run)}-control"
            other = evaluate(control, prompts, named, random=0, run=beside, command=command, **how)
        found = Evaluation(
            circuits=named,
            values=values[:, 0],
            clean=ran.clean,
            empty=ran.empty,
            random=values[:, 1:],
            metric=ran.metric,
            ablation=ablation,
            provenance=source,
            control=other,
        )
        if store is not None:
            store.finish(found.save)
    return found


def _hash(circuit: Circuit) -> str:
    """16 hexadecimal digits that change with any edge that is kept, and where nodes are."""
    places = sorted((str(node), sorted(roles)) for node, roles in circuit.places.items())
    digest = hashlib.sha256(f"{circuit.shape} {places} ".encode())
    digest.update(circuit.kept.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def mean(values: Float[Tensor, "*rows prompts"]) -> Float[Tensor, "*rows"]:
    """Over prompts."""
    return values.mean(dim=-1)


def faithfulness_of(
    values: Float[Tensor, "*rows prompts"],
    clean: Float[Tensor, " prompts"],
    empty: Float[Tensor, " prompts"],
    form: str = "f",
    average: Averager = mean,
) -> Float[Tensor, "*out"]:
    """`Evaluation.faithfulness` of any values, or what it is in resamples of the prompts.

    Raises:
        CircuitError: An unknown form.
    """
    if form not in FORMS:
        raise CircuitError(f"There is no form {form!r}: {did_you_mean(form, FORMS)}")
    values, clean, empty = values.double(), clean.double(), empty.double()
    if form == "f_mean_of_ratios":
        return average((values - empty) / (clean - empty))
    if form == "f":
        return average(values - empty) / average(clean - empty)
    if form == "share":
        return average(values) / average(clean)
    return average(clean - values)


def resampler(prompts: int, *, seed: int = 0) -> Averager:
    """Means over 1000 bootstrap resamples of so many prompts, the same for whatever is averaged.

    Ratios of means, areas and maxima then have intervals in which everything that was run on one
    prompt is drawn together.
    """
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(prompts, (RESAMPLES, prompts), generator=generator)
    counts = torch.zeros(RESAMPLES, prompts, dtype=torch.float64)
    counts.scatter_add_(1, picks, torch.ones_like(counts))

    def means(values: Float[Tensor, "*rows prompts"]) -> Float[Tensor, "*rows resamples"]:
        center = values.double().mean(dim=-1, keepdim=True)  # no spread where all are equal
        found = (values.double() - center) @ counts.T / prompts + center
        return found if prompts > 1 else torch.full_like(found, math.nan)

    return means


def interval(
    resampled: Float[Tensor, "*rows resamples"],
) -> tuple[Float[Tensor, "*rows"], Float[Tensor, "*rows"]]:
    """The middle 95%: its low and its high ends."""
    low, high = torch.quantile(resampled, torch.tensor([0.025, 0.975]).double(), dim=-1)
    return low, high
