"""Work for the tests: what a model says, and workers that come to grief."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp.errors import InterventionError
from interp.models import Model
from interp.workers.work import Compute


@dataclass(frozen=True)
class Logits:
    """The logits after a prompt, and the token that follows; into a folder, who computes."""

    pause: float = 0.0
    folder: str | None = None

    def open(self, model: Model) -> Compute:
        if self.folder is not None:
            (Path(self.folder) / str(os.getpid())).touch()

        def compute(item: Any) -> dict[str, torch.Tensor]:
            time.sleep(self.pause)
            logits = model.logits(torch.tensor([item]))[0, -1]
            return {"logits": logits, "next": logits.argmax()}

        return compute


@dataclass(frozen=True)
class Deadly:
    """Kills the worker that computes one of the items, so many times; a folder counts them."""

    folder: str
    times: int
    number: int = 7

    def open(self, model: Model) -> Compute:
        plain = Logits(0.01).open(model)

        def compute(item: Any) -> dict[str, torch.Tensor]:
            deaths = len(list(Path(self.folder).iterdir()))
            if item[0] == self.number and deaths < self.times:
                (Path(self.folder) / str(deaths)).touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return plain(item)

        return compute


@dataclass(frozen=True)
class Faulty:
    """Refuses one of the items."""

    number: int = 7

    def open(self, model: Model) -> Compute:
        plain = Logits().open(model)

        def compute(item: Any) -> dict[str, torch.Tensor]:
            if item[0] == self.number:
                raise InterventionError(f"item {self.number} cannot run; leave it out.")
            return plain(item)

        return compute


@dataclass(frozen=True)
class SlowToArrive:
    """Takes its time where it is sent."""

    seconds: float

    def __deepcopy__(self, memo: dict[int, Any]) -> SlowToArrive:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _after_a_while, (self.seconds,)


def _after_a_while(seconds: float) -> SlowToArrive:
    time.sleep(seconds)
    return SlowToArrive(seconds)


def prompts(count: int) -> list[tuple[int, list[int]]]:
    """Items: a number, and the tokens of a prompt that begins with it."""
    return [(number, [number % 90, number % 7, 3, number // 90]) for number in range(count)]
