"""Engines for the tests: one as far from `Here` as one process allows, and one that takes notes."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from interp.models import Model
from interp.runs import Chunk
from interp.workers import Item, Work


class Shuffled:
    """Two workers, to which work, items and questions go pickled; it counts what it computes."""

    threads = 1

    def __init__(self, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.computed: list[int] = []

    def where(self, model: Model) -> str:
        return str(model.device)

    def ask(self, model: Model, question: Callable[[Model], Any]) -> Any:
        return sent(question)(model)

    def compute(
        self, model: Model, work: Work, items: Iterable[Item]
    ) -> Iterator[tuple[int, Chunk]]:
        workers = [sent(work).open(model) for _ in range(2)]
        waiting = list(items)
        self.random.shuffle(waiting)
        for number, item in waiting:
            chunk = self.random.choice(workers)(sent(item))
            self.computed.append(number)
            yield number, {name: tensor.cpu() for name, tensor in sent(chunk).items()}


def sent(value: Any) -> Any:
    """What another process would get."""
    return pickle.loads(pickle.dumps(value))


class Noted:
    """`Here`, which notes the chunks that it computes and the threads that it has meanwhile."""

    def __init__(self) -> None:
        self.computed: list[int] = []
        self.with_threads: set[int] = set()

    @property
    def threads(self) -> int:
        return torch.get_num_threads()

    def where(self, model: Model) -> str:
        return str(model.device)

    def ask(self, model: Model, question: Callable[[Model], Any]) -> Any:
        return question(model)

    def compute(
        self, model: Model, work: Work, items: Iterable[Item]
    ) -> Iterator[tuple[int, Chunk]]:
        compute = work.open(model)
        for number, item in items:
            self.computed.append(number)
            self.with_threads.add(torch.get_num_threads())
            yield number, compute(item)
