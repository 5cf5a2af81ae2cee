"""Circuits as the attribution graphs that circuit-tracer and Neuronpedia show.

Such a graph is drawn over the tokens of one prompt and has one link between two nodes. A circuit
has neither prompt nor tokens, and up to three edges from one head to another. So a graph shows:

* a node for each head and MLP of the circuit, the input and the logits, with its labels;
* a column for each role at which a node stands, after one for nodes that stand at every position; a
  node with several roles is drawn at its first;
* a link for the edges between two nodes, weighted by the sum of their scores; an edge without a
  score weighs 1. The score of an edge to a key or value that heads share is split between those of
  them that are in the circuit. An edge that ends at a head outside the circuit is not drawn.

The circuit itself stands in the metadata, where viewers do not look, and is read from there.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from interp.circuits.circuit import Circuit, owners
from interp.circuits.embedded import from_block, to_block
from interp.errors import FileFormatError
from interp.json_file import read_json, write_text
from interp.sites import Head, Input, Logits, Site

EVERYWHERE = "(all positions)"
SCHEMA_VERSION = 1
WAY_OUT = "write one with write_neuronpedia"


def write_neuronpedia(circuit: Circuit, path: str | Path) -> Path:
    """Write a circuit as a graph that Neuronpedia shows, making folders as needed.

    Returns the path. The slug of the graph is the name of the file.
    """
    path = Path(path)
    write_text(path, json.dumps(_graph(circuit, path.stem), allow_nan=False, indent=1) + "\n")
    return path


def read_neuronpedia(path: str | Path) -> Circuit:
    """Read the circuit in a graph that `write_neuronpedia` wrote.

    Raises:
        FileFormatError: Truncated, of another schema, a graph of features rather than of heads, or
            one whose nodes or links were changed, so that they no longer show the circuit in it.
    """
    path = Path(path)
    data = read_json(path, way_out=WAY_OUT)
    about = data.get("metadata") if isinstance(data, dict) else None
    if not isinstance(about, dict):
        raise FileFormatError(f"{path} is no attribution graph: it has no metadata; {WAY_OUT}.")
    if about.get("schema_version") != SCHEMA_VERSION:
        raise FileFormatError(
            f"{path} is of schema {about.get('schema_version')!r:.80}, and schema "
            f"{SCHEMA_VERSION} is read; {WAY_OUT}."
        )
    if "interp" not in about:
        raise FileFormatError(
            f"{path} is a graph of another program, of features rather than heads; {WAY_OUT}."
        )
    circuit = from_block(about["interp"], path.name)
    if _drawn(data) != _drawn(_graph(circuit, path.stem)):
        raise FileFormatError(
            f"the nodes or links of {path} were changed and no longer show the circuit in its "
            f"metadata; {WAY_OUT}."
        )
    return circuit


def _graph(circuit: Circuit, slug: str) -> dict[str, Any]:
    columns = _columns(circuit)
    # from the last to the first, for a role may be called as the first column is
    numbers = {name: number for number, name in reversed([*enumerate(columns)])}
    shown = [Input(), *circuit.nodes, Logits()]
    nodes = {node: _node(node, circuit, numbers, len(columns) - 1) for node in shown}
    ids = {node: drawn["node_id"] for node, drawn in nodes.items()}
    return {
        "metadata": {
            "slug": slug,
            "scan": str(circuit.provenance.get("model", "unknown")),
            "transcoder_list": [],
            "prompt_tokens": columns,
            "prompt": " ".join(columns),
            "node_threshold": None,
            "schema_version": SCHEMA_VERSION,
            "interp": to_block(circuit),
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": _supernodes(circuit, ids),
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": list(nodes.values()),
        "links": [
            {"source": ids[src], "target": ids[dst], "weight": weight}
            for (src, dst), weight in _weights(circuit).items()
        ],
    }


def _columns(circuit: Circuit) -> list[str]:
    """What stands in place of the tokens of a prompt; the end of the prompt comes last."""
    roles = dict.fromkeys(role for node in circuit.places for role in circuit.places[node])
    return [EVERYWHERE, *sorted(roles, key=lambda role: role == "END")]


def _node(node: Site, circuit: Circuit, columns: dict[str, int], last: int) -> dict[str, Any]:
    """A node as it is drawn; `columns` are the numbers of those that roles have."""
    roles = circuit.places.get(node, ())
    column = columns[roles[0]] if roles else 0
    layer, index, kind = str(node.layer), circuit.shape.n_heads, "mlp"
    if isinstance(node, Head):
        index, kind = node.head, "attention head"
    if isinstance(node, Input):
        layer, index, kind = "E", 0, "embedding"
    if isinstance(node, Logits):
        layer, index, kind = str(circuit.shape.n_layers + 1), 0, "logit"
        column = last
    named = [str(node), *circuit.labels.get(node, ())]
    return {
        "node_id": f"{layer}_{index}_{column}",
        "feature": index,
        "layer": layer,
        "ctx_idx": column,
        "feature_type": kind,
        "token_prob": 0.0,
        "is_target_logit": isinstance(node, Logits),
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"{layer}_{index}-{column}",
        "clerp": " ".join(named) + (f" at {', '.join(roles)}" if roles else ""),
        "influence": None,
        "activation": None,
    }


def _supernodes(circuit: Circuit, ids: dict[Site, str]) -> list[list[str]]:
    """The nodes of each label, after the label."""
    members = defaultdict(list)
    for node in circuit.nodes:
        for label in circuit.labels.get(node, ())[:1]:
            members[label].append(ids[node])
    return [[label, *nodes] for label, nodes in members.items()]


def _weights(circuit: Circuit) -> dict[tuple[Site, Site], float]:
    """The weight of each link."""
    weights: dict[tuple[Site, Site], float] = defaultdict(float)
    inside = {*circuit.nodes, Logits()}
    for index in circuit.kept.nonzero()[:, 0].tolist():
        edge, score = circuit.shape.edges[index], circuit.scores[index].item()
        ends = sorted(owners(edge, circuit.shape) & inside)
        for end in ends:
            weights[edge.src, end] += (score if math.isfinite(score) else 1.0) / len(ends)
    return weights


def _drawn(graph: dict[str, Any]) -> tuple[list[str], list[tuple[str, str, float]]] | None:
    """Which nodes and links a graph has; None for what is no graph."""
    try:
        return (
            sorted(node["node_id"] for node in graph["nodes"]),
            sorted((link["source"], link["target"], link["weight"]) for link in graph["links"]),
        )
    except (KeyError, TypeError):
        return None
