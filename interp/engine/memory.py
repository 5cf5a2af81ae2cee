"""How much runs at once: from the free memory, and less when it runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from interp.engine.clean import room
from interp.engine.plan import CPU_TOKENS, GPU_TOKENS
from interp.engine.replay import Replay
from interp.errors import OutOfMemory
from interp.models.memory import free_bytes
from interp.prompts import PromptSet

Part = TypeVar("Part")

KEPT = 0.25
"""Share of the free memory that the clean runs of a group may take."""
RUNNING = 0.5
"""Share of the free memory that a train may take."""
WIDE = 8
"""Full trains that one intervention on a group may fill: more take memory and save no time."""


def bytes_per_token(replay: Replay) -> int:
    """Bytes that one token takes at the widest moment of a block, counted generously."""
    shape = replay.model.geometry
    widest = max(replay.width(0, kind) for kind in ("z", "neurons", "q") if replay.has(kind))
    return (12 * shape.d_model + 4 * widest) * replay.model.dtype.itemsize


def bytes_kept(replay: Replay) -> int:
    """Bytes that a clean run keeps of one token: about five streams for every layer."""
    shape = replay.model.geometry
    return 5 * shape.d_model * shape.n_layers * replay.model.dtype.itemsize


def largest_group(replay: Replay, prompts: PromptSet) -> int:
    """Prompts whose clean and source runs fit, and no more than are worth running at once.

    At least one, whose runs may be kept on the host.
    """
    length = int(prompts.mask.sum(dim=-1).max())
    kept = 2 * length * bytes_kept(replay)
    fit = int(KEPT * room(replay.devices) / kept)
    return max(1, min(fit, WIDE * full_train(replay) // length))


def train_tokens(replay: Replay) -> int:
    """Tokens that ride at once."""
    free = min(free_bytes(device) for device in {replay.model.device, *replay.devices})
    return min(full_train(replay), int(RUNNING * free / bytes_per_token(replay)))


def full_train(replay: Replay) -> int:
    """Tokens that keep the model's devices busy."""
    devices = {replay.model.device, *replay.devices}
    return GPU_TOKENS if any(each.type == "cuda" for each in devices) else CPU_TOKENS


def halving(
    ride: Callable[[Sequence[Part]], Tensor], parts: Sequence[Part], what: str = "intervention"
) -> Tensor:
    """Run the parts together, or in halves where the memory does not suffice; `what` is one part.

    Raises OutOfMemory if it does not suffice for one.
    """
    try:
        return ride(parts)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(parts) == 1:
            raise OutOfMemory(
                f"One {what} on one group of prompts does not fit in memory ({error}); "
                "give fewer or shorter prompts, or a larger device."
            ) from error
    half = len(parts) // 2
    return torch.cat([halving(ride, some, what) for some in (parts[:half], parts[half:])])


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that an allocation failed; oneDNN says it in its own words."""
    told = str(error)
    said = any(words in told for words in ("can't allocate memory", "could not create a primitive"))
    return said or isinstance(error, torch.OutOfMemoryError)
