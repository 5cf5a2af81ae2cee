"""What circuits do alone: claims, baselines and failures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from interp.circuits import Circuit, Evaluation
from interp.heads import AttentionPatterns
from interp.plots.circuit_graph import Explained
from interp.report.circuits.evidence import same
from interp.report.drawing import chart
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Cell,
    Claim,
    Figure,
    Section,
    Table,
    interval,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, rerun, sampled
from interp.stats import bootstrap_ci

WORST = 5
LIMITS = (
    "A circuit is judged on prompts of one task, with one kind of ablation.",
    "A share above 1 is possible: what works against the task was left out.",
)


def evaluation_section(evaluation: Evaluation, results: Sequence[object] = ()) -> Section | None:
    """The circuits of an evaluation that are not among the results themselves; None if all are."""
    given = [each for each in results if isinstance(each, Circuit)]
    names = [
        name
        for name, circuit in evaluation.circuits.items()
        if not any(same(circuit, each) for each in given)
    ]
    if not names:
        return None
    about = evaluation.provenance
    task = about.get("task") or "the task"
    return Section(
        heading=f"What circuits do alone on {task}",
        lead=(
            f"Everything outside a circuit is ablated ({evaluation.ablation}). The share of "
            f"{evaluation.metric} that is left, 0 for no circuit at all and 1 for the whole model, "
            f"stands beside that of random circuits of the same size."
        ),
        claims=tuple(alone(evaluation, name, f"The circuit {name}") for name in names),
        blocks=(
            *([] if evaluation.costs_nothing else [_shares(evaluation)]),
            *(failures(evaluation, name, results) for name in names),
        ),
        limits=LIMITS,
        provenance=provenance_rows(about),
        command=rerun(about, sampled(about), call(evaluation, "circuits")),
        baselines=baselines(evaluation, names),
    )


def name_of(evaluation: Evaluation, circuit: Circuit) -> str:
    """What the evaluation calls a circuit that it holds."""
    return next(name for name, each in evaluation.circuits.items() if same(each, circuit))


def alone(
    evaluation: Evaluation,
    name: str,
    subject: str,
    *,
    found_on: Mapping[str, Any] | None = None,
) -> Claim:
    """What a circuit does alone, beside random ones of its size.

    Args:
        evaluation: It holds the circuit.
        name: What it calls the circuit.
        subject: What the sentence calls it.
        found_on: Provenance of the circuit; its own by default.
    """
    row, about = _row(evaluation, name), evaluation.provenance
    circuit = evaluation.circuits[name]
    known = circuit.provenance if found_on is None else found_on
    held_out, drawn = _held_out(known, about)
    size = f"{int(row['edges']):,} edges, {100 * row['edge_share']:.1f}% of the model"
    told = f"f {number(row['f'])} ({interval(row['f_low'], row['f_high'])})"
    evidence = f"{size}; {drawn}; {evaluation.ablation} ablation; {of(int(row['n']))}."
    verb = "do" if subject.startswith("These") else "does"
    if evaluation.costs_nothing:
        statement = f"What {subject[0].lower()}{subject[1:]} {verb} alone cannot be told."
        return Claim(statement, f"{evaluation.costs_nothing} {evidence}", "doubtful")
    task = about.get("task") or "the task"
    statement = f"{subject} {verb} {_percent(row['f'])} of {task} alone."
    if "random_f" not in row:
        return Claim(statement, f"{told}; no random circuits; {evidence}", "doubtful")
    draws = evaluation.random.shape[1]
    beside = f"{draws} random circuits of its size {number(row['random_f'])}"
    if "control_f" in row:
        other = evaluation.control.provenance.get("model") if evaluation.control else ""
        beside += f"; the same edges in {other} {number(row['control_f'])}"
    evidence = f"{told}; {beside}; {evidence}"
    if row["gain_high"] <= 0:
        return Claim(statement, evidence, "not found")
    return Claim(statement, evidence, "found" if row["gain_low"] > 0 and held_out else "doubtful")


def _held_out(found: Mapping[str, Any], judged: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a circuit is judged on other prompts than those it was found on, and words for it."""
    one, other = (known.get("prompts_hash") for known in (found, judged))
    if one is None or other is None:
        return True, "which prompts it was found on is not known"
    drawn = [
        [known.get("task"), *((known.get("notes") or {}).get(name) for name in ("seed", "split"))]
        for known in (found, judged)
    ]
    if one == other or (drawn[0] == drawn[1] and drawn[0][1] is not None):
        return False, "judged on prompts that it was found on, not on held-out ones"
    splits = [each[2] for each in drawn]
    if splits[0] != splits[1] and "all" not in splits and None not in splits:
        return True, f"held-out prompts ({splits[1]} split; found on the {splits[0]} split)"
    return True, "other prompts than those it was found on"


def explained(evaluation: Evaluation, name: str) -> Explained | None:
    """What the circuit does alone, for its drawing; None where that cannot be told."""
    if evaluation.costs_nothing:
        return None
    row = _row(evaluation, name)
    return Explained(
        edges=int(row["edges"]),
        f=float(row["f"]),
        low=float(row["f_low"]),
        high=float(row["f_high"]),
        random=float(row.get("random_f", math.nan)),
        n=int(row["n"]),
    )


