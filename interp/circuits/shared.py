"""How much do two circuits share, and how much would random ones?

Overlap is the intersection over union (IoU) of two circuits' nodes, or of their edges. Two nulls
stand beside each:

- sets of the same sizes drawn at random. The number of shared nodes is then hypergeometric, so that
  chance level and p-value are exact, and no permutations are drawn. Heads are drawn among heads and
  MLPs among MLPs. For the top n of N nodes of one kind chance is near K / (2 - K), K = n / N.
- the stricter one, for circuits that share layers for any reason. Nodes: heads are drawn within
  their layers (exact again). Edges: the heads of each layer of one circuit trade places, and take
  their edges along (permutations). The edges of a circuit meet at few nodes and are not independent
  draws, so that the p-value of the first null is too small for edges.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import hypergeom

from interp.circuits.circuit import Circuit
from interp.circuits.controls import Relabelling
from interp.saved import register
from interp.sites import MLP, Head


@register
@dataclass(frozen=True)
class Shared:
    """How much of two sets is the same.

    Attributes:
        a, b: Their sizes.
        shared: How many members are in both.
        iou: Intersection over union; NaN for two empty sets.
        chance: Expected `iou` of random sets of the same sizes.
        p: Probability that such sets share at least as many.
        strict_chance, strict_p: The same for the stricter null.
    """

    a: int
    b: int
    shared: int
    iou: float
    chance: float
    p: float
    strict_chance: float
    strict_p: float


def by_chance(strata: Iterable[tuple[int, int, int]], shared: int) -> tuple[float, float]:
    """Expected IoU of two random sets, and the probability that they share as many or more.

    Each stratum is (members, drawn for one set, drawn for the other). Both are exact: the numbers
    of shared members of the strata are hypergeometric and add up. NaN and 1 for empty sets.

    >>> by_chance([(100, 10, 10)], shared=10)[1] < 1e-12
    True
    """
    sizes, chances = 0, np.ones(1)
    for members, a, b in strata:
        drawn = hypergeom(members, a, b).pmf(np.arange(min(a, b) + 1))
        chances, sizes = np.convolve(chances, drawn), sizes + a + b
    if sizes == 0:
        return math.nan, 1.0
    counts = np.arange(len(chances))
    return float(chances @ (counts / (sizes - counts))), min(1.0, float(chances[shared:].sum()))


def shared_nodes(a: Circuit, b: Circuit, kinds: tuple[type[Head] | type[MLP], ...]) -> Shared:
    """The nodes of these kinds that two circuits share; strictly, drawn within their layers."""
    layers = range(a.shape.n_layers)

    def stratum(kind: type[Head] | type[MLP], some: Iterable[int]) -> tuple[int, int, int]:
        members = {node for node in a.shape.nodes if isinstance(node, kind) and node.layer in some}
        return len(members), len(members & {*a.nodes}), len(members & {*b.nodes})

    mine, theirs = ({node for node in each.nodes if isinstance(node, kinds)} for each in (a, b))
    shared = len(mine & theirs)
    return _shared(
        (len(mine), len(theirs), shared),
        by_chance([stratum(kind, layers) for kind in kinds], shared),
        by_chance([stratum(kind, [layer]) for kind in kinds for layer in layers], shared),
    )


def shared_edges(
    a: Circuit,
    b: Circuit,
    relabelling: Relabelling,
    permutations: int,
    generator: torch.Generator,
) -> Shared:
    """The edges that two circuits share; strictly, with heads of b's layers trading places."""
    sizes = int(a.kept.sum()), int(b.kept.sum())
    shared = int((a.kept & b.kept).sum())
    edges = b.kept.nonzero()[:, 0]
    drawn = np.array(
        [int(a.kept[relabelling.moved(edges, generator)].sum()) for _ in range(permutations)]
    )
    chance = float((drawn / np.maximum(sum(sizes) - drawn, 1)).mean()) if permutations else math.nan
    p = (1 + int((drawn >= shared).sum())) / (1 + permutations)
    return _shared((*sizes, shared), by_chance([(len(a.kept), *sizes)], shared), (chance, p))


def _shared(
    counts: tuple[int, int, int], chance: tuple[float, float], strict: tuple[float, float]
) -> Shared:
    a, b, shared = counts
    return Shared(a, b, shared, shared / (a + b - shared) if a + b else math.nan, *chance, *strict)
