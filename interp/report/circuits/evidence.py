"""What is said of a circuit beside its edges: which results belong to it, and what they show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from interp.circuits import Circuit, Curve, Evaluation, Recall, SelfRepair, Stability, Triple
from interp.report.drawing import chart
from interp.report.frame import frame_table
from interp.report.parts import Block, Claim, Figure, Table, Verdict, interval, listed, number, of

SAME_SCORES = ("weights_hash", "prompts_hash", "method", "metric")
"""What the provenance of two sets of scores has in common if they are the same."""
COMPLETE = 0.2
"""Share of the whole model's metric within which a circuit counts as complete."""
NEEDED = 0.01
"""Share of the whole model's metric from which a node counts as needed (Wang et al. 2023: 1%)."""
STEADY = 0.5
"""Intersection over union above which resampled circuits count as the same."""


@dataclass(frozen=True)
class Evidence:
    """A part of a section: claims, the blocks that show them, and what they cannot say."""

    claims: tuple[Claim, ...]
    blocks: tuple[Block, ...] = ()
    limits: tuple[str, ...] = ()


def same(one: Circuit, other: Circuit) -> bool:
    """Whether two circuits keep the same edges, at the same places, of the same weights."""
    known = "weights_hash"
    return one is other or (
        one.shape == other.shape
        and bool((one.kept == other.kept).all())
        and one.places == other.places
        and one.provenance.get(known) == other.provenance.get(known)
    )


def belongs(result: object, circuit: Circuit) -> bool:
    """Whether a result tells of this circuit, or of its scores."""
    if isinstance(result, Evaluation):
        return any(same(each, circuit) for each in result.circuits.values())
    if isinstance(result, Triple):
        return same(result.circuit, circuit)
    if isinstance(result, Curve):
        return _of_scores(result.provenance.get("scores", {}), circuit)
    if isinstance(result, Stability | Recall):
        return _of_scores(result.provenance, circuit)
    if isinstance(result, SelfRepair):
        return {*result.primaries} <= {*circuit.heads} and all(
            result.provenance.get(known) == circuit.provenance.get(known, "")
            for known in ("weights_hash", "task")
        )
    return False


def _of_scores(known: Mapping[str, Any], circuit: Circuit) -> bool:
    own = [circuit.provenance.get(name) for name in SAME_SCORES]
    return own[0] is not None and [known.get(name) for name in SAME_SCORES] == own


def evidence(result: object, circuit: Circuit | None = None) -> Evidence:
    """What a curve, triple, stability, recall or self-repair says; of a circuit, if it is known."""
    match result:
        case Curve():
            return _curve(result)
        case Triple():
            return _triple(result)
        case Stability():
            return _stability(result, None if circuit is None else int(circuit.kept.sum()))
        case Recall():
            return _recall(result)
        case SelfRepair():
            return _self_repair(result)
    raise TypeError(f"{type(result).__name__} is no evidence of a circuit.")


def _curve(curve: Curve) -> Evidence:
    frame, areas = curve.to_frame(), curve.areas().set_index(["ablation", "area"])
    claims = []
    for ablation in curve.ablations:
        row = areas.loc[(ablation, "CMD_log")]
        least = float(row["value"])
        verdict: Verdict = "found" if row["ci_high"] < row["random"] else "doubtful"
        claims.append(
            Claim(
                f"Averaged over sizes, circuits of the strongest edges are {least:.0%} away from "
                f"the whole task; of random edges {row['random']:.0%} ({ablation} ablation).",
                f"Mean of |1 − f| over the logarithm of the size (CMD_log) {number(least)} "
                f"({interval(row['ci_low'], row['ci_high'])}); random rankings "
                f"{number(row['random'])}; {len(curve.sizes)} sizes; {of(len(curve.clean))}.",
                "not found" if row["ci_low"] > row["random"] else verdict,
            )
        )
    figures = [
        Figure(
            f"{ablation} ablation",
            chart.curves(
                [
                    chart.Series.of(rows, "f", "strongest edges", ends=("f_low", "f_high")),
                    chart.Series.of(rows, "random_f", "random rankings", control=True),
                ],
                [f"{edges:,}" for edges in rows["edges"]],
                label=f"f by number of edges, {ablation} ablation: all values are in the table.",
                across="edges",
                level=("the whole model", 1.0),
            ),
            "The share of the task that the strongest edges do alone, by how many they are.",
            data=frame_table(f"By size, {ablation} ablation, {of(len(curve.clean))}", rows),
        )
        for ablation, rows in frame.groupby("ablation", sort=False)
    ]
    block = Block(
        "How much circuits of other sizes do",
        "The edges with the largest scores alone, for several sizes; bands are 95% intervals over "
        "prompts. A good ranking reaches 1 with few edges.",
        tuple(figures),
        (frame_table("Areas under these curves", curve.areas()),),
    )
    return Evidence(tuple(claims), (block,))


