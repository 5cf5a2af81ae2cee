"""Options that several commands share: one name, one meaning."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from interp.cli import complete, names

ModelName = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Embedded name (see interp models), directory, or hub name.",
        autocompletion=complete.models,
    ),
]
TaskName = Annotated[
    str,
    typer.Option(
        help=f"{', '.join(names.TASKS)}; a relation such as antonym, capital or plural; or two of "
        "the same inputs: antonym/comparative.",
        autocompletion=complete.tasks,
    ),
]
MetricName = Annotated[
    str,
    typer.Option(help=f"{', '.join(names.METRICS)}.", autocompletion=complete.metrics),
]
Ablation = Annotated[
    str,
    typer.Option(
        help=f"What stands in for all outside a circuit: {', '.join(names.ABLATIONS)}.",
        autocompletion=complete.ablations,
    ),
]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn at random.")]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda:1, mps, or auto for all; by default the best there is.",
        autocompletion=complete.devices,
    ),
]
DType = Annotated[
    str | None,
    typer.Option(
        help="Of the weights: float32, bfloat16, float16, float64; float32 by default.",
        autocompletion=complete.dtypes,
    ),
]
EngineName = Annotated[
    str,
    typer.Option(
        "--engine",
        help="Who computes: here (this process), or ray (the workers of a Ray cluster).",
        autocompletion=complete.engines,
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        metavar="HOST:PORT",
        help="Of ray: the cluster to join, or auto for the one on this machine; by default one is "
        "started here, and ended with the command.",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(min=1, help="Of ray: at most so many; as many as there is room for by default."),
]
Gpus = Annotated[
    int | None,
    typer.Option(
        min=0, help="Of ray: GPUs of each worker; by default one if the model is on one here."
    ),
]
Devices = Annotated[
    str | None,
    typer.Option(
        help="Several devices of this machine, with commas between, such as cuda:0,cuda:1."
    ),
]
Revision = Annotated[str | None, typer.Option(help="A checkpoint, or a branch of a hub model.")]
RunFolder = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="FOLDER",
        help="Keep what is computed here as it comes; the same command goes on where it was "
        "stopped. See interp runs.",
    ),
]
Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write every result of this command into this folder, for interp report.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else.")]
