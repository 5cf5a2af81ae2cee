"""Work cut into chunks, and what an engine that computes them must do."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from contextlib import closing
from typing import Any, Protocol, TypeVar, runtime_checkable

from interp.models import Model
from interp.runs import Chunk, Run

Answer = TypeVar("Answer")
Item = tuple[int, Any]
"""The number of a chunk, and what says which one it is."""
Compute = Callable[[Any], Chunk]
Computed = Generator[tuple[int, Chunk], None, None]
"""Chunks as they are done. Whoever takes them closes it: an error that is kept, as notebooks keep
the last, would hold it open, and its workers at work."""


@runtime_checkable
class Work(Protocol):
    """What is computed, apart from the model: it may be sent to another process."""

    def open(self, model: Model) -> Compute:
        """Get ready on a model; what comes back computes one chunk after another.

        Chunks with neighbouring numbers often share what they need, so that it is kept.
        """


@runtime_checkable
class Engine(Protocol):
    """Computes chunks somewhere."""

    @property
    def threads(self) -> int:
        """Threads with which each worker computes on a CPU; they decide last bits."""

    def where(self, model: Model) -> str:
        """The devices on which it computes, for the provenance: "cuda:0, cuda:1"."""

    def ask(self, model: Model, question: Callable[[Model], Answer]) -> Answer:
        """Put a question to the model of one worker, such as how much memory it has."""

    def compute(self, model: Model, work: Work, items: Iterable[Item]) -> Computed:
        """The chunk of each item, `(number, chunk)`, in whatever order they are done.

        What a worker raises is raised here. A worker that is lost is replaced, and what it was
        computing is computed again.
        """


def kept_and_computed(
    engine: Engine, model: Model, work: Work, items: Iterable[Item], run: Run | None
) -> Computed:
    """Every chunk: first those that the run holds, then the others, kept in it as they come."""
    known: set[int] = set()
    if run is not None:
        for number, chunk in run.chunks():
            known.add(number)
            yield number, chunk
    waiting = (item for item in items if item[0] not in known)
    with closing(engine.compute(model, work, waiting)) as computed:
        for number, chunk in computed:
            if run is not None:
                run.keep(number, chunk)
            yield number, chunk
