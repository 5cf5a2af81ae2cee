"""`Circuit`: the edges and nodes of a model that are said to do a task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.circuit_file import read, write
from interp.circuits.shape import Shape
from interp.display import as_html
from interp.errors import CircuitError
from interp.models import Model
from interp.plots.circuit_graph import MOST, WAYS, Explained, GraphNode, circuit_graph
from interp.plots.widget import Widget
from interp.saved import register
from interp.sites import MLP, Edge, Head, Input, Logits, Q, Site, V, parse
from interp.sites import K as Key

IN_NOTEBOOK = 2_000
"""Edges that a circuit shows of itself, so that notebooks stay small."""


@register
@dataclass(frozen=True, eq=False)
class Circuit:
    """A part of a model: which edges it keeps, with a score for each edge and node.

    An edge that is not kept carries an ablated value. A node is in the circuit if an edge that is
    kept begins at it; the input and the logits are always in it.

    Attributes:
        shape: The shape of the model.
        kept: Whether each of `shape.edges` is in the circuit.
        scores: A score for each edge; NaN where there is none.
        node_scores: A score for each of `shape.nodes`; NaN where there is none.
        places: Roles at which a node is in the circuit; nodes without an entry are in it at every
            position.
        labels: What a node is said to do, such as "name mover".
        provenance: Model, weights hash, prompts, method, versions, source, command.

    Raises:
        CircuitError: Tensors of another shape, or places and labels of nodes that do not exist.
    """

    shape: Shape
    kept: Bool[Tensor, " edges"]
    scores: Float[Tensor, " edges"]
    node_scores: Float[Tensor, " nodes"]
    places: dict[Site, tuple[str, ...]] = field(default_factory=dict)
    labels: dict[Site, tuple[str, ...]] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        edges, nodes = self.shape.n_edges, self.shape.n_nodes
        for name, tensor, count in (
            ("kept", self.kept, edges),
            ("scores", self.scores, edges),
            ("node_scores", self.node_scores, nodes),
        ):
            if tensor.shape != (count,):
                raise CircuitError(
                    f"{name} has shape {tuple(tensor.shape)} and this model has {edges} edges and "
                    f"{nodes} nodes; give {count} numbers."
                )
        for node in (*self.places, *self.labels):
            if node not in self.shape.node_index:
                raise CircuitError(f"{node} is not a node of this model; give a head or an MLP.")

    @classmethod
    def from_edges(
        cls,
        model: Model | Shape,
        edges: Iterable[Edge | str],
        *,
        scores: Float[Tensor, " edges"] | None = None,
        **about: Any,
    ) -> Circuit:
        """The circuit of some edges, given as they are or as they are printed.

        `scores` are those of all edges of the model; `about` are other attributes of a Circuit.

        Raises:
            CircuitError: An edge that the model does not have.

        >>> Circuit.from_edges(Shape(2, 2, 2), ["input->0.1.v", "0.1->logits"]).heads
        (Head(layer=0, head=1),)
        """
        shape = model if isinstance(model, Shape) else Shape.of(model)
        kept = torch.zeros(len(shape.edges), dtype=torch.bool)
        for given in edges:
            edge = parse(given) if isinstance(given, str) else given
            if not isinstance(edge, Edge) or edge not in shape.edge_index:
                raise CircuitError(
                    f"{given} is not an edge of this model ({shape.n_layers} layers of "
                    f"{shape.n_heads} heads); give edges such as input->0.0.q or 0.0->logits."
                )
            kept[shape.edge_index[edge]] = True
        return cls._of(shape, kept, scores, **about)

    @classmethod
    def from_nodes(
        cls,
        model: Model | Shape,
        nodes: Iterable[Site | str],
        *,
        mlps: bool = False,
        scores: Float[Tensor, " nodes"] | None = None,
        **about: Any,
    ) -> Circuit:
        """The circuit of all edges between some heads and MLPs, the input and the logits.

        A role behind a node, such as "9.9@END", keeps it there alone; several roles add up. `mlps`
        keeps every MLP too, as circuits of heads in the literature do.

        Raises:
            CircuitError: A node that the model does not have.

        >>> Circuit.from_nodes(Shape(2, 2, 2), ["0.1", "1.0@END"])
        Circuit(2 heads, 0 MLPs, 12 of 46 edges)
        """
        shape = model if isinstance(model, Shape) else Shape.of(model)
        places: dict[Site, tuple[str, ...]] = dict(about.pop("places", {}))
        chosen: set[Site] = {Input(), Logits()}
        chosen |= {node for node in shape.nodes if mlps and isinstance(node, MLP)}
        for given in nodes:
            node = parse(given) if isinstance(given, str) else given
            site, role = getattr(node, "site", node), getattr(node, "position", None)
            if site not in shape.node_index:
                raise CircuitError(
                    f"{given} is not a node of this model ({shape.n_layers} layers of "
                    f"{shape.n_heads} heads); give heads such as 1.0 or MLPs such as m1."
                )
            chosen.add(site)
            if role is not None:
                places[site] = (*places.get(site, ()), str(role))
        kept = [edge.src in chosen and owners(edge, shape) & chosen for edge in shape.edges]
        return cls._of(
            shape,
            torch.tensor([bool(each) for each in kept]),
            None,
            node_scores=scores,
            places=places,
            **about,
        )

    @classmethod
    def _of(
        cls,
        shape: Shape,
        kept: Bool[Tensor, " edges"],
        scores: Float[Tensor, " edges"] | None,
        *,
        node_scores: Float[Tensor, " nodes"] | None = None,
        **about: Any,
    ) -> Circuit:
        unknown = torch.full((len(shape.edges),), math.nan)
        of_nodes = torch.full((len(shape.nodes),), math.nan)
        return cls(
            shape,
            kept,
            unknown if scores is None else scores.float(),
            of_nodes if node_scores is None else node_scores.float(),
            **about,
        )

    @property
    def edges(self) -> tuple[Edge, ...]:
        """The edges that are kept."""
        return tuple(self.shape.edges[i] for i in self.kept.nonzero()[:, 0].tolist())

    @property
    def nodes(self) -> tuple[Site, ...]:
        """The heads and MLPs at which an edge that is kept begins."""
        begun = {edge.src for edge in self.edges}
        return tuple(node for node in self.shape.nodes if node in begun and node != Input())

    @property
    def heads(self) -> tuple[Head, ...]:
        """Its heads."""
        return tuple(node for node in self.nodes if isinstance(node, Head))

    @property
    def mlps(self) -> tuple[MLP, ...]:
        """Its MLPs."""
        return tuple(node for node in self.nodes if isinstance(node, MLP))

    def keeping(self, kept: Bool[Tensor, " edges"]) -> Circuit:
        """The same scores with other edges kept."""
        return replace(self, kept=kept)

    def labelled(self, labels: Mapping[Site, tuple[str, ...]]) -> Circuit:
        """With labels for its nodes, such as those of `atlas.labels()`; others are left out."""
        own = {node: tuple(labels[node]) for node in self.nodes if labels.get(node)}
        return replace(self, labels=own)

    def to_frame(self) -> pd.DataFrame:
        """One row an edge that is kept: edge, src, dst, score, src_label, dst_label."""
        rows = []
        for index in self.kept.nonzero()[:, 0].tolist():
            edge = self.shape.edges[index]
            ends = owners(edge, self.shape)
            told = {label for end in ends for label in self.labels.get(end, ())}
            rows.append(
                {
                    "edge": str(edge),
                    "src": str(edge.src),
                    "dst": str(edge.dst),
                    "score": self.scores[index].item(),
                    "src_label": ", ".join(self.labels.get(edge.src, ())),
                    "dst_label": ", ".join(sorted(told)),
                }
            )
        columns = ["edge", "src", "dst", "score", "src_label", "dst_label"]
        return pd.DataFrame(rows, columns=columns)

    def nodes_frame(self) -> pd.DataFrame:
        """One row a node: node, layer, label, roles, score, edges_in, edges_out."""
        edges = self.edges
        columns = ["node", "layer", "label", "roles", "score", "edges_in", "edges_out"]
        rows = [
            {
                "node": str(node),
                "layer": node.layer,
                "label": ", ".join(self.labels.get(node, ())),
                "roles": ", ".join(self.places.get(node, ())),
                "score": self.node_scores[self.shape.node_index[node]].item(),
                "edges_in": sum(node in owners(edge, self.shape) for edge in edges),
                "edges_out": sum(edge.src == node for edge in edges),
            }
            for node in self.nodes
        ]
        return pd.DataFrame(rows, columns=columns)

    def graph(
        self,
        *,
        whole: Explained | None = None,
        unknown: str = "",
        measured: Sequence[Explained] = (),
        attention: Mapping[str, Any] | None = None,
        prompts: Sequence[str] = (),
        most: int = MOST,
    ) -> Widget:
        """The circuit drawn by layer: nodes open, and a slider shows fewer or more edges.

        See `interp.plots.circuit_graph` for the options.
        """
        shape, place = self.shape, self.shape.node_index
        size = shape.n_heads // shape.n_kv_heads
        ends = torch.tensor(
            [(place[edge.src], *_reader(edge.dst, place, size)) for edge in shape.edges]
        )
        return circuit_graph(
            [self._drawn(node) for node in shape.nodes],
            ends,
            self.scores,
            self.kept,
            title=repr(self),
            group=size,
            signs=_signs(self.provenance),
            whole=whole,
            unknown=unknown,
            measured=measured,
            attention=attention,
            prompts=prompts,
            most=most,
        )

    def _drawn(self, node: Site) -> GraphNode:
        kinds: dict[type[Site], Any] = {Input: "input", Head: "head", MLP: "mlp", Logits: "logits"}
        return GraphNode(
            name=str(node),
            row=min(node.layer, self.shape.n_layers) + 1,
            kind=kinds[type(node)],
            label=", ".join(self.labels.get(node, ())),
            places=", ".join(self.places.get(node, ())),
            score=self.node_scores[self.shape.node_index[node]].item(),
        )

    def save(self, path: str | Path) -> Path:
        """Write the circuit as JSON, making folders as needed; returns the path."""
        return write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not a file, not JSON, of another kind or version, or incomplete.
        """
        return cls(**read(Path(path)))

    def __repr__(self) -> str:
        name = self.provenance.get("task") or self.provenance.get("name")
        about = f"{name}: " if name else ""
        return (
            f"Circuit({about}{len(self.heads)} heads, {len(self.mlps)} MLPs, "
            f"{int(self.kept.sum())} of {len(self.shape.edges)} edges)"
        )

    def _repr_html_(self) -> str:
        return as_html(self, self.nodes_frame()) + self.graph(most=IN_NOTEBOOK)._repr_html_()


