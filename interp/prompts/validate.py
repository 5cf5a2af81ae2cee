"""What a prompt set must fulfil before anything runs on it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import PromptError

if TYPE_CHECKING:
    from interp.prompts.prompt_set import PromptSet


def validate(prompts: PromptSet) -> None:
    """Refuse a prompt set that cannot mean what it should.

    Raises:
        PromptError: Names the first offending prompt, the rule and the way out.
    """
    n = prompts.clean.shape[0]
    if n == 0:
        raise PromptError("A prompt set needs at least one prompt, and got none.")
    for name, tensor in (("answer", prompts.answer), ("wrong", prompts.wrong)):
        if tensor is not None and tensor.shape[0] != n:
            raise PromptError(
                f"{name} has {tensor.shape[0]} rows for {n} prompts; give one for each."
            )
    if prompts.mask.shape != prompts.clean.shape:
        raise PromptError(
            f"The mask has shape {tuple(prompts.mask.shape)} and the tokens "
            f"{tuple(prompts.clean.shape)}; give one mask entry for each token."
        )
    _mask_is_unbroken(prompts.mask)
    _no_negative_tokens(prompts.clean, prompts.mask)
    _answers_are_given(prompts.answer, prompts.wrong)
    if prompts.corrupt is not None:
        _pairs_differ(prompts.clean, prompts.corrupt, prompts.mask)
    for role, spans in prompts.roles.items():
        _span_is_inside(role, spans, prompts.mask)


def _first(bad: Bool[Tensor, " prompts"]) -> int | None:
    return int(bad.int().argmax()) if bool(bad.any()) else None


def _mask_is_unbroken(mask: Bool[Tensor, "prompts pos"]) -> None:
    if (empty := _first(~mask.any(dim=-1))) is not None:
        raise PromptError(f"Prompt {empty} has no real token; its mask must be True somewhere.")
    starts = mask[:, 0].int() + (mask[:, 1:] & ~mask[:, :-1]).sum(dim=-1)
    if (broken := _first(starts > 1)) is not None:
        raise PromptError(
            f"Prompt {broken} has padding between real tokens; pad on the left or on the right "
            "only."
        )


def _no_negative_tokens(
    clean: Int[Tensor, "prompts pos"], mask: Bool[Tensor, "prompts pos"]
) -> None:
    if (bad := _first(((clean < 0) & mask).any(dim=-1))) is not None:
        raise PromptError(f"Prompt {bad} has a negative token id; token ids begin at 0.")


def _answers_are_given(
    answer: Int[Tensor, "prompts answers"], wrong: Int[Tensor, "prompts wrongs"] | None
) -> None:
    for name, choices in (("answer", answer), ("wrong answer", wrong)):
        if choices is not None and (none := _first((choices < 0).all(dim=-1))) is not None:
            raise PromptError(f"Prompt {none} has no {name}; give at least one token.")
    if wrong is None:
        return
    clash = (answer[:, :, None] == wrong[:, None, :]) & (answer >= 0)[:, :, None]
    if (bad := _first(clash.flatten(1).any(dim=-1))) is not None:
        token = int(answer[bad][clash[bad].any(dim=-1)][0])
        raise PromptError(
            f"Prompt {bad} has token {token} both as its answer and as a wrong answer; a metric "
            "that compares them would be 0, so give another wrong answer."
        )


def _pairs_differ(
    clean: Int[Tensor, "prompts pos"],
    corrupt: Int[Tensor, "prompts pos"],
    mask: Bool[Tensor, "prompts pos"],
) -> None:
    if corrupt.shape != clean.shape:
        raise PromptError(
            f"The prompts have shape {tuple(clean.shape)} and their counterfactuals "
            f"{tuple(corrupt.shape)}; pairs are compared position by position."
        )
    if (same := _first(~((clean != corrupt) & mask).any(dim=-1))) is not None:
        raise PromptError(
            f"Prompt {same} equals its counterfactual, so that patching it would do nothing; "
            "change what the answer hangs on."
        )


def _span_is_inside(
    role: str, spans: Int[Tensor, "prompts 2"], mask: Bool[Tensor, "prompts pos"]
) -> None:
    if spans.shape != (mask.shape[0], 2):
        raise PromptError(
            f"Role {role!r} has shape {tuple(spans.shape)} for {mask.shape[0]} prompts; give one "
            "(start, stop) pair for each."
        )
    columns = torch.arange(mask.shape[1], device=mask.device)
    start, stop = spans[:, :1], spans[:, 1:]
    covered = (columns >= start) & (columns < stop)
    absent = (spans == -1).all(dim=-1)
    inside = (covered & mask).any(dim=-1) & ~(covered & ~mask).any(dim=-1)
    fits = (start >= 0).squeeze(-1) & (stop <= mask.shape[1]).squeeze(-1)
    if (bad := _first(~absent & ~(inside & fits))) is not None:
        raise PromptError(
            f"Prompt {bad}: role {role!r} spans columns {spans[bad].tolist()}, which are not all "
            "real tokens of the prompt; give a half-open span inside it, or (-1, -1) where it is "
            "absent."
        )
