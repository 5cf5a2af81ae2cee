"""What does a model do without a concept? Least-squares concept erasure.

After Belrose et al. 2023, "LEACE: Perfect linear concept erasure in closed form". The state at one
position is moved as little as possible so that no linear probe finds the label in it. The eraser is
that of the package `concept-erasure`, fitted on the training prompts; a new probe and the model
itself are judged on the test prompts. The control erases random directions, as many as the eraser.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import one_hot

from interp.display import Displayed
from interp.engine import Intervention, Set, run
from interp.errors import ProbeError
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING
from interp.probes.directions import fit
from interp.probes.split import Label, encode, split
from interp.probes.states import columns_of, layer_names, states
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Resid
from interp.stats import bootstrap_ci

with warnings.catch_warnings():  # the package compiles a helper with torch.jit, which is deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from concept_erasure import LeaceFitter

Eraser = Callable[[Tensor], Tensor]
COLUMNS = ("before", "after", "random", "erased", "erased_random")


@dataclass(frozen=True, eq=False)
class Erasure(Saved, Displayed):
    """Probes and behavior on the test prompts, with a concept erased in one layer after another.

    Attributes:
        layers: Names of the layers.
        before: 1 where a probe of the states is right.
        after: The same of a new probe, fitted on states without the concept.
        random: The same of states without random directions.
        clean: The metric of the model as it is.
        erased: The metric with the concept erased in a layer.
        erased_random: The metric with random directions erased.
        chance: Share of test prompts with the label that most training prompts have.
        metric: Name of the metric.
        provenance: Where it comes from.
    """

    layers: tuple[str, ...]
    before: Float[Tensor, "layer test"]
    after: Float[Tensor, "layer test"]
    random: Float[Tensor, "layer test"]
    clean: Float[Tensor, " test"]
    erased: Float[Tensor, "layer test"]
    erased_random: Float[Tensor, "layer test"]
    chance: float
    metric: str
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a layer.

        Columns: layer; before, after and random (accuracies of probes); clean, erased and
        erased_random (means of the metric); each with `_low` and `_high` (95%, bootstrap over test
        prompts); chance (of the probes), n.
        """
        columns: dict[str, Any] = {"layer": self.layers, "clean": float(self.clean.mean())}
        for name in COLUMNS:
            values: Tensor = getattr(self, name)
            low, high = bootstrap_ci(values)
            columns[name] = values.mean(dim=-1).tolist()
            columns[f"{name}_low"], columns[f"{name}_high"] = low.tolist(), high.tolist()
        return pd.DataFrame(columns | {"chance": self.chance, "n": len(self.clean)})

    def plot(self) -> go.Figure:
        """The metric by layer, with the concept and with random directions erased."""
        frame, figure = self.to_frame(), go.Figure()
        for name, color in (("erased", DIVERGING[-2]), ("erased_random", DIVERGING[1])):
            figure.add_scatter(
                x=frame["layer"],
                y=frame[name],
                error_y={
                    "type": "data",
                    "array": frame[f"{name}_high"] - frame[name],
                    "arrayminus": frame[name] - frame[f"{name}_low"],
                    "thickness": 1,
                },
                name="concept erased" if name == "erased" else "random directions erased",
                line={"color": color},
            )
        figure.add_hline(y=float(self.clean.mean()), line={"color": MISSING, "dash": "dot"})
        title = f"{self.provenance['model']} without a concept"
        figure.update_layout(title=title, template="plotly_white")
        figure.update_xaxes(title_text="erased after layer", type="category")
        figure.update_yaxes(title_text=self.metric)
        return figure

    def __repr__(self) -> str:
        best = int(self.before.mean(dim=-1).argmax())
        probes = (float(getattr(self, name)[best].mean()) for name in ("before", "after"))
        model = (
            float(values.mean())
            for values in (self.clean, self.erased[best], self.erased_random[best])
        )
        return (
            "Erasure(layer {}: probe {:.2f} becomes {:.2f} (chance {:.2f}); ".format(
                self.layers[best], *probes, self.chance
            )
            + "{} {:.2f} becomes {:.2f} (random {:.2f}); ".format(self.metric, *model)
            + f"n = {len(self.clean)} test prompts)"
        )


