"""Keys and values of earlier positions, handed to blocks through the cache of `transformers`."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from functools import partial
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

Pair = tuple[Tensor, Tensor]
Answer = Callable[[Tensor, Tensor], Pair]


class KeysComputed(Exception):
    """Ends a block when its keys and values are known and nothing else is wanted."""


class KeyValues(Cache):
    """A cache that stands at column `start`, and answers each layer by a function.

    The function is given the new keys and values, `[rows, kv_head, new, d_head]`, and returns
    those that attention is to see.
    """

    def __init__(self, n_layers: int, start: int, answer: Answer) -> None:
        super().__init__(layers=[_Layer(start, answer) for _ in range(n_layers)])


class _Layer(CacheLayerMixin):
    is_sliding = False

    def __init__(self, start: int, answer: Answer) -> None:
        super().__init__()
        self.start = start
        self.answer = answer
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to prepare."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> Pair:
        return self.answer(key_states, value_states)

    def get_seq_length(self, *args: Any) -> int:
        return self.start

    def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
        # before 5.10 this was the tensor of the new positions
        new = query_length if isinstance(query_length, int) else len(query_length)
        return self.start + new, 0

    def get_max_length(self) -> int:
        return -1

    get_max_cache_shape = get_max_length  # its name before 5.20


def prepend(
    clean: Float[Tensor, "prompts kv_head pos d_head"],
    new: Float[Tensor, "rows kv_head new d_head"],
    start: int,
) -> Float[Tensor, "rows kv_head all d_head"]:
    """The clean keys (or values) before column `start` in front of new ones, for every row.

    Rows hold all prompts once for each intervention.
    """
    rows, heads, count, size = new.shape
    joined = new.new_empty(rows, heads, start + count, size)
    joined.unflatten(0, (-1, len(clean)))[..., :start, :] = clean[:, :, :start]
    joined[..., start:, :] = new
    return joined


def recording(kept: tuple[MutableSequence[Tensor], MutableSequence[Tensor]]) -> Answer:
    """An answer that leaves keys and values as they are, and puts them into two sequences."""
    return partial(_record, *kept)


def _record(
    all_keys: MutableSequence[Tensor],
    all_values: MutableSequence[Tensor],
    keys: Tensor,
    values: Tensor,
) -> Pair:
    all_keys.append(keys)
    all_values.append(values)
    return keys, values


def answering(pair: Pair) -> Answer:
    """An answer that is `pair`, whatever the block computed."""
    return lambda keys, values: pair


def behind(clean: Pair, start: int) -> Answer:
    """An answer that puts the clean keys and values of columns before `start` in front."""
    return lambda keys, values: (
        prepend(clean[0], keys, start),
        prepend(clean[1], values, start),
    )


def stopping(kept: list[Tensor]) -> Answer:
    """An answer that keeps the keys and values, and ends the block."""

    def stop(keys: Tensor, values: Tensor) -> Pair:
        kept[:] = [keys, values]
        raise KeysComputed

    return stop
