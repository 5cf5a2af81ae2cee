"""What a model wrote: one row for each path."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.saved import Saved


@dataclass(frozen=True, eq=False)
class Paths(Saved, Displayed):
    """Continuations of some prompts, `per_prompt` of each, one after another.

    Attributes:
        prompts: The texts that were continued.
        per_prompt: Paths of each.
        tokens: What was written, filled with -1 behind its end.
        log_probs: Natural logarithm of the probability that the model, as it was steered but at
            temperature 1 and without top-p, gave each token; 0 behind the end.
        texts: The same as text, without what ended it.
        ended: Whether a path reached its end, or was cut off at the most tokens.
        provenance: Model, weights hash, options, versions, seconds and tokens.
    """

    prompts: tuple[str, ...]
    per_prompt: int
    tokens: Int[Tensor, "paths pos"]
    log_probs: Float[Tensor, "paths pos"]
    texts: tuple[str, ...]
    ended: tuple[bool, ...]
    provenance: dict[str, Any]

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def lengths(self) -> Int[Tensor, " paths"]:
        """Tokens that were written in each path."""
        return (self.tokens >= 0).sum(dim=-1)

    def of(self, prompt: int) -> range:
        """The paths of one prompt."""
        return range(prompt * self.per_prompt, (prompt + 1) * self.per_prompt)

    def to_frame(self) -> pd.DataFrame:
        """One row a path: prompt (its number), path, text, tokens, log_prob (nats) and ended."""
        return pd.DataFrame(
            {
                "prompt": [i // self.per_prompt for i in range(len(self))],
                "path": [i % self.per_prompt for i in range(len(self))],
                "text": self.texts,
                "tokens": self.lengths.tolist(),
                "log_prob": self.log_probs.sum(dim=-1).tolist(),
                "ended": self.ended,
            }
        )

    def __repr__(self) -> str:
        return (
            f"Paths({len(self.prompts)} prompts x {self.per_prompt}, {self.lengths.sum()} tokens)"
        )
