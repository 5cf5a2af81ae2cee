"""The same functions by faster kernels, where the results differ by rounding alone.

- The tanh approximation of GELU, which `transformers` writes in several passes over memory, as one
  kernel.
- Products with weights in float32 on a CPU by oneDNN, where torch asks MKL: on an AMD EPYC (Zen 5)
  216 against 100 GFLOP/s on one core, 1024 rows x 768 x 3072.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.models.placement import is_spread
from interp.models.quantised import floating_dtype, is_matrix

TANH_GELU = ("NewGELUActivation", "FastGELUActivation", "BloomGelu")
"""Classes of `transformers` that compute the tanh approximation of GELU step by step."""


def fuse(module: nn.Module) -> None:
    """Replace operations of a module, in place, by the faster forms of the same functions.

    Nothing is done in float64, which decides whether others are right: there, two of the classes in
    TANH_GELU write a constant with ten digits and are another function. Nor are products of a
    module whose weights `accelerate` may bring from elsewhere.
    """
    dtype = floating_dtype(module)
    if dtype == torch.float64:
        return
    for parent in module.modules():
        for name, child in parent.named_children():
            if type(child).__name__ in TANH_GELU:
                setattr(parent, name, nn.GELU(approximate="tanh"))
    if dtype == torch.float32 and _has_onednn():
        for each in module.modules():
            if (
                isinstance(each, nn.Linear | Conv1D)
                and type(each) in (nn.Linear, Conv1D)
                and is_matrix(each)
                and not is_spread(each)
            ):
                each.__dict__["forward"] = partial(_product, each, each.forward)


def _has_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def _product(module: nn.Linear | Conv1D, usual: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What the module gives, by oneDNN where it can: on a CPU, in float32."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return usual(x)
    weight = module.weight if isinstance(module, nn.Linear) else module.weight.T
    return _Product.apply(x, weight.detach(), module.bias)


class _Product(torch.autograd.Function):
    """A product with weights that passes gradients to what is multiplied, not to the weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        product = torch.ops.mkldnn._linear_pointwise(gradient, weight.T, None, "none", [], "")
        return product, None, None
