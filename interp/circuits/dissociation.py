"""Does each task need a circuit of its own?

Double dissociation ablates the heads of a circuit in the whole model: two circuits are their tasks'
own if ablating each hurts its own task more than the other one. Shared heads hurt both, so that the
same is asked of the heads alone that the other circuit lacks. Other heads of the same layers are
the control.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.ablations import ablation_of
from interp.circuits.circuit import Circuit
from interp.circuits.controls import other_heads
from interp.circuits.cross_task import (
    circuits_of,
    interval_of,
    resampled_ratios,
    source_of,
    task_heatmap,
)
from interp.display import Displayed
from interp.engine import Edit, Intervention, Operation, run
from interp.errors import CircuitError, did_you_mean
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.saved import Saved, register
from interp.sites import Site, heads

ARMS = ("all", "unique")
LEAST = 0.1
"""Selectivity from which a circuit counts as its task's own: a tenth of what all heads do."""


@register
@dataclass(frozen=True, eq=False)
class Ablated:
    """The whole model on one task with some heads ablated together.

    Attributes:
        nodes: What was ablated; none where a circuit has nothing of its own.
        values: The metric on each prompt.
        random: With other heads of the same layers ablated.
    """

    nodes: tuple[Site, ...]
    values: Float[Tensor, " prompts"]
    random: Float[Tensor, "sets prompts"]


