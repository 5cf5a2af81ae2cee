"""Results as files: one safetensors file each, which names no code and is checked when read."""

from __future__ import annotations

from interp.saved.fits import fitted
from interp.saved.registry import KEPT_OUT, known, register
from interp.saved.saved import BROKEN, FORMAT, Saved

__all__ = ["BROKEN", "FORMAT", "KEPT_OUT", "Saved", "fitted", "known", "register"]
