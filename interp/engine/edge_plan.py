"""Which edges are scored, where in the model their ends are, and whether it has edges at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from interp.engine.anatomy import Anatomy
from interp.engine.gradients import Address, Point, forward, path
from interp.engine.groups import Group
from interp.engine.replay import Replay
from interp.errors import InterventionError, SiteError
from interp.sites import MLP, Edge, Head, Input, K, Logits, Q, Site, V

READS: dict[type[Site], str] = {Q: "q", K: "k", V: "v", MLP: "mlp_in"}
"""The part of which the gradient tells what a reader makes of the stream."""


@dataclass(frozen=True, eq=False)
class Bundle:
    """Sources, or readers, that lie in one part.

    Attributes:
        address: The part.
        sites: The sources or readers, in the order of computation.
        rows: Where they are among all sources or all readers.
    """

    address: Address
    sites: tuple[Site, ...]
    rows: Int[Tensor, " sites"]

    @property
    def units(self) -> list[int]:
        """Which of the heads of the part they are."""
        return [site._index for site in self.sites]


@dataclass(frozen=True, eq=False)
class EdgePlan:
    """The edges to score.

    Attributes:
        src: The number of the source of each edge.
        dst: The number of its reader.
        sources: Sources by sublayer, in the order of computation.
        readers: Readers by kind and layer, in the order of computation.
        points: Where gradients are taken, each for all sources or for one sublayer alone.
        steps: Number of points that count for each source.
        addresses: Parts of which both runs are needed.
    """

    src: Int[Tensor, " edges"]
    dst: Int[Tensor, " edges"]
    sources: list[Bundle]
    readers: list[Bundle]
    points: list[tuple[Point, list[Bundle]]]
    steps: int
    addresses: list[Address]


def plan_edges(
    body: Anatomy, sites: Sequence[Site], steps: int, *, activations: bool = False
) -> EdgePlan:
    """Where sources and readers are. With `activations` each sublayer has a path of its own.

    Raises InterventionError for sites that are no edges, SiteError for those that the model lacks.
    """
    edges = [_checked(body, site) for site in sites]
    sources, src = _bundles([edge.src for edge in edges], _written_at)
    readers, dst = _bundles([edge.dst for edge in edges], lambda site: _read_at(body, site))
    if activations:
        points = [(point, [each]) for each in sources for point in path(each.address, steps)]
    else:
        points = [(point, sources) for point in path(("resid_pre", 0), steps)]
    addresses = [point.address for point, _ in points] + [each.address for each in sources]
    for kind, layer in addresses:
        if kind == "z" and len(body.blocks[layer].after_heads) > 1:
            addresses.append(("heads_out", layer))
    return EdgePlan(src, dst, sources, readers, points, steps, addresses)


@torch.no_grad()
def require_sum(replay: Replay, group: Group) -> None:
    """Raise InterventionError unless the stream is a sum that is read through one norm each.

    Tried on one prompt. It is not so where a norm stands on the stream itself, or where an output
    is scaled before it is added.
    """
    body = replay.body
    layers = range(len(body.blocks))
    keep = [(kind, layer) for layer in layers for kind in _compared(body, layer)]
    kept = forward(replay, group.tokens[:1], keep).kept
    for layer in layers:
        if not all(_near(found, expected) for found, expected in _equals(body, kept, layer)):
            raise InterventionError(
                f"Edges into block {layer} of {replay.model.id} are not defined: its stream is not "
                "the plain sum of what heads and MLPs give, read through one norm each; use "
                'method="atp" or "nap-ig" for nodes.'
            )


def _checked(body: Anatomy, edge: Site) -> Edge:
    if not isinstance(edge, Edge):
        raise InterventionError(
            f'{edge} is not an edge; give edges such as 5.1->7.2.q, or use method="atp" or '
            '"nap-ig" for nodes.'
        )
    for end in (edge.src, edge.dst):
        if not isinstance(end, Input | Logits):
            body.part(end)
    own = isinstance(edge.src, Head) and isinstance(edge.dst, MLP)
    if body.parallel and own and edge.src.layer == edge.dst.layer:
        raise SiteError(
            f"{edge} does not exist in this model: its MLPs read the stream beside the heads of "
            "their own layer, not behind them; leave it out."
        )
    return edge


def _bundles(
    sites: Sequence[Site], address_of: Callable[[Site], Address]
) -> tuple[list[Bundle], Int[Tensor, " edges"]]:
    """The distinct sites by the part that they lie in, and the number of each that was given."""
    distinct = sorted(set(sites))
    number = {site: row for row, site in enumerate(distinct)}
    inside: dict[Address, list[Site]] = {}
    for site in distinct:
        inside.setdefault(address_of(site), []).append(site)
    bundles = [
        Bundle(address, tuple(members), torch.tensor([number[site] for site in members]))
        for address, members in inside.items()
    ]
    return bundles, torch.tensor([number[site] for site in sites])


def _written_at(source: Site) -> Address:
    if isinstance(source, Input):
        return "resid_pre", 0
    return ("z" if isinstance(source, Head) else "mlp_out"), source.layer


def _read_at(body: Anatomy, reader: Site) -> Address:
    if isinstance(reader, Logits):
        return "resid_post", len(body.blocks) - 1
    return READS[type(reader)], reader.layer


def _compared(body: Anatomy, layer: int) -> Iterator[str]:
    block = body.blocks[layer]
    yield from ("resid_pre", "attn_out", "resid_post")
    yield from ["attn_in"] if "q" in block.parts else []
    yield from ["attn_stream"] if block.attn_norm is not None else []
    if block.mlp is not None:
        yield from ("mlp_out", "mlp_in")
        yield from ["mlp_stream"] if block.mlp_norm is not None else []


def _equals(
    body: Anatomy, kept: dict[Address, Tensor], layer: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs that are equal in a block where edges are defined."""
    block, before = body.blocks[layer], kept["resid_pre", layer]
    behind = before + kept["attn_out", layer]
    readers = [("attn", block.attn_norm, before)] if "q" in block.parts else []
    if block.mlp is not None:
        readers.append(("mlp", block.mlp_norm, before if body.parallel else behind))
        behind = behind + kept["mlp_out", layer]
    for name, norm, stream in readers:
        normed = stream if norm is None else norm(kept[f"{name}_stream", layer])
        yield stream, kept.get((f"{name}_stream", layer), stream)
        yield normed.to(stream.device), kept[f"{name}_in", layer]
    yield behind, kept["resid_post", layer]


def _near(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding: within the root of the precision, as a share of the size."""
    precision = max(torch.finfo(found.dtype).eps, torch.finfo(torch.float32).eps)
    error = (found - expected).double().norm()
    return bool(error <= precision**0.5 * expected.double().norm())
