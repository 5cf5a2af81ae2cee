"""`Shape`: as much of a model as its circuits depend on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from interp.engine.graph import graph_edges
from interp.errors import CircuitError
from interp.models import Model
from interp.saved import register
from interp.sites import MLP, Edge, Head, Logits, Site
from interp.sites import edges as all_edges


@register
@dataclass(frozen=True)
class Shape:
    """Layers, heads, groups of heads, and how blocks are built.

    Attributes:
        n_layers: Number of blocks.
        n_heads: Query heads in each.
        n_kv_heads: Groups of query heads that share a key and a value head.
        parallel: Whether attention and MLP of a block read the same stream.
        has_mlp: Whether blocks have an MLP.

    >>> len(Shape(12, 12, 12).edges)  # GPT-2 small
    32491
    """

    n_layers: int
    n_heads: int
    n_kv_heads: int
    parallel: bool = False
    has_mlp: bool = True

    def __post_init__(self) -> None:
        sizes = (self.n_layers, self.n_heads, self.n_kv_heads)
        if min(sizes) < 1:
            raise CircuitError(
                f"A shape of {sizes[0]} layers, {sizes[1]} heads and {sizes[2]} key-value heads is "
                "none of a model; give numbers above 0."
            )

    @classmethod
    def of(cls, model: Model) -> Shape:
        """That of a model."""
        graph = graph_edges(model)
        own = {
            (type(edge.src), type(edge.dst)) for edge in graph if edge.src.layer == edge.dst.layer
        }
        return cls(
            n_layers=model.geometry.n_layers,
            n_heads=model.geometry.n_heads,
            n_kv_heads=model.geometry.n_kv_heads,
            parallel=(Head, MLP) not in own,
            has_mlp=any(isinstance(edge.dst, MLP) for edge in graph),
        )

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Every edge, in the order in which circuits keep their scores."""
        return _edges(self)

    @property
    def nodes(self) -> tuple[Site, ...]:
        """The input, heads and MLPs in the order of computation, and the logits."""
        return tuple(self.node_index)

    @property
    def n_nodes(self) -> int:
        """How many nodes there are, without making them."""
        return self.n_layers * (self.n_heads + self.has_mlp) + 2

    @property
    def n_edges(self) -> int:
        """How many edges there are, without making them."""
        layers, width = self.n_layers, self.n_heads + self.has_mlp
        before = layers + width * layers * (layers - 1) // 2  # sources of one reader a layer
        read = before * (self.n_heads + 2 * self.n_kv_heads + self.has_mlp)
        own = layers * self.n_heads * (self.has_mlp and not self.parallel)  # heads -> their MLP
        return read + own + 1 + layers * width

    @property
    def edge_index(self) -> dict[Edge, int]:
        """Where each edge stands in `edges`."""
        return _edge_index(self)

    @property
    def node_index(self) -> dict[Site, int]:
        """Where each node stands in `nodes`."""
        return _node_index(self)


# Made once for all shapes that are equal: a file that is read brings a new one.


@lru_cache(maxsize=8)
def _edges(shape: Shape) -> tuple[Edge, ...]:
    return all_edges(shape, parallel=shape.parallel, has_mlp=shape.has_mlp)


@lru_cache(maxsize=8)
def _edge_index(shape: Shape) -> dict[Edge, int]:
    return {edge: index for index, edge in enumerate(_edges(shape))}


@lru_cache(maxsize=8)
def _node_index(shape: Shape) -> dict[Site, int]:
    nodes = (*sorted({edge.src for edge in _edges(shape)}), Logits())
    return {node: index for index, node in enumerate(nodes)}
