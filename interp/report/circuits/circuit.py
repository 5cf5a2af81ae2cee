"""A circuit as a section of a report, with everything among the results that tells of it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from interp.circuits import Circuit, Curve, Evaluation, Recall, SelfRepair, Stability, Triple
from interp.circuits.circuit import owners
from interp.errors import InterpError
from interp.heads import AttentionPatterns
from interp.plots.attention_viewer import attention_data
from interp.plots.circuit_graph import Explained
from interp.report.circuits.evaluation import (
    LIMITS,
    alone,
    as_text,
    baselines,
    call,
    explained,
    failures,
    name_of,
)
from interp.report.circuits.evidence import belongs, evidence
from interp.report.drawing import svg
from interp.report.frame import frame_table
from interp.report.heads.attention import patterns_for
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    decimals,
    grid_table,
    number,
    provenance_rows,
)
from interp.report.rerun import rerun, sampled
from interp.sites import Site

LISTED = 2_000
"""Edges in the table under the graph."""
EXAMPLES = 3
"""Prompts that the graph shows with its nodes."""

Companion = Curve | Triple | Stability | Recall | SelfRepair


def circuit_section(circuit: Circuit, results: Sequence[object] = ()) -> Section:
    """The graph of a circuit, what it does alone, and all evidence about it among the results."""
    mine = [each for each in results if belongs(each, circuit)]
    judged = [each for each in mine if isinstance(each, Evaluation)]
    others = [evidence(each, circuit) for each in mine if not isinstance(each, Evaluation)]
    task = circuit.provenance.get("task") or circuit.provenance.get("name") or "the task"
    seen = patterns_for(results, circuit.provenance)
    return Section(
        heading=f"The circuit of {task} in {circuit.provenance.get('model', 'the model')}",
        lead=_lead(circuit),
        claims=(*_alone(circuit, judged), *(claim for each in others for claim in each.claims)),
        blocks=(
            _graph(circuit, judged, [each for each in mine if isinstance(each, Curve)], seen),
            _heads(circuit),
            *(block for each in others for block in each.blocks),
            *(failures(each, name_of(each, circuit), results) for each in judged),
        ),
        limits=(*_limits(circuit, judged), *(limit for each in others for limit in each.limits)),
        provenance=provenance_rows(circuit.provenance),
        command=_command(circuit, judged),
        baselines=baselines(judged[0], [name_of(judged[0], circuit)]) if judged else None,
    )


def companion_section(result: Companion, results: Sequence[object] = ()) -> Section | None:
    """A result about a circuit or its scores, without it; None if the circuit is among the results.

    Raises:
        InterpError: A result of another kind.
    """
    if any(belongs(result, each) for each in results if isinstance(each, Circuit)):
        return None
    headings = {
        Curve: ("Circuits by size", "The metric of the strongest edges alone, for several sizes."),
        Triple: (
            "The three criteria of a circuit",
            "Whether it is faithful, complete and minimal.",
        ),
        Stability: ("How steady a ranking is", "The ranking is made again on resampled prompts."),
        Recall: ("A ranking against a known circuit", "Whether what is known is ranked first."),
        SelfRepair: ("What steps in for heads", "Heads are knocked out alone and together."),
    }
    if type(result) not in headings:
        raise InterpError(f"{type(result).__name__} is no result about a circuit.")
    heading, lead = headings[type(result)]
    found, about = evidence(result), result.provenance
    return Section(
        heading=f"{heading} on {about.get('task') or 'the task'}",
        lead=lead,
        claims=found.claims,
        blocks=found.blocks,
        limits=found.limits or ("The numbers are of these prompts and say nothing of others.",),
        provenance=provenance_rows(about),
        command=rerun(about, sampled(about)),
        baselines=baselines(result.evaluation, list(result.evaluation.circuits))
        if isinstance(result, Triple)
        else None,
    )


def _alone(circuit: Circuit, judged: Sequence[Evaluation]) -> list[Claim]:
    """One claim for each evaluation; without any, one that says so."""
    edges, total = int(circuit.kept.sum()), len(circuit.kept)
    these = f"These {edges:,} edges ({100 * edges / total:.1f}% of the model)"
    if judged:
        known = circuit.provenance
        return [alone(each, name_of(each, circuit), these, found_on=known) for each in judged]
    return [
        Claim(
            f"What {these[0].lower()}{these[1:]} do alone was not measured.",
            "There is no Evaluation of this circuit among the results; make one with "
            "interp.circuits.evaluate.",
            "doubtful",
        )
    ]


def _lead(circuit: Circuit) -> str:
    known = circuit.provenance
    what = (
        f"{len(circuit.heads)} heads and {len(circuit.mlps)} MLPs with {int(circuit.kept.sum()):,} "
        f"of {len(circuit.kept):,} edges. "
    )
    if not known.get("method"):
        source = known.get("source")
        return what + (f"From {source}." if source else "Where it is from is not known.")
    drawn = known.get("notes", {}).get("split")
    return (
        f"{what}Found by {known['method']} on {known.get('n', 'some')} prompts"
        f"{f' of the {drawn} split' if drawn else ''}: each edge is scored by what it does to "
        f"{known.get('metric', 'the metric')}"
        f"{', ' + known['sign'] if known.get('sign') else ''}, and the best are kept."
    )


def _graph(
    circuit: Circuit,
    judged: Sequence[Evaluation],
    curves: Sequence[Curve],
    seen: AttentionPatterns | None,
) -> Block:
    """The widget, with the numbers of the circuit's own edges."""
    whole = explained(judged[0], name_of(judged[0], circuit)) if judged else None
    data = None if seen is None else attention_data(seen.tokens, seen.patterns, seen.heads)
    drawing = circuit.graph(
        whole=whole,
        measured=[] if not curves else _measured(curves[0], judged[0] if judged else None),
        attention=data,
        prompts=[] if seen is None else [as_text(words) for words in seen.tokens[:EXAMPLES]],
        unknown=judged[0].costs_nothing if judged else "",
    )
    title = f"{len(circuit.nodes)} nodes and {int(circuit.kept.sum()):,} edges"
    return Block(
        "The graph",
        "Layer by layer, from the input below to the logits above. The slider shows the strongest "
        "edges of the circuit, and beyond its size the strongest of all others. Open a node to see "
        "its scores, its role, its edges and what it looks at.",
        (Figure(title, drawing, "", data=_edges(circuit), role="wide"),),
    )


