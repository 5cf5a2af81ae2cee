"""Task vectors as sections of a report: found, judged, and side by side."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.report.difference import judged
from interp.report.drawing.chart import Series, curves, points
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    interval,
    listed,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, pairs_of, rerun, template_of
from interp.vectors import TaskEvaluation, TaskTable, TaskVector
from interp.vectors.task_vectors.task_evaluation import CONDITIONS, CONTROLS

ACCURACY = (0.0, 1.0)
ENDS = ("ci_low", "ci_high")


def task_vector_section(found: TaskVector, results: Sequence[object] = ()) -> Section:
    """At which layer a vector does its task best, on the queries that the layer was chosen on."""
    frame, known = found.to_frame(), found.provenance
    row = frame.loc[found.layer]
    name, model = found.relation.name, str(known["model"])
    size = f"{of(int(row['n']))} prompts of {int(row['queries'])} tuning queries"
    layers = [str(layer) for layer in frame["layer"]]
    drawing = curves(
        [
            Series.of(frame, "accuracy", "task vector", ends=ENDS),
            Series.of(frame, "dummy", "answered as a dummy query", control=True),
            Series.of(frame, "regular", "with demonstrations", control=True),
        ],
        layers,
        label=f"Accuracy on {name} with the task vector put in at each layer. Best: layer "
        f"{found.layer} with {number(row['accuracy'])}. All values are in the table.",
        across="layer",
        limits=ACCURACY,
        level=("no demonstrations", float(row["baseline"])),
    )
    return Section(
        heading=f"The task vector of {name} in {model}, by layer",
        lead=(
            f"What {found.shots} demonstrations leave at the separator replaces what a block gives "
            "there when the query stands alone. The block is the one with the best answers."
        ),
        claims=(
            Claim(
                f"With the vector after layer {found.layer}, {model} answers "
                f"{number(row['accuracy'])} of the tuning queries of {name}.",
                f"{number(row['accuracy'])} ({interval(row['ci_low'], row['ci_high'])}); without "
                f"demonstrations {number(row['baseline'])}, with them {number(row['regular'])}; "
                f"answered as a dummy query {number(row['dummy'])}; {size}. The layer was chosen "
                "on these queries: TaskVector.evaluate judges it on others.",
                "not found" if row["accuracy"] <= row["baseline"] else "doubtful",
            ),
        ),
        blocks=(
            Block(
                f"Accuracy on {name}, by layer",
                "Where the accuracy with the vector comes near that with demonstrations, what "
                "stands at the separator there is enough to do the task. Answers to a dummy query "
                "say that the vector holds that query rather than the task.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Bands are 95% intervals over queries; {size}.",
                        data=frame_table(f"Accuracy on {name} at every layer", frame),
                    ),
                ),
            ),
        ),
        limits=(
            "The best layer of several looks better than it is: its queries chose it.",
            "No control is measured here; a random vector may do as much.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.vectors.task_vector(model, {_how(found, len(found.asked))})",
        ),
        baselines=Table(
            f"Tuning queries answered, {of(int(row['n']))}",
            ("Prompt", "Accuracy"),
            (
                ("the query alone", float(row["baseline"])),
                ("demonstrations and the query", float(row["regular"])),
            ),
        ),
    )


def _how(found: TaskVector, n_dev: int) -> str:
    """The arguments of `task_vector`."""
    known = found.provenance
    how = arguments(
        shots=found.shots,
        queries=found.queries,
        n_dev=n_dev,
        layer=found.layer if known.get("chosen") == "by the caller" else None,
        seed=known.get("vector_seed"),
    )
    return f"{pairs_of(found.relation.name)}, {how}{template_of(known)}"


def task_evaluation_section(judged_on: TaskEvaluation, results: Sequence[object] = ()) -> Section:
    """Whether a task vector exceeds its controls on queries that nothing was chosen on."""
    frame, known = judged_on.to_frame(), judged_on.provenance
    model, name = str(known["model"]), judged_on.relation
    size = f"{of(judged_on.n)} prompts of {judged_on.queries} queries"
    told = frame.assign(condition=[each.replace("_", " ") for each in frame["condition"]])
    at = frame["condition"].tolist().index("hypothesis")
    alone, beside = told.copy(), told.copy()
    hidden = [*ENDS, "accuracy"]
    alone.loc[alone.index != at, hidden] = float("nan")
    beside.loc[at, hidden] = float("nan")
    drawing = points(
        [
            Series.of(alone, "accuracy", "the vector", ends=ENDS),
            Series.of(beside, "accuracy", "what it is compared with", ends=ENDS, control=True),
        ],
        told["condition"].tolist(),
        label=f"Accuracy on {name} under each condition. The hypothesis has "
        f"{number(judged_on.accuracy('hypothesis'))}. All values are in the table.",
        across="share of test queries answered",
        limits=ACCURACY,
    )
    return Section(
        heading=f"Does the task vector of {name} do its task in {model}?",
        lead=(
            "The vector of each prompt's own demonstrations is set at the end of its query alone, "
            f"after layer {judged_on.layer}. It has to beat the query alone and vectors that are "
            "not the task's."
        ),
        claims=(_evaluated(judged_on, frame, model, size),),
        blocks=(
            Block(
                f"Answers to {name} under every condition",
                "Excess is what the hypothesis answers more than the condition, on the same "
                "queries; a control is exceeded where the whole interval is above 0.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Lines are 95% intervals over queries; {size}.",
                        data=frame_table(f"Every condition, {size}", frame),
                    ),
                ),
                (
                    Table(
                        "What the conditions are",
                        ("Condition", "What stands at the end of the query, or before it"),
                        tuple(
                            (each.replace("_", " "), CONDITIONS[each]) for each in frame.condition
                        ),
                    ),
                ),
            ),
        ),
        limits=_LIMITS,
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"found = interp.vectors.task_vector(model, {pairs_of(name)}, "
            + arguments(
                shots=known.get("shots"), queries=known.get("queries"), layer=judged_on.layer
            )
            + f"{template_of(known)})",
            f"found.evaluate(model, {arguments(n=judged_on.n, seed=known.get('test_seed'))})",
        ),
        baselines=_baselines(frame, size),
    )


_LIMITS = (
    "Intervals are over queries: they say nothing of other models, templates or demonstrations.",
    "With learned positions a vector also brings the position that it was taken from.",
)


def _baselines(frame: pd.DataFrame, size: str) -> Table:
    rows = frame[frame["condition"].isin(["baseline", "regular"])]
    return Table(
        f"Test queries answered without any vector, {size}",
        ("Prompt", "Accuracy", "95% interval"),
        tuple(
            (CONDITIONS[row["condition"]], row["accuracy"], interval(row["ci_low"], row["ci_high"]))
            for _, row in rows.iterrows()
        ),
    )


def _evaluated(judged_on: TaskEvaluation, frame: pd.DataFrame, model: str, size: str) -> Claim:
    """By the class's own rule; not found where the hypothesis is not even above a control."""
    controls = frame[frame["control"]]
    least = controls.loc[controls["excess"].idxmin()]
    verdict = judged(float(least["excess"]), float(controls["excess_low"].min()))
    does = {
        "found": "beyond all its controls",
        "doubtful": "but not clearly beyond all its controls",
        "not found": "no better than a control",
    }[verdict]
    row = frame.set_index("condition").loc["hypothesis"]
    others = ", ".join(
        f"{each['condition'].replace('_', ' ')} {number(each['accuracy'])}"
        for _, each in controls.iterrows()
    )
    return Claim(
        f"The task vector of {judged_on.relation}, set after layer {judged_on.layer} of {model}, "
        f"answers {number(row['accuracy'])} of the queries, {does}.",
        f"{number(row['accuracy'])} ({interval(row['ci_low'], row['ci_high'])}); with "
        f"demonstrations {number(judged_on.accuracy('regular'))}; controls: {others}; it exceeds "
        f"{least['condition'].replace('_', ' ')} least, by {number(least['excess'], sign=True)} "
        f"({interval(least['excess_low'], least['excess_high'])}); {size}. It "
        f"{judged_on.verdict.replace('_', ' ')}.",
        verdict,
    )


