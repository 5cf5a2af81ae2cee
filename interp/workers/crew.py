"""The workers of a Ray cluster as the driver sees them: hired, given work, replaced."""

from __future__ import annotations

import time
import warnings
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from interp.errors import ClusterError, one_line
from interp.models import Model
from interp.workers.cluster import ray_module, slots
from interp.workers.dealing import AHEAD, Batch, Dealer
from interp.workers.model_source import Source, Weights
from interp.workers.ray_worker import Raised, Worker
from interp.workers.work import Item

DEATHS = 3
"""Workers that one item may kill, and that may be lost in a row before one holds the model."""
GLANCE = 1.0
"""Seconds between two looks at whether there is anybody to work."""


@dataclass(eq=False)
class Hand:
    """One worker; `started` when it has answered, `ready` when it holds the model. It computes its
    batches in their order.

    It has `busy` of them, of which those that nobody waits for any more are not in `batches`. An
    item that may have killed a worker is on trial: it is all that a worker has, so that it is
    known whether it was that item.
    """

    actor: Any
    started: bool = False
    ready: bool = False
    busy: int = 0
    batches: deque[Batch] = field(default_factory=deque)
    on_trial: bool = False

    def has_room(self, dealer: Dealer) -> bool:
        """Whether it can take what is dealt next."""
        alone = self.on_trial or dealer.has_returned
        return self.ready and self.busy < (1 if alone else AHEAD)


