"""The commands of `interp`, and whether a line of shell is one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import typer

from interp.cli import app

ROOT: Any = typer.main.get_command(app)


def leaves() -> dict[str, Any]:
    """Every command that does something, by its words: "scan", "vectors make"."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if hasattr(command, "commands"):
            for name, each in command.commands.items():
                yield from walk(each, (*words, name))
        else:
            yield " ".join(words), command

    return dict(walk(ROOT, ()))


def options(command: Any) -> dict[str, Any]:
    """The options of a command by their first name, --help aside."""
    return {param.opts[0]: param for param in command.params if param.param_type_name == "option"}


def parse(line: str) -> str:
    """The words of the command that a line runs, "scan" or "vectors make".

    Raises what `interp` raises for arguments that it does not take; nothing is run.
    """
    program, *arguments = shlex.split(line, comments=True)
    assert program == "interp", line
    command, words = ROOT, []
    context = command.make_context("interp", arguments)
    while hasattr(command, "commands"):
        left = [*context._protected_args, *context.args]
        name, command, arguments = command.resolve_command(context, left)
        words.append(name)
        context = command.make_context(name, arguments, parent=context)
    return " ".join(words)
