"""A circuit as JSON of our own: versioned, and validated when read."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.shape import Shape
from interp.errors import FileFormatError, InterpError, one_line
from interp.json_file import read_json, to_text, unseal, write_text
from interp.sites import Site

if TYPE_CHECKING:
    from interp.circuits.circuit import Circuit
else:
    Circuit = Any

Known = TypeVar("Known")

FORMAT: dict[str, Any] = {"format": "interp.Circuit", "version": 1}
ENTRIES = ("shape", "edges", "nodes", "places", "labels", "provenance")
WAY_OUT = "write one with Circuit.save or `interp circuit MODEL --task TASK --out c.json`"
LARGEST = 2_000_000
"""Edges of the largest model that a file may describe, in 0.6 GB. Llama-8B has 0.8 million."""
MOST_NODES = 20_000
"""Its nodes. Llama-405B has 16 thousand; as many heads in one layer would take a minute to read."""
LARGEST_SCORE = 3.40282347e38
"""The largest float32, in the nine digits in which it is written."""


def write(circuit: Circuit, path: Path) -> Path:
    """Write a circuit as JSON, making folders as needed; returns the path."""
    write_text(path, to_json(circuit, path.name) + "\n")
    return path


def read(path: Path) -> dict[str, Any]:
    """The attributes of the circuit in a file.

    Raises:
        FileFormatError: Not a file, not JSON, of another kind or version, damaged or incomplete.
    """
    return attributes_of(read_json(path, way_out=WAY_OUT), path)


def to_json(circuit: Circuit, name: str) -> str:
    """The circuit as text: what is kept, what has a score, and where it comes from.

    Raises FileFormatError for what no file can hold; `name` is the file that it is for.
    """
    shape = circuit.shape
    if _too_large(shape):
        raise FileFormatError(
            f"{name} cannot be written: the model has {shape.n_edges:,} edges between "
            f"{shape.n_nodes:,} nodes, and no more than {LARGEST:,} between {MOST_NODES:,} are "
            "read again; save circuits of a smaller model."
        )
    edges = {
        str(edge): {"score": score, "kept": kept}
        for edge, score, kept in zip(
            shape.edges, _numbers(circuit.scores), circuit.kept.tolist(), strict=True
        )
        if kept or score is not None
    }
    nodes = {
        str(node): {"score": score}
        for node, score in zip(shape.nodes, _numbers(circuit.node_scores), strict=True)
        if score is not None
    }
    return to_text(
        name,
        {
            "shape": {
                "n_layers": shape.n_layers,
                "n_heads": shape.n_heads,
                "n_kv_heads": shape.n_kv_heads,
                "parallel": shape.parallel,
                "has_mlp": shape.has_mlp,
            },
            "edges": edges,
            "nodes": nodes,
            "places": {str(node): list(roles) for node, roles in circuit.places.items()},
            "labels": {str(node): list(names) for node, names in circuit.labels.items()},
            "provenance": circuit.provenance,
        },
        **FORMAT,
        indent=1,
    )


def attributes_of(told: Any, file: str | Path) -> dict[str, Any]:
    """The attributes of a Circuit, from what `to_json` writes.

    Raises FileFormatError for anything else; `file` is where it stands.
    """
    data = unseal(told, file, **FORMAT, entries=ENTRIES, way_out=WAY_OUT)
    try:
        return _attributes(data)
    except (KeyError, TypeError, ValueError, AttributeError, InterpError) as error:
        raise FileFormatError(
            f"{file} has a missing or broken part ({one_line(error)}); {WAY_OUT}."
        ) from error


def _attributes(data: dict[str, Any]) -> dict[str, Any]:
    shape = shape_of(data["shape"])
    edges = {str(edge): index for edge, index in shape.edge_index.items()}
    nodes = {str(node): node for node in shape.nodes}
    kept = torch.zeros(len(edges), dtype=torch.bool)
    scores = torch.full((len(edges),), math.nan, dtype=torch.float64)
    for name, edge in data["edges"].items():
        if not isinstance(edge["kept"], bool):
            raise TypeError(f"{name}: kept is {edge['kept']!r:.80}")
        index = _known(name, edges)
        kept[index], scores[index] = edge["kept"], _score(edge["score"])
    node_scores = torch.full((len(nodes),), math.nan, dtype=torch.float64)
    for name, node in data["nodes"].items():
        node_scores[shape.node_index[_known(name, nodes)]] = _score(node["score"])
    if not isinstance(data["provenance"], dict):
        raise TypeError(f"the provenance is {data['provenance']!r:.80}")
    return {
        "shape": shape,
        "kept": kept,
        "scores": scores.float(),
        "node_scores": node_scores.float(),
        "places": _names(data["places"], nodes),
        "labels": _names(data["labels"], nodes),
        "provenance": data["provenance"],
    }


def shape_of(data: dict[str, Any]) -> Shape:
    """The shape that a file describes; refuses sizes that would fill the memory."""
    sizes = [data[name] for name in ("n_layers", "n_heads", "n_kv_heads")]
    flags = [data[name] for name in ("parallel", "has_mlp")]
    if not all(type(size) is int and size > 0 for size in sizes):
        raise ValueError(f"sizes {sizes!r:.80} are not whole numbers above 0")
    if not all(isinstance(flag, bool) for flag in flags):
        raise ValueError(f"parallel and has_mlp are {flags!r:.80}")
    shape = Shape(*sizes, *flags)
    if shape.n_heads % shape.n_kv_heads or _too_large(shape):
        raise ValueError(
            f"no model has layers, heads and groups of heads of {sizes!r:.80}, or there are more "
            f"than {LARGEST:,} edges or {MOST_NODES:,} nodes"
        )
    return shape


def _too_large(shape: Shape) -> bool:
    return shape.n_edges > LARGEST or shape.n_nodes > MOST_NODES


def _known(name: str, names: dict[str, Known]) -> Known:
    if name not in names:
        raise ValueError(f"{name!r:.80} is no node or edge of this model")
    return names[name]


def _names(data: dict[str, Any], nodes: dict[str, Site]) -> dict[Site, tuple[str, ...]]:
    found = {}
    for name, names in data.items():
        node = _known(name, nodes)
        if not isinstance(names, list) or not all(isinstance(each, str) for each in names):
            raise TypeError(f"{name}: {names!r:.80} is no list of names of a node")
        found[node] = tuple(names)
    return found


def _score(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not abs(value) <= LARGEST_SCORE:
        raise ValueError(f"the score {value!r:.80} is no finite number")
    return float(value)


def _numbers(tensor: Float[Tensor, " n"]) -> list[float | None]:
    """Nine digits tell every float32; what is not a number becomes null."""
    return [float(f"{v:.9g}") if math.isfinite(v) else None for v in tensor.tolist()]
