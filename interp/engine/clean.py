"""What a model computed on prompts when it was left as it is, and where that is kept.

Activations stay on the device of the block that made them, or in the memory of the host where a
device has no room. They are handed out where the model begins, which is where everything else is;
or beside their block, from the column that is wanted on, for those who work there.
"""

from __future__ import annotations

from collections.abc import Iterator, MutableSequence, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import torch
from jaxtyping import Int
from torch import Tensor

from interp.engine.frames import Frame
from interp.models.memory import free_bytes

ROOM = 0.5
"""Share of the free memory of a device that a clean run may take; what takes more is kept on the
host."""


class Layers(MutableSequence[Tensor]):
    """One tensor of each layer, kept apart and given where it is used.

    Attributes:
        home: Where indexing and loops give them.
        on_host: Whether they are kept in the memory of the host.
    """

    def __init__(self, home: torch.device, *, on_host: bool = False) -> None:
        self.home, self.on_host = home, on_host
        self._kept: list[Tensor] = []

    def near(self, layer: int, device: torch.device) -> Tensor:
        """That of a layer, on a device."""
        return _brought(self._kept[layer], device)

    def near_from(self, layer: int, device: torch.device, start: int) -> Tensor:
        """That of a layer on a device, `[prompts, pos, features]` from column `start` on."""
        return _brought(self._kept[layer][:, start:], device)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tensor]: ...
    def __getitem__(self, index: int | slice) -> Tensor | list[Tensor]:
        if isinstance(index, slice):
            return [each.to(self.home) for each in self._kept[index]]
        return self._kept[index].to(self.home)

    def __iter__(self) -> Iterator[Tensor]:
        return (each.to(self.home) for each in self._kept)

    def __len__(self) -> int:
        return len(self._kept)

    def __setitem__(self, index: Any, value: Any) -> None:
        several = isinstance(index, slice)
        self._kept[index] = [self._placed(x) for x in value] if several else self._placed(value)

    def __delitem__(self, index: int | slice) -> None:
        del self._kept[index]

    def insert(self, index: int, value: Tensor) -> None:
        """Keep one more."""
        self._kept.insert(index, self._placed(value))

    def _placed(self, value: Tensor) -> Tensor:
        if not self.on_host or value.device.type == "cpu":
            return value
        # pinned, so that it comes back while the device computes
        host = torch.empty(value.shape, dtype=value.dtype, pin_memory=value.is_cuda)
        return host.copy_(value)


def _brought(tensor: Tensor, device: torch.device) -> Tensor:
    # to the host a copy that is not waited for would be read before it is there
    return tensor.to(device, non_blocking=device.type != "cpu")


@dataclass(eq=False)
class CleanRun:
    """What the model computed on prompts of one length, left as it is.

    Attributes:
        tokens: The prompts, without padding.
        devices: Where each block runs.
        stream: `[prompts, pos, d_model]`, what enters each block, and last what leaves the last.
        keys, values: Of each layer, `[prompts, kv_head, pos, d_head]`, where blocks accept them
            back.
        parts: Other activations, `[prompts, pos, features]` for each layer, by name.
        frames: Arguments of the blocks for (interventions, start): the last few that were asked
            for.
    """

    tokens: Int[Tensor, "prompts pos"]
    devices: tuple[torch.device, ...]
    stream: Layers
    keys: Layers
    values: Layers
    parts: dict[str, Layers]
    frames: dict[tuple[int, int], Frame] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Columns of every prompt."""
        return self.tokens.shape[1]

    def at(self, layer: int, kind: str) -> Tensor:
        """What a part of a block held, `[prompts, pos, features]`, where the model begins."""
        if kind == "resid_mid":
            return self.stream[layer] + self.parts["attn_out"][layer]
        kept, index = self._found(layer, kind)
        return kept[index]

    def near(self, layer: int, kind: str, start: int = 0) -> Tensor:
        """The same from column `start` on, on the device of the block."""
        if kind == "resid_mid":
            return self.near(layer, "resid_pre", start) + self.near(layer, "attn_out", start)
        kept, index = self._found(layer, kind)
        return kept.near_from(index, self.devices[layer], start)

    def cache(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, on the device of its block."""
        device = self.devices[layer]
        return self.keys.near(layer, device), self.values.near(layer, device)

    def _found(self, layer: int, kind: str) -> tuple[Layers, int]:
        if kind in ("resid_pre", "resid_post"):
            return self.stream, layer + (kind == "resid_post")
        return self.parts[kind], layer


def room(devices: Sequence[torch.device]) -> float:
    """Bytes that all layers may take together, as far as the fullest of their devices goes."""
    share = {device: devices.count(device) / len(devices) for device in set(devices)}
    return min(free_bytes(device) / part for device, part in share.items())


def outgrows(devices: Sequence[torch.device], needed: int) -> bool:
    """Whether that much is to be kept on the host, because a device has no room for it."""
    return any(each.type != "cpu" for each in devices) and needed > ROOM * room(devices)
