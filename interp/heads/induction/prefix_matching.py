"""Prefix matching: does a head find what followed the current token before?"""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from interp.heads.attention import longest_copy, patterns_by_layer, repeated_tokens
from interp.heads.induction.pattern_match import detection_pattern
from interp.heads.score import Score
from interp.models import Model
from interp.prompts import ordinary_tokens

COPIES = 4
RANKED = ("BPE", "Unigram")
"""Tokenizers whose ids run, but for single letters and bytes, from frequent tokens to rare ones."""
EXTREME = 0.05
"""Share of such a vocabulary that is left out at each end."""


def prefix_matching(
    model: Model, *, n: int = 10, seq_len: int | None = None, seed: int = 0, progress: bool = True
) -> Score:
    """Attention from each token to all tokens that followed its earlier occurrences.

    A prompt is BOS and `seq_len` random tokens, all different, said four times. A score is the
    attention to every token whose predecessor is the current token, summed over keys and averaged
    over the queries of the second to the fourth copy, which have such keys. A perfect induction
    head scores 1, whichever of the earlier copies it prefers.

    Args:
        model: What `interp.load` returns.
        n: Prompts.
        seq_len: Random tokens in a copy; 25, or in a short context as many as fit four times.
        seed: Of the random tokens.
        progress: Show a bar.

    Raises:
        PromptError: Prompts that the model's context or vocabulary does not allow.

    Olsson et al. 2022 leave out the most and the least frequent tokens without saying how many:
    see `usual_tokens` for what is left out here.

    >>> import interp
    >>> prefix_matching(interp.load("induction"), n=2).values.shape
    torch.Size([2, 8, 2])
    """
    length = min(25, longest_copy(model, COPIES)) if seq_len is None else seq_len
    usual = usual_tokens(model)
    tokens = repeated_tokens(model, n=n, seq_len=length, seed=seed, copies=COPIES, among=usual)
    followed = detection_pattern("induction_head", tokens)
    queries = followed.any(dim=-1).sum(dim=-1)
    shape = model.geometry
    dtype = torch.promote_types(model.dtype, torch.float32)
    values = torch.empty(shape.n_layers, shape.n_heads, n, dtype=dtype)
    for rows, layer, pattern in patterns_by_layer(model, tokens, progress=progress):
        found = torch.einsum("phqk,pqk->hp", pattern, followed[rows].to(pattern))
        values[layer, :, rows] = found / queries[rows]
    visible = torch.arange(1, tokens.shape[1] + 1)
    chance = (followed.sum(dim=-1) / visible).sum(dim=-1) / queries
    return Score(
        "prefix-matching",
        values,
        chance=chance.mean().item(),
        notes={"seq_len": length, "copies": COPIES, "seed": seed, "tokens_drawn_from": len(usual)},
    )


def usual_tokens(model: Model) -> Int[Tensor, " tokens"]:
    """Ordinary tokens without the most and the least frequent ones, where these are known.

    The order of the ids tells frequency in vocabularies of byte pairs and of unigram models, where
    the first and the last 5% are left out. Vocabularies of words and of WordPiece come in any
    order, and are taken whole.
    """
    ordinary = ordinary_tokens(model)
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is None or type(backend.model).__name__ not in RANKED:
        return ordinary
    extreme = int(EXTREME * len(ordinary))
    return ordinary[extreme : len(ordinary) - extreme]
