"""`interp overlap`: what the circuits of several tasks share."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from interp.cli.options import Ablation, AsJson, Device, DType, ModelName, Revision, Save, Seed


def overlap(
    model: ModelName,
    circuits: Annotated[
        list[Path], typer.Argument(metavar="CIRCUIT...", help="Files of two circuits or more.")
    ],
    run: Annotated[
        bool, typer.Option(help="Run each on every task, and ablate each; else compare alone.")
    ] = True,
    n: Annotated[int, typer.Option(min=2, help="Prompts of each task.")] = 32,
    ablation: Ablation = "counterfactual",
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
    save: Save = None,
    html: Annotated[Path | None, typer.Option(help="Write a report here, as one page.")] = None,
) -> None:
    """Compare circuits: what tasks share, against chance.

    Shared heads and edges are counted, and each circuit is run on the tasks of the others.

    The task of a circuit is the one that its file names.

    Examples:
    interp overlap polymath ioi.json retrieval.json
    interp overlap polymath ioi.json retrieval.json --no-run --json
    """
    from interp.circuits import Circuit
    from interp.circuits import overlap as compare
    from interp.cli import show
    from interp.cli.circuit import prompts_of
    from interp.cli.keep import keep
    from interp.errors import CircuitError
    from interp.models import load

    found = {}
    for path in circuits:
        circuit = Circuit.load(path)
        task = str(circuit.provenance.get("task") or "")
        if not task or task in found:
            raise CircuitError(
                f"{path} is the circuit of {task or 'no task'}, and each file must name a task of "
                "its own; make them with interp circuit --task."
            )
        found[task] = circuit
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    show.say(f"Comparing {len(found)} circuits of {model}")
    if run:
        given = {
            task: (circuit, prompts_of(loaded, task, n, seed, "test"))
            for task, circuit in found.items()
        }
        shared = compare(loaded, given, ablation=ablation, seed=seed)
    else:
        shared = compare(loaded, found, seed=seed)
    files = shlex.join(map(str, circuits))
    ran = f"--n {n} --ablation {ablation}" if run else "--no-run"
    command = f"interp overlap {model} {files} {ran} --seed {seed}"
    shared = replace(shared, provenance=shared.provenance | {"command": command})
    keep(save, overlap=shared)
    if html is not None:
        from interp.report import build

        build(shared).save(html)
        show.wrote(html)
    frame = shared.to_frame()
    if as_json:
        show.print_json({"pairs": frame.to_dict("records"), "provenance": shared.provenance})
        return
    judged = run and "a_on_b" in frame
    columns = ("task", "task", "heads shared", "IoU", "by chance", "p", "edges IoU", "by chance")
    show.table(
        (*columns, *(("1st on 2nd", "2nd on 1st", "ablating") if judged else ())),
        [
            (
                row.task_a,
                row.task_b,
                f"{row.heads_shared} of {row.heads_a}, {row.heads_b}",
                f"{row.heads_iou:.2f}",
                f"{row.heads_chance:.2f}",
                f"{row.heads_p:.3f}",
                f"{row.edges_iou:.2f}",
                f"{row.edges_chance:.2f}",
                *(
                    (f"{row.a_on_b:.2f}", f"{row.b_on_a:.2f}", str(row.dissociation))
                    if judged
                    else ()
                ),
            )
            for row in frame.itertuples()
        ],
        title=f"Circuits of {model}",
    )
