"""A worker of a Ray cluster: a process that holds a model and computes what it is given."""

from __future__ import annotations

import platform
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import load, save

from interp.models import Model
from interp.runs import Chunk
from interp.workers.dealing import Batch
from interp.workers.model_source import Source, Weights
from interp.workers.versions import require_same
from interp.workers.work import Compute


@dataclass(frozen=True)
class Raised:
    """What was raised in a worker, to be raised again where it was asked."""

    error: Exception


@dataclass(frozen=True)
class Reply:
    """What a batch gave, and how long it took."""

    value: Any
    seconds: float


class Worker:
    """Lives on the cluster (a Ray actor); nothing else talks to it than the driver's crew.

    Args:
        threads: With which it computes on a CPU.
        precision: Of float32 products, as torch.get_float32_matmul_precision() says it.
    """

    def __init__(self, threads: int, precision: str) -> None:
        self._threads = threads
        torch.set_float32_matmul_precision(precision)
        torch.set_grad_enabled(False)
        self._model: Model | None = None
        self._opened: tuple[str, Compute] | None = None

    def start(self) -> None:
        """Answer, so that it is known that there is a worker."""

    def hold(self, source: Source, weights: list[Any], device: str) -> bool | Raised:
        """Hold a model from now on. `weights` is empty, or the reference of what was sent.

        False if it is not known here by name, so that its weights must be sent.
        """
        import ray

        self._model = self._opened = None  # before there are two in memory
        try:
            require_same(source.versions)
            if weights:
                sent: Weights = ray.get(weights[0])
                self._model = source.from_weights(sent, device)
            else:
                self._model = source.by_name(device)
        except Exception as error:
            return Raised(portable(error))
        return self._model is not None

    def ask(self, question: list[Any], _: Batch) -> Reply | Raised:
        """What the model says."""
        import ray

        torch.set_num_threads(self._threads)
        try:
            assert self._model is not None
            return Reply(ray.get(question[0])(self._model), 0.0)
        except Exception as error:
            return Raised(portable(error))

    def compute(self, work: list[Any], batch: Batch) -> Reply | Raised:
        """The chunks of a batch, packed."""
        start = time.monotonic()
        try:
            compute = self._open(work[0])
            chunks = {number: compute(item) for number, item in batch}
            return Reply(pack(chunks), time.monotonic() - start)
        except Exception as error:
            return Raised(portable(error))

    def _open(self, reference: Any) -> Compute:
        """The work, opened once for all of its batches."""
        import ray

        name = reference.hex()
        if self._opened is None or self._opened[0] != name:
            assert self._model is not None
            self._opened = None
            torch.set_num_threads(self._threads)  # the last work may have wanted others
            self._opened = (name, ray.get(reference).open(self._model))
        return self._opened[1]


def portable(error: Exception) -> Exception:
    """An error that can be sent, with the worker's traceback as a note."""
    import ray.cloudpickle

    told = "".join(traceback.format_exception(error))
    try:
        again = ray.cloudpickle.loads(ray.cloudpickle.dumps(error))
        assert type(again) is type(error)
    except Exception:  # what an error class does when it is sent is its own
        again = RuntimeError(f"{type(error).__name__}: {error}")
    again.add_note(f"In a worker on {platform.node()}:\n{told}")
    return again


def pack(chunks: dict[int, Chunk]) -> bytes:
    """Chunks as the bytes of a safetensors file."""
    return save(
        {
            f"{number}/{name}": tensor.cpu().contiguous()
            for number, chunk in chunks.items()
            for name, tensor in chunk.items()
        }
    )


def unpack(data: bytes, batch: Batch) -> Iterator[tuple[int, Chunk]]:
    """The chunks of a batch again, in its order."""
    chunks: dict[int, Chunk] = {number: {} for number, _ in batch}
    for key, tensor in load(data).items():
        number, _, name = key.partition("/")
        chunks[int(number)][name] = tensor
    yield from chunks.items()