def _triple(triple: Triple) -> Evidence:
    criteria, complete, minimal = triple.to_frame(), triple.completeness(), triple.minimality()
    unit = f"{triple.evaluation.metric}, {triple.evaluation.ablation} ablation"
    block = Block(
        "Faithful, complete, minimal",
        "F(C) is the mean metric of the circuit, F(M) that of the model, K a set of nodes. "
        "Faithful: |F(M) − F(C)| is small. Complete: |F(C − K) − F(M − K)| is small for every K, "
        "so that nothing outside does the work of K. Minimal: each node matters for some K.",
        tables=(
            frame_table(f"The three criteria ({unit})", criteria),
            frame_table(
                "Completeness, the K with the largest differences",
                complete.sort_values("score", ascending=False).head(12),
            ),
            frame_table("Minimality, every node with the K that shows it best", minimal),
        ),
    )
    limits = (
        "Greedy K are chosen on the prompts that they are reported on: theirs is the largest "
        "difference that was found, and its interval leaves the choice out. Minimality has no "
        "random control.",
    )
    return Evidence((_completeness(triple), _minimality(triple)), (block,), limits)


def _completeness(triple: Triple) -> Claim:
    """Complete if the interval of the largest difference is within a share of F(M)."""
    frame, whole = triple.completeness(), triple.evaluation.clean.mean().item()
    worst = frame.loc[frame["score"].idxmax()]
    ends = sorted(abs(float(worst[name]) / whole) for name in ("ci_low", "ci_high"))
    crosses = worst["ci_low"] <= 0 <= worst["ci_high"]
    least, most = (0.0 if crosses else ends[0]), ends[1]
    verdict: Verdict = (
        "found" if most <= COMPLETE else "not found" if least > COMPLETE else "doubtful"
    )
    if math.isnan(least + most):
        verdict = "doubtful"
    random = frame[frame["kind"] == "random"]["share"]
    beside = f"; random K {random.mean():.0%} on average" if len(random) else ""
    without = f"without {listed(worst['nodes'].split())}" if worst["nodes"] else "as it is"
    says = {
        "found": "The circuit is complete",
        "not found": "The circuit is not complete",
        "doubtful": "Whether the circuit is complete cannot be told",
    }[verdict]
    return Claim(
        f"{says}: {without} it differs from the model so treated by {worst['share']:.0%} of what "
        "the model has.",
        f"Largest of {len(frame)} sets K, {worst['kind']}: difference "
        f"{number(worst['difference'], sign=True)} "
        f"({interval(worst['ci_low'], worst['ci_high'])}) of {number(whole)}{beside}; complete "
        f"means within {COMPLETE:.0%}; {of(int(worst['n']))}.",
        verdict,
    )


def _minimality(triple: Triple) -> Claim:
    """A node is needed if its interval lies beyond a hundredth of F(M), on either side of 0."""
    frame, least = triple.minimality(), NEEDED * abs(triple.evaluation.clean.mean().item())
    needed = (frame["ci_low"] > least) | (frame["ci_high"] < -least)
    idle = frame[~needed]["node"].tolist()
    count, total = int(needed.sum()), len(frame)
    verdict: Verdict = "found" if count == total else "not found" if count == 0 else "doubtful"
    rest = f"; not shown for {listed(idle)}" if idle else ""
    return Claim(
        f"{count} of the {total} nodes that were tried are needed.",
        f"Needed means that taking the node out changes the metric by more than {NEEDED:.0%} of "
        f"the model's for some K, with the whole interval{rest}; {of(int(frame['n'].iloc[0]))}.",
        verdict,
    )


