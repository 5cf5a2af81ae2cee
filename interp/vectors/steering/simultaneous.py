"""Several behaviors at once: each in a layer of its own, or all as one summed vector in one layer.

The literature finds that one behavior a layer works and that one sum mostly fails (van der Weij et
al. 2024). Whether a vector fails because it is summed, or because it stands in a layer that is not
its best, is told apart by adding it alone there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from interp.display import Displayed
from interp.errors import VectorError
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING, SEQUENTIAL
from interp.progress import track
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.random_vectors import random_draws
from interp.vectors.steering.contrasts import asked
from interp.vectors.steering.steering import SteeringVector, added, require_layer, responses

CONDITIONS = ("none", "alone", "each in its layer", "alone in one layer", "summed in one layer")
ANSWERED = 0.5
"""Probability that both answers together must keep for a success."""


@dataclass(frozen=True, eq=False)
class Simultaneous(Saved, Displayed):
    """Responses of several behaviors, each on its own test prompts.

    Attributes:
        layers: The layer of each behavior, all different.
        one_layer: The layer of the sum, and of each alone in it.
        strengths: The multiplier of each behavior.
        values: For each behavior and `CONDITIONS`, the probability of its positive answer, its
            negative answer and all other tokens.
        random: The same with random vectors of the same norms in the layers of `layers`.
        provenance: Model, weights hash, options, versions.
    """

    layers: dict[str, int]
    one_layer: int
    strengths: dict[str, float]
    values: dict[str, Float[Tensor, "conditions prompts answers"]]
    random: dict[str, Float[Tensor, "draws prompts answers"]]
    provenance: dict[str, Any]

    def success(self, behavior: str) -> Float[Tensor, "conditions prompts"]:
        """1 where the answer steered to is the likelier one, and both keep half of the mass.

        The last condition are the random vectors: their mean.
        """
        up = self.strengths[behavior] > 0
        succeeded = [_success(self.values[behavior], up), _success(self.random[behavior], up)]
        return torch.cat([succeeded[0], succeeded[1].mean(dim=0, keepdim=True)])

    def to_frame(self) -> pd.DataFrame:
        """One row for each behavior and condition.

        Columns: behavior, condition, layer, strength, success, ci_low, ci_high (95% over prompts),
        positive, negative, other (mean probabilities), n.
        """
        rows = []
        for name, own in self.layers.items():
            success = self.success(name)
            low, high = bootstrap_ci(success)
            every = torch.cat([self.values[name], self.random[name].mean(dim=0, keepdim=True)])
            places = (None, own, own, self.one_layer, self.one_layer, own)
            for i, condition in enumerate((*CONDITIONS, "random vectors")):
                rows.append(
                    {
                        "behavior": name,
                        "condition": condition,
                        "layer": places[i],
                        "strength": self.strengths[name],
                        "success": success[i].mean().item(),
                        "ci_low": low[i].item(),
                        "ci_high": high[i].item(),
                        **dict(
                            zip(
                                ("positive", "negative", "other"),
                                every[i].mean(dim=0).tolist(),
                                strict=True,
                            )
                        ),
                        "n": success.shape[1],
                    }
                )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Success of each behavior under each condition, with its interval."""
        frame, figure = self.to_frame(), go.Figure()
        colors = (MISSING, SEQUENTIAL[3], SEQUENTIAL[6], SEQUENTIAL[2], DIVERGING[2], DIVERGING[4])
        for (condition, some), color in zip(
            frame.groupby("condition", sort=False), colors, strict=True
        ):
            figure.add_bar(
                x=some["behavior"],
                y=some["success"],
                name=condition,
                marker_color=color,
                error_y={
                    "type": "data",
                    "array": some["ci_high"] - some["success"],
                    "arrayminus": some["success"] - some["ci_low"],
                    "thickness": 1,
                },
            )
        title = f"Several behaviors at once in {self.provenance['model']}"
        figure.update_layout(title=title, template="plotly_white", barmode="group")
        figure.update_yaxes(title_text="success", range=[0, 1])
        return figure

    def __repr__(self) -> str:
        means = torch.stack([self.success(name).mean(dim=-1) for name in self.layers]).mean(dim=0)
        told = zip((*CONDITIONS, "random vectors"), means.tolist(), strict=True)
        return (
            f"Simultaneous({len(self.layers)} behaviors; success "
            + ", ".join(f"{condition} {mean:.2f}" for condition, mean in told)
            + ")"
        )