class Crew:
    """Workers that all hold one model.

    Args:
        workers: At most so many; None for as many as the cluster has room for.
        cpus: CPUs that Ray sets aside for each.
        threads: With which each computes on a CPU.
        gpus: GPUs of each.
        patience: Seconds to wait while no worker has started.
    """

    def __init__(
        self, workers: int | None, *, cpus: float, threads: int, gpus: float, patience: float
    ) -> None:
        self._ray = ray_module()
        self._patience = patience
        self._device = "cuda" if gpus else "cpu"
        self._size = slots(self._ray, cpus, gpus) if workers is None else workers
        self._actors = self._ray.remote(Worker).options(
            num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD"
        )
        self._settings = (threads, torch.get_float32_matmul_precision())
        self._hands: list[Hand] = []
        self._asked: dict[Any, tuple[Hand, str]] = {}  # by the reference of the answer
        self._model: Model | None = None
        self._source: Source | None = None
        self._weights: list[Any] = []  # their reference, once a worker has needed it
        self._lost_in_a_row = 0

    def hold(self, model: Model) -> None:
        """Let every worker hold this model. It does not wait until they do."""
        if (source := Source.of(model)) != self._source:  # other weights are another model
            self._source, self._model, self._weights = source, model, []
            for hand in self._hands:
                self._send_model(hand)
        while len(self._hands) < self._size:
            self._hire()

    def run(self, method: str, what: Any, items: Iterable[Item]) -> Iterator[tuple[Batch, Any]]:
        """Call a method of Worker on every item; each batch with what came of it.

        Args:
            method: "compute" or "ask".
            what: The first argument, which is sent to each worker once.
            items: The second, in batches.

        Raises what a worker raises, and ClusterError when items kill workers or nobody works.
        """
        if any(hand.batches for hand in self._hands):
            raise ClusterError("This engine is computing something else; finish that first.")
        reference, dealer, killed = self._ray.put(what), Dealer(items), Counter[int]()
        idle_since = time.monotonic()
        try:
            while True:
                for hand in self._hands:
                    while hand.has_room(dealer):
                        hand.on_trial = dealer.has_returned
                        if not (batch := dealer.deal()):
                            break
                        self._give(hand, method, reference, batch)
                if dealer.is_done and not any(hand.batches for hand in self._hands):
                    return
                if any(hand.started for hand in self._hands):  # however long it loads the model
                    idle_since = time.monotonic()
                elif time.monotonic() - idle_since > self._patience:
                    raise self._nobody()
                answers, _ = self._ray.wait(list(self._asked), timeout=GLANCE)
                for answer in answers:  # one at a time
                    hand, step = self._asked.pop(answer)
                    try:
                        said = self._ray.get(answer)
                    except self._ray.exceptions.RayTaskError:
                        raise
                    except self._ray.exceptions.RayError as error:
                        self._replace(hand, dealer, killed, error)
                        continue
                    hand.started = True
                    hand.busy -= step in ("batch", "past")
                    if step in ("start", "past"):
                        continue
                    if isinstance(said, Raised):
                        raise said.error
                    if step == "batch":
                        batch = hand.batches.popleft()
                        dealer.took(len(batch), seconds=said.seconds)
                        yield batch, said.value
                    else:
                        self._received(hand, said)
        finally:
            self._forget()

    def close(self) -> None:
        """Dismiss everybody."""
        for hand in self._hands[:]:
            self._dismiss(hand)

    def _give(self, hand: Hand, method: str, what: Any, batch: Batch) -> None:
        hand.busy += 1
        hand.batches.append(batch)
        self._asked[getattr(hand.actor, method).remote([what], batch)] = (hand, "batch")

    def _forget(self) -> None:
        """Nobody waits for batches any more; who has some ends them, and stays."""
        for hand in self._hands[:]:
            hand.batches.clear()
            if not hand.ready and (hand, "hold") not in self._asked.values():
                self._dismiss(hand)  # an error came between
        for answer, (hand, step) in self._asked.items():
            if step == "batch":
                self._asked[answer] = (hand, "past")

    def _hire(self) -> None:
        hand = Hand(self._actors.remote(*self._settings))
        self._hands.append(hand)
        self._asked[hand.actor.start.remote()] = (hand, "start")
        self._send_model(hand)

    def _send_model(self, hand: Hand) -> None:
        hand.ready = False
        for answer, ask in list(self._asked.items()):
            if ask == (hand, "hold"):  # it is not asked for the model before any more
                del self._asked[answer]
        answer = hand.actor.hold.remote(self._source, self._weights, self._device)
        self._asked[answer] = (hand, "hold")

    def _received(self, hand: Hand, holds: bool) -> None:
        """A worker holds the model, or does not know it by name."""
        if holds:
            hand.ready, self._lost_in_a_row = True, 0
            return
        if not self._weights:
            assert self._model is not None
            self._weights = [self._ray.put(Weights.of(self._model))]
        self._send_model(hand)

    def _replace(self, hand: Hand, dealer: Dealer, killed: Counter[int], error: Exception) -> None:
        """Hire another in the place of one that was lost, and deal again what it had."""
        assert self._source is not None
        self._dismiss(hand)
        why, running = _shortly(error), hand.batches[0] if hand.batches else []
        for batch in hand.batches:
            dealer.take_back(batch)
        for number, _ in running:
            killed[number] += 1
            if killed[number] == DEATHS:
                raise ClusterError(
                    f"Item {number} killed {DEATHS} workers, the last so: {why}. Most often it "
                    "needs more memory than there is; give each worker more cpus= or gpus=, so "
                    "that fewer share a node."
                ) from error
        if not hand.ready:
            self._lost_in_a_row += 1
            if self._lost_in_a_row == DEATHS:
                raise ClusterError(
                    f"{DEATHS} workers in a row were lost before they held {self._source.id}, the "
                    f"last so: {why}. interp must be installed on every node, which needs memory "
                    "for the model of each of its workers."
                ) from error
        warnings.warn(
            f"A worker was lost ({why}); another takes its place, and what it had not finished is "
            "computed again.",
            stacklevel=4,
        )
        self._hire()

    def _dismiss(self, hand: Hand) -> None:
        self._hands.remove(hand)
        self._asked = {answer: ask for answer, ask in self._asked.items() if ask[0] is not hand}
        self._ray.kill(hand.actor)

    def _nobody(self) -> ClusterError:
        free, all_of = self._ray.available_resources(), self._ray.cluster_resources()
        told = ", ".join(
            f"{free.get(name, 0):g} of {all_of.get(name, 0):g} {name}s free"
            for name in ("CPU", "GPU")
        )
        return ClusterError(
            f"For {self._patience:g} seconds no worker has started: the cluster has {told}; ask "
            "for fewer cpus= or gpus=, add a node, or wait longer with patience=."
        )


def _shortly(error: Exception) -> str:
    """What matters in the last line of the page that Ray writes."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else type(error).__name__
    detail = last.rpartition("Worker exit detail: ")[2].partition(" Some common causes")[0]
    return one_line(detail).rstrip(".")
