"""The engine that is used unless another is asked for: this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch

from interp.errors import ClusterError
from interp.models import Model
from interp.workers.work import Answer, Computed, Engine, Item, Work


def engine_or_here(engine: Engine | None) -> Engine:
    """The engine that is asked for; by default this process. Raises ClusterError for a name."""
    if isinstance(engine, str):
        raise ClusterError(
            f"engine is {engine!r}, a name; give an engine, such as interp.workers.Ray()."
        )
    return Here() if engine is None else engine


@dataclass(frozen=True)
class Here:
    """One chunk after another, on the model itself."""

    @property
    def threads(self) -> int:
        """Those of this process."""
        return torch.get_num_threads()

    def where(self, model: Model) -> str:
        """That of the model."""
        return str(model.device)

    def ask(self, model: Model, question: Callable[[Model], Answer]) -> Answer:
        """What the model says."""
        return question(model)

    def compute(self, model: Model, work: Work, items: Iterable[Item]) -> Computed:
        """The chunk of each item, in order."""
        compute = None
        for number, item in items:
            compute = compute or work.open(model)
            yield number, compute(item)
