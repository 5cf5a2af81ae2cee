"""How many MLP neurons of each layer write along a direction? Value vectors against a probe.

hidden layer of an MLP -> sum of its value vectors, each times its neuron -> the stream
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from scipy.stats import beta
from torch import Tensor

from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine.groups import groups
from interp.engine.memory import largest_group
from interp.engine.replay import replay_of
from interp.engine.sweep import require_ready
from interp.errors import ProbeError, UnsupportedModel
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci

DRAWS = 20
QUANTILE = 0.99
ROWS = 4096
"""Neurons whose value vectors are read at once."""


@dataclass(frozen=True, eq=False)
class AlignedValues(Saved, Displayed):
    """Value vectors of each layer that point along a direction, or against it.

    Attributes:
        counts: With |cos| above the threshold.
        random: The same for each of some random directions, the control.
        neurons: Value vectors of each layer.
        threshold: |cos| that a random direction exceeds with one value vector in
            1 / (1 - quantile).
        quantile: It.
        provenance: Model, options, versions.
    """

    counts: Float[Tensor, " layer"]
    random: Float[Tensor, "draws layer"]
    neurons: tuple[int, ...]
    threshold: float
    quantile: float
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer.

        Columns: layer, aligned, random (mean over draws), random_low and random_high (95% interval
        of that mean), random_most (of one draw), neurons, n (draws).
        """
        low, high = bootstrap_ci(self.random.T)
        return pd.DataFrame(
            {
                "layer": range(len(self.counts)),
                "aligned": self.counts.tolist(),
                "random": self.random.mean(dim=0).tolist(),
                "random_low": low.tolist(),
                "random_high": high.tolist(),
                "random_most": self.random.amax(dim=0).tolist(),
                "neurons": self.neurons,
                "n": len(self.random),
            }
        )

    def plot(self) -> go.Figure:
        """Aligned value vectors by layer, beside those of random directions with their interval."""
        frame = self.to_frame()
        figure = go.Figure()
        figure.add_bar(
            x=frame["layer"], y=frame["aligned"], name="direction", marker_color=DIVERGING[-2]
        )
        figure.add_bar(
            x=frame["layer"],
            y=frame["random"],
            error_y={
                "type": "data",
                "array": frame["random_high"] - frame["random"],
                "arrayminus": frame["random"] - frame["random_low"],
            },
            name="random",
            marker_color=MISSING,
        )
        title = f"Value vectors of {self.provenance['model']} with |cos| > {self.threshold:.2f}"
        figure.update_layout(title=title, template="plotly_white")
        figure.update_xaxes(title_text="layer", dtick=1)
        figure.update_yaxes(title_text="value vectors")
        return figure

    def __repr__(self) -> str:
        told = ", ".join(f"{count:.0f}" for count in self.counts.tolist())
        return (
            f"AlignedValues({told} by layer with |cos| > {self.threshold:.2f}; random directions "
            f"{self.random.mean():.1f} a layer; n = {len(self.random)} draws)"
        )


def aligned_values(
    model: Model,
    directions: Float[Tensor, "*layer d_model"],
    *,
    quantile: float = QUANTILE,
    draws: int = DRAWS,
    seed: int = 0,
) -> AlignedValues:
    """Count the value vectors of each layer that are aligned with a direction.

    A value vector is what one neuron adds to the stream when it is 1 (a row of the MLP's output
    projection; a norm behind it, as Gemma 2 has one, is left out). Xie et al. 2024 count those with
    a high cosine to a probe; here "high" is fixed by what a random direction reaches.

    Value vectors and differences of activations share a few directions of the stream, so any probe
    exceeds the random ones; `interp.consistency.sources.sources` sets shuffled labels beside it.

    Args:
        model: With a single hidden layer in each MLP.
        directions: One for all layers, or one for each; their lengths do not matter.
        quantile: Of |cos| of two random directions; those above it count.
        draws: Random directions (standard normal, hence of every orientation alike).
        seed: Of the draws.

    Raises:
        ProbeError: Directions of another size, of length zero or not finite, a quantile that is
            not between 0 and 1, or no draws.
        UnsupportedModel: MLPs without a single hidden layer, such as experts.
    """
    layers, d_model = model.geometry.n_layers, model.geometry.d_model
    if directions.shape not in ((d_model,), (layers, d_model)):
        raise ProbeError(
            f"The directions have the shape {list(directions.shape)}, and {model.id} needs "
            f"[{d_model}] or [{layers}, {d_model}]; give one for all layers or one for each."
        )
    if draws < 1:
        raise ProbeError(f"draws is {draws}; the control needs at least one random direction.")
    each = directions.detach().double().cpu().expand(layers, d_model)
    if not each.isfinite().all() or (each.norm(dim=-1) == 0).any():
        raise ProbeError("A direction is zero or not finite; give one that points somewhere.")
    threshold = chance_cosine(d_model, quantile)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(draws, layers, d_model, generator=generator, dtype=torch.float64)
    counts = aligned(model, torch.cat([each[None], noise]), threshold)
    return AlignedValues(
        counts=counts[0],
        random=counts[1:],
        neurons=tuple(replay_of(model).width(layer, "neurons") for layer in range(layers)),
        threshold=threshold,
        quantile=quantile,
        provenance=provenance(
            model, method="aligned value vectors", quantile=quantile, draws=draws, seed=seed
        ),
    )


