"""Linear probes as sections of a report: layer by layer, step by step, task by task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import torch

from interp.probes import ProbeResult, StepProbes, Transfer
from interp.report.difference import beyond
from interp.report.drawing import svg
from interp.report.drawing.chart import Series, curves
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
from interp.report.rerun import arguments, rerun, sampled

CONTROLS = {
    "control": "control task (a random label for each word)",
    "shuffled": "shuffled labels",
    "untrained": "untrained model",
}
LIMITS = (
    "What a probe can read off a layer, the model need not use: erasure shows what it uses.",
    "The layer of a claim is the best of all: its interval does not allow for that.",
    "Intervals are over test prompts: they say nothing of another split.",
)


def probe_section(found: ProbeResult, results: Sequence[object] = ()) -> Section:
    """What a linear probe reads off every layer, beside its controls."""
    frame, known = found.to_frame(), found.provenance
    model = str(known.get("model", "the given states"))
    task, size = _what(found), f"{of(found.n)} test prompts"
    return Section(
        heading=f"Which layers of {model} hold {task}",
        lead=(
            f"A linear probe reads one of {len(found.classes)} labels "
            f"({listed([str(each) for each in found.classes], most=6)}) off the state of every "
            "layer, and is judged on prompts that it was not fitted on. A control task asks as "
            "much of the probe and nothing of the model."
        ),
        claims=(_readable(found, frame, task, model, size),),
        blocks=(_by_layer(frame, found.chance, model, size),),
        limits=LIMITS,
        provenance=provenance_rows(known),
        command=rerun(
            known,
            sampled(known),
            f"interp.probes.probe(model, prompts, labels, {_how(known)})",
        ),
        baselines=Table(
            f"Without a probe, {size}",
            ("Guess", "Accuracy"),
            (("the commonest label", found.chance),),
        ),
    )


def _what(found: ProbeResult) -> str:
    known = found.provenance
    step = f"the value after step {known['step']}" if "step" in known else "the label"
    label = f"the {known['label']}" if known.get("label") else step
    return f"{label} of {known['task']}" if known.get("task") else label


def _how(known: Mapping[str, Any]) -> str:
    return arguments(
        kind=known.get("kind"), position=known.get("position"), seed=known.get("probe_seed")
    )


def _readable(found: ProbeResult, frame: pd.DataFrame, task: str, model: str, size: str) -> Claim:
    """At the best layer, clear of chance and of every control."""
    row = frame.loc[found.best]
    beside = {name: row[name] for name in CONTROLS if name in row}
    verdict = beyond(row["accuracy"], row["accuracy_low"], found.chance, *beside.values())
    if verdict == "found" and not row["selectivity_low"] > 0:
        verdict = "doubtful"
    said = {
        "found": f"Layer {row['layer']} of {model} holds {task}, as far as a line can read it.",
        "doubtful": f"Layer {row['layer']} of {model} may hold {task}.",
        "not found": f"Where a probe of {model} reads {task} best, in layer {row['layer']}, it "
        "reads no more than from a control.",
    }[verdict]
    controls = "; ".join(f"{CONTROLS[name]} {number(value)}" for name, value in beside.items())
    return Claim(
        said,
        f"Accuracy {number(row['accuracy'])} "
        f"({interval(row['accuracy_low'], row['accuracy_high'])}); {controls}; chance "
        f"{number(found.chance)}; selectivity {number(row['selectivity'], sign=True)} "
        f"({interval(row['selectivity_low'], row['selectivity_high'])}); {size}.",
        verdict,
    )


def _by_layer(frame: pd.DataFrame, chance: float, model: str, size: str) -> Block:
    series = [
        Series.of(frame, "accuracy", "task", ends=("accuracy_low", "accuracy_high")),
        *(
            Series.of(frame, name, words, control=True)
            for name, words in CONTROLS.items()
            if name in frame
        ),
    ]
    return Block(
        "Accuracy by layer",
        "Selectivity, in the table, is the accuracy on the task minus that on the control task.",
        (
            Figure(
                model,
                curves(
                    series,
                    frame["layer"].astype(str).tolist(),
                    label="Accuracy of the probe of every layer, beside its controls. All values "
                    "are in the table.",
                    across="layer",
                    limits=(0.0, 1.0),
                    level=("chance", chance),
                ),
                f"The band is the 95% interval over test prompts; {size}.",
                data=frame_table("Every layer", frame),
            ),
        ),
    )


def steps_section(found: StepProbes, results: Sequence[object] = ()) -> Section:
    """Which layer holds the value after which step, beside the controls of every probe."""
    frame, grid, known = found.to_frame(), found.grid, found.provenance
    model = str(known.get("model", "the given states"))
    first = next(iter(found.results.values()))
    size = f"{of(first.n)} test prompts"
    tips = [
        [
            f"layer {layer}, after step {step}: {number(float(grid[i, k]))} (control task "
            f"{number(float(each.accuracy('control')[i]))}, chance {number(each.chance)})"
            for k, (step, each) in enumerate(found.results.items())
        ]
        for i, layer in enumerate(first.layers)
    ]
    drawing = svg.heatmap(
        grid.float(),
        label="Accuracy of the probe of every layer for the value after every step. All values "
        "are in the table.",
        tips=tips,
        limits=(0.0, 1.0),
        rows=[str(layer) for layer in first.layers],
        columns=[str(step) for step in found.results],
    )
    table = Table(
        f"Accuracy at every layer, {size}",
        ("Layer", *(f"step {step}" for step in found.results)),
        tuple((str(layer), *row) for layer, row in zip(first.layers, grid.tolist(), strict=True)),
    )
    return Section(
        heading=f"Which layers of {model} hold the value after each step",
        lead=(
            f"The prompts tell of {len(found.results)} steps without writing the values down. A "
            "linear probe of every layer is asked for the value after each."
        ),
        claims=tuple(
            _readable(each, each.to_frame(), f"the value after step {step}", model, size)
            for step, each in found.results.items()
        ),
        blocks=(
            Block(
                "Layers and steps",
                "A model that goes through the steps one after another would hold later values in "
                "later layers.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Rows are layers, columns are steps; {size}.",
                        svg.legend("0", "1"),
                        table,
                    ),
                ),
                (frame_table("Every probe and its controls", frame),),
            ),
        ),
        limits=LIMITS,
        provenance=provenance_rows(known),
        command=rerun(
            known,
            sampled(known),
            f"interp.probes.step_probes(model, prompts, values, {_how(known)})",
        ),
    )


def transfer_section(found: Transfer, results: Sequence[object] = ()) -> Section:
    """Whether probes that were fitted on one task read the label of another."""
    frame, known = found.to_frame(), found.provenance[found.tasks[0]]
    model = str(known.get("model", "the given states"))
    pairs = [(a, b) for a in found.tasks for b in found.tasks if a != b]
    return Section(
        heading=f"Do probes of {model} carry over between {listed(list(found.tasks))}?",
        lead=(
            "Probes are fitted on 60% of each task's prompts and judged on the other 40% of every "
            "task, at the layer that is best for the task that they were fitted on."
        ),
        claims=tuple(_carries(found, frame, a, b, model) for a, b in pairs),
        blocks=(_matrix(found, frame, model), *(_pair(frame, a, b, model) for a, b in pairs)),
        limits=(
            "A probe that carries over may read something that both tasks happen to share.",
            "Shuffled labels are the mean over several shuffles.",
        ),
        provenance=tuple(
            (f"{name} ({task})", value)
            for task, each in found.provenance.items()
            for name, value in provenance_rows(each)
        ),
        command=rerun(
            known,
            f"interp.probes.transfer(model, {{{', '.join(f'{a!r}: ...' for a in found.tasks)}}}, "
            f"{_how(known)})",
        ),
    )


def _carries(found: Transfer, frame: pd.DataFrame, a: str, b: str, model: str) -> Claim:
    """At the layer where the probe does best on its own task."""
    row = _cell(found, frame, a, b)
    own = _cell(found, frame, a, a)
    verdict = beyond(
        row["accuracy"], row["accuracy_low"], row["chance"], row["shuffled"], row["untrained"]
    )
    does = {"found": "read", "doubtful": "may read", "not found": "do not read"}[verdict]
    return Claim(
        f"Probes of {model} that were fitted on {a} {does} the label in {b}.",
        f"Layer {row['layer']}: accuracy {number(row['accuracy'])} "
        f"({interval(row['accuracy_low'], row['accuracy_high'])}), on {a} itself "
        f"{number(own['accuracy'])}; shuffled labels {number(row['shuffled'])}, untrained model "
        f"{number(row['untrained'])}, chance {number(row['chance'])}; {of(int(row['n']))} test "
        "prompts.",
        verdict,
    )


def _cell(found: Transfer, frame: pd.DataFrame, a: str, b: str) -> pd.Series:
    best = found.layers[int(found.right["task", a, a].mean(dim=-1).argmax())]
    at = (frame["fitted"] == a) & (frame["judged"] == b) & (frame["layer"] == best)
    row: pd.Series = frame[at].iloc[0]
    return row


def _matrix(found: Transfer, frame: pd.DataFrame, model: str) -> Block:
    cells = [[_cell(found, frame, a, b) for b in found.tasks] for a in found.tasks]
    grid = torch.tensor([[float(each["accuracy"]) for each in row] for row in cells])
    tips = [
        [
            f"fitted on {each['fitted']}, judged on {each['judged']}: {number(each['accuracy'])} "
            f"(chance {number(each['chance'])})"
            for each in row
        ]
        for row in cells
    ]
    drawing = svg.heatmap(
        grid,
        label="Accuracy for every task fitted on and every task judged on. All values are in the "
        "table.",
        tips=tips,
        limits=(0.0, 1.0),
        rows=found.tasks,
        columns=found.tasks,
    )
    return Block(
        "Every pair of tasks",
        "On the diagonal, probes are judged on other prompts of their own task.",
        (
            Figure(
                model,
                drawing,
                "Rows: fitted on; columns: judged on.",
                svg.legend("0", "1"),
                frame_table("Every pair of tasks and layer", frame),
            ),
        ),
        (
            Table(
                "At the best layer of the task fitted on",
                ("Fitted on", *found.tasks),
                tuple((name, *row) for name, row in zip(found.tasks, grid.tolist(), strict=True)),
            ),
        ),
    )


def _pair(frame: pd.DataFrame, a: str, b: str, model: str) -> Block:
    some = frame[(frame["fitted"] == a) & (frame["judged"] == b)]
    drawing = curves(
        [
            Series.of(some, "accuracy", "fitted probe", ends=("accuracy_low", "accuracy_high")),
            Series.of(some, "shuffled", "shuffled labels", control=True),
            Series.of(some, "untrained", "untrained model", control=True),
        ],
        some["layer"].astype(str).tolist(),
        label=f"Accuracy on {b} of probes fitted on {a}, by layer. All values are in the table "
        "above.",
        across="layer",
        limits=(0.0, 1.0),
        level=("chance", float(some["chance"].iloc[0])),
    )
    return Block(
        f"Fitted on {a}, judged on {b}",
        "Beside probes of shuffled labels and of an untrained model.",
        (Figure(model, drawing, f"The band is the 95% interval; {of(int(some['n'].iloc[0]))}."),),
    )
