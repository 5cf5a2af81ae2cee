"""A sweep in a run: what makes it this sweep, and what is settled when it begins."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp.activations import Activations
from interp.engine.batches import Batches
from interp.engine.interventions import Intervention
from interp.engine.memory import largest_group, train_tokens
from interp.engine.metrics import Metric
from interp.engine.replay import replay_of
from interp.errors import RunError
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.runs import Run
from interp.sites import Site
from interp.workers import Engine
from interp.workers.opened import opened as opened_run
from interp.workers.opened import threads_of

RESULT = "sweep.safetensors"
"""The file in a run's folder that holds the whole sweep, for `SweepResult.load`."""


def opened(
    folder: str | Path | None,
    model: Model,
    prompts: PromptSet,
    measure: Metric,
    engine: Engine,
    *,
    edits: Mapping[str, Any],
    **options: Any,
) -> AbstractContextManager[Run | None]:
    """The run of a sweep, if it has a folder; see `interp.workers.opened`.

    `edits` says what is done, as plain values. Raises RunError as Run does.
    """
    about = provenance(model, prompts, **options, metric=metric_identity(measure)) | {**edits}
    return opened_run(
        folder,
        model,
        engine,
        kind="sweep",
        result=RESULT,
        about=about,
        prompts=prompts,
        command=options.get("command"),
    )


@dataclass(frozen=True)
class Room:
    """What decides the last bits of a sweep.

    Attributes:
        largest: Prompts at once.
        tokens: Tokens at once.
        threads: With which workers compute on a CPU.
    """

    largest: int
    tokens: int
    threads: int


def room(model: Model, prompts: PromptSet, engine: Engine, run: Run | None) -> Room:
    """What a worker has room for; in a run, what it had when the run was begun."""
    largest, tokens = engine.ask(model, partial(_room, prompts))
    if run is not None:
        largest = run.settle("prompts at once", largest)
        tokens = run.settle("tokens at once", tokens)
    return Room(largest, tokens, threads_of(engine, run))


def _room(prompts: PromptSet, model: Model) -> tuple[int, int]:
    replay = replay_of(model)
    return largest_group(replay, prompts), train_tokens(replay)


def settle(run: Run | None, batches: Batches) -> None:
    """Note how a sweep is cut up. Raises RunError if it was cut otherwise before."""
    found = {"chunks": len(batches), "cut": batches.hash}
    if run is not None and {name: run.settle(name, new) for name, new in found.items()} != found:
        raise RunError(
            f"{run.folder} was cut into other chunks than now, by another version of the engine; "
            "start it again in another folder."
        )


def metric_identity(measure: Metric) -> str:
    """The name of a metric; of the user's own, where it stands and a hash of its source.

    What a function closes over, and what it calls, is not in the hash.
    """
    return measure.name if measure.is_ours else _of_function(measure.function)


def _of_function(function: Callable[..., Any]) -> str:
    if isinstance(function, partial):
        given = [*enumerate(function.args), *function.keywords.items()]
        told = ", ".join(f"{name}={_value(value, {})}" for name, value in given)
        return f"{_of_function(function.func)} with {told}"
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}.{named.__qualname__}"
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):
        return f"{name}, source unknown"
    return f"{name}, source {_digest(source.encode())}"


def edits_hash(interventions: Sequence[Intervention]) -> str:
    """16 hexadecimal digits that change with any site, position, operation or value."""
    digest = hashlib.sha256()
    seen: dict[int, str] = {}
    for intervention in interventions:
        for edit in intervention.edits:
            values = ", ".join(
                f"{field.name}={_value(getattr(edit.operation, field.name), seen)}"
                # every operation is a dataclass
                for field in fields(edit.operation)  # type: ignore[arg-type]
            )
            digest.update(f"{edit.operation.name} {edit.label} {values};".encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def sites_hash(sites: Sequence[Site]) -> str:
    """16 hexadecimal digits that change with any site."""
    return _digest("\n".join(map(str, sites)).encode())


def _value(value: Any, seen: dict[int, str]) -> str:
    """A setting of an operation as text; a source that many share is read once."""
    if not isinstance(value, Tensor | PromptSet | Activations):
        return repr(value)
    if id(value) not in seen:
        if isinstance(value, PromptSet):
            seen[id(value)] = value.identity
        else:
            named = {"": value} if isinstance(value, Tensor) else value
            seen[id(value)] = " ".join(f"{name}:{_of_tensor(named[name])}" for name in named)
    return seen[id(value)]


def _of_tensor(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return f"{tuple(tensor.shape)}{tensor.dtype}{_digest(flat.numpy().tobytes())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
