"""`interp circuit`: which parts of a model do a task."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import complete, names
from interp.cli.engines import engine_of
from interp.cli.options import (
    Ablation,
    Address,
    AsJson,
    Device,
    Devices,
    DType,
    EngineName,
    Gpus,
    MetricName,
    ModelName,
    Revision,
    RunFolder,
    Save,
    Seed,
    TaskName,
    Workers,
)
from interp.cli.resumable import command_line, resumable

if TYPE_CHECKING:
    from interp.circuits import Circuit, Evaluation
    from interp.models import Model
    from interp.prompts import PromptSet
    from interp.tasks import Split
else:
    Circuit = Evaluation = Model = PromptSet = Split = Any


def circuit(
    model: ModelName,
    task: TaskName,
    method: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(names.CIRCUIT_METHODS)}.", autocompletion=complete.circuit_methods
        ),
    ] = "eap-ig-inputs",
    size: Annotated[
        str | None,
        typer.Option(help="Edges (or nodes) to keep: a number, or a share; 0.05 by default."),
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Keep scores from this on instead; tau of acdc.")
    ] = None,
    select: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(names.SELECTIONS)}; top by default.",
            autocompletion=complete.selections,
        ),
    ] = None,
    metric: MetricName = "logit_diff",
    ablation: Ablation = "counterfactual",
    n: Annotated[int, typer.Option(min=2, help="Prompts to find it on, and to judge it on.")] = 32,
    atlas: Annotated[
        Path | None, typer.Option(help="A head atlas whose kinds label the heads.")
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    engine: EngineName = "here",
    address: Address = None,
    workers: Workers = None,
    gpus: Gpus = None,
    devices: Devices = None,
    run: RunFolder = None,
    as_json: AsJson = False,
    save: Save = None,
    out: Annotated[Path | None, typer.Option(help="Write the circuit here, as JSON.")] = None,
) -> None:
    """Find the circuit of a task, and judge it on other prompts.

    It is found on prompts of the task's training split and judged on its test split, beside random
    circuits of the same size. With --run, or on another engine, that is for judging it: what is
    found is found again, in this process.

    Examples:
    interp circuit polymath --task ioi --out ioi.json
    interp circuit polymath --task retrieval --method acdc --threshold 0.05
    """
    from interp.circuits import discover, evaluate
    from interp.cli import show
    from interp.cli.keep import keep
    from interp.models import load

    chosen = threshold is None and method != "acdc"
    for name, value in (("size", size), ("select", select)):
        if value is not None and not chosen:
            raise typer.BadParameter(f"--{name} means nothing with --threshold, or with acdc.")
    size, select = size or "0.05", select or "top"
    place: dict[str, Any] = {"address": address, "workers": workers, "gpus": gpus}
    place |= {"devices": devices}
    computing = engine_of(engine, **place)
    command = command_line(
        "interp circuit",
        model,
        {
            "task": task,
            "method": method,
            "seed": seed,
            "n": n,
            "size": size if chosen else None,
            "select": select if chosen else None,
            "threshold": threshold,
            "metric": None if metric == "logit_diff" else metric,
            "ablation": None if ablation == "counterfactual" else ablation,
            "device": device,
            "dtype": dtype,
            "revision": revision,
            "engine": None if engine == "here" else engine,
            **place,
            "run": run,
            "atlas": atlas,
            "out": out,
            "save": save,
        },
    )
    kept = nullcontext() if run is None else resumable(run, command, option="--run")
    with kept:
        show.say(f"Loading {model}")
        loaded = load(model, device=device, dtype=dtype, revision=revision)
        found_on = prompts_of(loaded, task, n, seed, "train")
        judged_on = prompts_of(loaded, task, n, seed, "test")
        show.say(f"Scoring with {method}")
        found = discover(
            loaded,
            found_on,
            method=method,
            metric=metric,
            size=read_size(size) if chosen else None,
            select="threshold" if threshold is not None and method != "acdc" else select,
            threshold=threshold,
        )
        if atlas is not None:
            from interp.heads import HeadAtlas

            found = found.labelled(HeadAtlas.load(atlas).labels())
        found = replace(found, provenance=found.provenance | {"task": task, "command": command})
        show.say("Running the circuit alone")
        evaluation = evaluate(
            loaded,
            judged_on,
            found,
            ablation=ablation,
            metric=metric,
            seed=seed,
            run=run,
            engine=computing,
            command=command,
        )
    if run is not None:
        show.wrote(run / "evaluation.safetensors")
    if out is not None:
        found.save(out)
        show.wrote(out)
    keep(save, circuit=found, evaluation=evaluation)
    if as_json:
        show.print_json(
            {
                "heads": [str(head) for head in found.heads],
                "mlps": [str(mlp) for mlp in found.mlps],
                "edges": int(found.kept.sum()),
                "evaluation": evaluation.to_frame().drop(columns="circuit").to_dict("records")[0],
                "provenance": found.provenance,
            }
        )
    else:
        _print(found, evaluation)


def read_size(text: str) -> int | float:
    """A number of edges, or a share of them.

    Raises CircuitError for what is neither.
    """
    from interp.errors import CircuitError

    try:
        return int(text) if text.isdigit() else float(text)
    except ValueError as error:
        raise CircuitError(
            f"{text!r} is no size; give a number such as 200, or a share such as 0.05."
        ) from error


def prompts_of(model: Model, task: str, n: int, seed: int, split: Split) -> PromptSet:
    """Prompts of a split of a task."""
    from interp import tasks

    return tasks.get(task).sample(model, n, seed=seed, split=split)


def _print(found: Circuit, evaluation: Evaluation) -> None:
    from interp.cli import show

    nodes = found.nodes_frame()
    show.table(
        ("node", "edges in", "edges out", "label"),
        [
            (row.node, str(row.edges_in), str(row.edges_out), row.label)
            for row in nodes.itertuples()
        ],
        title=str(found),
    )
    row = evaluation.to_frame().iloc[0]
    if evaluation.costs_nothing:
        typer.echo(f"\n{evaluation.costs_nothing}")
        return
    typer.echo(
        f"\nAlone it gives {row['f']:.2f} ({row['f_low']:.2f} to {row['f_high']:.2f}) of what the "
        f"model does beyond the {evaluation.ablation} ablation; random circuits of its size "
        f"{row['random_f']:.2f}; n = {row['n']}."
    )
