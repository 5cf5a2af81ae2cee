"""Diagonal scores: the numbers that tutorials print for repeated random tokens."""

from __future__ import annotations

import torch

from interp.heads.attention import patterns_by_layer, repeated_tokens
from interp.heads.score import Score
from interp.models import Model


def diagonal_scores(
    model: Model, *, n: int = 10, seq_len: int = 50, seed: int = 0, progress: bool = True
) -> list[Score]:
    """The mean of a whole diagonal of the attention on `BOS + r + r`, for four kinds of head.

        kind             diagonal
        induction        1 - seq_len
        previous-token   -1
        current-token    0
        duplicate-token  -seq_len

    This is the score in common use, for comparison with published numbers. It also averages queries
    that have nothing to find, so that a perfect induction head scores seq_len / (seq_len + 2) at
    worst; the scores of `interp.heads.attention` leave them out. Here `r` is made of distinct
    ordinary tokens, while tutorials draw from the whole vocabulary, with replacement.

    Raises:
        PromptError: Prompts that the model's context or vocabulary does not allow.

    >>> import interp
    >>> [score.kind for score in diagonal_scores(interp.load("induction"), n=2, seq_len=20)]
    ['induction', 'previous-token', 'current-token', 'duplicate-token']
    """
    offsets = {
        "induction": 1 - seq_len,
        "previous-token": -1,
        "current-token": 0,
        "duplicate-token": -seq_len,
    }
    tokens = repeated_tokens(model, n=n, seq_len=seq_len, seed=seed)
    shape = model.geometry
    dtype = torch.promote_types(model.dtype, torch.float32)
    values = torch.empty(len(offsets), shape.n_layers, shape.n_heads, n, dtype=dtype)
    for rows, layer, pattern in patterns_by_layer(model, tokens, progress=progress):
        for kind, offset in enumerate(offsets.values()):
            values[kind, layer, :, rows] = pattern.diagonal(offset, -2, -1).mean(dim=-1).T
    chance = 1 / torch.arange(1, tokens.shape[1] + 1).double()
    return [
        Score(
            kind,
            values[index],
            chance=chance[-offset:].mean().item(),
            notes={"definition": "mean of the whole diagonal", "seq_len": seq_len, "seed": seed},
        )
        for index, (kind, offset) in enumerate(offsets.items())
    ]
