"""Which heads carry the function that demonstrations show? (Todd et al. 2024, section 2)

Each head's mean output at END, over prompts with correct demonstrations of a relation, is put into
prompts whose demonstrations have shuffled answers, one head at a time:

    causal indirect effect = P(answer | shuffled, head := mean) - P(answer | shuffled)

A score is that effect as a share of what shuffling costs, P(answer | clean) - P(answer | shuffled)
on average over the relation's prompts, so that relations count alike; 1 is full recovery. The
control puts in the same head's mean over prompts of another relation, the one half of the list
away.

How this differs: 5 demonstrations where the source has 10, prompts that the task "functions" makes,
and relations whose answer does not depend on how demonstrations are paired are left out, since
shuffling then takes nothing away that a head could bring back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine.end_logits import end_logits
from interp.engine.head_means import causal_indirect_effects, mean_head_outputs
from interp.engine.metrics import METRICS, Answers
from interp.engine.sweep import swapped
from interp.errors import MetricError, PromptError, TaskError
from interp.heads.score import Score
from interp.models import Model
from interp.plots import head_grids
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved, register
from interp.sites import Head
from interp.tasks import get
from interp.tasks.words import relations as known_relations


@register
@dataclass(frozen=True)
class Gap:
    """Mean probability of a relation's answers with correct and with shuffled demonstrations."""

    clean: float
    shuffled: float

    @property
    def size(self) -> float:
        """What shuffling costs."""
        return self.clean - self.shuffled


@dataclass(frozen=True, eq=False)
class FunctionVectors(Saved, Displayed):
    """What each head brings back of each relation, and the mean outputs that do so.

    Attributes:
        score: The score "function-vector"; samples are prompts of all relations that were kept.
        control: The same with means of another relation.
        effects: The causal indirect effect on each prompt of each kept relation, in probability.
        means: The mean output z of each head at END of clean prompts, of every relation measured.
        gaps: What shuffling costs, of every relation measured.
        provenance: Model, weights hash, options, versions.
    """

    score: Score
    control: Score
    effects: dict[str, Float[Tensor, "layer head prompts"]]
    means: dict[str, Float[Tensor, "layer head d_head"]]
    gaps: dict[str, Gap]
    provenance: dict[str, Any]

    @property
    def relations(self) -> tuple[str, ...]:
        """The relations that were kept."""
        return tuple(self.effects)

    @property
    def specific(self) -> Float[Tensor, "layer head prompts"]:
        """How much more the mean of the prompt's own relation brings back than another's."""
        return self.score.values - self.control.values

    @property
    def aie(self) -> Float[Tensor, "layer head"]:
        """Average indirect effect: mean over prompts, then over relations, in probability."""
        return torch.stack([each.mean(dim=-1) for each in self.effects.values()]).mean(dim=0)

    def top(self, k: int = 10) -> tuple[Head, ...]:
        """The `k` heads of the largest signed `aie`, whose outputs make up a function vector."""
        found = self.aie.flatten().argsort(descending=True, stable=True)[:k]
        return tuple(Head(*divmod(i, self.aie.shape[1])) for i in found.tolist())

    def to_frame(self) -> pd.DataFrame:
        """One row a relation.

        Columns: relation, clean and shuffled (probability of the answer), gap, kept, best (the head
        of the largest effect) and effect (in probability); the last two are missing if not kept.
        """
        rows = []
        for relation, gap in self.gaps.items():
            row = {"relation": relation, "clean": gap.clean, "shuffled": gap.shuffled}
            row |= {"gap": gap.size, "kept": relation in self.effects}
            if relation in self.effects:
                grid = self.effects[relation].mean(dim=-1)
                best = Head(*divmod(int(grid.argmax()), grid.shape[1]))
                row |= {"best": str(best), "effect": grid.max().item()}
            rows.append(row)
        columns = ["relation", "clean", "shuffled", "gap", "kept", "best", "effect"]
        return pd.DataFrame(rows, columns=columns)

    def plot(self) -> go.Figure:
        """Heatmaps of the score and of its control."""
        return head_grids(
            {"own relation": self.score.grid, "another relation": self.control.grid},
            title=f"Function vectors of {self.provenance['model']}",
            colorbar="share recovered",
            diverging=True,
        )

    def __repr__(self) -> str:
        return (
            f"FunctionVectors({self.score!r}, {len(self.relations)} of {len(self.gaps)} relations)"
        )