def _measured(curve: Curve, judged: Evaluation | None) -> list[Explained]:
    """What other sizes do: those of a curve whose edges are ranked as the graph ranks them."""
    if (curve.provenance.get("rank"), curve.provenance.get("select")) != ("abs", "top"):
        return []
    asked = curve.ablations[0] if judged is None else judged.ablation
    if asked not in curve.ablations:
        return []
    frame = curve.to_frame()
    return [
        Explained(int(row.edges), row.f, row.f_low, row.f_high, row.random_f, int(row.n))
        for row in frame[frame["ablation"] == asked].itertuples()
        if row.edges
    ]


def _edges(circuit: Circuit) -> Table:
    """The edges that are kept, the strongest first."""
    rows = circuit.kept.nonzero()[:, 0]
    order = circuit.scores[rows].abs().nan_to_num(nan=-1.0).argsort(descending=True, stable=True)
    rows = rows[order]
    left = f", the strongest {LISTED:,} of {len(rows):,}" if len(rows) > LISTED else ""
    edges = [circuit.shape.edges[row] for row in rows[:LISTED].tolist()]
    scores = circuit.scores[rows[:LISTED]].tolist()
    return Table(
        f"Edges of the circuit{left}",
        ("Edge", "From", "To", "Score"),
        tuple(
            (str(edge), str(edge.src), str(edge.dst), score)
            for edge, score in zip(edges, scores, strict=True)
        ),
        digits=4,
    )


@dataclass
class _Sums:
    """Edges in and out of a node, and what their scores add up to."""

    edges_in: int = 0
    edges_out: int = 0
    score_in: float = 0.0
    score_out: float = 0.0


