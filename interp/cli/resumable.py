"""What a command does that keeps a run: it says what is there, and how it goes on when stopped."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from interp.errors import RunError


def command_line(words: str, model: str, options: dict[str, Any]) -> str:
    """The shell line that does the same again: `words` are those of the command, "interp sweep".

    An option that is None or False is left out; one that is True is a flag.
    """
    line = [*words.split(), model]
    for name, value in options.items():
        if value is True:
            line.append(f"--{name}")
        elif value is not None and value is not False:
            joined = f"--{name}={value}"  # a value may begin with a dash, such as position -1
            line += [joined] if str(value).startswith("-") else [f"--{name}", str(value)]
    return shlex.join(line)


@contextmanager
def resumable(folder: Path | None, command: str, *, option: str) -> Iterator[None]:
    """Say what a run has already, and, when it is stopped, how it goes on.

    `option` is the one that names the folder.
    """
    from interp import runs

    if folder is not None and runs.is_run(folder):
        typer.echo(f"Resuming: {_progress(runs.info(folder))} done", err=True)
    try:
        with _warnings_as_lines():
            yield
    except KeyboardInterrupt as stop:
        if folder is None:
            told = f"nothing is kept; with {option} FOLDER what is done would be."
        else:
            try:
                done = _progress(runs.info(folder))
                told = f"{done} kept in {folder}; go on with: {command}"
            except RunError:  # stopped before there was one
                told = f"nothing was done yet; begin again with: {command}"
        raise type(stop)(told) from stop


def _progress(run: Any) -> str:
    if run.chunks is not None:
        return f"{run.done:,} of {run.chunks:,} chunks are"
    return "1 chunk is" if run.done == 1 else f"{run.done:,} chunks are"


@contextmanager
def _warnings_as_lines() -> Iterator[None]:
    """A warning of ours is one line on stderr."""
    with warnings.catch_warnings():
        warnings.filterwarnings("always", category=UserWarning, module=r"interp\.")
        warnings.showwarning = lambda message, *_, **__: typer.echo(f"Warning: {message}", err=True)
        yield
