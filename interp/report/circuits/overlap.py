"""What tasks share, as a section of a report: nodes and edges, each circuit on each task, roles."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import torch

from interp.circuits import CrossTask, Dissociation, Overlap, SharedRoles
from interp.report.difference import judged
from interp.report.drawing import svg
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    interval,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import rerun

KINDS = ("heads", "nodes", "edges")
SHARED = {
    "tasks": "Tasks",
    "iou": "IoU",
    "chance": "By chance",
    "p": "p",
    "strict_chance": "Strict chance",
    "strict_p": "Strict p",
    "shared": "Shared",
    "a": "Of",
    "b": "and of",
}


def overlap_section(shared: Overlap, results: Sequence[object] = ()) -> Section:
    """Which heads and edges circuits share, and whether one does the other's task."""
    frame = shared.to_frame()
    roles = [each for each in results if isinstance(each, SharedRoles) and _alike(each, shared)]
    run = "" if shared.cross is not None else "  # prompts too: each as (circuit, prompts)"
    circuits = ", ".join(f"{task!r}: {task}" for task in shared.tasks)
    return Section(
        heading="What tasks share",
        lead=(
            "Intersection over union (IoU) of the heads of each two circuits, beside what random "
            "sets of their sizes would share. Sharing heads is not doing the other's task: that is "
            "shown by running a circuit on it, and by ablating it."
        ),
        claims=tuple(_pair(row, shared) for _, row in frame.iterrows()),
        blocks=(
            *(_shared(shared, what) for what in KINDS),
            *([cross_block(shared.cross)] if shared.cross is not None else []),
            *([dissociation_block(shared.dissociation)] if shared.dissociation is not None else []),
            *(_roles(each) for each in roles),
        ),
        limits=(
            "Circuits are as good as the scores and the size that they were chosen by.",
            "Chance takes heads to be alike; heads of one layer may be shared for that alone (the "
            "stricter p draws within layers).",
            "Overlap is counted, not sampled over prompts, so that it has a p-value and no "
            "interval; what circuits do on tasks has both.",
        ),
        provenance=provenance_rows(shared.provenance),
        command=rerun(
            shared.provenance, f"shared = interp.circuits.overlap(model, {{{circuits}}}){run}"
        ),
    )


def cross_section(cross: CrossTask, results: Sequence[object] = ()) -> Section | None:
    """Every circuit on every task; None if an overlap among the results shows it."""
    if any(isinstance(each, Overlap) and each.cross is cross for each in results):
        return None
    frame = cross.to_frame()
    return Section(
        heading="Each circuit on each task",
        lead="The circuit of one task runs alone on the prompts of every task.",
        claims=tuple(
            Claim(
                f"The circuit of {row.circuit} gives {number(row.faithfulness)} of {row.task}.",
                f"f {number(row.faithfulness)} ({interval(row.ci_low, row.ci_high)}); random "
                f"circuits of its size {number(row.random)}, p {row.p:.2g}; {of(row.n)}.",
                judged(row.faithfulness - row.random, row.ci_low - row.random),
            )
            for row in frame.itertuples()
        ),
        blocks=(cross_block(cross),),
        limits=("A share above 1 is possible: what works against the task was left out.",),
        provenance=provenance_rows(cross.provenance),
        command=rerun(cross.provenance, "interp.circuits.cross_task(model, tasks)"),
    )


def dissociation_section(found: Dissociation, results: Sequence[object] = ()) -> Section | None:
    """What ablating each circuit does to each task; None if an overlap shows it."""
    if any(isinstance(each, Overlap) and each.dissociation is found for each in results):
        return None
    frame = found.to_frame()
    return Section(
        heading="Does each task need heads of its own?",
        lead=(
            "The heads of a circuit are ablated in the whole model. Two circuits are their tasks' "
            "own if ablating each hurts its own task more than the other one."
        ),
        claims=tuple(
            Claim(
                f"The heads of {row.circuit} matter more to {row.circuit} than to {row.other}.",
                f"Selectivity {number(row.selectivity, sign=True)} "
                f"({interval(row.ci_low, row.ci_high)}); damage {number(row.own_damage)} against "
                f"{number(row.other_damage)}, random heads {number(row.own_random)} and "
                f"{number(row.other_random)}; {of(row.n)}.",
                judged(row.selectivity, row.ci_low),
            )
            for row in frame[frame["arm"] == "all"].itertuples()
        ),
        blocks=(dissociation_block(found),),
        limits=("MLPs are left alone: a layer has no other to compare one with.",),
        provenance=provenance_rows(found.provenance),
        command=rerun(found.provenance, "interp.circuits.dissociate(model, tasks)"),
    )


