"""A sweep in a run: what makes it this sweep, what is settled when it begins, and its chunks."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations import Activations
from interp.engine.interventions import Intervention
from interp.engine.metrics import Metric
from interp.errors import InterventionError, RunError
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.runs import Run

RESULT = "sweep.safetensors"
"""The file in a run's folder that holds the whole sweep, for `SweepResult.load`."""
LEFT_OUT = ("geometry", "notes", "command")
"""Of the provenance: the first follows from the model, the second from the prompts' hash."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """What is computed together: some interventions on some prompts.

    Attributes:
        number: Its place in the sweep.
        rows: The prompts.
        sites: The interventions; none for what the metric is before anything is changed.
    """

    number: int
    rows: Int[Tensor, " prompts"]
    sites: list[int]


@contextmanager
def opened(
    folder: str | Path,
    model: Model,
    prompts: PromptSet,
    interventions: Sequence[Intervention],
    measure: Metric,
    *,
    devices: Sequence[str | torch.device] | None,
    **options: Any,
) -> Iterator[Run]:
    """The run of a sweep, and as many threads as it was begun with, which decide last bits.

    Raises RunError as Run does, and InterventionError for several devices.
    """
    if devices is not None:
        raise InterventionError(
            "A run is computed on one device and devices names others; leave devices out, or make "
            "one run of some of the sites for each device."
        )
    options = {**options, "metric": metric_identity(measure)}
    about = provenance(model, prompts, **options)
    identity = {key: value for key, value in about.items() if key not in LEFT_OUT}
    identity |= {"interventions": len(interventions), "edits": edits_hash(interventions)}
    command = options.get("command")
    before = torch.get_num_threads()
    with Run(folder, kind="sweep", result=RESULT, identity=identity, command=command) as run:
        torch.set_num_threads(run.settle("threads", before))
        try:
            yield run
        finally:
            torch.set_num_threads(before)


def cut(groups: Iterable[tuple[Tensor, list[list[int]]]]) -> list[Chunk]:
    """Chunks of groups of prompts: first what each is before any change, then each batch of sites.

    >>> [chunk.sites for chunk in cut([(torch.arange(2), [[0, 1], [2]])])]
    [[], [0, 1], [2]]
    """
    parts = [(rows, sites) for rows, batches in groups for sites in [[], *batches]]
    return [Chunk(number, rows, sites) for number, (rows, sites) in enumerate(parts)]


def by_group(chunks: Iterable[Chunk]) -> list[list[Chunk]]:
    """The same chunks, those of each group together."""
    found: list[list[Chunk]] = []
    for chunk in chunks:
        if not chunk.sites:
            found.append([])
        found[-1].append(chunk)
    return found


class Kept:
    """What a sweep puts into its run and takes out of it; without a run, nothing.

    `values`, `start` and `other` are the sweep's own tensors, filled in as it goes.
    """

    def __init__(
        self,
        run: Run | None,
        values: Float[Tensor, "sites prompts"],
        start: Float[Tensor, " prompts"],
        other: Float[Tensor, " prompts"] | None,
    ) -> None:
        self.run, self.values = run, values
        self.baselines = {"start": start} | ({} if other is None else {"other": other})

    def known(self, chunk: Chunk) -> bool:
        """Whether it is recorded, so that it need not be computed."""
        return self.run is not None and chunk.number in self.run.done

    def keep(self, chunk: Chunk) -> None:
        """Put in what was found."""
        if self.run is None:
            return
        rows = chunk.rows.to(self.values.device)
        if chunk.sites:
            index = torch.tensor(chunk.sites, device=rows.device)
            self.run.keep(chunk.number, {"values": self.values[index[:, None], rows]})
        else:
            self.run.keep(chunk.number, {name: of[rows] for name, of in self.baselines.items()})

    def restore(self, chunks: Sequence[Chunk]) -> None:
        """Take out all that was found before.

        Raises RunError if the sweep was cut into other chunks then.
        """
        if self.run is None:
            return
        _settle(self.run, chunks)
        for number, tensors in self.run.chunks():
            rows = chunks[number].rows.to(self.values.device)
            index = torch.tensor(chunks[number].sites, device=rows.device)
            for name, tensor in tensors.items():
                if name == "values":
                    self.values[index[:, None], rows] = tensor.to(self.values)
                else:
                    self.baselines[name][rows] = tensor.to(self.values)


def _settle(run: Run, chunks: Sequence[Chunk]) -> None:
    """Note how a sweep is cut up, or see that it is cut as before."""
    digest = hashlib.sha256()
    for chunk in chunks:
        numbers = torch.tensor(chunk.sites) if chunk.sites else chunk.rows.cpu()
        digest.update(f"{len(chunk.sites)} ".encode() + numbers.numpy().tobytes())
    found = {"chunks": len(chunks), "cut": digest.hexdigest()[:16]}
    if {name: run.settle(name, value) for name, value in found.items()} != found:
        raise RunError(
            f"{run.folder} was cut into other chunks than now, by another version of the engine; "
            "start it again in another folder."
        )


def metric_identity(measure: Metric) -> str:
    """The name of a metric; of the user's own, where it stands and a hash of its source.

    What a function closes over, and what it calls, is not in the hash.
    """
    if measure.is_ours:
        return measure.name
    function = measure.function
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


def _value(value: Any, seen: dict[int, str]) -> str:
    """A setting of an operation as text; a source that many share is read once."""
    if not isinstance(value, Tensor | PromptSet | Activations):
        return repr(value)
    if id(value) not in seen:
        if isinstance(value, PromptSet):
            seen[id(value)] = value.hash
        else:
            named = {"": value} if isinstance(value, Tensor) else value
            seen[id(value)] = " ".join(f"{name}:{_of_tensor(named[name])}" for name in named)
    return seen[id(value)]


def _of_tensor(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().flatten().view(torch.uint8)
    return f"{tuple(tensor.shape)}{tensor.dtype}{_digest(flat.numpy().tobytes())}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