def baselines(evaluation: Evaluation, names: Sequence[str]) -> Table:
    """The metric of the whole model, without any edge, of random circuits and of the circuits."""
    corrupt = " (the corrupt prompts)" if evaluation.ablation == "counterfactual" else ""
    rows = [
        ("The whole model, clean", evaluation.clean),
        (f"No edge kept: everything ablated{corrupt}", evaluation.empty),
    ]
    places = {name: row for row, name in enumerate(evaluation.circuits)}
    for name in names:
        whose = f" {name}" if len(names) > 1 else ""
        draws = evaluation.random[places[name]]
        if len(draws):
            rows.append(
                (f"Random circuits of its size{whose}, mean of {len(draws)}", draws.mean(0))
            )
        rows.append((f"The circuit{whose} alone", evaluation.values[places[name]]))
        if evaluation.control is not None:
            rows += [
                (f"{evaluation.control.provenance.get('model')}, clean", evaluation.control.clean),
                (f"The circuit{whose} alone in it", evaluation.control.values[places[name]]),
            ]
    told = []
    for what, values in rows:
        low, high = bootstrap_ci(values[None])
        told.append((what, values.mean().item(), interval(low.item(), high.item()), len(values)))
    return Table(
        f"Baselines ({evaluation.ablation} ablation)",
        ("What", evaluation.metric, "95% interval", "n"),
        tuple(told),
    )


def failures(evaluation: Evaluation, name: str, results: Sequence[object] = ()) -> Block:
    """The prompts on which the circuit alone falls shortest of the model."""
    values = evaluation.values[list(evaluation.circuits).index(name)]
    gap, texts = evaluation.clean - evaluation.empty, prompt_texts(evaluation, results)
    short = (evaluation.clean - values) * gap.mean().sign()
    half = int((short > 0.5 * gap.mean().abs()).sum())
    rows: list[tuple[Cell, ...]] = []
    for index in short.argsort(descending=True)[:WORST].tolist():
        numbers = (each[index].item() for each in (values, evaluation.clean, evaluation.empty))
        rows.append((f"prompts[{index}]", *numbers, short[index].item(), texts.get(index, "")))
    columns = ["Prompt", "Circuit alone", "Whole model", "No edge", "Falls short by", "Text"]
    if not texts:
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    drawn = sampled(evaluation.provenance).partition("  #")[0]
    how = f"They can be drawn again: {drawn}." if not drawn.endswith("...") else ""
    return Block(
        "Where it fails" if len(evaluation.circuits) == 1 else f"Where {name} fails",
        f"The {len(rows)} of {len(values)} prompts on which the circuit alone falls shortest of "
        f"the model. On {half} of {len(values)} it lacks more than half of what ablating "
        f"everything costs on average. {how}",
        tables=(Table(f"Worst prompts ({evaluation.metric})", tuple(columns), tuple(rows)),),
    )


def prompt_texts(evaluation: Evaluation, results: Sequence[object]) -> dict[int, str]:
    """The text of prompts whose tokens stand in attention patterns among the results."""
    known = ("weights_hash", "task", "notes")
    for each in results:
        if isinstance(each, AttentionPatterns) and all(
            each.provenance.get(name) == evaluation.provenance.get(name, "") for name in known
        ):
            return {index: as_text(words) for index, words in enumerate(each.tokens)}
    return {}


def as_text(words: Sequence[str]) -> str:
    """Tokens as one text; where none of them brings a space along, they are whole words.

    >>> as_text(["a", " cat"]), as_text(["a", "cat"])
    ('a cat', 'a cat')
    """
    return ("" if any(word[:1].isspace() for word in words) else " ").join(words)


def call(evaluation: Evaluation, circuits: str) -> str:
    """The line that evaluates."""
    about = evaluation.provenance
    how = arguments(
        ablation=evaluation.ablation,
        over=about.get("over"),
        metric=evaluation.metric,
        random=about.get("random"),
        seed=about.get("random_seed"),
    )
    return f"interp.circuits.evaluate(model, prompts, {circuits}, {how})"


def _shares(evaluation: Evaluation) -> Block:
    frame = evaluation.to_frame()
    series = [chart.Series.of(frame, "f", "the circuit alone", ends=("f_low", "f_high"))]
    if "random_f" in frame:
        series.append(chart.Series.of(frame, "random_f", "random circuits", control=True))
    if "control_f" in frame:
        series.append(chart.Series.of(frame, "control_f", "control model", control=True))
    figure = Figure(
        "Share of the task (f)",
        chart.points(
            series,
            [str(name) for name in frame["circuit"]],
            label="The f of each circuit with its interval: all values are in the table.",
            across="f",
            level=("the whole model", 1.0),
        ),
        "Whiskers are 95% intervals over prompts.",
        data=frame_table(f"All forms of the share, {of(len(evaluation.clean))}", frame),
    )
    return Block("How much of the task is left", "1 is what the whole model does.", (figure,))


def _row(evaluation: Evaluation, name: str) -> pd.Series:
    frame = evaluation.to_frame()
    return frame[frame["circuit"] == name].iloc[0]


def _percent(share: float) -> str:
    return f"{share:.0%}".replace("-", "−")
