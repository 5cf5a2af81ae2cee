"""A sum of head outputs for every block, and how its weights are learned (Saglam et al. 2025).

v_l = sum over heads of Phi[l, h] * a[l, h],   a[l, h] = z[l, h] W_O[l, h] at END

Phi is all that is learned: one number a head, by Adam, of a model that stays as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.errors import VectorError
from interp.progress import track
from interp.saved import register

CHECKS = 40
"""How often the development loss is taken on the way, the last step included."""


@torch.no_grad()
def head_outputs(
    projection: nn.Module, z: Float[Tensor, "*runs head d_head"]
) -> Float[Tensor, "*runs head d_model"]:
    """What each head writes through its own slice of an output projection, on the CPU.

    The bias of the projection is no head's, and a norm or a factor behind it is left out. Computed
    in float64, given in float32, or in float64 for such z.

    >>> projection = nn.Linear(4, 4)
    >>> z = torch.randn(2, 2)
    >>> torch.allclose(head_outputs(projection, z).sum(0) + projection.bias, projection(z.ravel()))
    True
    """
    project, heads = copy.deepcopy(projection).cpu().double(), z.shape[-2]
    alone = torch.eye(heads, dtype=torch.float64)[:, :, None] * z.cpu().double()[..., None, :, :]
    together = alone.flatten(-2)
    written = project(together) - project(together.new_zeros(1, together.shape[-1]))
    return written.to(torch.promote_types(z.dtype, torch.float32))


def head_sums(
    weights: Float[Tensor, "layer head"], outputs: Float[Tensor, "*runs layer head d_model"]
) -> Float[Tensor, "*runs layer d_model"]:
    """The vector of every block."""
    return torch.einsum("lh,...lhd->...ld", weights, outputs)


def add_at_end(
    stream: Float[Tensor, "prompts pos d_model"], vector: Float[Tensor, "*prompts d_model"]
) -> Float[Tensor, "prompts pos d_model"]:
    """The stream with a vector, or one for each prompt, added in the last column."""
    last = stream[:, -1] + vector.to(stream)
    return torch.cat([stream[:, :-1], last[:, None]], dim=1)


@register
@dataclass(frozen=True, eq=False)
class Fit:
    """What was learned.

    Attributes:
        weights: Phi after the step with the least development loss.
        step: That step.
        train_loss: Loss on the batch of each step, before it.
        dev_loss: Development loss after each of `dev_steps`.
        dev_steps: Where it was taken; 0 is before the first step, with all weights 0.
    """

    weights: Float[Tensor, "layer head"]
    step: int
    train_loss: Float[Tensor, " steps"]
    dev_loss: Float[Tensor, " checks"]
    dev_steps: tuple[int, ...]


def require_steps(steps: int, learning_rate: float) -> None:
    """Raise VectorError for steps that learn nothing."""
    if steps < 1:
        raise VectorError(f"steps={steps} learns nothing; use 1 or more.")
    if not 0 < learning_rate < float("inf"):
        raise VectorError(f"learning_rate={learning_rate} is no step size; use one such as 0.01.")


def fit(
    loss: Callable[[Float[Tensor, "layer head"], int], Float[Tensor, ""]],
    dev_loss: Callable[[Float[Tensor, "layer head"]], float],
    start: Float[Tensor, "layer head"],
    *,
    steps: int,
    learning_rate: float,
    progress: bool = True,
) -> Fit:
    """Learn weights by Adam, and keep those of the step, after the first, of least `dev_loss`.

    Args:
        loss: Of some weights on the batch of a step.
        dev_loss: Of some weights on all development data, which no gradient sees.
        start: The weights to start from.
        steps: Steps of Adam; all are taken.
        learning_rate: Its step size.
        progress: Show a bar.

    Raises:
        VectorError: The development loss was never a number.
    """
    weights = start.clone().requires_grad_()
    optimizer = torch.optim.Adam([weights], lr=learning_rate)
    train, dev, checked = [], [dev_loss(start)], [0]
    best, kept, at = float("inf"), start, 0
    every = max(1, steps // CHECKS)
    for step in track(range(1, steps + 1), "Learning weights", shown=progress):
        with torch.enable_grad():
            lost = loss(weights, step)
            optimizer.zero_grad()
            lost.backward(inputs=[weights])
        optimizer.step()
        train.append(lost.item())
        if step % every == 0 or step == steps:
            now = weights.detach().clone()
            dev.append(dev_loss(now))
            checked.append(step)
            if dev[-1] < best:
                best, kept, at = dev[-1], now, step
    if at == 0:
        raise VectorError(
            f"The development loss was {dev[-1]} after {steps} steps of {learning_rate}; use a "
            "smaller learning_rate."
        )
    return Fit(kept.cpu(), at, torch.tensor(train), torch.tensor(dev), tuple(checked))


def permuted(
    weights: Float[Tensor, "layer head"], generator: torch.Generator
) -> Float[Tensor, "layer head"]:
    """The same weights, each at a random head of any block."""
    order = torch.randperm(weights.numel(), generator=generator)
    return weights.flatten()[order].view_as(weights)