def function_vector(
    model: Model,
    *,
    prompts: Mapping[str, PromptSet] | None = None,
    shots: int = 5,
    n: int = 25,
    n_mean: int = 50,
    least_gap: float = 0.1,
    seed: int = 0,
    progress: bool = True,
) -> FunctionVectors:
    """Score every head by how much of a function its mean output brings back.

    Args:
        model: Of any architecture.
        prompts: Relation -> prompts with counterfactuals; by default those of the task "functions"
            for each relation that has enough words in this tokenizer.
        shots: Demonstrations, of the task's prompts.
        n: Prompts of each relation that are patched: its first ones.
        n_mean: Prompts of each relation that means are taken over, of the task's; of `prompts` all
            but the first `n`.
        least_gap: Relations whose mean probability falls by less when demonstrations are shuffled
            are left out.
        seed: Of the task's prompts.
        progress: Show a bar.

    The score's `chance` is the highest score of any head under the control, so that a head above it
    brings back more than any head's mean over another relation does. It is NaN with a single
    relation. `result.specific` compares each head with its own control.

    Raises:
        TaskError: No relation has enough words.
        PromptError: A relation has no prompts beyond the first `n`, or no counterfactuals.
        MetricError: Shuffling costs less than `least_gap` in every relation.
    """
    sets = _of_task(model, shots, n + n_mean, seed) if prompts is None else dict(prompts)
    for relation, some in sets.items():
        if len(some) <= n:
            raise PromptError(
                f"Relation {relation!r} has {len(some)} prompts, of which n={n} are patched, so "
                "that none are left to take means over; give more prompts, or a smaller n."
            )
    means = {name: mean_head_outputs(model, some[n:]) for name, some in sets.items()}
    gaps = {name: _gap(model, some[:n]) for name, some in sets.items()}
    kept = [name for name, gap in gaps.items() if gap.size >= least_gap]
    if not kept:
        found = ", ".join(f"{name} {gap.size:.2f}" for name, gap in gaps.items())
        raise MetricError(
            f"Shuffled demonstrations cost {model.id} less than least_gap={least_gap} of the "
            f"answer's probability in every relation ({found}), so there is nothing to bring "
            "back; use a model that reads functions from their demonstrations."
        )
    names = list(sets)
    effects, controls = {}, {}
    for name in track(kept, "Patching functions", shown=progress):
        other = names[(names.index(name) + len(names) // 2) % len(names)]
        effects[name] = _effects(model, sets[name][:n], means[name])
        controls[name] = (
            torch.full_like(effects[name], torch.nan)
            if other == name
            else _effects(model, sets[name][:n], means[other])
        )
    notes = {
        "relations": {name: n for name in kept},
        "left out": {name: round(gap.size, 3) for name, gap in gaps.items() if name not in kept},
        "least gap": least_gap,
    }
    control = Score("function-vector", _pooled(controls, gaps), notes=notes)
    chance = control.grid.max().item()
    score = Score("function-vector", _pooled(effects, gaps), chance=chance, notes=notes)
    source = provenance(
        model,
        sets[kept[0]][:n],
        method="function vectors",
        relations={name: sets[name].hash for name in kept},
        least_gap=least_gap,
    )
    return FunctionVectors(score, control, effects, means, gaps, source)


def _of_task(model: Model, shots: int, n: int, seed: int) -> dict[str, PromptSet]:
    """Prompts of every relation that this tokenizer has enough words of."""
    sets, lacking = {}, ""
    for relation in known_relations():
        try:
            task = get("functions", relation=relation, shots=shots)
            sets[relation] = task.sample(model, n, seed=seed)
        except TaskError as error:
            lacking = str(error)
    if not sets:
        raise TaskError(f"No relation can be asked of {model.id}; of the last one: {lacking}")
    return sets


def _gap(model: Model, prompts: PromptSet) -> Gap:
    clean, shuffled = (_probability(model, side) for side in (prompts, swapped(prompts)))
    return Gap(clean, shuffled)


def _probability(model: Model, prompts: PromptSet) -> float:
    """Mean probability of the answer."""
    logits = end_logits(model, prompts).double()
    return METRICS["prob"](logits, Answers.of(prompts, model.device)).mean().item()


def _effects(
    model: Model, prompts: PromptSet, means: Float[Tensor, "layer head d_head"]
) -> Float[Tensor, "layer head prompts"]:
    return causal_indirect_effects(model, prompts, means).effects.unflatten(0, means.shape[:2])


def _pooled(
    effects: dict[str, Tensor], gaps: dict[str, Gap]
) -> Float[Tensor, "layer head prompts"]:
    """Effects of all relations, each as a share of its relation's gap."""
    return torch.cat([each / gaps[name].size for name, each in effects.items()], dim=-1)
