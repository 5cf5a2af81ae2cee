"""Results on disk: any file that a result wrote is read by one function."""

from __future__ import annotations

from interp.results.load import FORMATS, load, load_all, place_of
from interp.results.save import save_all

__all__ = ["FORMATS", "load", "load_all", "place_of", "save_all"]
