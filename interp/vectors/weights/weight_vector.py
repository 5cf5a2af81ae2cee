"""Task vectors in weight space: what fine-tuning changes, as something to add and subtract
(Ilharco et al. 2023, "Editing Models with Task Arithmetic").

    tau = theta_fine-tuned - theta_base        theta = theta_base + lambda * tau

Differences are kept in a wider precision than the weights (float64 for float32), so that the base
and its vector give back the fine-tuned weights to the bit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool
from torch import Tensor

from interp.display import Displayed
from interp.engine.anatomy import anatomy
from interp.errors import VectorError
from interp.models import Model, load
from interp.provenance import provenance
from interp.saved import fitted
from interp.tensor_file import misfit_of, open_tensor_file, write_tensor_file

FORMAT, VERSION = "interp.WeightVector", "1"
WAY_OUT = "write one with WeightVector.save"
OUTSIDE = "embeddings"
"""The part of a model that is in no block: embeddings, final norm, unembedding."""

WIDER = {torch.float16: torch.float32, torch.bfloat16: torch.float32, torch.float32: torch.float64}

Coefficient = float | int | Mapping[int | str, float | int]
"""Lambda: one for all, or one for each block (its number) and for "embeddings"; left out is 0."""


@dataclass(frozen=True, eq=False)
class WeightVector(Displayed):
    """A difference between the weights of two models of one architecture.

    Tied weights are one parameter here, under the name that comes first in the model.

    Attributes:
        deltas: Name of a parameter -> its difference.
        base: Hash of the weights that it starts from.
        name: What it does, such as "capital".
        provenance: Both models, versions, and what it was made of.
    """

    deltas: Mapping[str, Tensor] = field(repr=False)
    base: str
    name: str
    provenance: dict[str, Any] = field(repr=False)

    @property
    def size(self) -> int:
        """Number of parameters."""
        return sum(delta.numel() for delta in self.deltas.values())

    @property
    def norm(self) -> float:
        """Euclidean length."""
        return float(sum(delta.square().sum() for delta in self.deltas.values())) ** 0.5

    def __neg__(self) -> WeightVector:
        return replace(self.scaled(-1.0), name=f"-{self.name}")

    def __add__(self, other: WeightVector) -> WeightVector:
        return self._with(other, 1.0, "+")

    def __sub__(self, other: WeightVector) -> WeightVector:
        return self._with(other, -1.0, "-")

    def scaled(self, factor: float | int) -> WeightVector:
        """The same times a number."""
        return self._of({name: factor * delta for name, delta in self.deltas.items()})

    def cosine(self, other: WeightVector) -> float:
        """Cosine of the angle to another vector of the same base."""
        self._require_base(other)
        dot = sum(float((delta * other.deltas[name]).sum()) for name, delta in self.deltas.items())
        return dot / (self.norm * other.norm)

    def masked(self, mask: Mapping[str, Bool[Tensor, "*shape"]]) -> WeightVector:
        """The vector with zeros wherever a mask is false; see `interp.vectors.weights.grafting`.

        Raises VectorError for a mask of other names or shapes.
        """
        _same({n: tuple(d.shape) for n, d in self.deltas.items()},
              {n: tuple(m.shape) for n, m in mask.items()}, "the vector", "the mask")  # fmt: skip
        return self._of({name: delta * mask[name] for name, delta in self.deltas.items()})

    def shuffled(self, *, seed: int = 0) -> WeightVector:
        """A control: the same values at random places of each parameter, so of the same length."""
        draws = torch.Generator().manual_seed(seed)
        deltas = {
            name: delta.flatten()[torch.randperm(delta.numel(), generator=draws)].view_as(delta)
            for name, delta in self.deltas.items()
        }
        return replace(self._of(deltas), name=f"{self.name} shuffled")

    def weights(self, model: Model, lam: Coefficient = 1.0) -> dict[str, Tensor]:
        """The parameters of `model` with `lam` times the vector added, as new tensors.

        Raises VectorError for another base, and for blocks that the model does not have.
        """
        self.require(model)
        share = _coefficients(model, lam)
        return {
            name: (parameter.detach().to(delta.dtype) + share[name] * delta.to(parameter.device))
            .to(parameter.dtype)
            for (name, parameter), delta in zip(
                model.hf.named_parameters(), self._ordered(model), strict=True
            )
        }  # fmt: skip

    def apply(self, model: Model, lam: Coefficient = 1.0) -> Model:
        """A new model, with its own copy of the weights: those of `model` and `lam` times this.

        Args:
            model: The base, which stays as it is.
            lam: One coefficient for all, or `{0: 0.3, 5: 1.0, "embeddings": 0.5}`: one for each
                block and one for everything outside the blocks; what is left out is 0.

        Raises:
            VectorError: Another base, or a block that it does not have.
        """
        weights = self.weights(model, lam)
        module = model.own_copy("A weight vector")
        with torch.no_grad():
            for name, parameter in module.named_parameters():
                parameter.copy_(weights[name])
        told = f"{lam:g}" if isinstance(lam, float | int) else "blocks"
        return Model(module.eval(), model.tokenizer, id=f"{model.id} + {told} * {self.name}")

    def by_block(self, model: Model) -> dict[int | str, float]:
        """Length of the vector in each block and outside them."""
        self.require(model)
        found: dict[int | str, float] = {}
        for name, block in blocks_of(model).items():
            found[block] = found.get(block, 0.0) + float(self.deltas[name].square().sum())
        return {block: square**0.5 for block, square in found.items()}

    def require(self, model: Model) -> None:
        """Raise VectorError unless it starts from these weights."""
        if model.weights_hash != self.base:
            raise VectorError(
                f"The weight vector {self.name!r} starts from {self.provenance.get('model')} "
                f"(weights {self.base}), and {model.id} has weights {model.weights_hash}; add it "
                "to its own base."
            )

    def save(self, path: str | Path) -> Path:
        """Write it as safetensors, one tensor a parameter, with all else in the metadata."""
        told = {"base": self.base, "name": self.name, "provenance": self.provenance}
        metadata = {"format": FORMAT, "version": VERSION, "vector": json.dumps(told)}
        return write_tensor_file(path, self.deltas, metadata)

    @classmethod
    def load(cls, path: str | Path) -> WeightVector:
        """Read what `save` wrote. Raises FileFormatError for another file, or a damaged one."""
        with open_tensor_file(path, way_out=WAY_OUT) as file:
            file.require(FORMAT, VERSION)
            told, deltas = file.told("vector"), file.tensors()
            for name, delta in deltas.items():
                if (why := misfit_of(delta)) is not None:
                    raise file.broken(f"{name!r:.80} {why}")
            try:
                return fitted(cls, deltas=deltas, **told)
            except (LookupError, ValueError, TypeError) as error:
                raise file.broken(error) from error

    def _ordered(self, model: Model) -> list[Tensor]:
        return [self.deltas[name] for name, _ in model.hf.named_parameters()]

    def _of(self, deltas: Mapping[str, Tensor]) -> WeightVector:
        return replace(self, deltas=deltas)

    def _with(self, other: WeightVector, sign: float, between: str) -> WeightVector:
        self._require_base(other)
        deltas = {name: delta + sign * other.deltas[name] for name, delta in self.deltas.items()}
        parts = [*self.provenance.get("made_of", [self.name]), f"{between}{other.name}"]
        told = {**self.provenance, "made_of": parts}
        return WeightVector(deltas, self.base, f"{self.name} {between} {other.name}", told)

    def _require_base(self, other: WeightVector) -> None:
        if self.base != other.base:
            raise VectorError(
                f"{self.name!r} starts from weights {self.base} and {other.name!r} from "
                f"{other.base}; only vectors of one base can be combined."
            )

    def to_frame(self) -> pd.DataFrame:
        """One row a parameter that changes: parameter, shape, norm."""
        rows = [
            (name, "x".join(map(str, delta.shape)), delta.norm().item())
            for name, delta in self.deltas.items()
        ]
        return pd.DataFrame(rows, columns=["parameter", "shape", "norm"])

    def __repr__(self) -> str:
        base = self.provenance.get("model")
        return f"WeightVector({self.name}, {self.size} parameters of {base}, norm {self.norm:.3g})"


def weight_vector(
    base: Model | str | Path, tuned: Model | str | Path, *, name: str | None = None
) -> WeightVector:
    """What turns the weights of `base` into those of `tuned`.

    Args:
        base, tuned: Models, or whatever `interp.load` takes, such as two folders of safetensors.
        name: What it does; the id of the second model by default.

    Raises:
        VectorError: Models whose parameters differ in name or shape, tied weights included, or
            which do not differ at all.
    """
    first, second = load(base), load(tuned)
    before, after = dict(first.hf.named_parameters()), dict(second.hf.named_parameters())
    _same({n: tuple(p.shape) for n, p in before.items()},
          {n: tuple(p.shape) for n, p in after.items()}, first.id, second.id)  # fmt: skip
    deltas = {}
    for key, parameter in before.items():
        dtype = WIDER.get(parameter.dtype, parameter.dtype)
        start, end = parameter.detach().to(dtype), after[key].detach().to(parameter.device, dtype)
        deltas[key] = end - start
    if not any(delta.any() for delta in deltas.values()):
        raise VectorError(f"{first.id} and {second.id} have the same weights; there is no vector.")
    told = provenance(
        first,
        method="weight-space task vector",
        tuned=second.id,
        tuned_weights_hash=second.weights_hash,
    )
    return WeightVector(deltas, first.weights_hash, name or second.id, told)


def analogy(a: WeightVector, b: WeightVector, c: WeightVector) -> WeightVector:
    """A is to B as C is to ... : `tau_C + tau_B - tau_A`.

    Raises VectorError for vectors of different bases.
    """
    return replace(c + b - a, name=f"{c.name} + {b.name} - {a.name}")


def blocks_of(model: Model) -> dict[str, int | str]:
    """The block that each parameter lies in, or "embeddings"."""
    inside = {
        id(parameter): i
        for i, block in enumerate(anatomy(model).blocks)
        for parameter in block.module.parameters()
    }
    named = model.hf.named_parameters()
    return {name: inside.get(id(parameter), OUTSIDE) for name, parameter in named}


def _coefficients(model: Model, lam: Coefficient) -> dict[str, float]:
    """The coefficient of each parameter."""
    if isinstance(lam, float | int):
        return {name: float(lam) for name, _ in model.hf.named_parameters()}
    blocks = blocks_of(model)
    if unknown := [key for key in lam if key not in blocks.values()]:
        raise VectorError(
            f"{model.id} has no block {unknown[0]!r}; coefficients are for the numbers of its "
            f"blocks, 0 to {model.geometry.n_layers - 1}, and {OUTSIDE!r}."
        )
    return {name: float(lam.get(block, 0.0)) for name, block in blocks.items()}


def _same(
    one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]], left: str, right: str
) -> None:
    """Refuse other names or shapes, saying the first."""
    if lacking := sorted(one.keys() ^ other.keys()):
        where, not_in = (left, right) if lacking[0] in one else (right, left)
        raise VectorError(
            f"{where} has the parameter {lacking[0]!r} and {not_in} has not; weights can be "
            "compared only between models of one architecture, with the same weights tied."
        )
    for name, shape in one.items():
        if other[name] != shape:
            raise VectorError(
                f"{name!r} has shape {list(shape)} in {left} and {list(other[name])} in {right}; "
                "use models of one architecture."
            )
