"""The shell: `interp`, also as `python -m interp`."""

from __future__ import annotations

from interp.cli.app import app

__all__ = ["app"]
