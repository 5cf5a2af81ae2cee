"""What a model hands its blocks, caught by functions that stand in their place."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Frame = list[tuple[tuple[Any, ...], dict[str, Any]]]
"""The arguments of each block beside its stream."""


def moved(
    value: Any, device: torch.device, known: dict[tuple[int, torch.device], tuple[Tensor, Tensor]]
) -> Any:
    """Arguments with their tensors on a device, each moved there once."""
    if isinstance(value, Tensor):
        # the original is kept too, so that its id stays its own
        return known.setdefault((id(value), device), (value, value.to(device)))[1]
    if type(value) in (tuple, list):
        return type(value)(moved(each, device, known) for each in value)
    if type(value) is dict:
        return {name: moved(each, device, known) for name, each in value.items()}
    return value


@contextmanager
def replaced(stubs: dict[nn.Module, Callable[..., Any]]) -> Iterator[None]:
    """Let functions stand in for the forward of modules."""
    before = {module: module.__dict__.get("forward") for module in stubs}
    for module, stub in stubs.items():
        module.__dict__["forward"] = stub
    try:
        yield
    finally:
        for module, forward in before.items():
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward
