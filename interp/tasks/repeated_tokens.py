"""Repeated random tokens: what followed the last time."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import ClassVar

import torch

from interp.errors import TaskError
from interp.models import Model
from interp.prompts import PromptSet, ordinary_tokens
from interp.tasks.task import Example, Split, Task
from interp.tasks.words import Group, Words


@dataclass(frozen=True)
class RepeatedTokens(Task):
    """Random tokens r, then the first part of r again: the next token of r is the answer.

    The only task made of token ids instead of words, so that it is the same for every tokenizer.
    The counterfactual replaces what followed the first time by another random token, which is also
    the wrong answer. Roles: FIRST (the earlier occurrence of the last token) and NEXT (the token
    after it).

    Args:
        length: Number of random tokens, all different.
    """

    name: ClassVar[str] = "repeated_tokens"
    description: ClassVar[str] = "the next token of a random sequence that is repeated"
    length: int = 25

    def __post_init__(self) -> None:
        if self.length < 2:
            raise TaskError(f"length={self.length} leaves nothing to continue; use 2 or more.")

    def groups(self) -> dict[str, Group]:
        return {}

    def example(self, rng: random.Random, words: Words) -> Example:
        """Words of the group "words", repeated; for training documents."""
        raise TaskError("Repeated tokens are made of token ids; call sample.")

    def document(self, rng: random.Random, words: Words) -> str:
        """3 to 30 different words, 2 to 4 times in the same order."""
        drawn = rng.sample(words["words"], rng.randint(3, 30))
        return " ".join(drawn * rng.randint(2, 4))

    def sample(
        self, model: Model, n: int = 64, *, seed: int = 0, split: Split = "test"
    ) -> PromptSet:
        """`n` prompts; random sequences do not recur, so that every split is the same.

        Raises:
            TaskError: The tokenizer has too few ordinary tokens, or the model too short a context.
        """
        ordinary = ordinary_tokens(model).tolist()
        if len(ordinary) <= self.length:
            raise TaskError(
                f"length={self.length} needs more different tokens than the {len(ordinary)} of "
                "this tokenizer; use a shorter one."
            )
        rng = random.Random(f"{self.name} {seed}")
        bos = [] if model.bos_id is None else [model.bos_id]
        clean, corrupt, answer, wrong, first = [], [], [], [], []
        for _ in range(n):
            *tokens, other = rng.sample(ordinary, self.length + 1)
            last = rng.randrange(self.length - 1)
            repeat = tokens[: last + 1]
            changed = [*tokens[: last + 1], other, *tokens[last + 2 :]]
            clean.append(bos + tokens + repeat)
            corrupt.append(bos + changed + repeat)
            answer.append(tokens[last + 1])
            wrong.append(other)
            first.append(len(bos) + last)
        start = torch.tensor(first)
        return PromptSet.from_tokens(
            clean,
            corrupt,
            answer=answer,
            wrong=wrong,
            roles={
                "FIRST": torch.stack([start, start + 1], dim=-1),
                "NEXT": torch.stack([start + 1, start + 2], dim=-1),
            },
            task=self.name,
            notes={
                "seed": seed,
                "split": split,
                "kept": {"tokens": f"{len(ordinary)}/{model.geometry.d_vocab}"},
            },
        )
