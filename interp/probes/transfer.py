"""Do probes of one task read the labels of another? Cross-task generalization."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import ProbeError
from interp.models import Model
from interp.plots.colors import SEQUENTIAL
from interp.probes.controls import shuffled, untrained_states
from interp.probes.directions import fit
from interp.probes.split import Label, encode, split
from interp.probes.states import layer_names, states
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci

CONDITIONS = ("task", "shuffled", "untrained")


@dataclass(frozen=True, eq=False)
class Transfer(Saved, Displayed):
    """Probes of every task, judged on the test prompts of every task.

    Attributes:
        layers: Names of the layers.
        tasks: Names of the tasks.
        right: 1 or 0 for each layer and test prompt of the second task, by (condition, task fitted
            on, task judged on). "untrained" is fitted on states of random weights; "shuffled" on
            shuffled labels, and is the mean over several shuffles: where one direction dominates
            the states, the probe of a single one may be far from chance on either side.
        chance: By pair of tasks, the share of the second's test prompts that have the label that is
            most common where the probe was fitted.
        provenance: Where it comes from, for each task.
    """

    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    right: dict[tuple[str, str, str], Float[Tensor, "layer test"]]
    chance: dict[tuple[str, str], float]
    provenance: dict[str, dict[str, Any]]

    def grid(self, layer: str, condition: str = "task") -> Float[Tensor, "fitted judged"]:
        """Accuracy for each task fitted on and each judged on.

        Raises ProbeError for an unknown layer.
        """
        if layer not in self.layers:
            raise ProbeError(f"There is no layer {layer!r}; there are {self.layers}.")
        at = self.layers.index(layer)
        rows = [[self.right[condition, a, b][at].mean() for b in self.tasks] for a in self.tasks]
        return torch.tensor(rows, dtype=torch.float64)

    def to_frame(self) -> pd.DataFrame:
        """One row for each pair of tasks and each layer.

        Columns: fitted, judged, layer, accuracy, shuffled, untrained (each with `_low` and `_high`,
        95%, bootstrap over test prompts), chance, n.
        """
        frames = []
        for (a, b), chance in self.chance.items():
            columns: dict[str, Any] = {"fitted": a, "judged": b, "layer": self.layers}
            for condition in CONDITIONS:
                right = self.right[condition, a, b]
                name = "accuracy" if condition == "task" else condition
                low, high = bootstrap_ci(right)
                columns |= {name: right.mean(dim=-1).tolist()}
                columns |= {f"{name}_low": low.tolist(), f"{name}_high": high.tolist()}
            frames.append(pd.DataFrame(columns | {"chance": chance, "n": right.shape[-1]}))
        return pd.concat(frames, ignore_index=True)

    def plot(self, layer: str) -> go.Figure:
        """Heatmap of the accuracies in one layer."""
        figure = go.Figure(
            go.Heatmap(
                z=self.grid(layer).tolist(),
                x=list(self.tasks),
                y=list(self.tasks),
                zmin=0,
                zmax=1,
                colorscale=list(SEQUENTIAL),
                colorbar={"title": "accuracy"},
                texttemplate="%{z:.2f}",
            )
        )
        model = self.provenance[self.tasks[0]]["model"]
        figure.update_layout(title=f"Probes of {model}, layer {layer}", template="plotly_white")
        figure.update_xaxes(title_text="judged on")
        figure.update_yaxes(title_text="fitted on", autorange="reversed")
        return figure

    def __repr__(self) -> str:
        return f"Transfer({' x '.join([str(len(self.tasks))] * 2)} tasks: {', '.join(self.tasks)})"


def transfer(
    model: Model,
    tasks: Mapping[str, tuple[PromptSet, Sequence[Label]]],
    *,
    kind: str = "resid",
    position: str | int = "END",
    shuffles: int = 10,
    seed: int = 0,
) -> Transfer:
    """Fit probes on 60% of each task's prompts, and judge them on the other 40% of every task.

    Args:
        model: In eval mode.
        tasks: By name, prompts and their labels; all tasks have the same labels.
        kind, position: What is read; see `interp.probes.states.states`.
        shuffles: Of the labels, for the control.
        seed: Of the splits, the shuffled labels and the untrained model.

    Raises:
        ProbeError: Fewer than two tasks, no shuffles, tasks with unequal labels, or labels that
            make no probe.
    """
    if len(tasks) < 2:
        raise ProbeError(f"There are {len(tasks)} tasks; a transfer needs two or more.")
    if shuffles < 1:
        raise ProbeError(f"shuffles is {shuffles}; the control needs at least one.")
    coded = {name: encode(labels, len(prompts)) for name, (prompts, labels) in tasks.items()}
    kinds = {classes for classes, _ in coded.values()}
    if len(kinds) > 1:
        told = {name: classes for name, (classes, _) in coded.items()}
        raise ProbeError(f"The tasks have unequal labels, {told}; give tasks that share them.")
    classes = next(iter(kinds))
    sides = {name: split(truth, seed=seed) for name, (_, truth) in coded.items()}
    read, fresh = {}, {}
    for name, (prompts, _) in tasks.items():
        read[name] = states(model, prompts, kind=kind, position=position)
        fresh[name] = untrained_states(model, prompts, kind=kind, position=position, seed=seed)
    right, chance = {}, {}
    for a in tasks:
        train, truth = sides[a][0], coded[a][1]
        some = [shuffled(truth, seed=seed + draw) for draw in range(shuffles)]
        sources = {"task": (read, [truth]), "shuffled": (read, some), "untrained": (fresh, [truth])}
        common = Counter(truth[train].tolist()).most_common(1)[0][0]
        for condition, (held, labels) in sources.items():
            fitted = [fit(held[a][:, train], each[train], classes) for each in labels]
            for b in tasks:
                test, goal = sides[b][1], coded[b][1][sides[b][1]]
                said = [each.probabilities(held[b][:, test]).argmax(dim=-1) for each in fitted]
                right[condition, a, b] = (torch.stack(said) == goal).double().mean(dim=0)
                chance[a, b] = float((goal == common).double().mean())
    how = {"method": "probe transfer", "kind": kind, "position": position, "probe_seed": seed}
    return Transfer(
        layers=layer_names(model, kind),
        tasks=tuple(tasks),
        right=right,
        chance=chance,
        provenance={
            name: provenance(model, prompts, **how) for name, (prompts, _) in tasks.items()
        },
    )
