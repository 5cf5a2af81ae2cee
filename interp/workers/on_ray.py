"""A Ray cluster: workers on this machine or on many hold the model, and are replaced when lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from types import TracebackType

from interp.errors import ClusterError
from interp.models import Model
from interp.workers import cluster
from interp.workers.crew import Crew
from interp.workers.ray_worker import unpack
from interp.workers.work import Answer, Computed, Item, Work


@dataclass(frozen=True)
class Ray:
    """Workers of a Ray cluster (`pip install interp[cluster]`), each a process with the model.

    A worker loads the model by its name where its node has it, and is sent the weights otherwise.
    One that is lost, with its node or without, is replaced, and what it had not finished is
    computed again. Workers stay, with the model, until `close()` or the end of the process, and
    one engine at a time has any. Where the process has joined a cluster already, that is used.

    A Ray cluster runs whatever it is sent: join only those that you trust, and let nobody else
    reach yours. The one that is started here asks for a token, which nobody else has.

    Args:
        address: Of the cluster: "HOST:PORT", "ray://HOST:PORT", or "auto" for the one that this
            machine is a node of. None starts one on this machine, and stops it at the end.
        workers: At most so many; None for as many as there is room for.
        cpus: CPUs that are set aside for each, and the threads with which it computes, at least
            one. The bits are those of a process with so many threads.
        gpus: GPUs of each; None for one if the model is on a GPU here, else none.
        patience: Seconds to wait while the cluster has no worker at all; loading the model is not
            counted.

    Methods raise ClusterError if there is no cluster, or if it cannot do this.
    """

    address: str | None = None
    workers: int | None = None
    cpus: int | float = 1
    gpus: int | float | None = None
    patience: int | float = 300

    def __post_init__(self) -> None:
        if self.address is not None and not isinstance(self.address, str):
            raise ClusterError(f"address is {self.address!r}; give HOST:PORT as a text, or None.")
        if self.workers is not None and not (isinstance(self.workers, int) and self.workers > 0):
            raise ClusterError(f"workers is {self.workers!r}; give a whole number above 0.")
        if not (isinstance(self.cpus, int | float) and self.cpus > 0):
            raise ClusterError(f"cpus is {self.cpus!r}; give a number above 0.")
        if not (isinstance(self.patience, int | float) and self.patience >= 0):
            raise ClusterError(f"patience is {self.patience!r}; give seconds, 0 or more.")
        if self.gpus is not None:
            number = isinstance(self.gpus, int | float) and self.gpus >= 0
            if not number or (self.gpus > 1 and self.gpus != int(self.gpus)):
                raise ClusterError(f"gpus is {self.gpus!r}; give a part of one GPU, or whole ones.")

    @property
    def threads(self) -> int:
        """Those of each worker."""
        return max(1, int(self.cpus))

    def where(self, model: Model) -> str:
        """The kind of device of its workers."""
        return f"{'cuda' if self._gpus(model) else 'cpu'} (Ray)"

    def ask(self, model: Model, question: Callable[[Model], Answer]) -> Answer:
        """What the model of one worker says."""
        ((_, answer),) = _crew(self, model).run("ask", question, [(0, None)])
        return answer

    def compute(self, model: Model, work: Work, items: Iterable[Item]) -> Computed:
        """The chunk of each item, on the CPU, as they are done.

        Raises what a worker raises, with its traceback there as a note.
        """
        waiting = iter(items)
        first = next(waiting, None)
        if first is None:  # no cluster is started for nothing
            return
        for batch, data in _crew(self, model).run("compute", work, chain([first], waiting)):
            yield from unpack(data, batch)

    def close(self) -> None:
        """Dismiss the workers, and stop the cluster if it was started here."""
        if _held is not None and _held.engine == self:
            _let_go()

    def _gpus(self, model: Model) -> float:
        return float(model.device.type == "cuda" if self.gpus is None else self.gpus)

    def __enter__(self) -> Ray:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@dataclass(frozen=True)
class _Held:
    """The workers of this process, and whether it was an engine that joined the cluster."""

    engine: Ray
    gpus: float
    crew: Crew
    joined: bool


_held: _Held | None = None


def _crew(engine: Ray, model: Model) -> Crew:
    """The workers of an engine, to whom the model is being given."""
    global _held
    ray = cluster.ray_module()
    gpus = engine._gpus(model)
    if _held is None or (_held.engine, _held.gpus) != (engine, gpus) or not ray.is_initialized():
        _let_go()
        joined = not ray.is_initialized()
        if joined and engine.address is None:
            cluster.start(engine.workers, float(engine.cpus))
        elif joined and engine.address is not None:
            cluster.join(engine.address)
        try:
            if joined and engine.address is None:
                cluster.require_room(float(engine.cpus), gpus)
            crew = Crew(
                engine.workers,
                cpus=float(engine.cpus),
                threads=engine.threads,
                gpus=gpus,
                patience=float(engine.patience),
            )
        except BaseException:
            if joined:
                cluster.leave()
            raise
        _held = _Held(engine, gpus, crew, joined)
    _held.crew.hold(model)
    return _held.crew


def _let_go() -> None:
    global _held
    ray = cluster.ray_module()
    if _held is not None and ray.is_initialized():
        _held.crew.close()
        if _held.joined:
            cluster.leave()
    _held = None