def _sums(circuit: Circuit) -> dict[Site, _Sums]:
    found: dict[Site, _Sums] = defaultdict(_Sums)
    for index in circuit.kept.nonzero()[:, 0].tolist():
        edge, score = circuit.shape.edges[index], circuit.scores[index].item()
        found[edge.src].edges_out += 1
        found[edge.src].score_out += score
        for node in owners(edge, circuit.shape):
            found[node].edges_in += 1
            found[node].score_in += score
    return found


def _nodes(circuit: Circuit) -> Table:
    sums, place = _sums(circuit), circuit.shape.node_index
    rows = pd.DataFrame(
        {
            "Node": str(node),
            "Edges in": sums[node].edges_in,
            "Scores in": sums[node].score_in,
            "Edges out": sums[node].edges_out,
            "Scores out": sums[node].score_out,
            "Score": circuit.node_scores[place[node]].item(),
            "In the prompt": ", ".join(circuit.places.get(node, ())) or "everywhere",
            "Role": ", ".join(circuit.labels.get(node, ())),
        }
        for node in circuit.nodes
    )
    known = {"Score": circuit.node_scores.isfinite().any(), "In the prompt": bool(circuit.places)}
    unknown = [name for name, there in known.items() if not there]
    return frame_table("Nodes of the circuit", rows.drop(columns=unknown, errors="ignore"))


def _heads(circuit: Circuit) -> Block:
    """The scores of heads, or the sum of those of their edges out."""
    own = circuit.node_scores.isfinite().any()
    sums, place = _sums(circuit), circuit.shape.node_index
    grid = torch.full((circuit.shape.n_layers, circuit.shape.n_heads), math.nan)
    tips = [["not in the circuit"] * grid.shape[1] for _ in grid]
    for head in circuit.heads:
        score = circuit.node_scores[place[head]].item() if own else sums[head].score_out
        grid[head.layer, head.head] = score
        role = ", ".join(circuit.labels.get(head, ()))
        tips[head.layer][head.head] = f"{head}: {number(score, sign=True, digits=3)}" + (
            f", {role}" if role else ""
        )
    known = grid[grid.isfinite()].abs()
    reach = (known.max().item() if len(known) else 0.0) or 1.0
    digits = decimals(reach)
    what = "Score of each head" if own else "Scores of each head's edges out, summed"
    drawing = svg.heatmap(
        grid,
        label=f"{what}, layer by head: all values are in the table.",
        tips=tips,
        limits=(-reach, reach),
        diverging=True,
        digits=digits,
    )
    low, high = (number(sign * reach, sign=True, digits=digits) for sign in (-1, 1))
    return Block(
        "Its nodes",
        f"{what}. Heads that are not in the circuit are grey. A sum near zero can hide large "
        "scores of both signs: the graph shows them one by one.",
        (
            Figure(
                what,
                drawing,
                "Rows are layers, columns are heads.",
                svg.legend(low, high, diverging=True, middle="0"),
                grid_table(what, grid),
            ),
        ),
        (_nodes(circuit),),
    )


def _limits(circuit: Circuit, judged: Sequence[Evaluation]) -> tuple[str, ...]:
    limits = list(LIMITS) if judged else ["The circuit was not run alone here."]
    if str(circuit.provenance.get("method", "")) in ("eap", "atp") or "-ig" in str(
        circuit.provenance.get("method", "")
    ):
        limits.append(
            "Scores are estimates from gradients; what an edge does when it is really patched can "
            "differ."
        )
    if not circuit.scores.isfinite().any():
        limits.append("Its edges have no scores, so that none can be called stronger.")
    return tuple(limits)


def _command(circuit: Circuit, judged: Sequence[Evaluation]) -> str:
    """How the circuit is found, and how it is evaluated."""
    known = dict(circuit.provenance)
    asked = str(known.get("command", ""))
    if asked.startswith("discover("):
        found = rerun(
            known | {"command": None}, sampled(known), f"circuit = interp.circuits.{asked}"
        )
    else:
        kept = "circuit = interp.circuits.Circuit.load(...)  # the file of this circuit"
        found = f"{asked}\n{kept}" if asked else kept
    for each in judged:
        about: dict[str, Any] = each.provenance
        found += "\n" + rerun(about, sampled(about), call(each, "circuit"))
    return found
