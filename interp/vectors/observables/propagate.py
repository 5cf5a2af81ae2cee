"""One component at a time, linearised: what it reads so that something behind it moves along a
direction.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.anatomy import Part
from interp.engine.clean import CleanRun
from interp.engine.gradients import frozen, part_at
from interp.engine.groups import groups
from interp.engine.memory import largest_group
from interp.engine.replay import Replay, replay_of
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import Head, Resid, Site


@dataclass(frozen=True, eq=False)
class Point:
    """The mean states x0 at which a model is linearised.

    Attributes:
        pre: What enters each block.
        mid: What the MLP of each block reads; None where that is no stream of its own.
        end: What leaves the last block, at END.
    """

    pre: Float[Tensor, "layer d_model"]
    mid: Float[Tensor, "layer d_model"] | None
    end: Float[Tensor, " d_model"]


@dataclass(frozen=True, eq=False)
class Step:
    """One component, linearised: `value = vector · x + offset`.

    Attributes:
        vector: Its gradient in the stream.
        normed: Its gradient behind the norm that it reads through.
        outer: The gradient of what is behind it, at its z (heads) or its output (MLPs).
        offset: Value at x0 minus `vector · x0`.
    """

    vector: Float[Tensor, " d_model"]
    normed: Float[Tensor, " d_model"]
    outer: Float[Tensor, " features"]
    offset: float


@torch.no_grad()
def mean_point(replay: Replay, prompts: PromptSet, position: str | int | None) -> Point:
    """The mean states of prompts at a role or a column, or at all tokens; at END behind all blocks.

    Raises SiteError for a position that a prompt lacks.
    """
    shape, mids = replay.model.geometry, has_mid(replay)
    total = torch.zeros(2, shape.n_layers, shape.d_model, dtype=torch.float64)
    end, count = torch.zeros(shape.d_model, dtype=torch.float64), 0
    for group in groups(prompts, largest_group(replay, prompts)):
        whole = torch.ones(len(group), group.length, dtype=torch.bool)
        where = whole if position is None else group.where(position)
        run = replay.clean(group.tokens, ["resid_mid"] if mids else [])
        for layer in range(shape.n_layers):
            total[0, layer] += run.stream[layer][where].double().sum(dim=0).cpu()
            if mids:
                total[1, layer] += run.at(layer, "resid_mid")[where].double().sum(dim=0).cpu()
        end += run.stream[-1][:, -1].double().sum(dim=0).cpu()
        count += int(where.sum())
    pre, mid = (total / count).to(replay.model.device, replay.model.dtype)
    return Point(pre, mid if mids else None, (end / len(prompts)).to(pre))


@torch.no_grad()
def states(
    model: Model, prompts: PromptSet, where: Resid, *, position: str | int = "END"
) -> Float[Tensor, "prompts d_model"]:
    """The stream at one point of a block, its mean over the columns of a position.

    Raises SiteError or PromptError for a place or prompts that do not exist.
    """
    require_fit(model, prompts)
    replay = replay_of(model)
    found = torch.empty(len(prompts), model.geometry.d_model, dtype=model.dtype)
    for group in groups(prompts, largest_group(replay, prompts)):
        run = replay.clean(group.tokens, ["resid_mid"] if where.point == "mid" else [])
        inside = group.where(position).to(model.dtype)
        mean = torch.einsum("gpd,gp->gd", stream_at(replay, run, where).cpu(), inside)
        found[group.rows] = mean / inside.sum(dim=-1, keepdim=True)
    return found.to(model.device)


def stream_at(replay: Replay, run: CleanRun, where: Resid) -> Float[Tensor, "prompts pos d_model"]:
    """The stream at one point of a clean run. Raises SiteError where there is no such point."""
    replay.body.part(where)
    return run.at(where.layer, f"resid_{where.point}")


def has_mid(replay: Replay) -> bool:
    """Whether MLPs read a stream that attention has written to."""
    return not replay.body.parallel and "resid_mid" in replay.body.blocks[0].parts


def unembed(replay: Replay, at: Float[Tensor, " d_model"], n: Float[Tensor, " vocab"]) -> Step:
    """Final norm, unembedding and soft-cap."""
    with torch.enable_grad(), frozen(replay.body.module):
        leaf = at.detach().clone().requires_grad_()
        value = replay.logits(leaf[None])[0] @ n
        (slope,) = torch.autograd.grad(value, leaf)
    return Step(slope, slope, n, float(value.detach() - slope @ at))


def through(
    replay: Replay, point: Point, component: Site, outer: Float[Tensor, " d_model"]
) -> Step:
    """One head or MLP with its norm, from a run of its block on one token at x0."""
    layer = component.layer
    part = replay.body.part(component)
    block, pre = replay.body.blocks[layer], point.pre[layer]
    head = component if isinstance(component, Head) else None
    at = pre if head or point.mid is None else point.mid[layer]
    with torch.no_grad():
        run = replay.clean(torch.zeros(1, 1, dtype=torch.long))
    seen: dict[str, Tensor] = {}
    norm = block.attn_norm if head else block.mlp_norm
    with torch.enable_grad(), frozen(replay.body.module), ExitStack() as hooks:
        leaf = at.detach().clone().requires_grad_()
        if head:
            hooks.enter_context(part.hook(_alone(head.head, part.heads, seen)))
            written = block.parts["attn_out"]
        else:
            kind = "mlp_stream" if norm is not None else "mlp_in"
            enters = part_at(replay.body, (kind, layer))
            hooks.enter_context(enters.hook(lambda x: leaf.expand_as(x).clone()))
            written = part
        if norm is not None:
            hooks.enter_context(Part(norm, "out").hook(_keep(seen, "normed")))
        hooks.enter_context(written.hook(_keep(seen, "out")))
        replay.block(run, layer, (leaf if head else pre)[None, None], 0)
        value = (seen["out"].flatten() * outer).sum()
        inner = [leaf, seen.get("normed", leaf), seen["z" if head else "out"]]
        slope, normed, at_output = torch.autograd.grad(value, inner)
    at_output = at_output.flatten()
    worth = (seen["z" if head else "out"].detach().flatten() * at_output).sum()
    return Step(slope, normed.flatten(), at_output, float(worth - slope @ at))


def _alone(head: int, heads: int, seen: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """Let a gradient pass through the output of one head only."""

    def only(z: Tensor) -> Tensor:
        seen["z"] = z.clone()
        mine = torch.arange(z.shape[-1], device=z.device) // (z.shape[-1] // heads) == head
        return torch.where(mine, seen["z"], seen["z"].detach())

    return only


def _keep(seen: dict[str, Tensor], name: str) -> Callable[[Tensor], Tensor]:
    def keep(activation: Tensor) -> Tensor:
        seen[name] = activation.clone()
        return seen[name].clone()  # blocks may change an activation in place

    return keep