def owners(edge: Edge, shape: Shape) -> set[Site]:
    """The nodes that read over an edge: for a key or value every head of its group.

    >>> sorted(map(str, owners(parse("input->0.1.k"), Shape(1, 4, 2))))
    ['0.2', '0.3']
    """
    end = edge.dst
    if isinstance(end, Q):
        return {Head(end.layer, end.head)}
    if isinstance(end, Key | V):
        size = shape.n_heads // shape.n_kv_heads
        return {Head(end.layer, head) for head in range(end.group * size, (end.group + 1) * size)}
    return {end}


def _reader(end: Site, place: Mapping[Site, int], size: int) -> tuple[int, int]:
    """Where the (first) node stands that reads at the end of an edge, and in what way it does."""
    if isinstance(end, Q):
        return place[Head(end.layer, end.head)], WAYS.index("query")
    if isinstance(end, Key | V):
        way = "key" if isinstance(end, Key) else "value"
        return place[Head(end.layer, end.group * size)], WAYS.index(way)
    return place[end], WAYS.index("")


def _signs(provenance: Mapping[str, Any]) -> tuple[str, str]:
    """What scores below and above zero mean, as far as it is known how they were made."""
    if provenance.get("sign") not in ("corrupt - clean", "removed - kept"):
        return "below zero", "above zero"
    metric = provenance.get("metric", "the metric")
    return f"{metric} falls without the edge", f"{metric} rises without the edge"
