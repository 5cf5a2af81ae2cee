"""Will the weights fit? Asked before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import psutil
import torch
from torch import nn

from interp.errors import FileFormatError, ModelError

MOST_BUFFERS = 2**30
"""Bytes of masks and tables of positions, which may be larger only where the weights are."""


def weight_bytes(skeleton: nn.Module, dtype: torch.dtype) -> int:
    """Bytes that the parameters of a module take in `dtype`; it may be on the meta device."""
    return sum(parameter.numel() for parameter in skeleton.parameters()) * dtype.itemsize


def buffer_bytes(skeleton: nn.Module) -> int:
    """Bytes that masks, tables of positions and the like take, of which files often hold none."""
    return sum(buffer.nbytes for buffer in skeleton.buffers())


def require_small_buffers(file: str | Path, skeleton: nn.Module, dtype: torch.dtype) -> None:
    """Raise FileFormatError if a config.json makes buffers that no model of its size has."""
    weights, found = weight_bytes(skeleton, dtype), buffer_bytes(skeleton)
    if found > max(weights, MOST_BUFFERS):
        raise FileFormatError(
            f"{file} makes masks and tables of {found / 1e9:,.1f} GB beside weights of "
            f"{weights / 1e9:,.1f} GB; give it the context length that the model has."
        )


def free_bytes(device: torch.device) -> int:
    """Bytes that can still be allocated on a device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def require_memory(name: str, needed: int, dtype: torch.dtype, device: torch.device) -> None:
    """Raise ModelError unless `needed` bytes are free on `device`."""
    free = free_bytes(device)
    if needed > free:
        smaller = "dtype='bfloat16'" if dtype.itemsize > 2 else "a smaller model"
        raise ModelError(
            f"{name!r} needs {needed / 1e9:,.1f} GB for its weights in {dtype}, but {device} has "
            f"{free / 1e9:,.1f} GB free; use {smaller} or a larger device."
        )


def require_memory_of_all(
    name: str,
    needed: int,
    dtype: torch.dtype,
    devices: Iterable[torch.device],
    most: Mapping[int | str, int | str] | None,
) -> None:
    """Raise ModelError unless `needed` bytes are free on all of the devices together.

    `most` is the memory that each may take, by the number of a GPU or by name, such as "10GB"; it
    raises it too for what is no such size.
    """
    from accelerate.utils import convert_file_size_to_int

    if most is None:
        free = {str(device): free_bytes(device) for device in devices}
    else:
        free = {}
        for device, size in most.items():
            try:
                free[str(device)] = convert_file_size_to_int(size)
            except (ValueError, TypeError, AttributeError) as error:
                raise ModelError(
                    f"max_memory gives {device!r} {size!r}, which is no size; give bytes, or a "
                    "text such as '10GB'."
                ) from error
    if needed > sum(free.values()):
        each = ", ".join(f"{size / 1e9:,.1f} GB on {device}" for device, size in free.items())
        raise ModelError(
            f"{name!r} needs {needed / 1e9:,.1f} GB for its weights in {dtype}, more than all of "
            f"what is free ({each}); use dtype='bfloat16', a quantised checkpoint, or pass "
            f"offload_folder= to leave the rest on disk."
        )
