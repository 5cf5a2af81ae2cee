"""A vector that stands for a task or a behaviour, and how it enters a model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import Add, Intervention, Set, SweepResult, run
from interp.engine.end_logits import edited_end_logits
from interp.engine.interventions import Edit
from interp.engine.replay import replay_of
from interp.errors import VectorError
from interp.generation import Paths, Steer, generate
from interp.models import Model
from interp.prompts import PromptSet
from interp.saved import fitted, register
from interp.sites import Resid
from interp.tensor_file import misfit_of, open_tensor_file, write_tensor_file

FORMAT, VERSION = "interp.Vector", "1"
OPERATIONS = ("add", "set")
WAY_OUT = "write one with Vector.save or `interp vectors MODEL --task TASK --out v.safetensors`"


@register
@dataclass(frozen=True, eq=False)
class Vector(Displayed):
    """What is added to, or put in the place of, what leaves some blocks.

    Attributes:
        layers: Block -> vector.
        operation: "add", or "set": replace the activation.
        position: A role or an integer; "END" is the last token of a prompt, "AFTER" that token and
            all that is written behind it.
        scale: By which each vector is multiplied when it is added; 1 when it is set.
        kind: "task", "function", "learned", "steering", ...
        provenance: Model, weights hash, task, options, versions.
    """

    layers: Mapping[int, Float[Tensor, " d_model"]]
    operation: str
    kind: str
    provenance: dict[str, Any]
    position: str | int = "END"
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not self.layers:
            raise VectorError("A vector enters at one layer or more; this one has none.")
        if self.operation not in OPERATIONS:
            raise VectorError(f"operation={self.operation!r} is neither 'add' nor 'set'.")
        if self.operation == "set" and self.scale != 1:
            raise VectorError("A vector that is set has no scale; use operation='add', or scale=1.")
        sizes = {tuple(vector.shape) for vector in self.layers.values()}
        if len(sizes) > 1 or any(len(size) != 1 for size in sizes):
            raise VectorError(f"The vectors of the layers have shapes {sorted(sizes)}, not one.")

    @property
    def intervention(self) -> Intervention:
        """It as an intervention of the engine, in which "AFTER" is the last token, END."""
        where = "END" if self.position == "AFTER" else self.position
        edits = []
        for layer, vector in self.layers.items():
            operation = Set(vector) if self.operation == "set" else Add(self.scale * vector)
            edits.append(Edit(Resid(layer, "post"), operation, where))
        return Intervention(tuple(edits))

    def run(
        self, model: Model, prompts: PromptSet, *, metric: str | Callable[..., Any] = "accuracy"
    ) -> SweepResult:
        """The metric on each prompt with the vector in it, beside that of the prompt as it is.

        Raises VectorError for another model, and what `interp.engine.run` raises.
        """
        self.require(model)
        some = [self.intervention]
        return run(
            model, prompts, some, metric=metric, method=f"{self.kind} vector", progress=False
        )

    def logits(self, model: Model, prompts: PromptSet) -> Float[Tensor, "prompts vocab"]:
        """The logits after the last token of each prompt with the vector in it."""
        self.require(model)
        return edited_end_logits(model, prompts, [self.intervention])[0]

    def generate(self, model: Model, prompts: Sequence[str], **options: Any) -> Paths:
        """Continue texts with the vector in them.

        At "END" it is added to, or set at, the prompt's last token alone; at "AFTER" it is added to
        all that is written behind it too. `options` are those of `interp.generation.generate`.

        Raises VectorError for another model, for vectors that stand elsewhere, and for those that
        are set after END.
        """
        self.require(model)
        replaces = self.operation == "set"
        if self.position != "END" and (replaces or self.position != "AFTER"):
            raise VectorError(
                f"A vector that is {'set' if replaces else 'added'} at {self.position} cannot be "
                "written with; use one that is set or added at END, the prompt's last token, or "
                "added at AFTER: that token and all behind it."
            )
        once = self.position == "END"
        steers = [
            Steer(layer, vector, self.scale, once, replaces)
            for layer, vector in self.layers.items()
        ]
        return generate(model, prompts, steers=steers, **options)

    def decode(self, model: Model, k: int = 10) -> pd.DataFrame:
        """What each layer's vector says on its own, through final norm and unembedding.

        Columns: layer, rank, token, prob.
        """
        self.require(model)
        layers = sorted(self.layers)
        stacked = torch.stack([self.layers[layer] for layer in layers]).to(model.device)
        with torch.no_grad():
            logits = replay_of(model).logits(stacked.to(model.dtype))
        probs, tokens = logits.double().softmax(dim=-1).topk(k)
        return pd.DataFrame(
            {
                "layer": [layer for layer in layers for _ in range(k)],
                "rank": [rank for _ in layers for rank in range(k)],
                "token": model.tokenizer.batch_decode(tokens.flatten()[:, None].tolist()),
                "prob": probs.flatten().tolist(),
            }
        )

    def scaled(self, factor: float) -> Vector:
        """The same at `factor` times its scale."""
        return replace(self, scale=factor * self.scale)

    def require(self, model: Model) -> None:
        """Raise VectorError unless it was made with these weights."""
        if self.provenance.get("weights_hash") != model.weights_hash:
            raise VectorError(
                f"This {self.kind} vector was made with {self.provenance.get('model')} (weights "
                f"{self.provenance.get('weights_hash')}), and {model.id} has weights "
                f"{model.weights_hash}; make one with this model."
            )

    def save(self, path: str | Path) -> Path:
        """Write it as safetensors, one tensor a layer, with all else in the metadata."""
        tensors = {f"blocks.{i}.hook_resid_post": vector for i, vector in self.layers.items()}
        told: dict[str, Any] = {
            "operation": self.operation,
            "kind": self.kind,
            "position": self.position,
        }
        told |= {"scale": self.scale, "provenance": self.provenance}
        metadata = {"format": FORMAT, "version": VERSION, "vector": json.dumps(told)}
        return write_tensor_file(path, tensors, metadata)

    @classmethod
    def load(cls, path: str | Path) -> Vector:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not such a file, or damaged.
        """
        with open_tensor_file(path, way_out=WAY_OUT) as file:
            file.require(FORMAT, VERSION)
            told, tensors = file.told("vector"), file.tensors()
            try:
                vector = fitted(cls, layers=_by_layer(tensors), **told)
                if not math.isfinite(vector.scale):
                    raise ValueError(f"its scale is {vector.scale}")
            except (LookupError, ValueError, TypeError, VectorError) as error:
                raise file.broken(error) from error
            return vector

    def to_frame(self) -> pd.DataFrame:
        """One row a layer that it enters: layer, norm."""
        norms = {layer: each.norm().item() for layer, each in sorted(self.layers.items())}
        return pd.DataFrame({"layer": norms.keys(), "norm": norms.values()})

    def __repr__(self) -> str:
        where = ", ".join(map(str, sorted(self.layers)))
        return (
            f"Vector({self.kind}, {self.operation} at {self.position} of layer {where}, "
            f"scale {self.scale:g}, {self.provenance.get('model')})"
        )


def _by_layer(tensors: Mapping[str, Tensor]) -> dict[int, Tensor]:
    """Block -> vector. Raises ValueError or IndexError for tensors that are none of blocks."""
    for name, tensor in tensors.items():
        if (why := misfit_of(tensor)) is not None:
            raise ValueError(f"{name!r:.80} {why}")
    layers = {int(name.split(".")[1]): tensor for name, tensor in tensors.items()}
    if len(layers) < len(tensors) or min(layers, default=0) < 0:
        raise ValueError("its tensors are not one for each block")
    return dict(sorted(layers.items()))
