"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ModelName = Annotated[
    str, typer.Argument(metavar="MODEL", help="Embedded name, directory or hub name.")
]
Seed = Annotated[int, typer.Option(help="Seed of the prompts.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps; the best there is by default.")]
DType = Annotated[str | None, typer.Option(help="float32, bfloat16, ...; float32 by default.")]
Revision = Annotated[str | None, typer.Option(help="A checkpoint, or a branch of a hub model.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