def _stability(stability: Stability, size: int | None) -> Evidence:
    frame = stability.to_frame()
    near = frame["size"] - (size or frame["size"].max())
    row = frame.loc[near.abs().idxmin()]
    low, chance = float(row["low"]), float(row["chance"])
    verdict: Verdict = "found" if low > max(STEADY, chance) else "doubtful"
    if row["high"] <= chance:
        verdict = "not found"
    claim = Claim(
        f"On other prompts, {row['jaccard']:.0%} of the strongest {int(row['size'])} would be the "
        "same.",
        f"Intersection over union of two resamples of the prompts {number(row['jaccard'])} (middle "
        f"95% of {stability.jaccard.shape[1]} pairs {interval(low, row['high'])}; by chance "
        f"{number(chance)}); {int(row['steady'])} are among them in 90% of resamples; "
        f"{of(stability.n)}. Steady means above {STEADY}.",
        verdict,
    )
    block = Block(
        "Would other prompts give the same?",
        "The prompts are drawn again with replacement, twice, and the strongest of both draws are "
        "compared: how much of their union they share, beside two random sets.",
        tables=(frame_table(f"By size, {of(stability.n)}", frame),),
    )
    return Evidence((claim,), (block,))


def _recall(recall: Recall) -> Evidence:
    low, high = recall.ci()
    known, total = int(recall.known.sum()), len(recall.sites)
    verdict: Verdict = "found" if low > 0.5 else "not found" if high <= 0.5 else "doubtful"
    claim = Claim(
        f"The scores put a known circuit first with an AUC of {number(recall.auc)}.",
        f"ROC AUC {number(recall.auc, digits=3)} ({interval(low, high, digits=3)}); by chance "
        f"0.500; {known} of {total} ranked are in the known circuit.",
        verdict,
    )
    sizes = sorted({min(total, size) for size in (1, 2, 5, 10, 20, 50, 100, 200, 500, known)})
    block = Block(
        "Does the ranking find a known circuit?",
        "Precision is the share of the first so many that are known, recall their share of all "
        "that are known; a random ranking has the precision of the last column.",
        tables=(frame_table("By size", recall.to_frame(sizes)),),
    )
    return Evidence((claim,), (block,))


def _self_repair(repair: SelfRepair) -> Evidence:
    row, heads = repair.summary().iloc[0], [str(site) for site in repair.primaries]
    found = row["ci_low"] > 0 and row["p"] <= 0.05
    verdict: Verdict = (
        "found" if found else "not found" if row["excess"] <= 0 or row["p"] > 0.5 else "doubtful"
    )
    stands = "Others" if found else "It is not shown that others"
    claim = Claim(
        f"{stands} stand in for {listed(heads)} when only some of them are gone.",
        f"Together they cost {number(row['joint_damage'])}, one by one "
        f"{number(row['sum_of_damages'])} in sum: {number(row['excess'], sign=True)} "
        f"({interval(row['ci_low'], row['ci_high'])}); random heads of the same layers "
        f"{number(row['random_excess'], sign=True)}, p {row['p']:.2g}; {int(row['backups'])} "
        f"backups, {number(row['random_backups'], digits=1)} of random heads; {of(int(row['n']))}.",
        verdict,
    )
    block = Block(
        "What steps in when heads are gone?",
        "The damage of each site before and after the heads are knocked out; a backup matters more "
        "afterwards, and more than after random heads.",
        tables=(_candidates(repair),),
    )
    return Evidence((claim,), (block,))


def _candidates(repair: SelfRepair) -> Table:
    frame = repair.to_frame().head(20)
    return frame_table(f"Candidates, the 20 largest gains ({repair.metric})", frame)
