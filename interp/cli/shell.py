"""How every command ends: its errors, a signal, a pipe that nobody reads."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from interp.cli import show
from interp.errors import InterpError

USAGE_ERROR: Any = typer.BadParameter.__base__
"""Of every wrong use of a command, wherever typer keeps the class."""


class Terminated(KeyboardInterrupt):
    """SIGTERM. What is kept after Ctrl-C is kept after it too."""


class Shell(TyperGroup):
    """Ends what the user can mend as one line, and with a code that says how.

    An `InterpError`, or a file that cannot be written, is told in one sentence on stderr, and with
    `--json` on stdout too. Any other error is a bug and keeps its traceback. A command that keeps
    something when it is stopped says so in the KeyboardInterrupt that it raises again.
    """

    def main(self, *args: Any, **given: Any) -> Any:
        _open_what_is_closed()
        try:
            return super().main(*args, **given)
        finally:
            _flush()

    def invoke(self, ctx: Any) -> Any:
        as_json = "--json" in ctx.args
        show.written.clear()
        try:
            with _terminable():
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            typer.echo(f"Stopped: {str(stop) or show.kept()}", err=True)
            raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from stop
        except USAGE_ERROR as error:
            if as_json:
                told = " ".join(error.format_message().split())
                show.print_json({"error": told, "kind": "UsageError"})
            raise
        except (InterpError, OSError) as error:
            if ctx.params.get("debug") or isinstance(error, BrokenPipeError):
                raise
            message = " ".join(str(error).split())
            with suppress(OSError):  # stderr or stdout itself may be what cannot be written
                typer.echo(f"Error: {message}", err=True)
                if as_json:
                    show.print_json({"error": message, "kind": type(error).__name__})
            raise typer.Exit(1) from error


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""

    def stop(*_: Any) -> NoReturn:
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_what_is_closed() -> None:
    """Let stdin, stdout and stderr that the caller has closed lead nowhere.

    Else the next file that is opened takes the number of one of them, and what is printed ends in
    that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # which takes the lowest free number
        if getattr(sys, name) is None:
            stream = open(number, "w" if number else "r", closefd=False)  # noqa: SIM115 - for good
            setattr(sys, name, stream)


def _flush() -> None:
    """Write what is left; end with an error if it can go nowhere.

    Of a disk that is full that was told before; of a pipe whose reader has gone nothing is told.
    """
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
