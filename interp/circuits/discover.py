"""`discover`: from a task to the edges or nodes of a model that do it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.acdc import acdc
from interp.circuits.circuit import Circuit
from interp.circuits.information_flow import information_flow
from interp.circuits.select import RANKS, above, count_of, greedy, importance, top_n
from interp.circuits.select import clean_up as cleaned
from interp.circuits.shape import Shape
from interp.engine.attribution import attribute
from interp.engine.edges import patch_edges
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.patching import patch
from interp.engine.result import SweepResult
from interp.errors import CircuitError, did_you_mean
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.sites import MLP, Head

Metric = str | Callable[..., Any]

SIGN = "corrupt - clean"
BASES = {
    "eap": "gradient in the clean run",
    "eap-ig-inputs": "mean gradient over embeddings from corrupt (left out) to clean",
    "eap-ig-activations": "mean gradient over each sublayer's output from corrupt to clean",
    "exact": "each edge patched alone in the clean run",
    "information-flow": "the clean run alone; no counterfactual, no sign",
    "acdc": "each edge removed from the graph that was left",
    "atp": "gradient in the clean run",
    "nap-ig": "mean gradient over embeddings from corrupt (left out) to clean",
    "exact-nodes": "each node patched alone in the clean run",
}
"""Methods, and the point at which their scores are taken."""
NODES = ("atp", "nap-ig", "exact-nodes")
SELECTIONS = ("top", "threshold", "greedy")
LESS_IS_BETTER = ("kl", "loss")


def discover(
    model: Model,
    prompts: PromptSet,
    *,
    method: str = "eap-ig-inputs",
    metric: Metric = "logit_diff",
    size: int | float | None = None,
    select: str = "top",
    threshold: float | None = None,
    rank: str = "abs",
    clean_up: bool = True,
    steps: int = 5,
    scores: SweepResult | None = None,
    progress: bool = True,
) -> Circuit:
    """The circuit of a task: every edge (or node) is scored, and the best are kept.

    Scores are means over the prompts of what corrupting an edge does to the metric, corrupt minus
    clean: an edge that the task needs has a negative score where more of the metric is better.

    - "eap", "eap-ig-inputs", "eap-ig-activations": estimates from gradients; see `attribute`.
    - "exact": every edge is patched, alone; see `patch_edges`.
    - "information-flow": from the clean run alone, without a metric; see `information_flow`.
    - "acdc": greedy removal; `threshold` is its tau, and what it leaves is the circuit. See `acdc`.
    - "atp", "nap-ig", "exact-nodes": heads and MLPs instead of edges. The circuit has all edges
      among the chosen, the input and the logits.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> discover(model, prompts, method="nap-ig", size=10)
    Circuit(ioi: 4 heads, 6 MLPs, 100 of 3628 edges)

    Args:
        model: In eval mode.
        prompts: With counterfactuals.
        method: See above.
        metric: A name in METRICS with a gradient, or a function from logits `[prompts, vocab]` at
            END to values `[prompts]`, of which more is better.
        size: How many edges or nodes are kept, or which share of them as a float; None keeps all
            of them, with their scores, to be selected from later.
        select: "top", those of the largest importance; "threshold", those of at least `threshold`;
            "greedy", edges grown backward from the logits.
        threshold: For "threshold" and "acdc", in units of the metric.
        rank: "abs", importance is the size of a score; "signed", what helps the task comes first
            and what works against it last.
        clean_up: Drop edges that lie on no path from the input to the logits, so that fewer than
            `size` may be left.
        steps: Of the methods with "ig".
        scores: The sweep of `attribute`, `patch_edges` or `patch` over all edges (or all heads and
            MLPs) of this model on these prompts, if it is known. Its method and metric then count.
        progress: Show a bar.

    Raises:
        CircuitError: An unknown method or selection, options that do not go together, or scores of
            another model or other prompts.
        InterventionError, PromptError, MetricError, ModelError: What their names say.
    """
    if method not in BASES:
        raise CircuitError(f"There is no method {method!r}: {did_you_mean(method, BASES)}")
    if scores is not None:
        method, metric = _method_of(scores, model, prompts), scores.metric
    _require_consistent(method, size, select, threshold, rank)
    shape, name = Shape.of(model), resolve_metric(metric).name if scores is None else scores.metric
    if method == "acdc":
        assert threshold is not None
        circuit = acdc(model, prompts, tau=threshold, metric=metric, progress=progress)
    elif method == "information-flow":
        flow = information_flow(model, prompts, progress=progress).mean(dim=-1)
        kept = _selected(flow, shape, size, select, threshold)
        circuit = Circuit.from_edges(shape, [], scores=flow, provenance=provenance(model, prompts))
        circuit = circuit.keeping(kept)
    else:
        sweep = scores or _sweep(model, prompts, method, metric, steps, progress)
        index = shape.node_index if method in NODES else shape.edge_index
        means = torch.full((len(index),), math.nan, dtype=torch.float64)
        # the index is by node or by edge, as the sites of the sweep are
        rows = [index[site] for site in sweep.sites]  # type: ignore[index]
        means[rows] = sweep.effects.double().nanmean(dim=-1).cpu()
        harm = -means if name in LESS_IS_BETTER else means
        kept = _selected(importance(harm, rank), shape, size, select, threshold)
        if method in NODES:
            nodes = [shape.nodes[row] for row in kept.nonzero()[:, 0].tolist()]
            circuit = Circuit.from_nodes(shape, nodes, scores=means)
        else:
            circuit = Circuit.from_edges(shape, [], scores=means).keeping(kept)
        circuit = replace(circuit, provenance=sweep.provenance)
    if clean_up:
        circuit = circuit.keeping(cleaned(circuit.kept, shape))
    asked = {"size": size, "select": select, "threshold": threshold, "rank": rank}
    return replace(circuit, provenance=_told(circuit, method, name, asked, clean_up))


def _sweep(
    model: Model, prompts: PromptSet, method: str, metric: Metric, steps: int, progress: bool
) -> SweepResult:
    """The scores of all edges, or of all heads and MLPs, on every prompt."""
    if method == "exact":
        return patch_edges(model, prompts, metric=metric, progress=progress)
    if method == "exact-nodes":
        nodes = [node for node in Shape.of(model).nodes if isinstance(node, Head | MLP)]
        return patch(model, prompts, nodes, direction="noise", metric=metric, progress=progress)
    return attribute(model, prompts, method=method, metric=metric, steps=steps, progress=progress)


def _selected(
    importances: Float[Tensor, " sites"],
    shape: Shape,
    size: int | float | None,
    select: str,
    threshold: float | None,
) -> Bool[Tensor, " sites"]:
    known = int((~importances.isnan()).sum())
    count = known if size is None else count_of(size, known)
    if threshold is not None:
        return above(importances, threshold)
    return greedy(importances, shape, count) if select == "greedy" else top_n(importances, count)


def _told(
    circuit: Circuit, method: str, metric: str, asked: dict[str, Any], clean_up: bool
) -> dict[str, Any]:
    """The provenance of the scores, and how the circuit was made of them."""
    steps = circuit.provenance.get("steps", 1)
    how = {"method": method, "metric": metric, **asked, "clean_up": clean_up}
    if "ig" in method.split("-"):
        how["steps"] = steps
    command = ", ".join(f"{name}={value!r}" for name, value in how.items() if value is not None)
    about = {**circuit.provenance, **how, "base": BASES[method]}
    if method != "information-flow":
        about |= {"sign": SIGN, "ablation": "counterfactual"}
    return {**about, "command": f"discover(model, prompts, {command})"}


def _method_of(scores: SweepResult, model: Model, prompts: PromptSet) -> str:
    """The method that made a sweep, which is one of all edges or nodes of this model.

    Raises CircuitError for a sweep of another model, of other prompts, or of other sites.
    """
    own = {"weights_hash": model.weights_hash, "prompts_hash": prompts.hash, "direction": "noise"}
    for name, value in own.items():
        if scores.provenance.get(name) != value:
            raise CircuitError(
                f"The scores have {name}={scores.provenance.get(name)!r} and here it is "
                f"{value!r}; score this model on these prompts, in the direction noise."
            )
    shape, sites = Shape.of(model), set(scores.sites)
    nodes = {node for node in shape.nodes if isinstance(node, Head | MLP)}
    if sites not in (set(shape.edges), nodes):
        raise CircuitError(
            f"The scores are of {len(sites)} sites, which are not all {len(shape.edges)} edges of "
            f"{model.id}, nor all {len(nodes)} heads and MLPs; leave sites out when they are made."
        )
    if scores.method == "patch":
        return "exact-nodes" if sites == nodes else "exact"
    if scores.method not in BASES:
        raise CircuitError(
            f"Scores of {scores.method} are no effects of patching; give those of attribute, "
            "patch_edges or patch."
        )
    return scores.method


def _require_consistent(
    method: str, size: int | float | None, select: str, threshold: float | None, rank: str
) -> None:
    """Raise CircuitError for options that do not go together."""
    if select not in SELECTIONS:
        raise CircuitError(f"There is no selection {select!r}: {did_you_mean(select, SELECTIONS)}")
    if rank not in RANKS:
        raise CircuitError(f"Edges are not ranked by {rank!r}: {did_you_mean(rank, RANKS)}")
    cut = select == "threshold" or method == "acdc"
    if cut and (threshold is None or size is not None):
        raise CircuitError(
            f"{method if method == 'acdc' else 'A selection by threshold'} takes a threshold and "
            f"no size, and got threshold={threshold} and size={size}."
        )
    if not cut and threshold is not None:
        raise CircuitError(
            f"threshold={threshold} goes with select='threshold' or method='acdc'; leave it out, "
            "or give one of them."
        )
    if method == "acdc" and (select, rank) != ("top", "abs"):
        raise CircuitError("acdc removes edges on its own; leave select and rank out.")
    if method == "information-flow" and rank == "signed":
        raise CircuitError("Information flow has no sign; leave rank out.")
    if method in NODES and select == "greedy":
        raise CircuitError(
            f"{method} scores nodes, and greedy selection grows a graph of edges; use 'top'."
        )