def roles_section(roles: SharedRoles, results: Sequence[object] = ()) -> Section | None:
    """Which kinds of heads are shared; None if an overlap of the same circuits shows it."""
    if any(isinstance(each, Overlap) and _alike(roles, each) for each in results):
        return None
    frame = roles.to_frame()
    return Section(
        heading="Which kinds of heads tasks share",
        lead="Heads of each kind that two circuits both have, among those that either has.",
        claims=tuple(
            Claim(
                f"{row.task_a} and {row.task_b} share {row.shared} {row.kind} heads.",
                f"Of {row.heads_a} and {row.heads_b}: IoU {number(row.iou)}, by chance "
                f"{number(row.chance)}, p {row.p:.2g}.",
                "found" if row.p <= 0.05 else "not found" if not row.shared else "doubtful",
            )
            for row in frame.itertuples()
        ),
        blocks=(_roles(roles),),
        limits=("The kinds are as good as the atlas that gave the labels.",),
        provenance=provenance_rows(next(iter(roles.circuits.values())).provenance),
        command="interp.circuits.shared_roles(circuits, labels)",
    )


def _alike(roles: SharedRoles, shared: Overlap) -> bool:
    return [*roles.circuits] == [*shared.circuits] and all(
        bool((one.kept == other.kept).all()) if one.shape == other.shape else False
        for one, other in zip(roles.circuits.values(), shared.circuits.values(), strict=True)
    )


def _pair(row: pd.Series, shared: Overlap) -> Claim:
    a, b = row["task_a"], row["task_b"]
    evidence = (
        f"{row['heads_shared']} of {row['heads_a']} and {row['heads_b']} heads, IoU "
        f"{number(row['heads_iou'])} (by chance {number(row['heads_chance'])}, p "
        f"{row['heads_p']:.2g}, within layers {row['heads_strict_p']:.2g}); edges "
        f"{number(row['edges_iou'])} (by chance {number(row['edges_chance'])})"
    )
    if shared.cross is not None:
        for circuit, task, name in ((a, b, "a_on_b"), (b, a, "b_on_a")):
            ends = interval(row[f"{name}_low"], row[f"{name}_high"])
            random = shared.cross.random_faithfulness(circuit, task)
            beside = f", random circuits {number(random.mean().item())}" if len(random) else ""
            evidence += (
                f"; {circuit}'s circuit gives {number(row[name])} of {task} ({ends}{beside}, "
                f"{of(len(shared.cross.clean[task]))})"
            )
        evidence += f"; when they are ablated: {row['dissociation']}"
    shares = row["heads_p"] <= 0.05
    heads = "share more heads than by chance" if shares else "share no more heads than by chance"
    if "reuse" in row:
        does = {
            "both": "and the circuit of each does the other task alone",
            a: f"and the circuit of {a} does {b} alone, not the reverse",
            b: f"and the circuit of {b} does {a} alone, not the reverse",
            "neither": "but neither circuit does the other task",
            "unclear": "and whether one circuit does the other task cannot be told",
        }[row["reuse"]]
        statement = f"{a} and {b} {heads}, {does}."
        if row["reuse"] == "neither":
            return Claim(statement, f"{evidence}.", "not found")
        return Claim(
            statement, f"{evidence}.", "doubtful" if row["reuse"] == "unclear" else "found"
        )
    if not shares:
        return Claim(f"{a} and {b} {heads}.", f"{evidence}.", "not found")
    strictly = row["heads_strict_p"] <= 0.05
    return Claim(f"{a} and {b} {heads}.", f"{evidence}.", "found" if strictly else "doubtful")


