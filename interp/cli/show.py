"""Printing: tables and JSON on stdout, progress on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

PIPE = 200
"""Columns of a table that nobody sees on a terminal, whose width would cut it."""


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, title: str) -> None:
    """Print a table; a terminal gets colours, a pipe plain text of any width."""
    width = None if sys.stdout.isatty() else PIPE
    console = Console(highlight=False, markup=False, width=width)
    console.print(title, style="bold", soft_wrap=True)
    shown = Table(box=None, pad_edge=False, header_style="dim")
    for i, column in enumerate(columns):
        shown.add_column(column, overflow="fold", no_wrap=i == 0)
    for row in rows:
        shown.add_row(*row)
    console.print(shown)


written: list[Path] = []
"""The files that the command now running has written."""


def wrote(path: Path) -> None:
    """Say which file was written, on stderr."""
    written.append(path)
    typer.echo(f"Wrote {path}", err=True)


def kept() -> str:
    """What is left of a command that was stopped."""
    files = ", ".join(str(path) for path in written)
    return f"{files} had been written; nothing else is kept." if files else "nothing is kept."


def say(message: str) -> None:
    """What is being done now, on stderr; nothing when nobody watches."""
    if sys.stderr.isatty():
        Console(stderr=True).print(message, style="dim", highlight=False, markup=False)


def print_json(data: Any) -> None:
    """Print data as JSON; numbers that JSON does not know become null."""
    typer.echo(json.dumps(_plain(data), indent=2, allow_nan=False))


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
