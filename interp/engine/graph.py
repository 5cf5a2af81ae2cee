"""The edges of a model: from whatever adds to the stream to whatever reads it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.edges import READS
from interp.engine.replay import replay_of
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import Edge, Site
from interp.sites import edges as all_edges

HELD = 2**26
"""Numbers that the circuits which run side by side may hold."""


def graph_edges(model: Model) -> tuple[Edge, ...]:
    """Every edge of the model, in the order in which circuits are given as masks."""
    body = replay_of(model).body
    has_mlp = any(block.mlp is not None for block in body.blocks)
    return all_edges(model, parallel=body.parallel, has_mlp=has_mlp)


def graph_nodes(model: Model) -> tuple[Site, ...]:
    """Every source of an edge: the input, heads and MLPs, in the order of computation."""
    return tuple(sorted({edge.src for edge in graph_edges(model)}))


@dataclass(frozen=True, eq=False)
class Graph:
    """The edges of a model as a matrix from sources to readers.

    Attributes:
        model: Whose.
        edges: All of them.
        nodes: Their sources, in the order of computation.
        readers: For each layer and part, the columns of its readers in the matrix.
        row, column: Where each edge stands in it.
        size: Readers in all.
    """

    model: Model
    edges: tuple[Edge, ...]
    nodes: tuple[Site, ...]
    readers: dict[tuple[int, str], slice]
    row: Tensor
    column: Tensor
    size: int

    @classmethod
    def of(cls, model: Model) -> Graph:
        """That of a model; made once."""
        if "graph" not in model.derived:
            edges, nodes = graph_edges(model), graph_nodes(model)
            ends = sorted({edge.dst for edge in edges})
            number = {site: i for i, site in enumerate(nodes)}
            place = {site: i for i, site in enumerate(ends)}
            readers: dict[tuple[int, str], slice] = {}
            for i, end in enumerate(ends):
                address = min(end.layer, model.geometry.n_layers), READS[type(end)]
                first = readers[address].start if address in readers else i
                readers[address] = slice(first, i + 1)
            model.derived["graph"] = cls(
                model=model,
                edges=edges,
                nodes=nodes,
                readers=readers,
                row=torch.tensor([number[edge.src] for edge in edges]),
                column=torch.tensor([place[edge.dst] for edge in edges]),
                size=len(ends),
            )
        return model.derived["graph"]

    def matrix(
        self, circuits: Bool[Tensor, "circuits edges"]
    ) -> Float[Tensor, "circuits sources readers"]:
        """1 where an edge is kept, for products with what sources add."""
        dense = torch.zeros(len(circuits), len(self.nodes), self.size, device=circuits.device)
        dense[:, self.row, self.column] = circuits.to(dense.dtype)
        return dense.to(self.model.dtype)

    def floats(self, columns: int) -> int:
        """Numbers that one circuit on one prompt holds: what sources add and a layer reads."""
        widest = max(each.stop - each.start for each in self.readers.values())
        return (len(self.nodes) + 4 * widest) * columns * self.model.geometry.d_model

    def prompts_at_once(self, prompts: PromptSet) -> int:
        """Prompts of which one circuit fits."""
        return max(1, HELD // self.floats(int(prompts.mask.sum(dim=-1).max())))

    def circuits_at_once(self, prompts: int, columns: int) -> int:
        """Circuits that fit side by side on so many prompts."""
        return max(1, HELD // (prompts * self.floats(columns)))
