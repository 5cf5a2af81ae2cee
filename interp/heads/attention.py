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

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations import capture
from interp.errors import PromptError
from interp.heads.score import Score
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet, ordinary_tokens

ATTENTION = ("previous-token", "duplicate-token", "induction", "current-token", "first-token")
"""The kinds that are measured here."""

PATTERN_BYTES = 2**28
"""Attention patterns that are held at once stay below this, but for one layer of one prompt."""


def attention(
    model: Model,
    kinds: Sequence[str] = ATTENTION,
    *,
    n: int = 10,
    seq_len: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> list[Score]:
    """How much of its attention each head gives to the target of each kind.

    Args:
        model: What `interp.load` returns.
        kinds: Some of ATTENTION.
        n: Prompts of random tokens said twice.
        seq_len: Random tokens in one copy; prompts are `2 * seq_len + 1` long. Shorter where the
            model's context is.
        seed: Of the random tokens.
        progress: Show a bar.
    """
    length = min(seq_len, longest_copy(model))
    tokens = repeated_tokens(model, n=n, seq_len=length, seed=seed)
    shape = model.geometry
    dtype = torch.promote_types(model.dtype, torch.float32)
    values = torch.empty(len(kinds), shape.n_layers, shape.n_heads, n, dtype=dtype)
    for rows, layer, pattern in patterns_by_layer(model, tokens, progress=progress):
        for index, kind in enumerate(kinds):
            values[index, layer, :, rows] = attention_score(kind, pattern).T
    return [
        Score(kind, each, chance=chance(kind, length), notes={"seq_len": length, "seed": seed})
        for kind, each in zip(kinds, values, strict=True)
    ]


def repeated_tokens(
    model: Model,
    *,
    n: int = 10,
    seq_len: int = 50,
    seed: int = 0,
    copies: int = 2,
    among: Int[Tensor, " tokens"] | None = None,
) -> Int[Tensor, "prompts pos"]:
    """`n` prompts of BOS and `seq_len` random tokens said twice, or as often as `copies` says.

    The random tokens are ordinary ones, not special and known to the tokenizer, or some of `among`.
    Each occurs once in a copy, unless there are fewer than are needed; then they are drawn with
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
    longest = longest_copy(model, copies)
    if seq_len > longest:
        raise PromptError(
            f"seq_len is {seq_len}, so prompts have {copies * seq_len + 1} tokens, and {model.id} "
            f"reads at most {model.geometry.n_ctx}; pass seq_len={longest} or less."
        )
    ordinary = ordinary_tokens(model) if among is None else among
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
    return torch.cat([first, repeated.repeat(1, copies)], dim=1)


def longest_copy(model: Model, copies: int = 2) -> int:
    """Tokens that can be said `copies` times after BOS within the context of the model."""
    return (model.geometry.n_ctx - 1) // copies


def patterns_by_layer(
    model: Model, tokens: Int[Tensor, "prompts pos"], *, progress: bool = True
) -> Iterator[tuple[slice, int, Float[Tensor, "some head pos pos"]]]:
    """The attention of some prompts in one layer after another: their rows, the layer, the pattern.

    Patterns are on the CPU, in float32 or float64. As many prompts and layers run at once as
    PATTERN_BYTES allows.
    """
    shape = model.geometry
    square = 4 * shape.n_heads * tokens.shape[1] ** 2
    layers = min(shape.n_layers, max(1, PATTERN_BYTES // square))
    size = max(1, PATTERN_BYTES // (square * layers))
    blocks = [
        (slice(start, start + size), range(first, min(first + layers, shape.n_layers)))
        for start in range(0, len(tokens), size)
        for first in range(0, shape.n_layers, layers)
    ]
    for rows, some in track(blocks, f"Reading the attention of {model.id}", shown=progress):
        names = {layer: f"blocks.{layer}.attn.hook_pattern" for layer in some}
        prompts = PromptSet.from_tokens(tokens[rows], answer=tokens[rows, -1])
        patterns = capture(model, prompts, names.values(), batch_size=len(prompts))
        for layer, name in names.items():
            pattern = patterns[name]
            yield rows, layer, pattern.to(torch.promote_types(pattern.dtype, torch.float32))


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
    return pattern[:, :, queries, keys].mean(dim=-1)


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
