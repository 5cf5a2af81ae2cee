"""The checks of types and shapes that every function of `interp` gets in the tests.

A function that is made anew at each call is checked as it was the first time: what checks it is
made once, since to make it takes a thousand times as long as to use it.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from beartype import beartype

_made: dict[tuple[str, str, inspect.Signature], Callable[..., Any]] = {}


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """What jaxtyping calls with the types of a function's arguments, or of these and its result."""
    key = (function.__module__, function.__qualname__, inspect.signature(function))
    if key not in _made:
        _made[key] = beartype(function)
    return _made[key]
