"""A run and the engine that fills it: what is settled between them, and what a run may hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from interp.errors import RunError
from interp.models import Model
from interp.prompts import PromptSet
from interp.runs import Chunk, Run, is_run, settled
from interp.workers.work import Engine

LEFT_OUT = ("geometry", "notes", "command")
"""Of a provenance: the first follows from the model's settings, the others decide no number."""


@contextmanager
def opened(
    folder: str | Path | None,
    model: Model,
    engine: Engine,
    *,
    kind: str,
    result: str,
    about: Mapping[str, Any],
    prompts: PromptSet | None = None,
    command: str | None = None,
) -> Iterator[Run | None]:
    """The run in a folder, if there is one; this process computes with the threads of the workers.

    What makes it this run is in `about`, its provenance and what else is asked for, in how the
    model uses its weights, and in `prompts`. Threads and the kind of device decide last bits: the
    first are as when the run was begun, and the second is one of its marks. Raises RunError as Run
    does.
    """
    before = torch.get_num_threads()
    with ExitStack() as stack:
        run = None
        if folder is not None:
            marks = {name: value for name, value in about.items() if name not in LEFT_OUT}
            marks |= {} if prompts is None else {"prompts_hash": prompts.identity}
            marks |= {"settings": model.settings, "device": engine.ask(model, _kind_of_device)}
            marks |= {"products": torch.get_float32_matmul_precision()}
            run = stack.enter_context(
                Run(folder, kind=kind, result=result, identity=marks, command=command)
            )
        torch.set_num_threads(threads_of(engine, run))
        stack.callback(torch.set_num_threads, before)
        yield run


@contextmanager
def threads_as_in(folder: str | Path | None, engine: Engine) -> Iterator[None]:
    """This process computes with the threads of the workers: in a run, as when it was begun."""
    before, begun = torch.get_num_threads(), None
    if folder is not None and is_run(folder):
        begun = settled(folder, "threads", int)
    torch.set_num_threads(begun or engine.threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_of(engine: Engine, run: Run | None) -> int:
    """Threads with which a worker computes: in a run, as many as when it was begun."""
    return engine.threads if run is None else run.settle("threads", engine.threads)


def settle_chunks(run: Run | None, chunks: int) -> None:
    """Note how many chunks there will be. Raises RunError if it was another number before."""
    if run is not None and (before := run.settle("chunks", chunks)) != chunks:
        raise RunError(
            f"{run.folder} was cut into {before} chunks and is now cut into {chunks}, by another "
            "version of the engine; start it again in another folder."
        )


def require_shapes(
    number: int, chunk: Chunk, shapes: Mapping[str, tuple[int, ...]], run: Run | None
) -> None:
    """Raise RunError unless a chunk has these tensors, and no others."""
    if {name: tuple(tensor.shape) for name, tensor in chunk.items()} != shapes:
        raise foreign(number, run)


def foreign(number: int, run: Run | None) -> RunError:
    """What is raised for a chunk that this work has not written."""
    where = "the engine" if run is None else run.folder
    return RunError(
        f"Chunk {number} of {where} holds something else than what is computed here; start again "
        "in another folder."
    )


def _kind_of_device(model: Model) -> str:
    """Which one of several alike decides no bit."""
    return model.device.type
