"""Do the prompts fit the model, and how many of them run at once?"""

from __future__ import annotations

from collections.abc import Iterable

from interp.errors import PromptError
from interp.models import Model
from interp.models.memory import free_bytes
from interp.prompts import PromptSet

BUDGET = 2**30
"""Most bytes that the activations of one batch may take: larger batches are not faster."""


def require_fit(model: Model, prompts: PromptSet) -> None:
    """Raise PromptError for tokens that the model does not know and prompts beyond its context."""
    tokens, length = int(prompts.clean.max()), int(prompts.mask.sum(dim=-1).max())
    if tokens >= model.geometry.d_vocab:
        prompt = int((prompts.clean == tokens).any(dim=-1).int().argmax())
        raise PromptError(
            f"Prompt {prompt} holds token {tokens}, and {model.id} knows 0 to "
            f"{model.geometry.d_vocab - 1}; make the prompts with this model's tokenizer."
        )
    if length > model.geometry.n_ctx:
        raise PromptError(
            f"The longest prompt has {length} tokens and {model.id} reads "
            f"{model.geometry.n_ctx}; shorten the prompts."
        )


def batch_size_for(model: Model, prompts: PromptSet, kept: Iterable[str] = ()) -> int:
    """Prompts that run at once: as many as a quarter of the free memory holds, or BUDGET.

    Counted for each prompt: the widest moment of a forward pass (the scores, mask, softmax and
    pattern of one layer, 20 residual streams for its MLP, two copies of the logits) and every
    activation that is kept.
    """
    sizes, pos = model.geometry, prompts.clean.shape[1]
    stream, square = pos * sizes.d_model, pos * pos * sizes.n_heads
    numbers = 20 * stream + 4 * square + 2 * pos * sizes.d_vocab
    for name in kept:
        if name.endswith(("hook_pattern", "hook_attn_scores")):
            numbers += square
        elif name.endswith(("hook_result", "_input", "hook_attn_in")):
            numbers += stream * sizes.n_heads
        else:
            numbers += stream
    budget = min(BUDGET, free_bytes(model.device) // 4)
    return max(1, min(len(prompts), budget // (numbers * model.dtype.itemsize)))
