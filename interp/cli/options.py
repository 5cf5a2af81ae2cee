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
        help="cpu, cuda, cuda:1, mps; by default the best there is.",
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
Revision = Annotated[str | None, typer.Option(help="A checkpoint, or a branch of a hub model.")]
Save = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Write every result of this command into this folder, for interp report.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, and nothing else.")]
