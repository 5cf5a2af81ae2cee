"""One pass of a model in which only some of its edges are kept, for many circuits side by side.

What every source is ablated to is known; each block is run on what its readers see of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.edges import PartSeen, mlp_reading
from interp.engine.gradients import weight_of
from interp.engine.graph import Graph
from interp.engine.groups import Group
from interp.engine.replay import Replay
from interp.models.placement import held
from interp.sites import Head, Input, Site

Deltas = Float[Tensor, "circuits sources prompts pos d_model"]
Where = Bool[Tensor, "circuits sources prompts pos"]


class SubgraphRunner:
    """Runs circuits on the prompts of one group."""

    def __init__(
        self,
        replay: Replay,
        graph: Graph,
        group: Group,
        ablated: Sequence[Tensor | float],
        *,
        start: int,
    ) -> None:
        self.replay, self.graph, self.start = replay, graph, start
        self.run = replay.clean(group.tokens)
        shape = len(group), group.length - start
        parts: dict[tuple[int, str], list[Tensor]] = {}
        for node, value in zip(graph.nodes, ablated, strict=True):
            width = replay.model.geometry.d_model
            if isinstance(node, Head):
                width = replay.width(node.layer, "z") // replay.model.geometry.n_heads
            whole = torch.as_tensor(value, device=replay.model.device).to(replay.model.dtype)
            whole = whole[:, start:] if whole.ndim == 3 else whole
            parts.setdefault(_address(node), []).append(whole.expand(*shape, width))
        self.ablated = {address: torch.cat(each, dim=-1) for address, each in parts.items()}

    def __call__(
        self, circuits: Bool[Tensor, "circuits edges"], where: Where | None
    ) -> Float[Tensor, "circuits prompts d_model"]:
        """What leaves the last block at END, of circuits that run side by side.

        `where` says at which columns each source is kept at all; None: at all of them.
        """
        walk = Walk(self, self.graph.matrix(circuits), where)
        ablated = self.ablated[0, "input"]
        walk.add((self.run.stream[0][:, self.start :] - ablated)[None, None])
        for layer, block in enumerate(self.replay.body.blocks):
            entered = ablated
            z = walk.heads(layer, ablated)
            ablated = ablated + self.replay.after_attention(layer, self.ablated[layer, "z"])
            if not self.replay.body.parallel:
                walk.add(z)
            if block.mlp is not None:
                read = entered if self.replay.body.parallel else ablated
                added = walk.mlp(layer, read)
                ablated = ablated + self.ablated[layer, "mlp_out"]
                both = [z, added] if self.replay.body.parallel else [added]
            else:
                both = [z] if self.replay.body.parallel else []
            for each in both:
                walk.add(each)
        return walk.stream((self.replay.n_layers, "logits"), ablated)[:, 0, :, -1]


class Walk:
    """Some circuits on their way through the model."""

    def __init__(
        self,
        runner: SubgraphRunner,
        kept: Float[Tensor, "circuits sources readers"],
        where: Tensor | None,
    ) -> None:
        self.runner, self.kept, self.where = runner, kept, where
        columns = runner.run.length - runner.start
        shape = (*kept.shape[:2], len(runner.run.tokens), columns)
        self.deltas = kept.new_empty(*shape, runner.replay.model.geometry.d_model)
        self.known = 0

    def add(self, deltas: Deltas) -> None:
        """What the next sources add beyond their ablated values."""
        last = self.known + deltas.shape[1]
        self.deltas[:, self.known : last] = deltas
        if self.where is not None:
            here = self.where[:, self.known : last, :, self.runner.start :, None]
            self.deltas[:, self.known : last] *= here
        self.known = last

    def stream(
        self, address: tuple[int, str], ablated: Float[Tensor, "prompts pos d_model"]
    ) -> Float[Tensor, "circuits readers prompts pos d_model"]:
        """What the readers of one part see."""
        kept = self.kept[:, : self.known, self.runner.graph.readers[address]]
        known = self.deltas[:, : self.known].flatten(2)
        added = (kept.transpose(1, 2) @ known).unflatten(-1, self.deltas.shape[2:])
        return added + ablated

    def heads(self, layer: int, ablated: Float[Tensor, "prompts pos d_model"]) -> Deltas:
        """What the heads of a layer add beyond their ablated values."""
        replay, run, start = self.runner.replay, self.runner.run, self.runner.start
        block = replay.body.blocks[layer]
        seen: list[Tensor] = []
        with ExitStack() as hooks:
            for kind in "qkv":
                new = self._projected(layer, kind, ablated).flatten(0, 1)
                hooks.enter_context(block.parts[kind].hook(_giving(new)))
            hooks.enter_context(block.parts["z"].hook(partial(_stop_at, seen)))
            with suppress(PartSeen):
                replay.block(run, layer, ablated.repeat(len(self.kept), 1, 1), start)
        z = seen[0].reshape(len(self.kept), len(run.tokens), -1, seen[0].shape[-1])
        beyond = z.to(ablated.device) - self.runner.ablated[layer, "z"]
        weight = weight_of(block.after_heads[0]).to(ablated.device)
        heads = replay.model.geometry.n_heads
        each = beyond.unflatten(-1, (heads, -1)).movedim(-2, 1)
        return each @ weight.T.unflatten(0, (heads, -1))[:, None]

    def _projected(
        self, layer: int, kind: str, ablated: Float[Tensor, "prompts pos d_model"]
    ) -> Float[Tensor, "circuits prompts pos features"]:
        """The queries, keys or values of all heads, each from the stream that it reads."""
        block = self.runner.replay.body.blocks[layer]
        part, read = block.parts[kind], self.stream((layer, kind), ablated)
        normed = read if block.attn_norm is None else block.attn_norm(read)
        weight, bias = weight_of(part.module).to(normed.device), held(part.module, "bias")
        bias = None if bias is None else bias.to(normed.device)
        if part.columns is not None:
            columns = part.columns.to(normed.device)
            weight, bias = weight[columns], None if bias is None else bias[columns]
        each = normed @ weight.unflatten(0, (part.heads, -1)).transpose(1, 2)[:, None]
        joined = each.movedim(1, -2).flatten(-2)
        return joined if bias is None else joined + bias

    def mlp(self, layer: int, ablated: Float[Tensor, "prompts pos d_model"]) -> Deltas:
        """What an MLP adds beyond its ablated value."""
        replay, run, start = self.runner.replay, self.runner.run, self.runner.start
        read = self.stream((layer, "mlp_out"), ablated)[:, 0]
        added = mlp_reading(replay, run, layer, read.flatten(0, 1), start).view_as(read)
        return (added - self.runner.ablated[layer, "mlp_out"])[:, None]


def _address(node: Site) -> tuple[int, str]:
    if isinstance(node, Input):
        return 0, "input"
    return node.layer, "z" if isinstance(node, Head) else "mlp_out"


def _stop_at(seen: list[Tensor], part: Tensor) -> None:
    seen.append(part.clone())
    raise PartSeen


def _giving(value: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: value.reshape(x.shape)
