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

Logits = Float[Tensor, "rows vocab"]
Values = Float[Tensor, " rows"]


@dataclass(frozen=True, eq=False)
class Answers:
    """The right and the wrong tokens of some rows of logits; -1 fills short rows."""

    answer: Int[Tensor, "rows answers"]
    wrong: Int[Tensor, "rows wrongs"] | None

    @classmethod
    def of(cls, prompts: PromptSet, device: torch.device | None = None) -> Answers:
        """Those of a prompt set."""
        wrong = None if prompts.wrong is None else prompts.wrong.to(device)
        return cls(prompts.answer.to(device), wrong)

    def repeat(self, times: int) -> Answers:
        """The same rows several times, one after another."""
        wrong = None if self.wrong is None else self.wrong.repeat(times, 1)
        return Answers(self.answer.repeat(times, 1), wrong)

    def words(self) -> Int[Tensor, " words"]:
        """Every token that is an answer or a wrong answer somewhere, sorted."""
        both = [self.answer, *([] if self.wrong is None else [self.wrong])]
        tokens = torch.cat([each.flatten() for each in both]).unique()
        return tokens[tokens >= 0]

    def among(self, words: Int[Tensor, " words"]) -> Answers:
        """The same tokens as places in `words`."""

        def place(tokens: Tensor) -> Tensor:
            return torch.where(tokens < 0, tokens, torch.searchsorted(words, tokens.clamp(min=0)))

        return Answers(place(self.answer), None if self.wrong is None else place(self.wrong))


def logit_diff(logits: Logits, prompts: Answers) -> Values:
    """Logsumexp over the answers minus logsumexp over the wrong answers, in logits.

    With one of each it is the plain difference of two logits. Raises MetricError without wrongs.
    """
    if prompts.wrong is None:
        raise MetricError(
            "logit_diff compares answers with wrong answers and these prompts have none; "
            "make them with wrong=, or use the metric log_prob."
        )
    return _logsumexp(logits, prompts.answer) - _logsumexp(logits, prompts.wrong)


def log_prob(logits: Logits, prompts: Answers) -> Values:
    """Log of the probability that the next token is one of the answers, in nats."""
    return _logsumexp(logits.log_softmax(dim=-1), prompts.answer)


def prob(logits: Logits, prompts: Answers) -> Values:
    """Probability that the next token is one of the answers, from 0 to 1."""
    return log_prob(logits, prompts).exp()


def loss(logits: Logits, prompts: Answers) -> Values:
    """Minus `log_prob`, in nats: smaller is better."""
    return -log_prob(logits, prompts)


def accuracy(logits: Logits, prompts: Answers) -> Values:
    """1 where the most likely next token is one of the answers, else 0."""
    best = logits.argmax(dim=-1, keepdim=True)
    return (best == prompts.answer).any(dim=-1).to(logits.dtype)


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
"""What can be measured, by the name that `metric=` takes."""


@dataclass(frozen=True)
class Metric:
    """A metric with its name; calling it checks what comes out."""

    name: str
    function: Callable[..., Any]

    @property
    def is_ours(self) -> bool:
        """Whether it is one of METRICS, which take rows of any prompts."""
        return self.function in METRICS.values()

    @property
    def reads_answers_alone(self) -> bool:
        """Whether the logits of answers and wrong answers are all that it reads."""
        return self.function is logit_diff

    def values(self, logits: Logits, answers: Answers, clean: Logits) -> Values:
        """Value of each row, on the device of the logits; of METRICS only, and not looked through.

        Raises MetricError for answers that the model has no logits of.
        """
        dtype = torch.promote_types(logits.dtype, torch.float32)
        logits = logits.to(dtype)
        if self.function is kl:
            return kl(logits, clean.to(dtype))
        return self.function(logits, answers).to(dtype)

    def __call__(self, logits: Logits, prompts: PromptSet, *, clean: Logits) -> Values:
        """Value of each prompt, from logits at END and those of the model left as it is.

        Raises MetricError for a result of another shape than `[prompts]`, and for NaN.
        """
        if self.is_ours:
            require_known_tokens(prompts, logits.shape[-1])
            values = self.values(logits, Answers.of(prompts, logits.device), clean)
        else:
            dtype = torch.promote_types(logits.dtype, torch.float32)
            values = self.function(logits.to(dtype))
            if not isinstance(values, Tensor) or values.shape != (len(prompts),):
                got = list(values.shape) if isinstance(values, Tensor) else type(values).__name__
                raise MetricError(
                    f"The metric {self.name} returned {got} for logits of shape "
                    f"{list(logits.shape)}; return a tensor with one number a prompt, "
                    f"[{len(prompts)}]."
                )
            values = values.to(dtype)
        return self.checked(values.cpu())

    def checked(self, values: Float[Tensor, "*sites prompts"]) -> Float[Tensor, "*sites prompts"]:
        """The same values. Raises MetricError if any is NaN, naming the first such prompt."""
        wrong = values.isnan()
        if wrong.any():
            raise MetricError(
                f"The metric {self.name} is NaN for prompt {int(wrong.nonzero()[0, -1])}; "
                "look for infinite logits or a division by zero."
            )
        return values


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


def _logsumexp(logits: Logits, tokens: Int[Tensor, "rows choices"]) -> Values:
    filler: Bool[Tensor, "rows choices"] = tokens < 0
    chosen = logits.gather(-1, tokens.clamp(min=0)).masked_fill(filler, -torch.inf)
    return chosen.logsumexp(dim=-1)


def require_known_tokens(prompts: PromptSet, vocab: int) -> None:
    """Raise MetricError unless the model has logits of every answer."""
    for tokens in (prompts.answer, prompts.wrong):
        if tokens is not None and (tokens >= vocab).any():
            prompt = int((tokens >= vocab).any(dim=-1).int().argmax())
            raise MetricError(
                f"Prompt {prompt} is answered by token {int(tokens[prompt].max())} and the model "
                f"has {vocab}; make the prompts with this model's tokenizer."
            )
