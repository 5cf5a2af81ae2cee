"""What `--save` does: all results of a command, as files in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def keep(folder: Path | None, **results: Any) -> None:
    """Write each result into the folder under its name, and say so; nothing without a folder."""
    if folder is None:
        return
    from interp.cli import show
    from interp.results import save_all

    for path in save_all(folder, **results):
        show.wrote(path)