def task_table_section(table: TaskTable, results: Sequence[object] = ()) -> Section:
    """The task-vector table: every relation with its hypothesis, baselines and controls."""
    frame, summary, known = table.to_frame(), table.summary(), table.provenance
    model, count = str(known["model"]), len(table.evaluations)
    return Section(
        heading=f"Task vectors of {count} relations in {model}",
        lead=(
            "For every relation, the vectors that demonstrations leave are put in the place of "
            "demonstrations, and compared with those of other relations, of shuffled labels, with "
            "random vectors, and with the query alone."
        ),
        claims=(_tabled(table, summary, model),),
        blocks=(_relations(frame, model), _table(frame, table), _conditions(summary, model)),
        limits=(
            *_LIMITS,
            f"Each of {count} relations is judged on its own: among many, one may exceed its "
            "controls by chance.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            "interp.vectors.task_table(model, "
            + f"[{', '.join(pairs_of(each) for each in known.get('relations', []))}], "
            + arguments(**{name: known.get(name) for name in _TABLED})
            + f"{template_of(known)})",
        ),
    )


_TABLED = ("shots", "queries", "n", "n_dev", "seed")


def _tabled(table: TaskTable, summary: pd.DataFrame, model: str) -> Claim:
    fine = [each.relation for each in table.evaluations if not each.not_exceeded]
    count = len(table.evaluations)
    named = f": {listed(fine, most=8)}" if fine else ""
    means = "; ".join(
        f"{row['condition'].replace('_', ' ')} {number(row['accuracy'])} "
        f"({interval(row['ci_low'], row['ci_high'])})"
        for _, row in summary.iterrows()
        if row["condition"] in ("hypothesis", "regular", *CONTROLS)
    )
    return Claim(
        f"In {model}, the task vectors of {len(fine)} of {count} relations exceed all their "
        f"controls{named}.",
        f"Means over {of(count)} relations: {means}. Hypothesis over regular "
        f"{number(table.ratio)}.",
        "not found" if not fine else "found" if len(fine) == count else "doubtful",
    )


def _relations(frame: pd.DataFrame, model: str) -> Block:
    told = frame.assign(least=frame["hypothesis"] - frame["excess"])
    drawing = points(
        [
            Series.of(
                told, "hypothesis", "task vector", ends=("hypothesis_low", "hypothesis_high")
            ),
            Series.of(told, "regular", "with demonstrations"),
            Series.of(told, "baseline", "the query alone", control=True),
            Series.of(told, "least", "control that it exceeds least", control=True),
        ],
        told["relation"].tolist(),
        label="Accuracy of every relation with its task vector, with demonstrations, and of its "
        "controls. All values are in the table.",
        across="share of test queries answered",
        limits=ACCURACY,
    )
    return Block(
        "Every relation",
        "A task vector is one where the vector's accuracy is beyond every control: the query "
        "alone, the vectors of another relation and of shuffled labels, a random vector, and the "
        "answers to other queries. Least excess is over the control that comes nearest.",
        (
            Figure(
                model,
                drawing,
                "Lines are 95% intervals over queries.",
                data=frame_table("Every number of every relation", frame),
            ),
        ),
    )


def _table(frame: pd.DataFrame, table: TaskTable) -> Block:
    """All controls of every relation, and how many of them the vector does not exceed."""
    told = frame.assign(left=[len(each.not_exceeded) for each in table.evaluations])
    shown = {
        "relation": "Relation",
        "layer": "Layer",
        "hypothesis": "Task vector",
        "baseline": "Query alone",
        "regular": "Demonstrations",
        "other_relation": "Other relation",
        "shuffled_labels": "Shuffled labels",
        "random_vector": "Random vector",
        "other_query": "Other queries",
        "excess": "Least excess",
        "excess_low": "from",
        "excess_high": "to",
        "left": "Controls not exceeded",
        "queries": "Queries",
        "n": "n",
    }
    return Block(
        "The task-vector table",
        "Accuracy on test queries under every condition, and by how much the vector exceeds the "
        "control that it exceeds least.",
        tables=(frame_table("Every relation and condition", told, shown, digits=2),),
    )


def _conditions(summary: pd.DataFrame, model: str) -> Block:
    drawing = points(
        [Series.of(summary, "accuracy", "mean over relations", ends=ENDS)],
        [each.replace("_", " ") for each in summary["condition"]],
        label="Mean accuracy over relations under each condition. All values are in the table.",
        across="share of test queries answered",
        limits=ACCURACY,
    )
    told = summary.assign(condition=[each.replace("_", " ") for each in summary["condition"]])
    return Block(
        "Over relations",
        "The mean of each condition over relations; intervals resample relations. "
        + "; ".join(
            f"{name.replace('_', ' ')}: {CONDITIONS[name]}" for name in summary["condition"]
        )
        + ".",
        (Figure(model, drawing, "Lines are 95% intervals over relations."),),
        (
            frame_table(
                "Every condition",
                told,
                {
                    "condition": "Condition",
                    "accuracy": "Accuracy",
                    "ci_low": "from",
                    "ci_high": "to",
                    "relations": "Relations",
                },
            ),
        ),
    )
