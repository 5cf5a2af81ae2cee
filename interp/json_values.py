"""Values in a JSON file that has been read: each is what it should be, or a sentence says what."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

Kind = TypeVar("Kind")


def required(value: Any, kind: type[Kind], what: str) -> Kind:
    """A value of a type; True and False are no numbers. Raises TypeError with what it is instead.

    >>> required("ioi", str, "task")
    'ioi'
    >>> required(True, int, "seed")
    Traceback (most recent call last):
    TypeError: seed is True and not of type int
    """
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f"{what:.80} is {value!r:.80} and not of type {kind.__name__}")
    return value


def all_of(values: Any, kind: type[Kind], what: str) -> list[Kind]:
    """A list of values of a type. Raises TypeError."""
    return [required(value, kind, what) for value in required(values, list, what)]


def table(values: Any, kind: type[Kind], what: str) -> dict[str, Kind]:
    """Values of a type under names. Raises TypeError."""
    given = required(values, dict, what)
    return {name: required(value, kind, f"{what} {name!r}") for name, value in given.items()}


def whole(value: Any, what: str, *, below: int, least: int = 0) -> int:
    """An integer from `least` to below `below`. Raises TypeError or ValueError."""
    if not least <= required(value, int, what) < below:
        raise ValueError(f"{what:.80} is {value!r:.80} and not from {least} to {below - 1}")
    return int(value)


def wholes(
    values: Any, what: str, *, below: int = 2**63, least: int = 0
) -> Int[Tensor, " numbers"]:
    """A list of integers from `least` to below `below`. Raises TypeError or ValueError."""
    given = required(values, list, what)
    return torch.tensor(
        [whole(value, what, below=below, least=least) for value in given], dtype=torch.int64
    )


def numbers(
    values: Any, what: str, *, dims: int, dtype: torch.dtype = torch.float32
) -> Float[Tensor, ...]:
    """Numbers in lists that are nested `dims` deep and of one length on each level; null is NaN.

    Raises TypeError or ValueError: anything else in them, or a number too large for the dtype.

    >>> numbers([[1, None], [0.5, 2]], "scores", dims=2)
    tensor([[1.0000,    nan],
            [0.5000, 2.0000]])
    """
    sizes: list[int] = []
    level = [values]
    for _ in range(dims):
        found = {len(each) if isinstance(each, list) else -1 for each in level}
        if len(found) != 1 or -1 in found:
            shape = " x ".join(map(str, sizes)) or "no"
            raise TypeError(f"{what:.80} is no table of {dims} dimensions, but {shape} lists")
        sizes += found
        level = [inner for each in level for inner in each]
    flat = torch.tensor([_number(value, what) for value in level], dtype=torch.float64)
    result = flat.reshape(sizes).to(dtype)
    if result.isinf().any():
        raise ValueError(f"{what:.80} holds a number too large for {dtype}")
    return result


def _number(value: Any, what: str) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not abs(value) < math.inf:
        raise TypeError(f"{what:.80} holds {value!r:.80}, which is no number")
    try:
        return float(value)
    except OverflowError as error:
        raise ValueError(f"{what:.80} holds a number too large for a float") from error
