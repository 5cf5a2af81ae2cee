"""Several devices of this machine, a thread and a copy of the model for each."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from queue import SimpleQueue
from typing import Any

import torch

from interp.errors import ModelError
from interp.models import Model
from interp.models.bridge import share_weights
from interp.models.placement import require_whole
from interp.workers.dealing import AHEAD, Batch, Dealer
from interp.workers.work import Answer, Compute, Computed, Item, Work


class Devices:
    """Each device holds the weights once and computes some of the chunks.

    All threads compute with as many CPU threads as this process (`torch.get_num_threads()`), so
    that "cpu" named twice gives the bits of one, and is no faster unless that number is small.

    Args:
        devices: Such as ["cuda:0", "cuda:1"]. A device that is named twice has two workers, which
            share its weights.

    Raises ModelError if there are none, or one cannot be used.
    """

    def __init__(self, devices: Sequence[str | torch.device]) -> None:
        if isinstance(devices, str):
            raise ModelError(f"devices is {devices!r}; give a list, such as [{devices!r}].")
        if not devices:
            raise ModelError("devices is an empty list; name at least one, or leave it out.")
        self.devices = tuple(usable(device) for device in devices)

    def __repr__(self) -> str:
        return f"Devices({[str(device) for device in self.devices]})"

    @property
    def threads(self) -> int:
        """Those of this process."""
        return torch.get_num_threads()

    def where(self, model: Model) -> str:
        """All of them."""
        return ", ".join(map(str, self.devices))

    def ask(self, model: Model, question: Callable[[Model], Answer]) -> Answer:
        """What the copy on the first device says."""
        return question(copies(model, self.devices)[0])

    def compute(self, model: Model, work: Work, items: Iterable[Item]) -> Computed:
        """The chunk of each item, on the CPU, as they are done.

        Raises what a device raises. Stopped before the end, no device begins another item.
        """
        # here, one after another: building bridges is not safe in several threads
        opened = [work.open(each) for each in copies(model, self.devices)]
        replies: SimpleQueue[Any] = SimpleQueue()
        stop = threading.Event()
        threads = torch.get_num_threads()
        hands = [_Hand(each, replies, stop, threads) for each in opened]
        dealer, waiting = Dealer(items), 0
        try:
            for hand in hands * AHEAD:
                waiting += hand.give(dealer.deal())
            while waiting:
                reply = replies.get()
                if isinstance(reply, BaseException):
                    raise reply
                if isinstance(reply, _Done):
                    dealer.took(reply.count, seconds=reply.seconds)
                    waiting += reply.hand.give(dealer.deal()) - 1
                else:
                    yield reply
        finally:
            stop.set()
            for hand in hands:
                hand.batches.put(None)
            if waiting:  # its copies may be in use for a while yet
                model.derived.pop("copies", None)


class _Done:
    """A hand has computed a batch."""

    def __init__(self, hand: _Hand, count: int, seconds: float) -> None:
        self.hand, self.count, self.seconds = hand, count, seconds


class _Hand:
    """A thread that computes batches until it is told to stop."""

    def __init__(
        self, compute: Compute, replies: SimpleQueue[Any], stop: threading.Event, threads: int
    ) -> None:
        self.batches: SimpleQueue[Batch | None] = SimpleQueue()
        self._compute, self._replies, self._stop, self._threads = compute, replies, stop, threads
        # a daemon: whoever presses Ctrl-C does not wait for what is half computed
        threading.Thread(target=self._run, daemon=True).start()

    def give(self, batch: Batch) -> bool:
        """Hand over a batch, if there is one."""
        if batch:
            self.batches.put(batch)
        return bool(batch)

    @torch.no_grad()
    def _run(self) -> None:
        torch.set_num_threads(self._threads)  # a thread's own number
        try:
            while batch := self.batches.get():
                start = time.monotonic()
                for number, item in batch:
                    if self._stop.is_set():
                        return
                    chunk = self._compute(item)
                    self._replies.put((number, {name: each.cpu() for name, each in chunk.items()}))
                self._replies.put(_Done(self, len(batch), time.monotonic() - start))
        except BaseException as error:  # raised again in the thread that asked
            self._replies.put(error)


def usable(device: str | torch.device) -> torch.device:
    """A device with its number. Raises ModelError if there is none."""
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ModelError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); name "
            "those that this machine has."
        ) from error


def copies(model: Model, devices: Sequence[torch.device]) -> list[Model]:
    """A copy of the model for each worker; the model keeps them for the next call.

    Those on one device share their weights, on the model's own device with the model. Raises
    ModelError for a model that is spread over several devices already.
    """
    require_whole(model.hf, "A copy on each device", "leave devices= out")
    made_for = (model.hf, model.weights_hash, model.dtype, tuple(devices))
    kept = model.derived.get("copies")
    if kept is None or kept[0] != made_for:
        on = {model.device: model.hf}
        made = []
        for device in devices:
            if device not in on:
                on[device] = copy.deepcopy(model.hf).to(device)
            module = share_weights(on[device]).eval()
            made.append(Model(module, model.tokenizer, id=model.id, revision=model.revision))
        kept = model.derived["copies"] = (made_for, made)
    return kept[1]
