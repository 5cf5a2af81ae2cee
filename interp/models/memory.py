"""Will the weights fit? Asked before they are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import psutil
import torch
from torch import nn

from interp.errors import ModelError


def weight_bytes(skeleton: nn.Module, dtype: torch.dtype) -> int:
    """Bytes that the parameters of a module take in `dtype`; it may be on the meta device."""
    return sum(parameter.numel() for parameter in skeleton.parameters()) * dtype.itemsize


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

    `most` is the memory that each may take, by the number of a GPU or by name, such as "10GB".
    """
    from accelerate.utils import convert_file_size_to_int

    if most is None:
        free = {str(device): free_bytes(device) for device in devices}
    else:
        free = {str(device): convert_file_size_to_int(size) for device, size in most.items()}
    if needed > sum(free.values()):
        each = ", ".join(f"{size / 1e9:,.1f} GB on {device}" for device, size in free.items())
        raise ModelError(
            f"{name!r} needs {needed / 1e9:,.1f} GB for its weights in {dtype}, more than all of "
            f"what is free ({each}); use dtype='bfloat16', a quantised checkpoint, or pass "
            f"offload_folder= to leave the rest on disk."
        )
