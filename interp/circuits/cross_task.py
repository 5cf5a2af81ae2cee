"""Does the circuit of one task do another task?

Cross-task faithfulness runs circuit A alone on task B,

    f = (m(A) - m(empty)) / (m(model) - m(empty))

which is not symmetric: B's circuit on task A may do better or worse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.ablations import ablation_of, require_shape, run_circuits
from interp.circuits.circuit import Circuit
from interp.circuits.random_circuits import random_circuits
from interp.display import Displayed, as_html
from interp.errors import CircuitError, did_you_mean
from interp.models import Model
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved

RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class CrossTask(Saved, Displayed):
    """Every circuit run alone on every task; `cross_task` makes one.

    Attributes:
        values: Task -> the metric of each task's circuit on its prompts.
        random: Task -> the metric of each circuit's random counterparts on its prompts.
        clean: Task -> the metric of the whole model.
        empty: Task -> the metric with no edge kept.
        metric: Its name.
        provenance: Model, weights hash, ablation, hashes of prompts, seed, versions.
    """

    values: dict[str, Float[Tensor, "circuits prompts"]]
    random: dict[str, Float[Tensor, "circuits sets prompts"]]
    clean: dict[str, Float[Tensor, " prompts"]]
    empty: dict[str, Float[Tensor, " prompts"]]
    metric: str
    provenance: dict[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order in which they were given."""
        return tuple(self.values)

    def faithfulness(self, circuit: str, task: str) -> float:
        """Share of the gap between empty and whole model that a circuit makes up: ratio of means.

        Raises CircuitError for an unknown task.
        """
        over, under = self._gaps(circuit, task)
        return (over.mean() / under.mean()).item()

    def ci(self, circuit: str, task: str, *, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap interval of `faithfulness` over prompts; NaN for a single prompt."""
        over, under = self._gaps(circuit, task)
        return interval_of(resampled_ratios(over, under), level)

    def per_prompt(self, circuit: str, task: str) -> Float[Tensor, " prompts"]:
        """The share of each prompt. Their mean is decided by prompts with a small gap."""
        over, under = self._gaps(circuit, task)
        return over / under

    def random_faithfulness(self, circuit: str, task: str) -> Float[Tensor, " sets"]:
        """That of random circuits of the same form as `circuit`."""
        _, under = self._gaps(circuit, task)
        over = self.random[task][self.tasks.index(circuit)] - self.empty[task]
        return over.mean(dim=-1) / under.mean()

    def matrix(self) -> pd.DataFrame:
        """Faithfulness of the row's circuit on the column's task."""
        rows = [[self.faithfulness(circuit, task) for task in self.tasks] for circuit in self.tasks]
        return pd.DataFrame(rows, index=self.tasks, columns=self.tasks)

    def to_frame(self) -> pd.DataFrame:
        """One row a circuit and task.

        Columns: circuit, task, faithfulness (ratio of means), ci_low, ci_high, mean_of_ratios,
        random (mean faithfulness of random circuits), p (share of these and the circuit itself that
        are at least as faithful), n (prompts).
        """
        rows = []
        for circuit in self.tasks:
            for task in self.tasks:
                random = self.random_faithfulness(circuit, task)
                found, (low, high) = self.faithfulness(circuit, task), self.ci(circuit, task)
                rows.append(
                    {
                        **{"circuit": circuit, "task": task, "faithfulness": found},
                        **{"ci_low": low, "ci_high": high},
                        "mean_of_ratios": self.per_prompt(circuit, task).mean().item(),
                        "random": random.mean().item(),
                        "p": (1 + int((random >= found).sum())) / (1 + len(random)),
                        "n": len(self.clean[task]),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Heatmap of `matrix`, with intervals and random circuits in the hover."""
        hover = pd.DataFrame("", index=self.tasks, columns=self.tasks)
        for row in self.to_frame().itertuples():
            hover.loc[row.circuit, row.task] = (
                f"the circuit of {row.circuit} on {row.task}: {row.faithfulness:.2f}"
                f"<br>95% interval {row.ci_low:.2f} to {row.ci_high:.2f}, n = {row.n}"
                f"<br>random circuits {row.random:.2f}, p = {row.p:.2g}"
            )
        return task_heatmap(
            self.matrix(),
            hover,
            title=f"Circuits on other tasks in {self.provenance['model']}",
            colorbar="faithfulness",
            across="task",
            down="circuit of",
            diverging=True,
        )

    def _gaps(self, circuit: str, task: str) -> tuple[Tensor, Tensor]:
        for name in (circuit, task):
            if name not in self.values:
                raise CircuitError(f"{name!r} was not run: {did_you_mean(name, self.values)}")
        empty = self.empty[task]
        return self.values[task][self.tasks.index(circuit)] - empty, self.clean[task] - empty

    def __repr__(self) -> str:
        own = ", ".join(f"{task} {self.faithfulness(task, task):.2f}" for task in self.tasks)
        return f"CrossTask({self.provenance['model']}; faithfulness to their own tasks: {own})"

    def _repr_html_(self) -> str:
        return as_html(self, self.matrix())


def cross_task(
    model: Model,
    tasks: Mapping[str, tuple[Circuit, PromptSet]],
    *,
    ablation: str = "counterfactual",
    over: str = "template",
    metric: str | Callable[..., Any] = "logit_diff",
    random: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> CrossTask:
    """Run the circuit of every task alone on the prompts of every task.

    Args:
        model: Whose circuits they are.
        tasks: Task -> its circuit and its prompts.
        ablation: What edges outside a circuit carry: see `ablation_of`; "optimal" is not one here.
        over: Of means.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        random: Random circuits of the same form beside each; 0 for none.
        seed: Of what is drawn.
        progress: Show a bar.

    A circuit that keeps nodes at some roles alone needs prompts with these roles.

    Raises:
        CircuitError: Circuits of another model, or optimal ablation.
        InterventionError, PromptError, MetricError: As `run_circuits` does.
    """
    circuits = circuits_of(model, tasks, ablation)
    drawn = [random_circuits(circuit, random, seed=seed) for circuit in circuits]
    together = [*circuits, *(each for some in drawn for each in some)]
    found = {}
    for task in track(list(tasks), "Running circuits on tasks", shown=progress):
        prompts = tasks[task][1]
        operation = ablation_of(model, prompts, ablation, over=over, seed=seed, progress=False)
        found[task] = run_circuits(
            model, prompts, together, operation, metric=metric, progress=progress
        )
    count = len(circuits)
    return CrossTask(
        values={task: each.values[:count] for task, each in found.items()},
        random={
            task: each.values[count:].unflatten(0, (count, random)) for task, each in found.items()
        },
        clean={task: each.clean for task, each in found.items()},
        empty={task: each.empty for task, each in found.items()},
        metric=found[next(iter(tasks))].metric,
        provenance=source_of(model, tasks, ablation, over, random=random, seed=seed),
    )


def resampled_ratios(
    over: Float[Tensor, " prompts"], under: Float[Tensor, " prompts"], *, seed: int = 0
) -> Float[Tensor, " resamples"]:
    """Ratio of the two means under resamples of the prompts, in float64; NaN for one prompt."""
    n = len(over)
    if n < 2:
        return torch.full((RESAMPLES,), torch.nan, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(n, (RESAMPLES, n), generator=generator)
    return over.double().cpu()[picks].mean(dim=1) / under.double().cpu()[picks].mean(dim=1)


def task_heatmap(
    grid: pd.DataFrame,
    hover: pd.DataFrame,
    *,
    title: str,
    colorbar: str,
    across: str = "",
    down: str = "",
    diverging: bool = False,
) -> go.Figure:
    """A heatmap whose rows and columns are tasks."""
    figure = head_heatmap(
        torch.tensor(grid.to_numpy(dtype=float)),
        title=title,
        colorbar=colorbar,
        diverging=diverging,
        hover=hover.to_numpy().tolist(),
    )
    for axis, names, text in (
        (figure.update_xaxes, grid.columns, across),
        (figure.update_yaxes, grid.index, down),
    ):
        axis(
            tickmode="array",
            tickvals=list(range(len(names))),
            ticktext=list(names),
            title_text=text,
            automargin=True,
        )
    return figure


def circuits_of(
    model: Model, tasks: Mapping[str, tuple[Circuit, PromptSet]], ablation: str
) -> list[Circuit]:
    """The circuits; raises CircuitError for those of another model, and for optimal ablation."""
    circuits = [circuit for circuit, _ in tasks.values()]
    require_shape(model, circuits)
    if ablation == "optimal":
        raise CircuitError(
            "Optimal constants would have to be learned for each task; use another ablation, or "
            "run_circuits on one task at a time."
        )
    return circuits


def source_of(
    model: Model,
    tasks: Mapping[str, tuple[Circuit, PromptSet]],
    ablation: str,
    over: str,
    **drawn: Any,
) -> dict[str, Any]:
    """Where a result about several tasks comes from."""
    hashes = {task: prompts.hash for task, (_, prompts) in tasks.items()}
    means = over if ablation.endswith("mean") else None
    return provenance(model, tasks=hashes, ablation=ablation, over=means, **drawn)


def interval_of(draws: Float[Tensor, " resamples"], level: float) -> tuple[float, float]:
    """The ends of a percentile interval."""
    tails = draws.new_tensor([(1 - level) / 2, (1 + level) / 2])
    low, high = draws.quantile(tails).tolist()
    return low, high
