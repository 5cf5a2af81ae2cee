"""Circuits in the layout of EAP-IG: a row a source, a column a reader.

Rows are the input, then the heads and the MLP of each layer; columns the queries, keys and values
of all heads and the MLP of each layer, then the logits.

**Grouped-query attention.** Their tables have a key and a value for each *query* head, ours one for
each group. In a table every head of a group is kept if the group is, and carries an equal share of
its score. From a table a group is kept if any of its heads is, and its score is the sum of theirs:
the gradient at what a group reads is the sum of those at its copies. In float64 the shares add up
to the score again, to the last bit of float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.circuit_file import shape_of
from interp.circuits.embedded import from_block, to_block
from interp.circuits.shape import Shape
from interp.errors import CircuitError
from interp.sites import MLP, Edge, Head, Input, K, Logits, Q, Site, V

Cells = Int[Tensor, " cells"]
LARGEST = 4_000_000
"""Cells of the largest table: Llama-8B has 3.3 million."""
CFG = ("n_layers", "n_heads", "parallel_attn_mlp", "d_model")


@dataclass(frozen=True, eq=False)
class Tables:
    """A circuit in their layout; NaN where there is no score.

    Attributes:
        cfg: Their description of the model: the entries of CFG.
        scores: Of the edge from each source to each reader.
        kept: Whether that edge is in the circuit.
        node_scores: Of each source, then of the logits.
        nodes_kept: Whether each source is in the circuit.
        block: What the layout lacks, as a circuit of our own without edges; None where another
            program wrote the tables.
    """

    cfg: dict[str, Any]
    scores: Float[Tensor, "sources readers"]
    kept: Bool[Tensor, "sources readers"]
    node_scores: Float[Tensor, " nodes"]
    nodes_kept: Bool[Tensor, " sources"]
    block: Any


def to_tables(circuit: Circuit, d_model: int | None = None) -> Tables:
    """A circuit in their layout.

    Args:
        circuit: The circuit.
        d_model: Width of the model; None takes it from the provenance.

    Raises:
        CircuitError: Nothing says how wide the model is, or its tables would be too large.
    """
    shape, about = circuit.shape, circuit.provenance
    width = d_model or (about.get("geometry") or about.get("cfg") or {}).get("d_model")
    if width is None:
        raise CircuitError(
            "The files of EAP-IG hold the width of the model, and the provenance of this circuit "
            "does not; give d_model=."
        )
    cfg = dict(zip(CFG, (shape.n_layers, shape.n_heads, shape.parallel, width), strict=True))
    try:
        whole = whole_shape(cfg)
    except ValueError as error:
        raise CircuitError(
            f"With keys and values of every query head the circuit is too large ({error}); use "
            "Circuit.save."
        ) from error
    edge, row, column = cells(shape)
    heads = torch.bincount(edge, minlength=len(shape.edges))
    scores = torch.full((len(sources(whole)), len(readers(whole))), math.nan, dtype=torch.float64)
    scores[row, column] = (_finite(circuit.scores) / heads)[edge]
    kept = torch.zeros(scores.shape, dtype=torch.bool)
    kept[row, column] = circuit.kept[edge]
    node_scores = torch.full((len(scores) + 1,), math.nan, dtype=torch.float64)
    node_scores[rows(shape)] = _finite(circuit.node_scores)
    bare = replace(
        circuit,
        kept=torch.zeros_like(circuit.kept),
        scores=torch.full_like(circuit.scores, math.nan),
        node_scores=torch.full_like(circuit.node_scores, math.nan),
    )
    return Tables(cfg, scores, kept, node_scores, kept.any(1), to_block(bare))


def from_tables(tables: Tables, given: Shape | None, file: str) -> Circuit:
    """The circuit of tables.

    Args:
        tables: Tables of any program.
        given: What the circuit is of; None for what the tables say themselves.
        file: Where they come from, for the provenance and for errors.

    Raises:
        CircuitError: The tables are of another model.
        FileFormatError: A broken block.
        ValueError: A score is infinite in float32, or cfg and block do not fit.
    """
    whole = whole_shape(tables.cfg)
    if tables.block is None:
        about = {"format": "EAP-IG", "file": file, "cfg": tables.cfg}
        bare = Circuit.from_edges(given or whole, [], provenance=about)
    else:
        bare = from_block(tables.block, file)
        if not _alike(bare.shape, whole):
            raise ValueError(f"cfg describes {whole}, and interp {bare.shape}")
    shape = bare.shape
    if not _alike(shape, whole) or given not in (None, shape):
        own = whole if tables.block is None else shape
        raise CircuitError(f"{file} is of {own} and the model is {given}; give the model it is of.")

    edge, row, column = cells(shape)

    def total(table: Tensor) -> Float[Tensor, " edges"]:
        values = table[row, column].double()
        return torch.zeros(len(shape.edges), dtype=torch.float64).index_add_(0, edge, values)

    heads, votes = total(torch.ones_like(tables.kept)), total(tables.kept)
    scores = total(tables.scores.nan_to_num()).float()
    node_scores = tables.node_scores.float()[rows(shape)]
    if any(some.isinf().any() for some in (tables.scores, scores, node_scores)):
        raise ValueError("a score is infinite, or too large for float32")
    disagreeing = int(((votes > 0) & (votes < heads)).sum())
    return replace(
        bare,
        kept=votes > 0,
        scores=scores.where(total(tables.scores.isnan()) < heads, math.nan),
        node_scores=node_scores,
        provenance=bare.provenance
        | _flags(tables, whole, shape)
        | ({"split_groups": disagreeing} if disagreeing else {}),
    )


def _flags(tables: Tables, whole: Shape, shape: Shape) -> dict[str, Any]:
    """The sources that the tables flag, unless they are those at which their edges begin.

    Raises CircuitError for edges of MLPs that the model does not have. Readers before their
    sources are not looked at: EAP-IG flags whole rows of its tables.
    """
    real, own = torch.zeros_like(tables.kept), torch.zeros_like(tables.kept)
    real[cells(whole)[1:]] = True
    own[cells(shape)[1:]] = True
    used = tables.kept | (tables.scores.nan_to_num() != 0)
    if not shape.has_mlp and (used & real & ~own).any():
        raise CircuitError("The circuit has edges of MLPs, and the model has none.")
    if torch.equal(tables.nodes_kept, (tables.kept & real).any(1)):
        return {}
    flags = zip(sources(whole), tables.nodes_kept.tolist(), strict=True)
    return {"nodes_in_graph": [name for name, flag in flags if flag]}


def whole_shape(cfg: dict[str, Any]) -> Shape:
    """The model as the tables show it: with MLPs, and keys and values of every head.

    Raises ValueError and the like for sizes that are no sizes, or would fill the memory.
    """
    layers, heads, parallel = (cfg[name] for name in CFG[:3])
    whole = shape_of(
        {
            "n_layers": layers,
            "n_heads": heads,
            "n_kv_heads": heads,
            "parallel": parallel,
            "has_mlp": True,
        }
    )
    rows, columns = 1 + layers * (heads + 1), 1 + layers * (3 * heads + 1)
    if rows * columns > LARGEST:
        raise ValueError(f"a table of {rows:,} x {columns:,} has more than {LARGEST:,} cells")
    return whole


def sources(whole: Shape) -> list[str]:
    """Names of the rows.

    >>> sources(Shape(1, 2, 2))
    ['input', 'a0.h0', 'a0.h1', 'm0']
    """
    names = ["input"]
    for layer in range(whole.n_layers):
        names += [*(f"a{layer}.h{head}" for head in range(whole.n_heads)), f"m{layer}"]
    return names


def readers(whole: Shape) -> list[str]:
    """Names of the columns.

    >>> readers(Shape(1, 2, 2))
    ['a0.h0<q>', 'a0.h1<q>', 'a0.h0<k>', 'a0.h1<k>', 'a0.h0<v>', 'a0.h1<v>', 'm0', 'logits']
    """
    names = []
    for layer in range(whole.n_layers):
        names += [f"a{layer}.h{head}<{kind}>" for kind in "qkv" for head in range(whole.n_heads)]
        names.append(f"m{layer}")
    return [*names, "logits"]


def cells(
    shape: Shape,
) -> tuple[Int[Tensor, " cells"], Int[Tensor, " cells"], Int[Tensor, " cells"]]:
    """The cells of the tables that stand for edges: index of the edge, row, column.

    An edge to the key or value of a group has a cell for each head of the group.
    """
    found = [
        (index, _row(edge.src, shape), column)
        for index, edge in enumerate(shape.edges)
        for column in _columns(edge, shape)
    ]
    edge, row, column = torch.tensor(found).T
    return edge, row, column


def rows(shape: Shape) -> Int[Tensor, " nodes"]:
    """The row of each node; the logits come after the last."""
    return torch.tensor([_row(node, shape) for node in shape.nodes])


def _row(node: Site, shape: Shape) -> int:
    width = shape.n_heads + 1
    if isinstance(node, Input):
        return 0
    if isinstance(node, Logits):
        return 1 + shape.n_layers * width
    return 1 + node.layer * width + (node.head if isinstance(node, Head) else shape.n_heads)


def _columns(edge: Edge, shape: Shape) -> range:
    end, heads = edge.dst, shape.n_heads
    first = edge.dst.layer * (3 * heads + 1)
    if isinstance(end, Logits):
        last = shape.n_layers * (3 * heads + 1)
        return range(last, last + 1)
    if isinstance(end, MLP):
        return range(first + 3 * heads, first + 3 * heads + 1)
    if isinstance(end, Q):
        return range(first + end.head, first + end.head + 1)
    assert isinstance(end, K | V)
    size = heads // shape.n_kv_heads
    start = first + (heads if isinstance(end, K) else 2 * heads) + end.group * size
    return range(start, start + size)


def _alike(shape: Shape, whole: Shape) -> bool:
    """Whether a model has the layers, heads and kind of blocks that tables tell of."""
    same = (shape.n_layers, shape.n_heads) == (whole.n_layers, whole.n_heads)
    return same and (shape.parallel == whole.parallel or not shape.has_mlp)


def _finite(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    return scores.double().where(scores.isfinite(), math.nan)
