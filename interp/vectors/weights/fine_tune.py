"""Fine-tuning on the answers of prompts: where the checkpoint of a weight vector may come from."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from interp.activations.batches import require_fit
from interp.engine.groups import groups
from interp.engine.metrics import Answers, accuracy, loss
from interp.errors import VectorError
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance

BATCH = 64
"""Prompts that are judged at once."""

Weights = Mapping[str, Tensor]
"""Values that stand in for parameters of a model, by name; a tied one has the name of its first."""


@dataclass(frozen=True, eq=False)
class FineTuned:
    """A fine-tuned copy of a model.

    Attributes:
        model: The copy, in eval mode; it shares no weight with the model that it comes from.
        losses: Mean cross-entropy of the answer in each step, in nats.
        provenance: That of the base model and its prompts, with the options.
    """

    model: Model
    losses: Float[Tensor, " steps"]
    provenance: dict[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        first, last = self.losses[0].item(), self.losses[-1].item()
        return (
            f"FineTuned({self.model.id}, {len(self.losses)} steps, loss {first:.3f} to {last:.3f})"
        )


def fine_tune(
    model: Model,
    prompts: PromptSet,
    *,
    steps: int = 100,
    rows: int = 16,
    learning_rate: float = 1e-4,
    seed: int = 0,
    name: str | None = None,
) -> FineTuned:
    """Train a copy of a model to answer prompts: AdamW on the cross-entropy of the answer alone.

    The learning rate falls linearly to zero; gradients are cut at norm 1; there is no weight decay
    and no dropout. The same seed gives the same weights on one machine. Where several answers are
    right, their summed probability is trained.

    Args:
        model: What it starts from, which stays as it is.
        prompts: With their answers; the loss is taken at END.
        steps: Optimiser steps.
        rows: Prompts a step, drawn anew after all have been seen.
        learning_rate: At the first step.
        seed: Of the order of prompts.
        name: Id of the new model; "MODEL + TASK" by default.

    Raises:
        VectorError: No steps, no rows, or a loss that is not a number.
        PromptError: Prompts that the model cannot read.

    >>> import interp
    >>> from interp.vectors.demonstrations import prompts_of, show
    >>> from interp.vectors.relation import relation
    >>> model = interp.load("polymath", check=False)
    >>> prompts = prompts_of(model, show(relation(model, "antonym"), 8, shots=2))
    >>> fine_tune(model, prompts, steps=3).losses.shape
    torch.Size([3])
    """
    if steps < 1 or rows < 1:
        raise VectorError(f"steps={steps} of rows={rows} train nothing; use 1 or more of each.")
    require_fit(model, prompts)
    module = model.own_copy("Fine-tuning").eval()
    tuned = Model(module, model.tokenizer, id=name or f"{model.id} + {prompts.task or 'prompts'}")
    parameters = [each.requires_grad_() for each in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    rng, waiting, losses = random.Random(f"fine-tune {seed}"), list[int](), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * (1 - step / steps)
        while len(waiting) < rows:
            waiting += rng.sample(range(len(prompts)), len(prompts))
        batch, waiting = prompts[waiting[:rows]], waiting[rows:]
        value = answer_loss(tuned, batch)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        losses.append(value.item())
        if math.isnan(losses[-1]):
            raise VectorError(
                f"The loss of step {step} is not a number; lower learning_rate={learning_rate}."
            )
    optimizer.zero_grad()
    told = {"steps": steps, "rows": rows, "learning_rate": learning_rate, "order_seed": seed}
    return FineTuned(
        tuned,
        torch.tensor(losses),
        provenance(model, prompts, method="fine-tune on answers", **told),
    )


def answer_loss(
    model: Model, prompts: PromptSet, weights: Weights | None = None
) -> Float[Tensor, ""]:
    """Mean cross-entropy of the answers at END, in nats, with a gradient where one is asked for."""
    logits = _end_logits(model, prompts, weights)
    return loss(logits.float(), Answers.of(prompts, logits.device)).mean()


@torch.no_grad()
def correct(
    model: Model, prompts: PromptSet, weights: Weights | None = None
) -> Float[Tensor, " prompts"]:
    """1 where the most likely token at END is an answer, else 0, with other weights if given."""
    found = []
    for start in range(0, len(prompts), BATCH):
        some = prompts[start : start + BATCH]
        logits = _end_logits(model, some, weights)
        found.append(accuracy(logits.float(), Answers.of(some, logits.device)).cpu())
    return torch.cat(found)


def _end_logits(
    model: Model, prompts: PromptSet, weights: Weights | None
) -> Float[Tensor, "prompts vocab"]:
    some, rows = groups(prompts), []
    for group in some:
        inputs = {"input_ids": group.tokens.to(model.device)}
        output = functional_call(model.hf, dict(weights or {}), (), inputs)
        rows.append((output if isinstance(output, Tensor) else output.logits)[:, -1])
    order = torch.cat([group.rows for group in some]).argsort()
    return torch.cat(rows)[order.to(model.device)]
