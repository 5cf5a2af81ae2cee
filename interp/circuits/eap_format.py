"""Files of EAP-IG and of the MIB benchmark: tables of a circuit as JSON or .pt.

Nothing is lost. What the format lacks stands where its loaders do not look: groups of heads,
places, labels and provenance in the entry `interp`, and which edges and nodes have a score (there
each has one; without a score it is 0) in `scored`. How keys and values of grouped-query attention
are read and written stands in `eap_tables`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.atomic import replacing
from interp.circuits.circuit import Circuit
from interp.circuits.eap_tables import (
    CFG,
    Tables,
    cells,
    from_tables,
    readers,
    rows,
    sources,
    to_tables,
    whole_shape,
)
from interp.circuits.shape import Shape
from interp.errors import FileFormatError, one_line
from interp.json_file import decode, read_json, write_text
from interp.models import Model
from interp.torch_file import read_torch_file

LARGEST_FILE = 2**28
"""Bytes of the largest file that is read: Llama-8B needs half of it as JSON."""
WAY_OUT = "write it again with EAP-IG or with write_eap, of whole nodes and not neurons"
BROKEN = (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError)


def write_eap(circuit: Circuit, path: str | Path, *, d_model: int | None = None) -> Path:
    """Write a circuit for EAP-IG and MIB, making folders as needed; returns the path.

    Args:
        circuit: The circuit.
        path: A name that ends in .json or .pt.
        d_model: Width of the model, which their JSON loader asks for; None takes it from the
            provenance.

    Raises:
        CircuitError: Nothing says how wide the model is, or it is too large for their tables.
        FileFormatError: A name with another ending.
    """
    path = _with_ending(path)
    tables = to_tables(circuit, d_model)
    if path.suffix == ".json":
        write_text(path, json.dumps(_to_json(tables, circuit.shape), allow_nan=False) + "\n")
        return path
    with replacing(path) as partial:
        torch.save(_to_pt(tables), partial)  # noqa: TID251 - what EAP-IG reads; plain values alone
    return path


def read_eap(path: str | Path, model: Model | Shape | None = None) -> Circuit:
    """Read a circuit that EAP-IG, MIB or `write_eap` wrote, as JSON or .pt.

    A .pt file is read without running any code that it may hold. Edges that are not listed are not
    kept and have no score. Sign and base point of scores are those of the program that wrote them:
    its files do not say. They flag nodes too, which follow from the edges here; where the two
    differ, the provenance lists the flagged ones as `nodes_in_graph`. Where heads of one group
    differ, it counts those edges as `split_groups`.

    Args:
        path: A file that ends in .json or .pt.
        model: What the circuit is of. Their files do not say which query heads share keys and
            values, nor that there are no MLPs: without a model every head is its own group. Files
            of `write_eap` say both.

    Raises:
        FileFormatError: Truncated, of another layout, too large, of single neurons, with names
            that are no nodes, names given twice, infinite scores, or anything but tensors,
            numbers, text, lists and dictionaries.
        CircuitError: The file is of another model.
    """
    path = _with_ending(path)
    if path.suffix == ".json":
        data = read_json(path, most=LARGEST_FILE, way_out=WAY_OUT, nan=True)
    else:
        data = read_torch_file(path, most=LARGEST_FILE, way_out=WAY_OUT)
    shape = Shape.of(model) if isinstance(model, Model) else model
    if not isinstance(data, dict):
        raise FileFormatError(f"{path} holds no circuit; write one with EAP-IG or with write_eap.")
    try:
        tables = _from_json(data) if path.suffix == ".json" else _from_pt(data)
        return from_tables(tables, shape, path.name)
    except BROKEN as error:
        raise FileFormatError(
            f"{path} has a missing or broken part ({one_line(error)}); {WAY_OUT}."
        ) from error


def _to_json(tables: Tables, shape: Shape) -> dict[str, Any]:
    whole = whole_shape(tables.cfg)
    begin, end = sources(whole), readers(whole)
    _, row, column = cells(shape)
    edges = zip(
        [f"{begin[i]}->{end[j]}" for i, j in zip(row.tolist(), column.tolist(), strict=True)],
        tables.scores[row, column].tolist(),
        tables.kept[row, column].tolist(),
        strict=True,
    )
    flags, scores = [*tables.nodes_kept.tolist(), True], tables.node_scores.tolist()
    names = [*begin, "logits"]
    return {
        "cfg": tables.cfg,
        "nodes": {names[i]: _entry(scores[i], flags[i]) for i in rows(shape).tolist()},
        "edges": {name: _entry(score, kept) for name, score, kept in edges},
        "interp": tables.block,
    }


def _entry(score: float, kept: bool) -> dict[str, Any]:
    if math.isnan(score):
        return {"score": 0.0, "in_graph": kept, "scored": False}
    return {"score": score, "in_graph": kept}


def _from_json(data: dict[str, Any]) -> Tables:
    cfg = _cfg(data)
    whole = whole_shape(cfg)
    begin, end = sources(whole), readers(whole)
    _, row, column = cells(whole)
    edges = {
        f"{begin[i]}->{end[j]}": i * len(end) + j
        for i, j in zip(row.tolist(), column.tolist(), strict=True)
    }
    nodes = {name: index for index, name in enumerate([*begin, "logits"])}
    scores, kept = _filled(data["edges"], edges, len(begin) * len(end))
    node_scores, nodes_kept = _filled(data["nodes"], nodes, len(nodes))
    return Tables(
        cfg,
        scores.view(len(begin), -1),
        kept.view(len(begin), -1),
        node_scores,
        nodes_kept[:-1],
        data.get("interp"),
    )


def _filled(
    entries: dict[str, Any], place: dict[str, int], size: int
) -> tuple[Float[Tensor, " size"], Bool[Tensor, " size"]]:
    """Scores and flags of names, each at its place."""
    at, scores, flags = [], [], []
    for name, entry in entries.items():
        if name not in place:
            raise ValueError(f"{name[:80]!r} is no node or edge of this model")
        if "neurons" in entry or "neurons_scores" in entry:
            raise ValueError(f"{name} is kept by neurons, and a Circuit keeps whole nodes")
        score, flag = entry.get("score", math.nan), entry["in_graph"]
        if type(score) not in (int, float) or not isinstance(flag, bool):
            raise TypeError(f"{name}: score {score!r:.80}, in_graph {flag!r:.80}")
        at.append(place[name])
        scores.append(float(score) if entry.get("scored", True) else math.nan)
        flags.append(flag)
    index = torch.tensor(at, dtype=torch.long)
    values = torch.full((size,), math.nan, dtype=torch.float64)
    kept = torch.zeros(size, dtype=torch.bool)
    values[index] = torch.tensor(scores, dtype=torch.float64)
    kept[index] = torch.tensor(flags, dtype=torch.bool)
    return values, kept


def _to_pt(tables: Tables) -> dict[str, Any]:
    whole = whole_shape(tables.cfg)
    data: dict[str, Any] = {
        "cfg": tables.cfg,
        "src_nodes": sources(whole),
        "dst_nodes": readers(whole),
        "edges_scores": tables.scores.nan_to_num(),
        "edges_in_graph": tables.kept,
        "nodes_in_graph": tables.nodes_kept,
        "scored": ~tables.scores.isnan(),
        "interp": json.dumps(tables.block, allow_nan=False),
    }
    if not tables.node_scores.isnan().all():  # in nodes_scores NaN is no score for EAP-IG as well
        data |= {"nodes_scores": tables.node_scores[:-1], "logits_score": tables.node_scores[-1:]}
    return data


def _from_pt(data: dict[str, Any]) -> Tables:
    cfg = _cfg(data)
    whole = whole_shape(cfg)
    begin, end = sources(whole), readers(whole)
    for name, nodes in (("src_nodes", begin), ("dst_nodes", end)):
        if not isinstance(data[name], list) or data[name] != nodes:
            raise ValueError(f"{name} are not the nodes of cfg, each once, in order")
    if "neurons_in_graph" in data or "neurons_scores" in data:
        raise ValueError("it is kept by neurons, and a Circuit keeps whole nodes")
    cell = (len(begin), len(end))
    scores = _numbers(data, "edges_scores", cell)
    if "scored" in data:
        scores = scores.where(_flags(data, "scored", cell), math.nan)
    node_scores = torch.full((len(begin) + 1,), math.nan, dtype=torch.float64)
    if "nodes_scores" in data:
        node_scores[:-1] = _numbers(data, "nodes_scores", cell[:1])
    if "logits_score" in data:
        node_scores[-1:] = _numbers(data, "logits_score", (1,))
    return Tables(
        cfg,
        scores,
        _flags(data, "edges_in_graph", cell),
        node_scores,
        _flags(data, "nodes_in_graph", cell[:1]),
        decode(data["interp"]) if "interp" in data else None,
    )


def _numbers(data: dict[str, Any], name: str, shape: tuple[int, ...]) -> Float[Tensor, ...]:
    tensor = _tensor(data, name, shape)
    if not tensor.is_floating_point():
        raise TypeError(f"{name} is of {tensor.dtype}")
    return tensor.double()


def _flags(data: dict[str, Any], name: str, shape: tuple[int, ...]) -> Bool[Tensor, ...]:
    tensor = _tensor(data, name, shape)
    if tensor.dtype != torch.bool:
        raise TypeError(f"{name} is of {tensor.dtype}")
    return tensor.view(torch.uint8) != 0  # a file may hold bytes that are neither 0 nor 1


def _tensor(data: dict[str, Any], name: str, shape: tuple[int, ...]) -> Tensor:
    tensor = data[name]
    if not isinstance(tensor, Tensor) or tensor.shape != shape:
        # what else it may be is not printed: a few bytes can stand for a text without end
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else f"a {type(tensor).__name__}"
        raise TypeError(f"{name} is {found} and not a tensor of shape {shape}")
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
        raise TypeError(f"{name} holds no plain numbers")
    return tensor.detach()


def _cfg(data: dict[str, Any]) -> dict[str, Any]:
    """What is known of the model; sizes that no model has are refused by `whole_shape`."""
    cfg = {name: data["cfg"][name] for name in CFG}
    for name, value in cfg.items():
        if type(value) not in (int, bool):
            raise TypeError(f"sizes are not whole numbers: {name} is a {type(value).__name__}")
    if type(cfg["d_model"]) is bool or not 0 < cfg["d_model"] < 2**31:
        raise ValueError(f"d_model is {cfg['d_model']!r:.80}")
    return cfg


def _with_ending(path: str | Path) -> Path:
    path = Path(path)
    if path.suffix not in (".json", ".pt"):
        raise FileFormatError(f"{path} ends in {path.suffix!r}; give a name in .json or .pt.")
    return path