def simultaneous(
    model: Model,
    steerings: Sequence[SteeringVector],
    *,
    strengths: Sequence[float] | float | None = None,
    one_layer: int | None = None,
    draws: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> Simultaneous:
    """Steer to several behaviors at once, and judge each on its own test pairs.

    Args:
        model: That the vectors were made with.
        steerings: Two or more, of different behaviors.
        strengths: Multiplier of each, or one for all, negative to steer to negative answers; by
            default the strength at which its layers were compared.
        one_layer: Where the sum is added; by default the layer with the highest gain on the dev
            pairs, mean over behaviors. Layers of their own are those, all different, whose gains
            have the highest sum.
        draws: Sets of random vectors.
        seed: Of the random vectors.
        progress: Show a bar.

    Raises:
        VectorError: Fewer than two behaviors, two of one name, more than there are layers, a vector
            of another model, a layer that does not exist, or a strength of 0.
    """
    names = [each.behavior.name for each in steerings]
    _require(model, steerings, names)
    gains = torch.stack([each.gains.mean(dim=-1) for each in steerings])
    _, columns = linear_sum_assignment(-gains.numpy())
    layers = dict(zip(names, columns.tolist(), strict=True))
    one = int(gains.mean(dim=0).argmax()) if one_layer is None else one_layer
    require_layer(one, model.geometry.n_layers)
    multipliers = _multipliers(steerings, names, strengths)
    vectors = {
        each.behavior.name: multipliers[each.behavior.name] * each.vectors for each in steerings
    }
    own = {name: vectors[name][layer] for name, layer in layers.items()}
    shared = {name: vectors[name][one] for name in names}
    random = {name: random_draws(v, draws, seed + i) for i, (name, v) in enumerate(own.items())}
    values, controls = {}, {}
    for each in track(list(steerings), "Steering at once", shown=progress):
        name, prompts = each.behavior.name, asked(model, each.behavior.test)
        conditions: list[Mapping[int, Tensor]] = [
            {},
            {layers[name]: own[name]},
            {layers[some]: own[some] for some in names},
            {one: shared[name]},
            {one: torch.stack(list(shared.values())).sum(dim=0)},
        ]
        values[name] = responses(model, prompts, [added(some) for some in conditions])
        drawn = [added({layers[s]: random[s][draw] for s in names}) for draw in range(draws)]
        controls[name] = responses(model, prompts, drawn)
    return Simultaneous(
        layers=layers,
        one_layer=one,
        strengths=multipliers,
        values=values,
        random=controls,
        provenance=provenance(
            model,
            method="simultaneous steering",
            behaviors=names,
            layers=list(layers.values()),
            one_layer=one,
            strengths=list(multipliers.values()),
            draws=draws,
            random_seed=seed,
        ),
    )


def _success(
    found: Float[Tensor, "some prompts answers"], upward: bool
) -> Float[Tensor, "some prompts"]:
    likelier = found[..., 0] > found[..., 1] if upward else found[..., 1] > found[..., 0]
    return (likelier & (found[..., 2] <= 1 - ANSWERED)).double()


def _multipliers(
    steerings: Sequence[SteeringVector],
    names: Sequence[str],
    strengths: Sequence[float] | float | None,
) -> dict[str, float]:
    if strengths is None:
        found = [each.strength for each in steerings]
    elif isinstance(strengths, Sequence):
        found = [float(each) for each in strengths]
    else:
        found = [float(strengths)] * len(names)
    if len(found) != len(names) or 0 in found:
        raise VectorError(f"strengths are {found}; give one for each of {names}, and none 0.")
    return dict(zip(names, found, strict=True))


def _require(model: Model, steerings: Sequence[SteeringVector], names: Sequence[str]) -> None:
    layers = model.geometry.n_layers
    if not 2 <= len(names) <= layers or len(set(names)) < len(names):
        raise VectorError(
            f"Behaviors {list(names)} cannot be steered at once in {layers} layers; give between "
            "two and that many, each of another name."
        )
    for each in steerings:
        each.vector.require(model)
