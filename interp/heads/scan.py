"""`scan`: run a model on repeated random tokens and score every head."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations import capture
from interp.errors import MetricError, did_you_mean
from interp.heads.atlas import HeadAtlas
from interp.heads.attention import KINDS, attention_score, chance, repeated_tokens
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance

PATTERN_BYTES = 2**28
"""Attention patterns of one batch stay below this, whatever the size of the model."""


def scan(
    model: Model,
    kinds: str | Sequence[str] | None = None,
    *,
    n: int = 10,
    seq_len: int = 50,
    seed: int = 0,
    batch_size: int | None = None,
) -> HeadAtlas:
    """Score every attention head on `n` prompts of random tokens said twice.

    Args:
        model: What `interp.load` returns.
        kinds: Some of `KINDS`, or one; all by default. `interp.heads.attention` defines them.
        n: Prompts; each score is a mean over them.
        seq_len: Random tokens in one copy; prompts are `2 * seq_len + 1` long.
        seed: Of the random tokens.
        batch_size: Prompts run together; as many as fit 256 MB of attention patterns by default.

    Raises:
        MetricError: An unknown kind.
        PromptError: Prompts that the model's context or vocabulary does not allow.

    The control of a scan is `scan(model.untrained())`: the same shape with random weights.
    """
    wanted = _resolve(kinds)
    tokens = repeated_tokens(model, n=n, seq_len=seq_len, seed=seed)
    prompts = PromptSet.from_tokens(tokens, answer=tokens[:, -1])
    size = batch_size or _batch_size(model, tokens.shape[1])
    batches = [prompts[start : start + size] for start in range(0, n, size)]
    values = [_scores(model, batch, wanted) for batch in track(batches, f"Scanning {model.id}")]
    return HeadAtlas(
        kinds=wanted,
        values=torch.cat(values, dim=-1),
        chance=torch.tensor([chance(kind, seq_len) for kind in wanted]),
        provenance=provenance(
            model,
            prompts,
            method="attention on repeated random tokens",
            seq_len=seq_len,
            seed=seed,
            command=_command(model, wanted, n=n, seq_len=seq_len, seed=seed),
        ),
    )


def _scores(
    model: Model, prompts: PromptSet, kinds: Sequence[str]
) -> Float[Tensor, "kinds layer head prompts"]:
    """Run one batch; only the scores outlive it."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(model.geometry.n_layers)]
    patterns = capture(model, prompts, names, batch_size=len(prompts))
    return torch.stack(
        [torch.stack([attention_score(kind, patterns[name]).T for name in names]) for kind in kinds]
    )


def _batch_size(model: Model, length: int) -> int:
    """Prompts whose attention patterns, of all layers together, fit `PATTERN_BYTES`."""
    shape = model.geometry
    return max(1, PATTERN_BYTES // (4 * shape.n_layers * shape.n_heads * length**2))


def _command(model: Model, kinds: Sequence[str], *, n: int, seq_len: int, seed: int) -> str:
    """What repeats the scan: in the shell, or in Python for a model that has no name to load."""
    if model.id.startswith(type(model.hf).__name__):
        chosen = "" if tuple(kinds) == KINDS else f", {list(kinds)}"
        return f"interp.heads.scan(model{chosen}, n={n}, seq_len={seq_len}, seed={seed})"
    name = shlex.quote(model.id.partition(" (untrained")[0])
    chosen = "" if tuple(kinds) == KINDS else f" --kinds {','.join(kinds)}"
    dtype = str(model.dtype).removeprefix("torch.")
    chosen += "" if dtype == "float32" else f" --dtype {dtype}"
    chosen += "" if model.revision is None else f" --revision {shlex.quote(model.revision)}"
    return f"interp scan {name}{chosen} --n {n} --seq-len {seq_len} --seed {seed}"


def _resolve(kinds: str | Sequence[str] | None) -> tuple[str, ...]:
    wanted = (kinds,) if isinstance(kinds, str) else tuple(KINDS if kinds is None else kinds)
    if not wanted:
        raise MetricError(f"No kind of head was asked for; pass some of {', '.join(KINDS)}.")
    for kind in wanted:
        if kind not in KINDS:
            raise MetricError(f"{kind!r} is not a kind of head: {did_you_mean(kind, KINDS)}")
    return tuple(dict.fromkeys(wanted))
