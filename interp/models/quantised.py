"""Quantised models: which are they, and what can they not be asked?

A model whose projections are rounded to a few bits runs as any other. What reads its weights as
matrices, or differentiates through them, has nothing to read.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.errors import ModelError

if TYPE_CHECKING:
    from interp.models.model import Model
else:
    Model = Any  # model.py imports this file

LIBRARIES = ("bitsandbytes", "torchao")
"""Methods that are packages of the same name; of others `transformers` says what they need."""


def method_of(config: Any) -> str | None:
    """The quantisation that a config of `transformers` names, None if none."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    given = found.get("quant_method") if isinstance(found, dict) else found.quant_method
    return str(getattr(given, "value", given))


def bits_of(config: Any) -> int | None:
    """The least bits that a quantised weight may take by its config, None without one."""
    found = getattr(config, "quantization_config", None)
    if found is None:
        return None
    fields = found if isinstance(found, dict) else vars(found)
    return 8 if fields.get("load_in_8bit") or fields.get("_load_in_8bit") else 4


def quantisation(module: nn.Module) -> str | None:
    """By what the weights of a module are quantised, None if they are plain numbers."""
    named = method_of(getattr(module, "config", None))
    if named is not None:
        return named
    for parameter in module.parameters():
        if hasattr(parameter, "__tensor_flatten__"):  # a class of tensors that holds others
            return type(parameter).__name__
        if not parameter.is_floating_point():
            return str(parameter.dtype).removeprefix("torch.")
    return None


def require_library(config: Any, name: str) -> None:
    """Raise ModelError where what runs this quantisation is not installed."""
    method = method_of(config)
    if method in LIBRARIES and find_spec(method) is None:
        raise ModelError(
            f"{name!r} is quantised by {method}, which is not installed; `pip install {method}`, "
            f"or load the model without quantisation."
        )


def require_plain(model: Model, what: str) -> None:
    """Raise ModelError for a quantised model, of which `what` reads the weights as matrices."""
    if (method := quantisation(model.hf)) is not None:
        raise ModelError(
            f"{what} the weights as matrices, and those of {model.id} are quantised ({method}); "
            f"load the model without quantisation."
        )


def require_gradients(model: Model, what: str) -> None:
    """Raise ModelError for a model through which `what` cannot differentiate."""
    if (method := quantisation(model.hf)) is not None:
        raise ModelError(
            f"{what} gradients, and the weights of {model.id} are quantised ({method}), through "
            f"which they are wrong or missing; load the model without quantisation."
        )


def is_matrix(linear: nn.Module) -> bool:
    """Whether a linear module multiplies by its weight as it is."""
    weight = getattr(linear, "weight", None)
    if not isinstance(linear, nn.Linear | Conv1D) or not isinstance(weight, Tensor):
        return False
    return weight.is_floating_point() and not hasattr(weight, "__tensor_flatten__")


def is_plain(weight: Tensor) -> bool:
    """Whether a weight is numbers that stand there: not quantised, and not kept elsewhere."""
    packed = hasattr(weight, "__tensor_flatten__")  # a class of tensors that holds others
    return weight.is_floating_point() and not packed and not weight.is_meta


def beside_weights(module: nn.Module) -> list[Any]:
    """What bitsandbytes keeps beside the weights and reads with them; a copy must share it."""
    kept: list[Any] = []
    parts: Iterable[Any] = module.modules()
    for part in parts:
        if hasattr(part, "init_8bit_state"):
            if part.weight.CB is not None:  # until its first pass, after which the weight has none
                part.init_8bit_state()
            kept += [part.state.CB, part.state.SCB]
        kept.append(getattr(part, "quant_state", None))
    return [each for each in kept if each is not None]


def plain_tensors(tensor: Tensor) -> list[Tensor]:
    """A tensor, or those that it packs."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()
    return [each for name in names for each in plain_tensors(getattr(tensor, name))]


def floating_dtype(module: nn.Module) -> torch.dtype:
    """The precision in which a module computes: that of its first weights that are no integers."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            return parameter.dtype
    return next(module.parameters()).dtype
