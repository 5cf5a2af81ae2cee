"""`interp probe`: what a linear probe reads off each layer, beside its controls."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from interp.cli import complete, names
from interp.cli.options import AsJson, Device, DType, ModelName, Revision, Save, Seed, TaskName


def probe(
    model: ModelName,
    task: TaskName,
    position: Annotated[
        str, typer.Option(help="A role of the task, or a number; -1 is the last token.")
    ] = "END",
    label: Annotated[
        str, typer.Option(help="What is probed: answer, template, or the words of a role.")
    ] = "answer",
    kind: Annotated[
        str,
        typer.Option(help=f"{', '.join(names.STREAMS)}.", autocompletion=complete.streams),
    ] = "resid",
    n: Annotated[int, typer.Option(min=10, help="Prompts; four in ten are judged on.")] = 300,
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
    save: Save = None,
    out: Annotated[Path | None, typer.Option(help="Write the result here: .json.")] = None,
) -> None:
    """Probe every layer for a label of the prompts.

    Beside the accuracy stand the same probes on random labels of words (control), on shuffled
    labels, and of the model with random weights.

    Examples:
    interp probe polymath --task coin_flip
    interp probe polymath --task ioi --label IO --position S2
    """
    from interp import tasks
    from interp.cli import show
    from interp.cli.keep import keep
    from interp.models import load
    from interp.probes import linear
    from interp.probes.labels import task_labels

    show.say(f"Loading {model}")
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    prompts = tasks.get(task).sample(loaded, n, seed=seed, split="all")
    labels = task_labels(loaded, prompts, label)
    at = int(position) if position.lstrip("-").isdigit() else position
    show.say(f"Probing {loaded.id} for {label}")
    result = linear.probe(loaded, prompts, labels, kind=kind, position=at, seed=seed)
    command = (
        f"interp probe {model} --task {task} --position {position} --label {label} --kind {kind} "
        f"--n {n} --seed {seed}"
    )
    result = replace(result, provenance=result.provenance | {"label": label, "command": command})
    if out is not None:
        result.save(out)
        show.wrote(out)
    keep(save, probes=result)
    frame = result.to_frame()
    if as_json:
        told = {"classes": list(result.classes), "layers": frame.to_dict("records")}
        show.print_json(told | {"provenance": result.provenance})
        return
    rows = [
        [
            row["layer"],
            f"{row['accuracy']:.2f} ({row['accuracy_low']:.2f} to {row['accuracy_high']:.2f})",
            *(f"{row[column]:.2f}" for column in ("f1", "auc", "selectivity")),
            *(f"{row[column]:.2f}" for column in ("control", "shuffled", "untrained", "chance")),
        ]
        for row in frame.to_dict("records")
    ]
    columns = ("layer", "accuracy (95%)", "F1", "AUC", "selectivity")
    show.table((*columns, "control", "shuffled", "untrained", "chance"), rows, title=repr(result))
