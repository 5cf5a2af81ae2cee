"""Whether values are what the fields of a dataclass say: their types, and shapes that agree."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxtyping import jaxtyped
from torch import Tensor

Made = TypeVar("Made")


def misfit(cls: Any, values: Mapping[str, Any]) -> str | None:
    """The first field whose value is of another type or shape; None if all fit.

    An axis that several tensors name, such as `prompts`, has one length in all of them; in the
    tensors of a mapping it may differ.
    """
    hints = _hints(cls)
    wrong = next((name for name in values if not fits(values[name], hints[name])), None)
    if wrong is not None:
        return wrong
    tensors = [name for name, value in values.items() if isinstance(value, Tensor)]
    with jaxtyped("context"):  # remembers the length of each axis from field to field
        return next((name for name in tensors if not isinstance(values[name], hints[name])), None)


def fitted(cls: type[Made], **values: Any) -> Made:
    """An instance of a dataclass, if each value is what its field says.

    Raises ValueError for one that is not, KeyError for a name that is no field, TypeError for a
    field that is missing, and what the class itself raises.
    """
    if (wrong := misfit(cls, values)) is not None:
        raise ValueError(f"{cls.__name__}.{wrong} is not what it must be")
    return cls(**values)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a type hint says, all the way down.

    >>> fits({"a": (1, 2)}, dict[str, tuple[int, ...]]), fits(["a"], list[int])
    (True, False)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(fits(value, each) for each in inner)
    if origin is Literal:
        return any(value == each and type(value) is type(each) for each in inner)
    if origin is tuple:
        return isinstance(value, tuple) and _fit_tuple(value, inner)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        pairs = value.items() if isinstance(value, Mapping) else [(None, None)]
        fitting = all(fits(key, inner[0]) and fits(each, inner[1]) for key, each in pairs)
        return isinstance(value, Mapping) and fitting
    if isinstance(origin, type):
        entries: Any = value
        return isinstance(value, origin) and all(fits(each, inner[0]) for each in entries)
    if hint is float:  # a whole number may stand for one, if one can be as large
        whole = isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023
        return whole or isinstance(value, float)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _fit_tuple(value: tuple[Any, ...], inner: tuple[Any, ...]) -> bool:
    if inner[1:] == (...,):
        return all(fits(each, inner[0]) for each in value)
    return len(value) == len(inner) and all(map(fits, value, inner))


@cache
def _hints(cls: Any) -> dict[str, Any]:
    return get_type_hints(cls)
