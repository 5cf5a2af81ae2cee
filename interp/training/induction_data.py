"""The training text of `induction`: sequences with bigram statistics, repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from interp.tasks.words import read
from interp.training.vocabulary import build_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FOLLOWERS = 8
"""Each word has this many favourite followers: what a model learns before it copies."""

FAVOURED = 0.5
"""How often a word is followed by one of its favourites."""


@dataclass(frozen=True)
class RepeatedStretches:
    """Rows of `length` tokens: a random stretch of 8 to 30 words again and again.

    Within a stretch the next word is a favourite of the last one half of the time and any word
    otherwise, so that bigram statistics are worth learning, and copying far more.
    """

    length: int

    @property
    def description(self) -> str:
        """One sentence for the model card."""
        return f"stretches of 8 to 30 words, repeated, in rows of {self.length} tokens"

    @cached_property
    def words(self) -> tuple[str, ...]:
        lists = (read(f"words/{name}") for name in ("names", "objects", "places"))
        return tuple(dict.fromkeys(word for words in lists for word in words))

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        return build_tokenizer(self.words, max_length=self.length)

    @cached_property
    def followers(self) -> dict[str, list[str]]:
        rng = random.Random("followers")
        return {word: rng.sample(self.words, FOLLOWERS) for word in self.words}

    def stretch(self, rng: random.Random) -> list[str]:
        """8 to 30 words."""
        words = [rng.choice(self.words)]
        for _ in range(rng.randint(7, 29)):
            favoured = rng.random() < FAVOURED
            words.append(rng.choice(self.followers[words[-1]] if favoured else self.words))
        return words

    def batch(self, step: int, rows: int, *, seed: int) -> Int[Tensor, "rows pos"]:
        """The rows of one training step; a function of `seed` and `step` alone."""
        rng = random.Random(f"induction {seed} {step}")
        ids = self.tokenizer.get_vocab()
        batch = []
        for _ in range(rows):
            stretch = [ids[word] for word in self.stretch(rng)]
            repeats = self.length // len(stretch) + 1
            batch.append([self.tokenizer.bos_token_id, *(stretch * repeats)][: self.length])
        return torch.tensor(batch)
