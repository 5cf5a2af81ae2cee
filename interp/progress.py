"""A progress bar for whatever lasts more than a second."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from html import escape
from importlib import import_module
from threading import Timer
from typing import Any, TypeVar

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

Item = TypeVar("Item")
Advance = Callable[[], None]

PATIENCE = 1.0
"""Seconds before a bar appears."""


def track(items: Sequence[Item], what: str, *, shown: bool = True) -> Iterator[Item]:
    """Yield the items; after a second, show how many are done and how long the others will take.

    The bar stands on standard error, if that is a terminal that can redraw a line, or below the
    cell of a notebook, and goes away at the end. Anywhere else, and with `INTERP_PROGRESS=0` in the
    environment, nothing is written. A loop inside the loop has a bar of its own under this one. A
    single item has no bar: that of the loop around it tells more.
    """
    console = Console(stderr=True)
    if not shown or len(items) < 2 or not is_wanted(console):
        yield from items
        return
    if console.is_jupyter:
        bar = _below_the_cell(what, len(items))
    else:
        bar = _on_the_terminal(console, what, len(items))
    with bar as advance:
        for item in items:
            yield item
            advance()


def is_wanted(console: Console) -> bool:
    """Whether a bar is wanted, and can be drawn there."""
    can = console.is_jupyter or (console.is_terminal and not console.is_dumb_terminal)
    return can and os.environ.get("INTERP_PROGRESS") != "0"


class _Bars(Progress):
    """A line for each loop that has lasted long enough."""

    def get_renderables(self) -> Iterable[RenderableType]:
        lasting = [task for task in self.tasks if (task.elapsed or 0) > PATIENCE]
        if lasting:
            yield self.make_tasks_table(lasting)


_open: list[_Bars] = []
"""The display of the outermost loop that is running; a terminal has room for one."""


@contextmanager
def _on_the_terminal(console: Console, what: str, total: int) -> Iterator[Advance]:
    with nullcontext(_open[0]) if _open else _display(console) as bars:
        task = bars.add_task(what, total=total)
        try:
            yield partial(bars.advance, task)
        finally:
            bars.remove_task(task)


@contextmanager
def _display(console: Console) -> Iterator[_Bars]:
    """Bars that are drawn after a while, even if the first item is still being worked on."""
    bars = _Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
        console=console,
        transient=True,
        redirect_stdout=False,  # what is printed meanwhile belongs where it was meant to go
    )
    beginning = Timer(PATIENCE, bars.start)
    beginning.daemon = True
    beginning.start()
    _open.append(bars)
    try:
        yield bars
    finally:
        _open.remove(bars)
        beginning.cancel()
        beginning.join()
        bars.stop()


@contextmanager
def _below_the_cell(what: str, total: int) -> Iterator[Advance]:
    """A line of HTML that is renewed in place, twice a second at most; empty at the end."""
    show = import_module("IPython.display").display  # only where a notebook has imported it
    began = shown_at = time.monotonic()
    done, line = 0, None

    def advance() -> None:
        nonlocal done, shown_at, line
        done, now = done + 1, time.monotonic()
        if now - began > PATIENCE and now - shown_at > 0.5:
            shown_at, left = now, (now - began) / done * (total - done)
            page = _line(what, done, total, left)
            line = line or show(page, raw=True, display_id=True)
            line.update(page, raw=True)

    try:
        yield advance
    finally:
        if line is not None:
            line.update({"text/plain": "", "text/html": ""}, raw=True)


def _line(what: str, done: int, total: int, left: float) -> dict[str, Any]:
    minutes, seconds = divmod(round(left), 60)
    told = f"{what} {done}/{total}, {minutes // 60}:{minutes % 60:02}:{seconds:02} left"
    bar = f'<progress value="{done}" max="{total}"></progress> {escape(told)}'
    return {"text/plain": told, "text/html": bar}
