"""What an attention head looks at, measured on repeated random tokens.

A prompt is `BOS + r + r`, with `r` of S = `seq_len` random ordinary tokens, so that only position
and repetition can guide attention. Position 0 is BOS, 1..S the first copy, S+1..2S the second. A
score is the mean attention over a fixed set of cells, one key for each query:

    kind             key that query i looks at      queries averaged
    previous-token   i - 1                          1..2S
    current-token    i                              1..2S    (row 0 can only look at itself)
    duplicate-token  i - S, its earlier copy        S+1..2S
    induction        i - S + 1, the token after it  S+1..2S
    first-token      0                              S+1..2S  (where every kind has its target)

How this differs from the mean of a whole diagonal, as TransformerLens's tutorials take it: the
diagonal at -1 is our previous-token score exactly. The one at 0 has row 0 too, which is always 1.
The one at -S has row S too, and the one at 1 - S rows S-1 and S: queries of the first copy, whose
token never occurred before, so that there is nothing to find. A perfect induction head can thus
score as little as S / (S + 2) on its diagonal, .96 for S = 50, and scores 1 here; the two numbers
never differ by more than 2 / (S + 2). The tutorials also draw `r` with replacement, so that a token
can recur inside `r` and have several earlier copies.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import PromptError
from interp.models import Model
from interp.prompts import ordinary_tokens

MEANING = {
    "previous-token": "attention from each token to the token just before it",
    "duplicate-token": "attention from each repeated token to its earlier copy",
    "induction": "attention from each repeated token to the token that followed its earlier copy",
    "current-token": "attention from each token to itself",
    "first-token": "attention to the very first position, where heads often rest when idle",
}
"""What one score of each kind says: 0 is none of the attention, 1 is all of it."""

KINDS = tuple(MEANING)


def repeated_tokens(
    model: Model, *, n: int = 10, seq_len: int = 50, seed: int = 0
) -> Int[Tensor, "prompts pos"]:
    """`n` prompts of BOS and `seq_len` random tokens said twice.

    The random tokens are ordinary ones: not special, and known to the tokenizer. Each occurs once
    in a copy, unless the vocabulary has fewer than are needed; then they are drawn with
    replacement. A model without a BOS token gets one more random token in its place.

    Raises:
        PromptError: Prompts too short to tell the kinds apart, or too long for the model's context,
            or a vocabulary without ordinary tokens.
    """
    if n < 1:
        raise PromptError(f"n is {n}, and a score needs at least one prompt; pass n=1 or more.")
    if seq_len < 3:
        raise PromptError(
            f"seq_len is {seq_len}, and below 3 the kinds of head look at the same places; "
            "pass seq_len=3 or more."
        )
    longest = (model.geometry.n_ctx - 1) // 2
    if seq_len > longest:
        raise PromptError(
            f"seq_len is {seq_len}, so prompts have {2 * seq_len + 1} tokens, and {model.id} reads "
            f"at most {model.geometry.n_ctx}; pass seq_len={longest} or less."
        )
    ordinary = ordinary_tokens(model)
    if len(ordinary) < 2:
        raise PromptError(
            f"{model.id} has {len(ordinary)} tokens that are not special, and repeated random text "
            "needs two or more; check its tokenizer."
        )
    generator = torch.Generator().manual_seed(seed)
    drawn = seq_len if model.bos_id is not None else seq_len + 1
    rows = ordinary[torch.stack([_draw(len(ordinary), drawn, generator) for _ in range(n)])]
    repeated = rows[:, -seq_len:]
    first = rows[:, :1] if model.bos_id is None else torch.full((n, 1), model.bos_id)
    return torch.cat([first, repeated, repeated], dim=1)


def looked_at(kind: str, seq_len: int) -> tuple[Int[Tensor, " cells"], Int[Tensor, " cells"]]:
    """Queries and keys of the cells that a kind averages, on prompts of `2 * seq_len + 1` tokens.

    >>> [cells.tolist() for cells in looked_at("induction", 3)]
    [[4, 5, 6], [2, 3, 4]]
    """
    every = torch.arange(1, 2 * seq_len + 1)
    second = torch.arange(seq_len + 1, 2 * seq_len + 1)
    return {
        "previous-token": (every, every - 1),
        "duplicate-token": (second, second - seq_len),
        "induction": (second, second - seq_len + 1),
        "current-token": (every, every),
        "first-token": (second, torch.zeros_like(second)),
    }[kind]


def attention_score(
    kind: str, pattern: Float[Tensor, "prompts head pos pos"]
) -> Float[Tensor, "prompts head"]:
    """Score of a kind for each head on each prompt of `repeated_tokens`."""
    queries, keys = looked_at(kind, pattern.shape[-1] // 2)
    return pattern[:, :, queries, keys].float().mean(dim=-1)


def chance(kind: str, seq_len: int) -> float:
    """Score of a head that attends equally to everything it may see.

    >>> round(chance("induction", 50), 4)
    0.0136
    """
    queries, _ = looked_at(kind, seq_len)
    return (1 / (queries.double() + 1)).mean().item()


def _draw(choices: int, count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    """Distinct numbers below `choices` where there are enough of them."""
    if choices >= count:
        return torch.randperm(choices, generator=generator)[:count]
    return torch.randint(choices, (count,), generator=generator)
