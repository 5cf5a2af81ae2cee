"""Who computes, as the options of a command say it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from interp.cli import names

if TYPE_CHECKING:
    from interp.workers import Engine
else:
    Engine = Any


def engine_of(
    engine: str,
    *,
    address: str | None = None,
    workers: int | None = None,
    gpus: int | None = None,
    devices: str | None = None,
) -> Engine:
    """The engine that --engine, --address, --workers, --gpus and --devices describe.

    Raises typer.BadParameter for an unknown one, and for options that mean nothing with it.
    """
    from interp.errors import did_you_mean
    from interp.workers import Devices, Here, Ray

    if engine not in names.ENGINES:
        raise typer.BadParameter(
            f"There is no engine {engine!r}: {did_you_mean(engine, names.ENGINES)}"
        )
    if engine == "ray":
        if devices is not None:
            raise typer.BadParameter("--devices means nothing with --engine ray; use --workers.")
        return Ray(address, workers=workers, gpus=gpus)
    for name, value in (("address", address), ("workers", workers), ("gpus", gpus)):
        if value is not None:
            raise typer.BadParameter(f"--{name} means nothing without --engine ray.")
    if devices is None:
        return Here()
    return Devices([name.strip() for name in devices.split(",")])
