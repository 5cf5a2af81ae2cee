"""Which columns of the prompts does `positions` mean?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from interp.errors import SiteError, did_you_mean
from interp.prompts import PromptSet

Positions = str | int | Sequence[int] | None


def columns(prompts: PromptSet, positions: Positions) -> Int[Tensor, "prompts picked"] | None:
    """Columns of `prompts.clean` that are picked from each prompt, or None for all of them.

    A role stands for its whole span, an integer for one token: 0 is the first real token of each
    prompt and -1 the last, whatever the padding.

    Raises SiteError for a role that a prompt lacks or that has another length there, and for a
    position outside a prompt; the message names the prompt.
    """
    if positions is None:
        return None
    if isinstance(positions, str):
        return _columns_of_role(prompts, positions)
    wanted = [positions] if isinstance(positions, int) else list(positions)
    if not wanted or not all(isinstance(p, int) and not isinstance(p, bool) for p in wanted):
        raise SiteError(
            f"positions is {positions!r}; give None for all, a role such as 'END', an integer, "
            "or a list of integers."
        )
    lengths = prompts.mask.sum(dim=-1)
    offsets = torch.tensor(wanted, device=lengths.device)
    from_first = torch.where(offsets < 0, offsets + lengths[:, None], offsets)
    outside = (from_first < 0) | (from_first >= lengths[:, None])
    if outside.any():
        prompt, which = outside.nonzero()[0].tolist()
        length = int(lengths[prompt])
        raise SiteError(
            f"Position {wanted[which]} is outside prompt {prompt}, which has {length} tokens; "
            f"use {-length} to {length - 1}."
        )
    first = prompts.end + 1 - lengths
    return first[:, None] + from_first


def pick(
    activation: Shaped[Tensor, "prompts ..."], picked: Int[Tensor, "prompts picked"], axis: int
) -> Shaped[Tensor, "prompts ..."]:
    """The picked columns of each prompt, along the position axis of the activation.

    >>> pick(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([[2], [1]]), axis=1).tolist()
    [[7], [9]]
    """
    rows = torch.arange(len(activation), device=activation.device)[:, None]
    return activation.movedim(axis, 1)[rows, picked.to(activation.device)].movedim(1, axis)


def layout(
    prompts: PromptSet, positions: Positions, picked: Int[Tensor, "prompts picked"] | None
) -> tuple[Bool[Tensor, "prompts pos"], dict[str, Int[Tensor, "prompts 2"]]]:
    """Mask and roles of what is captured, in its own columns."""
    if picked is None:
        return prompts.mask.cpu(), {name: spans.cpu() for name, spans in prompts.roles.items()}
    mask = torch.ones(picked.shape, dtype=torch.bool)
    if not isinstance(positions, str):
        return mask, {}
    return mask, {positions: torch.tensor([[0, picked.shape[1]]]).expand(len(prompts), 2)}


def _columns_of_role(prompts: PromptSet, role: str) -> Int[Tensor, "prompts picked"]:
    if role not in prompts.roles:
        raise SiteError(f"No prompt has the role {role!r}: {did_you_mean(role, prompts.roles)}")
    spans = prompts.roles[role]
    lacking = spans[:, 0] < 0
    if lacking.any():
        raise SiteError(
            f"Prompt {int(lacking.int().argmax())} lacks the role {role!r} "
            f"({int(lacking.sum())} of {len(prompts)} do); capture the prompts that have it."
        )
    lengths = spans[:, 1] - spans[:, 0]
    other = lengths != lengths[0]
    if other.any():
        prompt = int(other.int().argmax())
        raise SiteError(
            f"The role {role!r} spans {int(lengths[0])} tokens in prompt 0 and "
            f"{int(lengths[prompt])} in prompt {prompt}; capture prompts where it is equally long, "
            "or all positions with positions=None and use the roles of the result."
        )
    return spans[:, :1] + torch.arange(int(lengths[0]), device=spans.device)
