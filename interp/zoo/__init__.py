"""Models that ship with `interp`: hand-compiled ones here, trained ones in `interp.models`."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from interp.zoo import handmade

__all__ = ["handmade"]


def __getattr__(name: str) -> Any:
    """Import on first use: whoever wants a network of another file waits for no transformer."""
    if name not in __all__:
        raise AttributeError(f"module 'interp.zoo' has no attribute {name!r}")
    return import_module(f"interp.zoo.{name}")