@dataclass(frozen=True, eq=False)
class Dissociation(Saved, Displayed):
    """What ablating each circuit does to each task; `dissociate` makes one.

    Attributes:
        ablated: (circuit, other, task) -> the task without the circuit's heads that the other
            circuit lacks; without all of them where the other is the circuit itself.
        clean: Task -> the metric of the whole model.
        floor: Task -> the metric with every head ablated.
        metric: Its name.
        provenance: Model, weights hash, ablation, hashes of prompts, seed, versions.
    """

    ablated: dict[tuple[str, str, str], Ablated]
    clean: dict[str, Float[Tensor, " prompts"]]
    floor: dict[str, Float[Tensor, " prompts"]]
    metric: str
    provenance: dict[str, Any]

    def damage(self, circuit: str, other: str, task: str, arm: str = "all") -> float:
        """What is lost without the circuit's heads, as a share of what is lost without any head.

        A ratio of means over prompts. 1 is the damage of ablating every head, so that tasks whose
        metric falls to different depths compare.
        """
        lost = self.clean[task] - self._ablated(circuit, other, task, arm).values
        return (lost.mean() / self._at_stake(task).mean()).item()

    def random_damage(self, circuit: str, other: str, task: str, arm: str = "all") -> float:
        """The same for random heads of the same layers that are not in the circuit, on average."""
        lost = self.clean[task] - self._ablated(circuit, other, task, arm).random
        return (lost.mean() / self._at_stake(task).mean()).item()

    def selectivity(
        self, circuit: str, other: str, arm: str = "all", *, level: float = 0.95
    ) -> tuple[float, float, float]:
        """How much more a circuit's heads matter to its own task than to the other, with interval.

        It is the difference of two damages, each less that of random heads, so that a task which
        suffers from any ablation is not taken for one that needs these heads.
        """
        means, draws = [], []
        for seed, task in enumerate((circuit, other)):
            beyond, stake = self._beyond(circuit, other, task, arm), self._at_stake(task)
            means.append((beyond.mean() / stake.mean()).item())
            draws.append(resampled_ratios(beyond, stake, seed=seed))
        return means[0] - means[1], *interval_of(draws[0] - draws[1], level)

    def verdict(self, a: str, b: str, arm: str = "all") -> str:
        """ "double", "only A", "none", or "undefined" without own heads or without random ones.

        A circuit counts if the 95% interval of its selectivity lies above LEAST.
        """
        sides = [self.selectivity(a, b, arm), self.selectivity(b, a, arm)]
        if any(math.isnan(low) for _, low, _ in sides):
            return "undefined"
        own = [name for name, (_, low, _) in zip((a, b), sides, strict=True) if low > LEAST]
        return {0: "none", 1: f"only {own[0] if own else ''}", 2: "double"}[len(own)]

    def to_frame(self) -> pd.DataFrame:
        """One row a circuit, other task and arm ("all" heads, or those "unique" to the circuit).

        Columns: circuit, other, arm, heads, own_damage, other_damage, own_random, other_random
        (see `damage`), selectivity, ci_low, ci_high, verdict (of the two circuits), n.
        """
        rows = []
        for circuit, other in permutations(self.clean, 2):
            for arm in ARMS:
                what, (found, low, high) = (circuit, other), self.selectivity(circuit, other, arm)
                rows.append(
                    {
                        **{"circuit": circuit, "other": other, "arm": arm},
                        "heads": len(self._ablated(*what, circuit, arm).nodes),
                        "own_damage": self.damage(*what, circuit, arm),
                        "other_damage": self.damage(*what, other, arm),
                        "own_random": self.random_damage(*what, circuit, arm),
                        "other_random": self.random_damage(*what, other, arm),
                        **{"selectivity": found, "ci_low": low, "ci_high": high},
                        "verdict": self.verdict(*what, arm),
                        "n": len(self.clean[circuit]),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Heatmap of the damage to each task without each circuit's heads."""
        tasks = list(self.clean)
        grid = pd.DataFrame(
            [[self.damage(circuit, circuit, task) for task in tasks] for circuit in tasks],
            index=tasks,
            columns=tasks,
        )
        hover = pd.DataFrame("", index=tasks, columns=tasks)
        for circuit, task in product(tasks, tasks):
            hover.loc[circuit, task] = (
                f"{task} without the heads of {circuit}: {grid.loc[circuit, task]:.2f} lost"
                f"<br>without random heads {self.random_damage(circuit, circuit, task):.2f}"
            )
        return task_heatmap(
            grid,
            hover,
            title=f"Ablated circuits in {self.provenance['model']}",
            colorbar="damage (1: as without any head)",
            across="task",
            down="without the circuit of",
            diverging=True,
        )

    def _ablated(self, circuit: str, other: str, task: str, arm: str) -> Ablated:
        if arm not in ARMS:
            raise CircuitError(f"There is no arm {arm!r}: {did_you_mean(arm, ARMS)}")
        for name in (circuit, other, task):
            if name not in self.clean:
                raise CircuitError(f"{name!r} was not run: {did_you_mean(name, self.clean)}")
        return self.ablated[circuit, circuit if arm == "all" else other, task]

    def _at_stake(self, task: str) -> Float[Tensor, " prompts"]:
        """What each prompt loses without any head."""
        return self.clean[task] - self.floor[task]

    def _beyond(self, circuit: str, other: str, task: str, arm: str) -> Float[Tensor, " prompts"]:
        """How much more each prompt loses than without random heads."""
        found = self._ablated(circuit, other, task, arm)
        return found.random.mean(dim=0) - found.values

    def __repr__(self) -> str:
        told = [f"{a} and {b} {self.verdict(a, b)}" for a, b in combinations(self.clean, 2)]
        return f"Dissociation({self.provenance['model']}: {', '.join(told)})"


def dissociate(
    model: Model,
    tasks: Mapping[str, tuple[Circuit, PromptSet]],
    *,
    ablation: str = "counterfactual",
    over: str = "template",
    metric: str | Callable[..., Any] = "logit_diff",
    random: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Dissociation:
    """Ablate the heads of every circuit, at all positions, on the prompts of every task.

    Args:
        model: Whose circuits they are.
        tasks: Task -> its circuit and its prompts.
        ablation, over, metric, seed, progress: As in `cross_task`.
        random: Sets of heads of the same layers beside each, of heads that the circuit lacks as far
            as there are enough; 0 for none, and then every verdict is "undefined".

    MLPs are left alone: there is no other MLP of the same layer to compare one with.

    Raises:
        CircuitError: Circuits of another model, or optimal ablation.
        InterventionError, PromptError, MetricError: As `engine.run` does.
    """
    circuits = circuits_of(model, tasks, ablation)
    own = {task: circuit.heads for task, circuit in zip(tasks, circuits, strict=True)}
    lacking = {
        (a, b): tuple(head for head in own[a] if a == b or head not in own[b])
        for a, b in product(own, own)
    }
    sets = {
        (a, b): other_heads(
            nodes, model.geometry.n_heads, sets=random if nodes else 0, seed=seed, avoid=own[a]
        )
        for (a, b), nodes in lacking.items()
    }
    ablated: dict[tuple[str, str, str], Ablated] = {}
    clean, floor = {}, {}
    for task in track(list(tasks), "Ablating circuits on tasks", shown=progress):
        prompts = tasks[task][1]
        operation = ablation_of(model, prompts, ablation, over=over, seed=seed, progress=False)
        here = [(a, b) for a, b in lacking if a == b or task in (a, b)]
        wanted = [some for pair in here for some in (lacking[pair], *sets[pair]) if some]
        sweep = run(
            model,
            prompts,
            [_without(some, operation) for some in (heads(model), *wanted)],
            metric=metric,
            progress=progress,
        )
        clean[task], floor[task] = sweep.clean, sweep.values[0]
        values = dict(zip(wanted, sweep.values[1:], strict=True))
        values[()] = torch.full_like(sweep.clean, torch.nan)
        for pair in here:
            random_values = [values[some] for some in sets[pair]]
            control = torch.stack(random_values) if random_values else sweep.values[:0]
            ablated[*pair, task] = Ablated(lacking[pair], values[lacking[pair]], control)
    source = source_of(model, tasks, ablation, over, random=random, seed=seed)
    return Dissociation(ablated, clean, floor, sweep.metric, source)


def _without(
    nodes: Sequence[Site], operation: Operation | Mapping[Site, Operation]
) -> Intervention:
    """Several nodes ablated together, by one operation or each by its own."""
    if isinstance(operation, Operation):
        return Intervention(tuple(Edit(node, operation) for node in nodes))
    return Intervention(tuple(Edit(node, operation[node]) for node in nodes))
