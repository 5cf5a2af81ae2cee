"""Linear probes: one direction for each class in every layer."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from interp.display import Displayed
from interp.errors import ProbeError
from interp.models import Model
from interp.probes.split import Label
from interp.probes.states import states
from interp.prompts import PromptSet
from interp.saved import fitted, register
from interp.tensor_file import NUMBERS, misfit_of, open_tensor_file, write_tensor_file

FORMAT, VERSION = "interp.Probes", "1"
WAY_OUT = "write one with `interp.probes.probe(...).probes.save(path)`"


@register
@dataclass(frozen=True, eq=False)
class Probes(Displayed):
    """Logistic regressions on the states of each layer.

    P(class | state) = softmax over classes of (state @ direction + bias). Directions are in units
    of the states, since the standardization of the fit is part of them.

    Attributes:
        layers: Names of the layers.
        classes: The labels.
        directions: Float32.
        biases: Log odds; minus infinity for a class that the fit did not see.
        provenance: Model, prompts, kind and position of the states.
    """

    layers: tuple[str, ...]
    classes: tuple[Label, ...]
    directions: Float[Tensor, "layer classes d_model"]
    biases: Float[Tensor, "layer classes"]
    provenance: dict[str, Any] = field(default_factory=dict)

    def probabilities(
        self, read: Float[Tensor, "layer prompts d_model"]
    ) -> Float[Tensor, "layer prompts classes"]:
        """The probability of each class, in float64, for states of the same layers."""
        logits = read.double() @ self.directions.double().mT + self.biases.double()[:, None]
        return logits.softmax(dim=-1)

    def predict(self, model: Model, prompts: PromptSet, *, layer: str) -> list[Label]:
        """The most probable label of each prompt, by the probe of one layer.

        Raises:
            ProbeError: An unknown layer, or a model that the probes were not fitted on.
        """
        if layer not in self.layers:
            raise ProbeError(f"There is no layer {layer!r}; the probes have {self.layers}.")
        if self.provenance.get("weights_hash") != model.weights_hash:
            raise ProbeError(
                f"The probes were fitted on {self.provenance.get('model', 'bare states')}, and "
                f"{model.id} has other weights; fit probes on this model."
            )
        where = {name: self.provenance[name] for name in ("kind", "position")}
        chosen = self.probabilities(states(model, prompts, **where))[self.layers.index(layer)]
        return [self.classes[i] for i in chosen.argmax(dim=-1).tolist()]

    def save(self, path: str | Path) -> Path:
        """Write them as safetensors, with all but the tensors in the metadata."""
        told = {"layers": self.layers, "classes": self.classes, "provenance": self.provenance}
        metadata = {"format": FORMAT, "version": VERSION, "probes": json.dumps(told)}
        tensors = {"directions": self.directions, "biases": self.biases}
        return write_tensor_file(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Probes:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not such a file, or damaged.
        """
        with open_tensor_file(path, way_out=WAY_OUT) as file:
            file.require(FORMAT, VERSION)
            told, tensors = file.told("probes"), file.tensors()
            if sorted(tensors) != ["biases", "directions"]:
                raise file.broken("its tensors are not directions and biases")
            if (why := misfit_of(tensors["directions"])) is not None:
                raise file.broken(f"directions {why}")
            if not _log_odds(tensors["biases"]):
                raise file.broken("biases are no log odds")
            try:
                told |= {name: tuple(told[name]) for name in ("layers", "classes")}
                probes = fitted(cls, **told, **tensors)
            except (LookupError, ValueError, TypeError) as error:
                raise file.broken(error) from error
            if probes.directions.shape[:2] != (len(probes.layers), len(probes.classes)):
                raise file.broken("it has other layers or classes than its tensors")
            return probes

    def __repr__(self) -> str:
        told = ", ".join(map(str, self.classes[:4])) + (", ..." if len(self.classes) > 4 else "")
        return f"Probes({len(self.classes)} classes ({told}) in {len(self.layers)} layers)"


def _log_odds(biases: Tensor) -> bool:
    """Whether they are numbers, or minus infinity."""
    return biases.dtype in NUMBERS and not bool((biases.isnan() | biases.isposinf()).any())


def fit(
    read: Float[Tensor, "layer prompts d_model"],
    truth: Int[Tensor, " prompts"],
    classes: Sequence[Label],
    *,
    layers: Sequence[str] | None = None,
    provenance: dict[str, Any] | None = None,
) -> Probes:
    """Logistic regression (L2, C = 1) on standardized states, one for each layer.

    Args:
        read: States of the prompts to fit on, and of no other: they set the standardization too.
        truth: The number of each prompt's class.
        classes: The labels.
        layers: Names of the layers; their numbers by default.
        provenance: Of the states.

    Raises:
        ProbeError: Prompts of a single class, or states that are no numbers.
    """
    if len(truth.unique()) < 2:
        raise ProbeError("The prompts to fit on have one label; a probe tells two or more apart.")
    if not read.isfinite().all():
        raise ProbeError("Some states are infinite or NaN; load the model in a wider dtype.")
    n_layers, _, d_model = read.shape
    directions = torch.zeros(n_layers, len(classes), d_model, dtype=torch.float64)
    biases = torch.full((n_layers, len(classes)), -math.inf, dtype=torch.float64)
    seen = truth.unique()
    for layer, x in enumerate(read.double().cpu().numpy()):
        scaler, regression = make_pipeline(
            StandardScaler(), LogisticRegression(C=1.0, max_iter=5000)
        ).fit(x, truth.numpy())
        weights = torch.from_numpy(regression.coef_ / scaler.scale_)
        bias = torch.from_numpy(regression.intercept_) - weights @ torch.from_numpy(scaler.mean_)
        if len(seen) == 2:  # one direction stands for two classes: half of it for each
            weights, bias = (torch.cat([-each / 2, each / 2]) for each in (weights, bias))
        directions[layer, seen], biases[layer, seen] = weights, bias
    names = layers or [str(layer) for layer in range(n_layers)]
    return Probes(
        tuple(names), tuple(classes), directions.float(), biases.float(), dict(provenance or {})
    )