def erasure(
    model: Model,
    prompts: PromptSet,
    labels: Sequence[Label] | Int[Tensor, " prompts"],
    *,
    position: str | int = "END",
    groups: Sequence[Hashable] | None = None,
    metric: str = "accuracy",
    draws: int = 5,
    seed: int = 0,
) -> Erasure:
    """Erase a concept from the residual stream at one position, in one layer after another.

    Args:
        model: In eval mode.
        prompts: With answers, as the metric needs them.
        labels: The concept: one label for each prompt.
        position: A role (the last token of its span) or an integer.
        groups: As of `interp.probes.linear.probe`.
        metric: What the model is judged by; a name of `interp.engine.metrics.METRICS`.
        draws: Sets of random directions, over which `erased_random` is the mean.
        seed: Of the split and the random directions.

    Raises:
        ProbeError: Labels that make no probe, or no draws.
        SiteError, PromptError, MetricError: What their names say.
    """
    if draws < 1:
        raise ProbeError(f"draws is {draws}; the control needs at least one.")
    classes, truth = encode(labels, len(prompts))
    train, test = split(truth, groups, seed=seed)
    read = states(model, prompts, position=position).double()
    generator = torch.Generator().manual_seed(seed)
    concept: list[Eraser] = []
    random: list[list[Eraser]] = []
    for x in read[:, train]:
        concept.append(leace(x, truth[train], len(classes)))
        random.append([random_eraser(x, len(classes) - 1, generator) for _ in range(draws)])

    def probed(held: Float[Tensor, "layer prompts d_model"]) -> Float[Tensor, "layer test"]:
        said = fit(held[:, train], truth[train], classes).probabilities(held[:, test])
        return (said.argmax(dim=-1) == truth[test]).double()

    def without(erasers: Sequence[Eraser]) -> Float[Tensor, "layer prompts d_model"]:
        return torch.stack([erase(x) for erase, x in zip(erasers, read, strict=True)])

    judged = prompts[test]
    start, n_columns = columns_of(judged, position), judged.clean.shape[1]
    one_token = {"ERASED": torch.stack([start, start + 1], dim=-1).to(judged.clean.device)}
    judged = replace(judged, roles=judged.roles | one_token)
    worlds = [without(concept), *(without(some) for some in zip(*random, strict=True))]
    interventions = [
        Intervention.at(
            Resid(layer - 1, "post") if layer else Resid(0, "pre"),
            Set(held[layer, test, None].to(model.dtype).expand(-1, n_columns, -1)),
            position="ERASED",
        )
        for held in worlds
        for layer in range(len(read))
    ]
    swept = run(
        model, judged, interventions, metric=metric, method="concept erasure", progress=False
    )
    values = swept.values.double().unflatten(0, (len(worlds), len(read)))
    common = truth[train].bincount().argmax()
    return Erasure(
        layers=layer_names(model, "resid"),
        before=probed(read),
        after=probed(worlds[0]),
        random=probed(worlds[1]),
        clean=swept.clean.double(),
        erased=values[0],
        erased_random=values[1:].mean(dim=0),
        chance=float((truth[test] == common).double().mean()),
        metric=metric,
        provenance=provenance(
            model, prompts, method="LEACE", position=position, draws=draws, probe_seed=seed
        ),
    )


def leace(
    read: Float[Tensor, "prompts d_model"], truth: Int[Tensor, " prompts"], classes: int
) -> Eraser:
    """The least change of a state after which no linear probe of these prompts finds the label."""
    erase: Eraser = LeaceFitter.fit(read.double(), one_hot(truth, classes).double()).eraser
    return erase


def random_eraser(
    read: Float[Tensor, "prompts d_model"], rank: int, generator: torch.Generator
) -> Eraser:
    """Sets a state to its mean along random orthogonal directions."""
    mean = read.mean(dim=0)
    random = torch.randn(read.shape[1], rank, generator=generator, dtype=read.dtype)
    basis = torch.linalg.qr(random).Q
    return lambda x: x - (x - mean) @ basis @ basis.T
