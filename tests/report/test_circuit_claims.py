"""What a report says of circuits follows from their numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from interp.circuits import (
    Circuit,
    Curve,
    Evaluation,
    Recall,
    SelfRepair,
    Shape,
    Stability,
    Triple,
    overlap,
    recall,
    shared_roles,
)
from interp.heads import AttentionPatterns
from interp.models import load
from interp.report import build
from interp.report.circuits.circuit import circuit_section, companion_section
from interp.report.circuits.evaluation import evaluation_section
from interp.report.circuits.evidence import belongs, evidence
from interp.report.circuits.overlap import overlap_section
from interp.report.parts import Claim, Section
from interp.sites import Head

N = 20
NOISE = torch.linspace(-1, 1, N)
SHAPE = Shape(2, 2, 2)
FOUND_ON = {
    "model": "toy", "weights_hash": "ab", "prompts_hash": "train", "task": "ioi", "n": 64,
    "notes": {"seed": 0, "split": "train"}, "method": "eap", "metric": "logit_diff",
    "sign": "corrupt - clean", "command": "discover(model, prompts, method='eap')",
}  # fmt: skip
JUDGED_ON = {
    "model": "toy", "weights_hash": "ab", "prompts_hash": "test", "task": "ioi", "n": N,
    "notes": {"seed": 1, "split": "test"}, "random": 9, "random_seed": 0,
}  # fmt: skip


def a_circuit(**about: Any) -> Circuit:
    scores = torch.linspace(-1, 1, len(SHAPE.edges))
    found = Circuit.from_nodes(SHAPE, ["0.1", "1.0"], provenance=FOUND_ON | about)
    return replace(found.labelled({Head(1, 0): ("name-mover",)}), scores=scores)


def evaluation(
    *, alone: float, whole: float, without: float, spread: float = 0.1, **about: Any
) -> Evaluation:
    """A circuit and nine random ones that do nothing, on 20 prompts with some spread."""
    noise = spread * NOISE
    return Evaluation(
        circuits={"ioi": a_circuit()},
        values=(alone + noise)[None],
        clean=whole + noise.roll(3),
        empty=without + noise.roll(7),
        random=(without + noise).expand(1, 9, N),
        metric="logit_diff",
        ablation="counterfactual",
        provenance=JUDGED_ON | about,
    )


GOOD = evaluation(alone=3.6, whole=4, without=0)


def section_of(given: Evaluation) -> Section:
    found = evaluation_section(given)
    assert found is not None
    return found


def claim_of(result: object, circuit: Circuit | None = None) -> Claim:
    return evidence(result, circuit).claims[0]


def test_a_circuit_that_gives_most_of_the_task_is_found() -> None:
    (claim,) = section_of(GOOD).claims
    assert claim.statement == "The circuit ioi does 90% of ioi alone."
    assert claim.verdict == "found"
    assert "9 random circuits of its size 0.00" in claim.evidence
    assert "held-out prompts (test split; found on the train split)" in claim.evidence
    assert "n\u00a0=\u00a020" in claim.evidence


def test_a_circuit_no_better_than_random_ones_is_doubtful() -> None:
    (claim,) = section_of(evaluation(alone=0, whole=4, without=0)).claims
    assert claim.verdict == "doubtful"


def test_a_circuit_that_does_worse_than_random_ones_is_not_found() -> None:
    (claim,) = section_of(evaluation(alone=-2, whole=4, without=0)).claims
    assert claim.statement == "The circuit ioi does −50% of ioi alone."
    assert claim.verdict == "not found"


def test_without_random_circuits_nothing_is_found() -> None:
    (claim,) = section_of(replace(GOOD, random=torch.zeros(1, 0, N))).claims
    assert claim.verdict == "doubtful"
    assert "no random circuits" in claim.evidence


@pytest.mark.parametrize(
    "where",
    [{"prompts_hash": "train"}, {"prompts_hash": "part", "notes": {"seed": 0, "split": "train"}}],
)
def test_a_circuit_judged_on_what_it_was_found_on_is_doubtful(where: dict[str, Any]) -> None:
    (claim,) = section_of(evaluation(alone=3.6, whole=4, without=0, **where)).claims
    assert claim.verdict == "doubtful"
    assert "not on held-out ones" in claim.evidence


def test_a_share_of_nothing_is_not_told() -> None:
    nothing = evaluation(alone=4, whole=4, without=4)
    (claim,) = section_of(nothing).claims
    assert claim.statement == "What the circuit ioi does alone cannot be told."
    assert "an interval that contains 0, so that shares of it mean nothing" in claim.evidence
    assert claim.verdict == "doubtful"
    assert nothing.costs_nothing in nothing._repr_html_()
    assert not GOOD.costs_nothing


def test_baselines_stand_beside_the_circuit_with_intervals_and_n() -> None:
    control = replace(GOOD, provenance={"model": "toy (untrained, seed 0)"})
    table = section_of(replace(GOOD, control=control)).baselines
    assert table is not None
    assert [row[0] for row in table.rows] == [
        "The whole model, clean",
        "No edge kept: everything ablated (the corrupt prompts)",
        "Random circuits of its size, mean of 9",
        "The circuit alone",
        "toy (untrained, seed 0), clean",
        "The circuit alone in it",
    ]
    assert table.rows[0][1] == pytest.approx(4.0)
    assert table.rows[3][1:] == (pytest.approx(3.6), "3.57 to 3.63", N)


def test_the_worst_prompts_are_listed_with_their_text_where_it_is_known() -> None:
    values = GOOD.values.clone()
    values[0, 7], values[0, 2] = -1.0, 0.5
    given = replace(GOOD, values=values)
    table = section_of(given).blocks[-1].tables[0]
    assert [row[0] for row in table.rows[:2]] == ["prompts[7]", "prompts[2]"]
    assert "Text" not in table.columns
    words = tuple(("a", f" <b>{i}") for i in range(8))
    about = {name: JUDGED_ON[name] for name in ("weights_hash", "task", "notes")}
    seen = AttentionPatterns((Head(1, 0),), words, (torch.eye(2)[None],) * 8, about)
    found = evaluation_section(given, [given, seen])
    assert found is not None
    assert found.blocks[-1].tables[0].rows[0][-1] == "a <b>7"
    assert "On 2 of 20 it lacks more than half" in found.blocks[-1].meaning


def curve(f: list[float], random: float, **about: Any) -> Curve:
    values = torch.tensor(f)[None, :, None] + 0.01 * NOISE
    return Curve(
        sizes=(0.1, 0.5, 1.0), edges=(4, 23, 46), values=values, clean=torch.ones(N),
        empty=torch.zeros(1, N), random=torch.full((1, 2, 3, N), random),
        ablations=("counterfactual",), metric="logit_diff",
        provenance={"scores": FOUND_ON, "rank": "abs", "select": "top", **JUDGED_ON, **about},
    )  # fmt: skip


def test_a_curve_nearer_to_the_whole_than_random_rankings_is_found() -> None:
    assert claim_of(curve([0.8, 0.9, 1.0], random=0.1)).verdict == "found"
    assert claim_of(curve([0.1, 0.1, 0.1], random=0.1)).verdict == "doubtful"
    assert claim_of(curve([-1.0, -1.0, 1.0], random=0.9)).verdict == "not found"


def triple(difference: float, effect: float, *, spread: float = 0.01) -> Triple:
    """Two K that differ so much, and two nodes that matter so much; the model has 4."""
    zero = torch.zeros(N)
    return Triple(
        circuit=a_circuit(),
        evaluation=GOOD,
        sets=((), (Head(0, 1),)),
        kinds=("none", "greedy"),
        circuit_without=torch.stack([GOOD.clean, 3 + difference + spread * NOISE]),
        model_without=torch.stack([GOOD.clean, zero + 3]),
        nodes=(Head(0, 1), Head(1, 0)),
        best=((), ()),
        best_kinds=("none", "none"),
        before=torch.stack([zero, zero]),
        after=torch.stack([effect + spread * NOISE, spread * NOISE - 1]),
        provenance=JUDGED_ON,
    )


def test_completeness_and_minimality_follow_from_their_intervals() -> None:
    complete, minimal = evidence(triple(0.2, 1.0)).claims
    assert complete.statement.startswith("The circuit is complete: without 0.1 it differs")
    assert (complete.verdict, minimal.verdict) == ("found", "found")
    assert minimal.statement == "2 of the 2 nodes that were tried are needed."
    complete, minimal = evidence(triple(-2.0, 0.0)).claims
    assert complete.statement.startswith("The circuit is not complete: without 0.1 it differs")
    assert "by 50% of what" in complete.statement
    assert (complete.verdict, minimal.verdict) == ("not found", "doubtful")
    assert "not shown for 0.1" in minimal.evidence
    assert claim_of(triple(0.8, 0.0, spread=1.0)).verdict == "doubtful"


def stability(jaccard: float) -> Stability:
    pairs = (jaccard + 0.02 * torch.linspace(-1, 1, 30)).double()
    return Stability(
        sites=SHAPE.edges, sizes=(2, 12), jaccard=torch.stack([pairs / 2, pairs]),
        spearman=pairs, frequency=torch.ones(2, 46).double(), n=64, provenance=FOUND_ON,
    )  # fmt: skip


def test_stability_is_told_at_the_size_of_the_circuit_beside_chance() -> None:
    claim = claim_of(stability(0.8), a_circuit())
    assert claim.statement == "On other prompts, 80% of the strongest 12 would be the same."
    assert claim.verdict == "found"
    assert claim_of(stability(0.5)).verdict == "doubtful"
    assert claim_of(stability(0.1)).verdict == "not found"


def known(auc: str) -> Recall:
    known = Circuit.from_edges(SHAPE, [SHAPE.edges[i] for i in range(3)])
    found = recall(replace(known, scores=known.kept.float(), provenance=FOUND_ON), known)
    draws = {"high": [0.9, 0.95], "wide": [0.3, 0.9], "low": [0.2, 0.4], "none": []}[auc]
    return replace(found, resampled=torch.tensor(draws, dtype=torch.float64))


@pytest.mark.parametrize(
    ("auc", "verdict"),
    [("high", "found"), ("wide", "doubtful"), ("low", "not found"), ("none", "doubtful")],
)
def test_recall_is_judged_by_its_interval_beside_one_half(auc: str, verdict: str) -> None:
    assert claim_of(known(auc)).verdict == verdict


def repair(joint: float) -> SelfRepair:
    """Two heads that cost 1 each, and so much together; random pairs add up."""
    sites = tuple(Head(layer, head) for layer in range(2) for head in range(2))
    clean = 4 + 0.01 * NOISE
    single = (clean - 1).expand(4, N)
    gone = (clean - joint).expand(4, N).clone()
    return SelfRepair(
        primaries=sites[:2], sites=sites, clean=clean, single=single, joint=clean - joint,
        after=gone, random_sets=(sites[2:],) * 30, random_joint=(clean - 2).expand(30, N),
        random_after=torch.zeros(0, 4, N), threshold=0.02, metric="logit_diff",
        provenance=JUDGED_ON,
    )  # fmt: skip


def test_self_repair_is_found_where_heads_matter_more_together_than_one_by_one() -> None:
    claim = claim_of(repair(3.0))
    assert claim.statement == "Others stand in for 0.0 and 0.1 when only some of them are gone."
    assert claim.verdict == "found"
    assert claim_of(repair(1.5)).verdict == "not found"


def test_results_belong_to_their_circuit_alone() -> None:
    mine = a_circuit()
    other = a_circuit().keeping(~mine.kept)
    elsewhere = a_circuit(weights_hash="cd", prompts_hash="other")
    for result in (GOOD, triple(0.2, 1.0), curve([1.0] * 3, 0.0), stability(0.8), known("high")):
        assert belongs(result, mine)
        assert not belongs(result, elsewhere)
    assert not belongs(GOOD, other)
    assert not belongs(repair(3.0), mine)  # 0.0 is not in it
    assert belongs(replace(repair(3.0), primaries=(Head(0, 1), Head(1, 0))), mine)


def test_a_circuit_gathers_all_that_belongs_to_it_in_one_section() -> None:
    results = (a_circuit(), GOOD, curve([0.8, 0.9, 1.0], 0.1), triple(0.2, 1.0), stability(0.8))
    (section,) = build(*results).sections
    assert section.heading == "The circuit of ioi in toy"
    share = f"{100 * 12 / 46:.1f}%"
    assert (
        section.claims[0].statement == f"These 12 edges ({share} of the model) do 90% of ioi alone."
    )
    assert len(section.claims) == 5
    assert section.baselines is not None
    graph = section.blocks[0].figures[0].drawing
    assert graph.data["whole"]["f"] == pytest.approx(0.9, abs=0.01)
    assert [each["edges"] for each in graph.data["measured"]] == [4, 23, 46]
    assert section.command.splitlines()[:3] == [
        "model = interp.load('toy')",
        "prompts = interp.tasks.get('ioi').sample(model, n=64, seed=0, split='train')"
        "  # hash train",
        "circuit = interp.circuits.discover(model, prompts, method='eap')",
    ]
    assert "interp.circuits.evaluate(model, prompts, circuit" in section.command


def test_without_their_circuit_results_have_sections_of_their_own() -> None:
    results = (GOOD, curve([0.8, 0.9, 1.0], 0.1), triple(0.2, 1.0), stability(0.8), known("high"))
    assert len(build(*results, repair(3.0)).sections) == 6
    other = a_circuit(weights_hash="cd")
    assert evaluation_section(GOOD, [GOOD, other]) is not None
    assert companion_section(triple(0.2, 1.0), [a_circuit()]) is None


def test_a_ranking_that_the_graph_does_not_show_is_not_told_by_its_slider() -> None:
    signed = curve([0.8, 0.9, 1.0], 0.1, rank="signed")
    section = circuit_section(a_circuit(), [signed, GOOD])
    assert section.blocks[0].figures[0].drawing.data["measured"] == []


def test_an_unmeasured_circuit_claims_nothing() -> None:
    section = circuit_section(a_circuit())
    assert section.claims[0].verdict == "doubtful"
    assert section.claims[0].statement.endswith("do alone was not measured.")
    assert section.baselines is None


def test_nodes_and_heads_carry_the_sums_of_their_scores() -> None:
    edges = ["input->0.1.v", "0.1->1.0.q", "0.1->1.0.k", "1.0->logits"]
    scores = torch.full((len(SHAPE.edges),), math.nan)
    for value, name in enumerate(edges, 1):
        scores[[str(edge) for edge in SHAPE.edges].index(name)] = float(value)
    section = circuit_section(Circuit.from_edges(SHAPE, edges, scores=scores))
    table = section.blocks[1].tables[0]
    assert table.columns == ("Node", "Edges in", "Scores in", "Edges out", "Scores out", "Role")
    assert table.rows == (("0.1", 1, 1.0, 2, 5.0, ""), ("1.0", 2, 5.0, 1, 4.0, ""))
    heads = section.blocks[1].figures[0].data
    assert heads is not None
    assert heads.rows[0][2] == 5.0
    drawn = section.blocks[0].figures[0].data
    assert drawn is not None
    assert drawn.rows[0] == ("1.0->logits", "1.0", "logits", 4.0)


def test_hostile_labels_are_escaped() -> None:
    bad = '</script><img src=x onerror="window.hacked = 1">'
    circuit = a_circuit(task=bad, command=bad).labelled({Head(1, 0): (bad,)})
    html = build(circuit, GOOD).html
    assert "<img" not in html
    assert "&lt;img src=x" in html


@pytest.fixture(scope="module")
def some() -> dict[str, Circuit]:
    model = load("polymath", check=False)
    return {
        "a": Circuit.from_nodes(model, ["2.1", "2.5", "2.6", "3.5"]),
        "b": Circuit.from_nodes(model, ["2.1", "2.5", "2.6", "4.0"]),
        "c": Circuit.from_nodes(model, ["0.0", "5.1"]),
    }


def test_shared_heads_are_told_with_chance(some: dict[str, Circuit]) -> None:
    model = load("polymath", check=False)
    shared = overlap(model, some, permutations=20)
    claims = overlap_section(shared).claims
    assert [claim.statement for claim in claims] == [
        "a and b share more heads than by chance.",
        "a and c share no more heads than by chance.",
        "b and c share no more heads than by chance.",
    ]
    assert [claim.verdict for claim in claims[1:]] == ["not found", "not found"]
    assert "3 of 4 and 4 heads, IoU 0.60 (by chance" in claims[0].evidence
    blocks = overlap_section(shared).blocks
    assert [block.heading for block in blocks] == ["Shared heads", "Shared nodes", "Shared edges"]
    assert blocks[0].tables[0].rows[0][:2] == ("a, b", 0.6)
    assert blocks[0].tables[0].rows[0][-3:] == (3, 4, 4)


def test_roles_are_shown_with_the_overlap_of_the_same_circuits(some: dict[str, Circuit]) -> None:
    model = load("polymath", check=False)
    roles = shared_roles(some, {Head(2, 1): ("induction",), Head(0, 0): ("previous-token",)})
    shared = overlap(model, some, permutations=5)
    (section,) = build(shared, roles).sections
    assert section.blocks[-1].heading == "Which kinds of heads are shared"
    (alone,) = build(roles).sections
    assert alone.claims[0].statement == "a and b share 1 induction heads."


def test_what_a_circuit_does_elsewhere_stands_beside_random_ones(some: dict[str, Circuit]) -> None:
    from interp import tasks

    model = load("polymath", check=False)
    prompts = tasks.get("ioi").sample(model, n=4, seed=0)
    pair = {name: (some[name], prompts) for name in ("a", "c")}
    shared = overlap(model, pair, permutations=5, random=1, progress=False)
    (section,) = build(shared, shared.cross, shared.dissociation).sections
    headings = [block.heading for block in section.blocks]
    assert "Each circuit on each task" in headings
    assert "What is lost without each circuit's heads" in headings
    assert "random circuits" in section.claims[0].evidence
    assert " to " in section.claims[0].evidence
    assert len(build(shared.cross, shared.dissociation).sections) == 2
