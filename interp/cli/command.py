"""What the help of a command is made of."""

from __future__ import annotations

from inspect import cleandoc
from typing import Any

from typer.core import TyperCommand

EXAMPLES = "Examples:\n"


class Command(TyperCommand):
    """A command whose help is its docstring: paragraphs flow, and the examples come last."""

    def __init__(self, *args: Any, help: str | None = None, **given: Any) -> None:
        text, _, examples = cleandoc(help or "").partition(f"\n\n{EXAMPLES}")
        flowing = "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))
        given["epilog"] = f"{EXAMPLES}{examples}" if examples else given.get("epilog")
        super().__init__(*args, help=flowing, **given)
