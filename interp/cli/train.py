"""`interp train`: make an embedded model again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from interp.cli import complete, names
from interp.cli.options import AsJson, Device, Seed


def train(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help=f"{', '.join(names.RECIPES)}.", autocompletion=complete.recipes
        ),
    ],
    steps: Annotated[int | None, typer.Option(help="Steps; the recipe's own by default.")] = None,
    seed: Seed = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; runs/NAME-seed-SEED by default.")
    ] = None,
    device: Device = None,
    precision: Annotated[
        Literal["float32", "bfloat16"] | None,
        typer.Option(help="Of the computing, not of the weights; the recipe's own by default."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train an embedded model again; a stopped run goes on.

    Prints the folder of the run, which is a model that MODEL of the other commands can name.

    Examples:
    interp train induction --steps 200
    interp train polymath --seed 1 --device cuda
    """
    from interp.cli import show
    from interp.training.train import train as train_model

    folder = out or Path("runs") / f"{name}-seed-{seed}"
    try:
        train_model(name, steps=steps, seed=seed, out=folder, device=device, precision=precision)
    except KeyboardInterrupt as stop:
        raise type(stop)(_kept(folder)) from stop
    if as_json:
        show.print_json({"folder": str(folder), "log": str(folder / "log.jsonl")})
    else:
        typer.echo(folder)


def _kept(folder: Path) -> str:
    """What the newest state of a run that was stopped is."""
    states = sorted((folder / "state").glob("step-*"))
    if not states:
        return f"no step is kept yet in {folder}; the same command begins again."
    step = int(states[-1].name.removeprefix("step-"))
    return f"step {step} is kept in {folder}; the same command goes on from there."
