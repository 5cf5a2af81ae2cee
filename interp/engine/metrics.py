"""Metrics: one number a prompt, from the logits at its last token.

Answers and wrong answers are tokens of the PromptSet; the -1 that fills short rows never counts.
All are computed in float32, or float64 if the logits are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import MetricError, did_you_mean
from interp.prompts import PromptSet

Logits = Float[Tensor, "prompts vocab"]
Values = Float[Tensor, " prompts"]


def logit_diff(logits: Logits, prompts: PromptSet) -> Values:
    """Logsumexp over the answers minus logsumexp over the wrong answers, in logits.

    With one of each it is the plain difference of two logits. Raises MetricError without wrongs.
    """
    if prompts.wrong is None:
        raise MetricError(
            "logit_diff compares answers with wrong answers and these prompts have none; "
            "make them with wrong=, or use the metric log_prob."
        )
    return _logsumexp(logits, prompts.answer) - _logsumexp(logits, prompts.wrong)


def log_prob(logits: Logits, prompts: PromptSet) -> Values:
    """Log of the probability that the next token is one of the answers, in nats."""
    return _logsumexp(logits.log_softmax(dim=-1), prompts.answer)


def prob(logits: Logits, prompts: PromptSet) -> Values:
    """Probability that the next token is one of the answers, from 0 to 1."""
    return log_prob(logits, prompts).exp()


def loss(logits: Logits, prompts: PromptSet) -> Values:
    """Minus `log_prob`, in nats: smaller is better."""
    return -log_prob(logits, prompts)


def accuracy(logits: Logits, prompts: PromptSet) -> Values:
    """1 where the most likely next token is one of the answers, else 0."""
    best = logits.argmax(dim=-1, keepdim=True)
    return (best == prompts.answer.to(logits.device)).any(dim=-1).to(logits.dtype)


def kl(logits: Logits, clean: Logits) -> Values:
    """Kullback-Leibler divergence KL(clean || edited) of the next-token distributions, in nats."""
    before, after = clean.log_softmax(dim=-1), logits.log_softmax(dim=-1)
    terms = before.exp() * (before - after)
    return torch.where(before.isneginf(), 0.0, terms).sum(dim=-1)  # what has no chance counts 0


METRICS: dict[str, Callable[..., Values]] = {
    "logit_diff": logit_diff,
    "prob": prob,
    "log_prob": log_prob,
    "loss": loss,
    "accuracy": accuracy,
    "kl": kl,
}


@dataclass(frozen=True)
class Metric:
    """A metric with its name; calling it checks what comes out."""

    name: str
    function: Callable[..., Any]

    def __call__(self, logits: Logits, prompts: PromptSet, *, clean: Logits) -> Values:
        """Value of each prompt, from logits at END and those of the model left as it is.

        Raises MetricError for a result of another shape than `[prompts]`, and for NaN.
        """
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits, clean = logits.to(dtype), clean.to(dtype)
        if self.function is kl:
            values = kl(logits, clean)
        elif self.function in METRICS.values():
            _require_known_tokens(prompts, logits.shape[-1])
            values = self.function(logits, prompts)
        else:
            values = self.function(logits)
        if not isinstance(values, Tensor) or values.shape != (len(prompts),):
            got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
            raise MetricError(
                f"The metric {self.name} returned {got} for logits of shape {list(logits.shape)}; "
                f"return a tensor with one number a prompt, [{len(prompts)}]."
            )
        if values.isnan().any():
            raise MetricError(
                f"The metric {self.name} is NaN for prompt {int(values.isnan().int().argmax())}; "
                "look for infinite logits or a division by zero."
            )
        return values.to(dtype).cpu()


def resolve(metric: str | Callable[..., Any]) -> Metric:
    """The metric of a name, or a function from logits `[prompts, vocab]` to values `[prompts]`.

    Raises MetricError for an unknown name.

    >>> resolve("prob").name
    'prob'
    """
    if isinstance(metric, str):
        if metric not in METRICS:
            raise MetricError(f"There is no metric {metric!r}: {did_you_mean(metric, METRICS)}")
        return Metric(metric, METRICS[metric])
    return Metric(getattr(metric, "__name__", type(metric).__name__), metric)


def _logsumexp(logits: Logits, tokens: Int[Tensor, "prompts choices"]) -> Values:
    tokens = tokens.to(logits.device)
    filler: Bool[Tensor, "prompts choices"] = tokens < 0
    chosen = logits.gather(-1, tokens.clamp(min=0)).masked_fill(filler, -torch.inf)
    return chosen.logsumexp(dim=-1)


def _require_known_tokens(prompts: PromptSet, vocab: int) -> None:
    for tokens in (prompts.answer, prompts.wrong):
        if tokens is not None and (tokens >= vocab).any():
            prompt = int((tokens >= vocab).any(dim=-1).int().argmax())
            raise MetricError(
                f"Prompt {prompt} is answered by token {int(tokens[prompt].max())} and the model "
                f"has {vocab}; make the prompts with this model's tokenizer."
            )
