"""A progress bar for whatever lasts more than a second."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")


def track(items: Sequence[Item], what: str, *, shown: bool = True) -> Iterator[Item]:
    """Yield the items; after a second, show how many are done, on a terminal or in a notebook.

    It is written to standard error, so that standard output stays fit for a pipe. A single item
    has no bar: that of the loop around it tells more.
    """
    console = Console(stderr=True)
    seen = shown and len(items) > 1 and (console.is_terminal or console.is_jupyter)
    with Progress(console=console, disable=not seen, transient=True) as bar:
        task = bar.add_task(what, total=len(items), visible=False)
        for item in items:
            yield item
            elapsed = bar.tasks[0].elapsed or 0
            bar.update(task, advance=1, visible=elapsed > 1)
