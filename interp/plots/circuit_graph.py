"""A circuit drawn layer by layer, with nodes to open and a slider for its size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.plots.widget import Widget

WAYS = ("query", "key", "value", "")
"""What an edge ends at: one of the three inputs of a head, or the only one of an MLP or logits."""
MOST = 30_000
"""Edges that are drawn at most: the circuit's, and the strongest of the others."""


@dataclass(frozen=True)
class GraphNode:
    """A node and where it stands.

    Attributes:
        name: As it is printed, such as `5.1`.
        row: 0 for the input, one more for each layer, and the logits on top.
        kind: What it is.
        label: What it is said to do.
        places: Roles of the prompt at which the circuit keeps it; empty for everywhere.
        score: NaN where there is none.
    """

    name: str
    row: int
    kind: Literal["input", "head", "mlp", "logits"]
    label: str = ""
    places: str = ""
    score: float = math.nan


@dataclass(frozen=True)
class Explained:
    """How much of the task some edges do alone: f, and what it is judged by.

    Attributes:
        edges: How many.
        f, low, high: The share and its 95% interval.
        random: The mean share of random circuits of this size; NaN if there are none.
        n: Prompts.
    """

    edges: int
    f: float
    low: float
    high: float
    random: float
    n: int


def circuit_graph(
    nodes: Sequence[GraphNode],
    edges: Int[Tensor, "edges 3"],
    scores: Float[Tensor, " edges"],
    kept: Bool[Tensor, " edges"],
    *,
    title: str,
    group: int = 1,
    signs: tuple[str, str] = ("below zero", "above zero"),
    whole: Explained | None = None,
    unknown: str = "",
    measured: Sequence[Explained] = (),
    attention: Mapping[str, Any] | None = None,
    prompts: Sequence[str] = (),
    most: int = MOST,
) -> Widget:
    """A graph whose slider goes from the circuit's strongest edges to all that have a score.

    Args:
        nodes: Rows from the input up; the heads of a layer side by side, then its MLP.
        edges: Source, reader and way of each: two places in `nodes`, and one in WAYS. A key or
            value is read by its node and the `group` - 1 heads after it.
        scores: Of each edge; NaN where there is none.
        kept: Which edges are the circuit's.
        title: What a screen reader says first.
        group: Heads that share a key and a value.
        signs: What scores below and above zero mean.
        whole: What the circuit does alone.
        unknown: Why that cannot be told, if it was measured.
        measured: What the edges of the largest scores do alone, for several sizes.
        attention: Data of the attention viewer, shown with the node of each head.
        prompts: Examples, shown with each node.
        most: Edges that are drawn at most, the circuit's always among them.
    """
    strength = scores.double().abs()
    known = strength.nan_to_num(nan=-1.0)
    order = known.argsort(descending=True, stable=True)
    inside, outside = order[kept[order]], order[~kept[order] & (known[order] >= 0)]
    drawn = torch.cat([inside, outside[: max(0, most - len(inside))]])
    source, reader, way = edges[drawn].T.tolist()
    return Widget(
        "graph",
        f"{title}: {len(inside)} edges. Every node is a button; arrow keys walk along the edges.",
        {
            "nodes": [
                [node.name, node.row, node.kind, node.label, node.places, _rounded(node.score)]
                for node in nodes
            ],
            "group": group,
            "source": source,
            "reader": reader,
            "way": way,
            "score": [_rounded(score) for score in scores[drawn].tolist()],
            "kept": len(inside),
            "scored": int((known >= 0).sum()),
            "total": _rounded(strength.nansum().item()),
            "signs": list(signs),
            "whole": None if whole is None else _told(whole),
            "unknown": unknown or "How much these edges explain was not measured.",
            "measured": [_told(each) for each in measured],
            "attention": attention,
            "prompts": list(prompts),
        },
        height=_height(max(node.row for node in nodes)),
    )


def _height(rows: int) -> int:
    """Pixels that rows, controls and legend take."""
    return 300 + (rows + 1) * (58 if rows <= 13 else 40)


def _told(given: Explained) -> dict[str, Any]:
    shares = {name: _rounded(getattr(given, name)) for name in ("f", "low", "high", "random")}
    return {"edges": given.edges, "n": given.n, **shares}


def _rounded(value: float) -> float | int | None:
    """Four figures, as few characters as they take; None for what is not finite."""
    if not math.isfinite(value):
        return None
    short = float(f"{value:.4g}")
    return int(value) if short == value and value == int(value) else short
