"""Held-out accuracy of a model on each task of its recipe."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from interp.engine.metrics import accuracy
from interp.models import Model
from interp.tasks import Task

SEED = 1_000_003
"""Of the evaluation prompts; training and its seeds never draw from the held-out split."""


def accuracies(
    model: Model, tasks: dict[str, Task], *, n: int
) -> dict[str, Float[Tensor, " prompts"]]:
    """Of `n` held-out prompts a task: 1 where the most likely token is right, else 0."""
    return {name: _right(model, task, n) for name, task in tasks.items()}


def _right(model: Model, task: Task, n: int) -> Float[Tensor, " prompts"]:
    prompts = task.sample(model, n, seed=SEED).to(model.device)
    logits = model.logits(prompts.clean, mask=prompts.mask)
    return accuracy(logits[range(n), prompts.end], prompts).cpu()