def chance_cosine(d_model: int, quantile: float = QUANTILE) -> float:
    """The quantile of |cos| between a fixed direction and a random one.

    cos^2 follows Beta(1/2, (d_model - 1)/2).

    >>> round(chance_cosine(128), 3)
    0.226
    """
    if not 0 < quantile < 1:
        raise ProbeError(f"The quantile is {quantile}; it lies between 0 and 1, such as 0.99.")
    return float(beta.ppf(quantile, 0.5, (d_model - 1) / 2)) ** 0.5


def aligned(
    model: Model, directions: Float[Tensor, "some layer d_model"], threshold: float
) -> Float[Tensor, "some layer"]:
    """How many value vectors of each layer have a |cos| above the threshold, for each direction.

    NaN for a direction that is not a number. Raises UnsupportedModel as `aligned_values` does.
    """
    unit = torch.nn.functional.normalize(directions.double(), dim=-1).cpu()
    counts = torch.zeros(unit.shape[:2], dtype=torch.float64)
    for layer in range(model.geometry.n_layers):
        for vectors in value_vectors(model, layer):
            cosines = unit[:, layer] @ torch.nn.functional.normalize(vectors.double(), dim=-1).T
            counts[:, layer] += (cosines.abs() > threshold).sum(dim=-1)
    return counts.masked_fill(directions.isnan().any(dim=-1), torch.nan)


@torch.no_grad()
def value_vectors(model: Model, layer: int) -> Iterator[Float[Tensor, "some d_model"]]:
    """The value vectors of a layer, some at a time, on the CPU.

    They are what the projection makes of one neuron at a time, without its bias; so the layout of
    its weight does not matter.
    """
    replay = replay_of(model)
    if not replay.has("neurons"):
        raise UnsupportedModel(
            f"The MLPs of {model.id} have no single hidden layer, so there are no value vectors to "
            "count; use a model without experts."
        )
    project, width = replay.body.blocks[layer].after_neurons[0], replay.width(layer, "neurons")
    for start in range(0, width, ROWS):
        one_hot = torch.zeros(1, min(ROWS, width - start), width)
        one_hot[0].diagonal(offset=start).fill_(1)
        one_hot = one_hot.to(model.device, model.dtype)
        yield (project(one_hot) - project(torch.zeros_like(one_hot)))[0].cpu()


def direction(
    model: Model, prompts: PromptSet, labels: Bool[Tensor, " prompts"]
) -> Float[Tensor, "layer d_model"]:
    """The difference of class means, at the last token, of what leaves each block.

    It points from the prompts whose label is False to those whose label is True. Lengths are kept.

    Raises:
        ProbeError: Other than one label a prompt, or labels that are all alike.
        PromptError: Prompts that the model cannot read.
    """
    require_two_classes(labels, len(prompts))
    ends = end_streams(model, prompts)
    return ends[labels].mean(dim=0) - ends[~labels].mean(dim=0)


def require_two_classes(labels: Bool[Tensor, " labels"], count: int) -> None:
    """Raise ProbeError unless there is a label for each prompt, and both kinds of label."""
    if len(labels) != count:
        raise ProbeError(f"There are {len(labels)} labels and {count} prompts; give one for each.")
    if labels.all() or not labels.any():
        raise ProbeError("All labels are alike; a direction needs prompts of both classes.")


@torch.no_grad()
def end_streams(model: Model, prompts: PromptSet) -> Float[Tensor, "prompts layer d_model"]:
    """What leaves each block at the last token of each prompt, in float64 on the CPU."""
    require_ready(model)
    require_fit(model, prompts)
    replay, shape = replay_of(model), model.geometry
    ends = torch.empty(len(prompts), shape.n_layers, shape.d_model, dtype=torch.float64)
    for group in groups(prompts, largest_group(replay, prompts)):
        stream = replay.clean(group.tokens).stream[1:]
        ends[group.rows] = torch.stack([each[:, -1] for each in stream], dim=1).double().cpu()
    return ends
