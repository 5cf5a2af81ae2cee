"""Models that ship with `interp`: hand-compiled ones here, trained ones in `interp.models`."""

from __future__ import annotations

from interp.zoo import handmade

__all__ = ["handmade"]
