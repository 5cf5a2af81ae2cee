"""What would patching an edge change? What its source changes, times the gradient at its reader.

Sources are kept as what the heads compute before the output projection. They become residual
streams one layer at a time, and so do the gradients of the readers: the heads of all layers are
never held as streams at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp.engine.anatomy import Anatomy, Block
from interp.engine.edge_plan import Bundle, EdgePlan
from interp.engine.gradients import (
    Address,
    Contrast,
    Measure,
    Spread,
    gradients,
    pull_back,
    push_forward,
    weight_of,
)
from interp.engine.replay import Replay


def score_edges(
    plan: EdgePlan, replay: Replay, both: Contrast, measure: Measure
) -> Float[Tensor, "edges prompts"]:
    """The estimated effect of each edge on each prompt of one group."""
    body = replay.body
    counts = [sum(len(each.sites) for each in side) for side in (plan.sources, plan.readers)]
    found = both.logits.new_zeros(len(both.group), *counts, dtype=torch.float64)
    wanted = [bundle.address for bundle in plan.readers]
    norms = [_norm(body, bundle) for bundle in plan.readers]
    keep = [address for norm, address in norms if norm is not None]
    for point, sources in plan.points:
        slopes, streams = gradients(replay, both, measure, point, wanted, keep)
        for stage in _stages(plan.readers, slopes):
            read = torch.cat([_read(body, each, slopes, streams) for each in stage], dim=1)
            columns = torch.cat([bundle.rows for bundle in stage])
            for source in sources:
                if source.sites[0] < stage[-1].sites[-1]:
                    products = _products(_written(body, both, source), read)
                    found[:, source.rows[:, None], columns] += products
    return found[:, plan.src, plan.dst].T / plan.steps


def _stages(readers: list[Bundle], slopes: dict[Address, Tensor]) -> Iterator[list[Bundle]]:
    """The readers of one layer after the other, those that the point reaches."""
    for _, stage in groupby(readers, key=lambda bundle: bundle.sites[0].layer):
        if reached := [bundle for bundle in stage if bundle.address in slopes]:
            yield reached


def _norm(body: Anatomy, bundle: Bundle) -> tuple[nn.Module | None, Address]:
    """What stands between the stream and readers, and the address of what it reads."""
    kind, layer = bundle.address
    block = body.blocks[layer]
    if kind == "resid_post":  # the gradient is taken in front of the final norm
        return None, bundle.address
    if kind == "mlp_in":
        return block.mlp_norm, ("mlp_stream", layer)
    return block.attn_norm, ("attn_stream", layer)


def _read(
    body: Anatomy, bundle: Bundle, slopes: dict[Address, Tensor], streams: dict[Address, Tensor]
) -> Spread:
    """Gradients at the stream through each of the readers alone, in front of their norm."""
    kind, layer = bundle.address
    slope = slopes[bundle.address]
    norm, stream = _norm(body, bundle)
    if kind in ("q", "k", "v"):
        spread = _through_projection(body.blocks[layer], bundle, slope)
    else:
        spread = slope[:, None]
    return spread if norm is None else pull_back(norm, streams[stream], spread)


def _through_projection(
    block: Block, bundle: Bundle, slope: Float[Tensor, "prompts pos features"]
) -> Spread:
    """Gradients at what the projection of queries, keys or values reads, for each head."""
    part = block.parts[bundle.address[0]]
    weight = weight_of(part.module)
    weight = weight if part.columns is None else weight[part.columns.to(weight.device)]
    by_head = weight.unflatten(0, (part.heads, -1))[bundle.units]
    slope = slope.unflatten(-1, (part.heads, -1))[..., bundle.units, :]
    return torch.einsum("nphk,hkd->nhpd", slope, by_head.to(slope.device))


def _written(body: Anatomy, both: Contrast, bundle: Bundle) -> Spread:
    """What each source of a sublayer would change in the stream."""
    kind, layer = bundle.address
    change = both.change[bundle.address]
    if kind != "z":
        return change[:, None]
    block = body.blocks[layer]
    heads = block.parts["z"].heads
    by_head = weight_of(block.after_heads[0]).T.unflatten(0, (heads, -1))[bundle.units]
    change = change.unflatten(-1, (heads, -1))[..., bundle.units, :]
    spread = torch.einsum("nphk,hkd->nhpd", change, by_head.to(change.device))
    norms = block.after_heads[1:]
    return push_forward(norms, both.clean["heads_out", layer], spread) if norms else spread


def _products(
    written: Float[Tensor, "prompts sources pos d_model"],
    read: Float[Tensor, "prompts readers pos d_model"],
) -> Float[Tensor, "prompts sources readers"]:
    """Products of sources and readers, summed over positions and features."""
    wide = torch.promote_types(read.dtype, torch.float32)
    return torch.bmm(written.flatten(2).to(wide), read.flatten(2).to(wide).mT).double()
