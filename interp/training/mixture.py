"""The training text of `polymath`: documents of every task, packed into rows."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks import Task, get
from interp.tasks.words import Words
from interp.training.vocabulary import all_words, build_tokenizer, sample_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WEIGHTS = {
    "repeated_tokens": 2.0,
    "succession": 1.2,
    "retrieval": 1.2,
    "ioi": 2.0,
    "colored_objects": 5.0,
    "functions": 3.0,
    "facts_vs_context": 1.2,
    "coin_flip": 2.0,
    "greater_than": 0.7,
}
"""How often a document of each task is drawn, relative to the others."""


@dataclass(frozen=True)
class Mixture:
    """Rows of `length` tokens: documents, each after a beginning-of-text token, cut at the end."""

    length: int

    @property
    def description(self) -> str:
        """One sentence for the model card."""
        total = sum(WEIGHTS.values())
        shares = ", ".join(f"{name} {weight / total:.0%}" for name, weight in WEIGHTS.items())
        return f"documents of every task ({shares}), packed into rows of {self.length} tokens"

    @cached_property
    def tasks(self) -> dict[Task, Words]:
        """The tasks with all their words; repeated sequences are made of the whole vocabulary."""
        ordinary = set(self.tokenizer.get_vocab()) - set(self.tokenizer.all_special_tokens)
        return {**self._spoken, get("repeated_tokens"): {"words": tuple(sorted(ordinary))}}

    @cached_property
    def _spoken(self) -> dict[Task, Words]:
        """The tasks that are made of words."""
        return {get(name): all_words(get(name)) for name in WEIGHTS if name != "repeated_tokens"}

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """One token for each word of the mixture."""
        return build_tokenizer(sample_texts(self._spoken), max_length=self.length)

    def documents(self, rng: random.Random) -> Iterator[str]:
        """An endless stream of training documents."""
        while True:
            (name,) = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
            task = get(name)
            yield task.document(rng, self.tasks[task])

    def batch(self, step: int, rows: int, *, seed: int) -> Int[Tensor, "rows pos"]:
        """The rows of one training step; a function of `seed` and `step` alone."""
        documents = self.documents(random.Random(f"mixture {seed} {step}"))
        encode, bos = self.tokenizer.backend_tokenizer.encode, self.tokenizer.bos_token_id
        batch = []
        for _ in range(rows):
            row: list[int] = []
            while len(row) < self.length:
                row += [bos, *encode(next(documents)).ids]
            batch.append(row[: self.length])
        return torch.tensor(batch)
