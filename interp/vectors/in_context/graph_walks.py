"""Random walks on graphs whose nodes are words: structure that only the context can teach.

After Park et al. 2024, "ICLR: In-Context Learning of Representations".
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import PromptError, VectorError
from interp.models import Model
from interp.prompts import PromptSet
from interp.saved import Saved, register
from interp.tasks.words import pairs, read

LENGTH = 1400
"""Tokens of a walk in the source; a model with a shorter context gets as many as it reads."""


@register
@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes, and which are neighbors; connected, without loops.

    Raises VectorError for an adjacency that is no such graph.
    """

    name: str
    adjacency: Bool[Tensor, "nodes nodes"]

    def __post_init__(self) -> None:
        adjacency, reached = self.adjacency, torch.zeros(len(self.adjacency), dtype=torch.bool)
        if not torch.equal(adjacency, adjacency.T) or adjacency.diagonal().any():
            raise VectorError(f"The adjacency of {self.name!r} is not symmetric, or has loops.")
        reached[:1] = True
        for _ in range(len(adjacency)):
            reached |= adjacency[reached].any(dim=0)
        if len(adjacency) < 3 or not reached.all():
            raise VectorError(
                f"{self.name!r} is not connected, or has fewer than 3 nodes; walks must be able to "
                "reach every node."
            )

    def __len__(self) -> int:
        return len(self.adjacency)

    @property
    def density(self) -> float:
        """Share of pairs of nodes that are neighbors."""
        return self.adjacency.sum().item() / (len(self) * (len(self) - 1))

    def walk(self, length: int, rng: random.Random) -> list[int]:
        """Nodes, each a random neighbor of the one before; the first is any."""
        neighbors = [row.nonzero()[:, 0].tolist() for row in self.adjacency]
        nodes = [rng.randrange(len(self))]
        while len(nodes) < length:
            nodes.append(rng.choice(neighbors[nodes[-1]]))
        return nodes

    def __repr__(self) -> str:
        return f"Graph({self.name!r}, {len(self)} nodes, {self.adjacency.sum() // 2} edges)"


def grid(rows: int = 4, columns: int = 4) -> Graph:
    """A square lattice.

    >>> grid()
    Graph('4 x 4 grid', 16 nodes, 24 edges)
    """
    places = [(row, column) for row in range(rows) for column in range(columns)]
    steps = ((0, 1), (1, 0))
    return _lattice(f"{rows} x {columns} grid", places, steps)


def ring(nodes: int = 16) -> Graph:
    """A cycle.

    >>> ring()
    Graph('ring of 16', 16 nodes, 16 edges)
    """
    around = torch.arange(nodes)
    apart = (around[:, None] - around).remainder(max(nodes, 1))
    return Graph(f"ring of {nodes}", (apart == 1) | (apart == nodes - 1))


def hexagon(radius: int = 2) -> Graph:
    """A hexagon cut out of the triangular lattice: inner nodes have six neighbors.

    >>> hexagon()
    Graph('hexagon of radius 2', 19 nodes, 42 edges)
    """
    around = range(-radius, radius + 1)
    places = [(a, b) for a in around for b in around if abs(a + b) <= radius]
    return _lattice(f"hexagon of radius {radius}", places, ((0, 1), (1, 0), (1, -1)))


@dataclass(frozen=True, eq=False)
class Walks(Saved):
    """Walks on one graph, each with words of its own at the nodes.

    Attributes:
        graph: What was walked on.
        nodes: The node at each token, without the beginning-of-text token.
        words: The token that stands for each node, in each walk.
        prompts: The walks as tokens. The "answers" are the neighbors of the last node.
    """

    graph: Graph
    nodes: Int[Tensor, "walks pos"]
    words: Int[Tensor, "walks nodes"]
    prompts: PromptSet

    def __len__(self) -> int:
        return len(self.nodes)

    def __repr__(self) -> str:
        return f"Walks({len(self)} of {self.nodes.shape[1]} tokens on {self.graph!r})"


def walks(
    model: Model,
    graph: Graph,
    *,
    n: int = 20,
    length: int | None = None,
    words: Sequence[str] | None = None,
    seed: int = 0,
) -> Walks:
    """Random walks in words that are one token each.

    Every walk has words of its own, drawn at random, so that what they mean outside says nothing
    about the graph.

    Args:
        model: Whose words and context are used.
        graph: `grid()`, `ring()`, `hexagon()`, or your own.
        n: Walks.
        length: Tokens of each; by default 1400, or as many as the model reads.
        words: To draw from; by default nouns. Those of several tokens are left out.
        seed: Of words and walks.

    Raises:
        VectorError: No walks.
        PromptError: Too few words, or a length that the model cannot read.
    """
    if n < 1:
        raise VectorError(f"n={n} walks are none; give 1 or more.")
    bos = [] if model.bos_id is None else [model.bos_id]
    room = model.geometry.n_ctx - len(bos)
    size = min(LENGTH, room) if length is None else length
    if not 2 <= size <= room:
        raise PromptError(f"A walk of {size} tokens does not fit {model.id}; use 2 to {room}.")
    nouns = [*read("words/objects"), *(x for x, _ in (*pairs("plural"), *pairs("category")))]
    found = {model.single_token(f" {word}") for word in (nouns if words is None else words)}
    known = sorted(token for token in found if token is not None)
    rng = random.Random(f"{graph.name} {seed}")
    if len(known) < len(graph):
        raise PromptError(
            f"{model.id} has {len(known)} of the words as one token, and {graph!r} needs "
            f"{len(graph)}; use a smaller graph, or give more words."
        )
    nodes = [graph.walk(size, rng) for _ in range(n)]
    named = [rng.sample(known, len(graph)) for _ in range(n)]
    rows = [bos + [names[i] for i in walk] for walk, names in zip(nodes, named, strict=True)]
    near = [
        [names[i] for i in graph.adjacency[walk[-1]].nonzero()[:, 0].tolist()]
        for walk, names in zip(nodes, named, strict=True)
    ]
    notes: dict[str, Any] = {"seed": seed, "graph": graph.name}
    prompts = PromptSet.from_tokens(rows, answer=near, task="graph walks", notes=notes)
    return Walks(graph, torch.tensor(nodes), torch.tensor(named), prompts)


def _lattice(name: str, places: list[tuple[int, int]], steps: tuple[tuple[int, int], ...]) -> Graph:
    at = {place: node for node, place in enumerate(places)}
    adjacency = torch.zeros(len(places), len(places), dtype=torch.bool)
    for (a, b), node in at.items():
        for da, db in steps:
            if (a + da, b + db) in at:
                adjacency[node, at[a + da, b + db]] = True
    return Graph(name, adjacency | adjacency.T)
