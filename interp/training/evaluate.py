"""Held-out accuracy of a model on each task of its recipe."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from interp.models import Model, load
from interp.prompts import PromptSet
from interp.tasks import Task
from interp.training.recipes import Recipe

SEED = 1_000_003
"""Of the evaluation prompts; training and its seeds never draw from the held-out split."""


def accuracies(made: Recipe, module: nn.Module, *, n: int) -> dict[str, Float[Tensor, " prompts"]]:
    """Of `n` held-out prompts a task: 1 where the most likely token is right, else 0."""
    module.eval()
    model = load(module, made.data.tokenizer, check=False)
    return {name: accuracy(model, task, n=n) for name, (task, _) in made.tasks.items()}


def accuracy(model: Model, task: Task, *, n: int) -> Float[Tensor, " prompts"]:
    """1 where the most likely next token is a right answer, else 0."""
    prompts = task.sample(model, n, seed=SEED)
    return right(model, prompts)


def right(model: Model, prompts: PromptSet) -> Float[Tensor, " prompts"]:
    """1 where the most likely next token is a right answer, else 0."""
    moved = prompts.to(model.device)
    logits = model.logits(moved.clean, mask=moved.mask)
    rows = logits[range(len(moved)), moved.end]
    return (rows.argmax(dim=-1, keepdim=True) == moved.answer).any(dim=-1).float().cpu()