def _shared(shared: Overlap, what: str) -> Block:
    grid, chance = shared.matrix(what), shared.chance(what)
    rows = pd.DataFrame(
        [{"tasks": f"{a}, {b}", **vars(each)} for (a, b), each in shared.shared[what].items()]
    )
    for p in ("p", "strict_p"):
        rows[p] = rows[p].map("{:.2g}".format)  # three digits after the point would be all zeros
    return Block(
        f"Shared {what}",
        f"Intersection over union of the {what} of each two circuits, and what random sets of the "
        "same sizes would share: drawn from all (by chance), and from the same layers (strict).",
        (
            _matrix(
                f"Shared {what}",
                grid,
                [
                    [
                        f"{a}, {b}: {number(grid.loc[a, b])}, by chance {number(chance.loc[a, b])}"
                        for b in grid
                    ]
                    for a in grid
                ],
            ),
        ),
        (frame_table(f"Each two tasks, {what}", rows, SHARED),),
    )


def cross_block(cross: CrossTask) -> Block:
    """How much of each task each circuit does alone, with intervals and random circuits."""
    frame, grid = cross.to_frame(), cross.matrix()
    told = frame.set_index(["circuit", "task"])
    tips = [
        [
            f"circuit of {a} on {b}: {number(grid.loc[a, b])} "
            f"({interval(told.loc[(a, b), 'ci_low'], told.loc[(a, b), 'ci_high'])})"
            for b in grid
        ]
        for a in grid
    ]
    columns = {
        "which": "Circuit on task",
        "faithfulness": "f",
        "ci_low": "from",
        "ci_high": "to (95%)",
        "random": "Random circuits",
        "p": "p",
        "n": "n",
    }
    return Block(
        "Each circuit on each task",
        "How much of the task of the column the circuit of the row does alone. Rows and columns "
        "differ: one circuit may do the other's task, and not the reverse.",
        (_matrix("Share of the task (f)", grid, tips),),
        (
            frame_table(
                f"Faithfulness to each task ({cross.metric})",
                frame.assign(which=frame["circuit"] + " on " + frame["task"]),
                columns,
            ),
        ),
    )


def dissociation_block(found: Dissociation) -> Block:
    """What ablating the heads of each circuit does to both tasks of each pair."""
    columns = {
        "which": "Without heads of",
        "selectivity": "Selectivity",
        "ci_low": "from",
        "ci_high": "to (95%)",
        "own_damage": "Damage to it",
        "own_random": "by random heads",
        "other_damage": "Damage to the other",
        "other_random": "by random heads, too",
        "heads": "Heads",
        "verdict": "Verdict",
        "n": "n",
    }
    frame = found.to_frame()
    which = frame["circuit"] + " (" + frame["arm"] + "), beside " + frame["other"]
    return Block(
        "What is lost without each circuit's heads",
        "Damage is a share of what is lost without any head. Selectivity is how much more a "
        "circuit's heads matter to its own task than to the other, beyond random heads; unique "
        "heads are those that the other circuit lacks.",
        tables=(frame_table("Double dissociation", frame.assign(which=which), columns),),
    )


def _roles(roles: SharedRoles) -> Block:
    return Block(
        "Which kinds of heads are shared",
        "Of the heads of each kind in two circuits, how many are the same; by chance among all "
        "heads, and among the heads of the kind where all of them are known.",
        tables=(frame_table("Shared heads by kind", roles.to_frame()),),
    )


def _matrix(title: str, grid: pd.DataFrame, tips: list[list[str]]) -> Figure:
    names = [str(name) for name in grid.index]
    return Figure(
        title,
        svg.heatmap(
            torch.tensor(grid.to_numpy(dtype="float64")).float(),
            label=f"{title}: all values are in the table.",
            tips=tips,
            limits=(0.0, 1.0),
            rows=names,
            columns=names,
        ),
        "Rows and columns are tasks.",
        svg.legend("0 or less", "1 or more"),
        Table(
            title,
            ("Task", *names),
            tuple((name, *map(float, grid.loc[name])) for name in names),
            digits=3,
        ),
    )
