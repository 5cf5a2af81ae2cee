"""`interp sweep`: what a metric becomes when one part of a model after another is changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import complete, names
from interp.cli.engines import engine_of
from interp.cli.options import (
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
    Seed,
    TaskName,
    Workers,
)
from interp.cli.resumable import command_line, resumable

if TYPE_CHECKING:
    from interp.engine import SweepResult
    from interp.models import Model
    from interp.sites import Site
else:
    Model = Site = SweepResult = Any


def sweep(
    model: ModelName,
    task: TaskName,
    method: Annotated[
        str,
        typer.Option(
            help="What is done at each site: zero, mean, resample, counterfactual (of the clean "
            "run); or patch, which puts clean activations into the corrupt run.",
            autocompletion=complete.sweep_methods,
        ),
    ] = "mean",
    sites: Annotated[
        str,
        typer.Option(
            help="heads, queries, keys, values, patterns, attns, mlps, resid (resid:mid, "
            "resid:post), neurons:LAYER, or sites such as 5.1 or 5.1+6.2; several with commas."
        ),
    ] = "heads",
    positions: Annotated[
        str | None,
        typer.Option(
            help="Roles such as S2 or numbers (-1 is the last token), with commas between, or "
            "each; all tokens together by default."
        ),
    ] = None,
    over: Annotated[
        str | None,
        typer.Option(
            help="Of mean: the tokens of a position, role or template; all together by default."
        ),
    ] = None,
    direction: Annotated[
        str | None, typer.Option(help="Of patch: denoise, or noise for the reverse.")
    ] = None,
    metric: MetricName = "logit_diff",
    n: Annotated[int, typer.Option(min=1, help="Prompts.")] = 64,
    top: Annotated[int, typer.Option(min=1, help="Sites to print, the largest effects.")] = 10,
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    engine: EngineName = "here",
    address: Address = None,
    workers: Workers = None,
    gpus: Gpus = None,
    devices: Devices = None,
    as_json: AsJson = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Keep results here as they come; the same command goes on where it was stopped.",
        ),
    ] = None,
) -> None:
    """Change one part after another, and say which matter for a task.

    With --out it is a run: stopped at any moment, by Ctrl-C or by the end of the machine, it goes
    on where it was, with the same numbers, also on another engine. See interp runs.

    Examples:
    interp sweep polymath --task ioi
    interp sweep polymath --task ioi --method patch --sites resid --positions S2,END
    interp sweep polymath --task ioi --sites neurons:3 --out runs/neurons
    interp sweep gpt2 --task ioi --engine ray --address auto --out runs/heads
    """
    from interp import tasks
    from interp.cli import show
    from interp.engine import everywhere, run
    from interp.engine.places import expand
    from interp.models import load

    if method == "patch":
        direction = direction or "denoise"
    elif direction is not None:
        raise typer.BadParameter(f"{method} has no direction; only patch has.")
    if over is not None and method != "mean":
        raise typer.BadParameter(f"{method} is not taken over tokens; only mean is.")
    over = over or "all"
    place: dict[str, Any] = {"address": address, "workers": workers, "gpus": gpus}
    place |= {"devices": devices}
    computing = engine_of(engine, **place)
    command = command_line(
        "interp sweep",
        model,
        {
            "task": task,
            "method": method,
            "sites": sites,
            "positions": positions,
            "over": over if method == "mean" else None,
            "direction": direction,
            "metric": metric,
            "n": n,
            "seed": seed,
            "device": device,
            "dtype": dtype,
            "revision": revision,
            "engine": None if engine == "here" else engine,
            **place,
            "out": out,
        },
    )
    with resumable(out, command, option="--out"):
        show.say(f"Loading {model}")
        loaded = load(model, device=device, dtype=dtype, revision=revision)
        prompts = tasks.get(task).sample(loaded, n, seed=seed)
        places = expand(read_sites(sites, loaded), prompts, read_positions(positions))
        show.say(f"Sweeping {len(places):,} sites of {loaded.id}")
        result = run(
            loaded,
            prompts,
            everywhere(places, _operation(method, over, seed)),
            metric=metric,
            method=method,
            direction=direction or "noise",
            engine=computing,
            run=out,
            over=over if method == "mean" else None,
            seed_of_method=seed if method == "resample" else None,
            command=command,
        )
    if out is not None:
        show.wrote(out / "sweep.safetensors")
    if as_json:
        show.print_json(_summary(result, top))
    else:
        _print(result, top)


def read_sites(text: str, model: Model) -> tuple[Site, ...]:
    """Kinds of sites, and sites, with commas between; raises SiteError for what is neither."""
    from interp import sites
    from interp.engine.replay import replay_of

    lists = ("heads", "queries", "keys", "values", "patterns", "attns", "mlps", "resid")
    found: list[Site | str] = []
    for part in (part.strip() for part in text.split(",")):
        kind, _, which = part.partition(":")
        if kind == "neurons" and which.isdigit() and int(which) < model.geometry.n_layers:
            found += sites.neurons(int(which), replay_of(model).width(int(which), "neurons"))
        elif kind == "resid" and which:
            found += sites.resid(model, which)
        elif part in lists:
            found += getattr(sites, part)(model)
        else:
            found.append(part)
    return sites.resolve(found, model)


def read_positions(text: str | None) -> str | list[str | int] | None:
    """Roles and numbers with commas between, "each", or None."""
    if text is None or text == "each":
        return text
    parts = [part.strip() for part in text.split(",")]
    return [int(part) if part.removeprefix("-").isdigit() else part for part in parts]


def _operation(method: str, over: str, seed: int) -> Any:
    from interp.engine import Patch
    from interp.engine.ablation import operation_of
    from interp.errors import InterventionError, did_you_mean

    if method not in names.SWEEP_METHODS:
        raise InterventionError(
            f"There is no method {method!r}: {did_you_mean(method, names.SWEEP_METHODS)}"
        )
    return Patch() if method == "patch" else operation_of(method, over, seed)


def _summary(result: SweepResult, top: int) -> dict[str, Any]:
    sizes = result.to_frame()["effect"].abs()
    return {
        "metric": result.metric,
        "method": result.method,
        "clean": result.clean.mean().item(),
        "corrupt": None if result.corrupt is None else result.corrupt.mean().item(),
        "n": len(result.clean),
        "sites": len(result.sites),
        "median_size": float(sizes.median()),
        "top": result.top(top).drop(columns="exact").to_dict("records"),
        "provenance": result.provenance,
    }


def _print(result: SweepResult, top: int) -> None:
    from interp.cli import show

    told = _summary(result, top)
    before = f"{told['clean']:.2f} clean"
    if told["corrupt"] is not None:
        before += f", {told['corrupt']:.2f} corrupt"
    where = result.provenance
    show.table(
        ("site", "effect", "95% interval", result.metric, "n"),
        [
            (
                str(row["site"]),
                f"{row['effect']:+.3f}",
                f"{row['ci_low']:+.3f} to {row['ci_high']:+.3f}",
                f"{row['mean']:.3f}",
                str(row["n"]),
            )
            for row in told["top"]
        ],
        title=f"{result.method} of {where['model']} on {where['task']}: {result.metric} {before}",
    )
    typer.echo(
        f"\nThe effect of half of the {told['sites']:,} sites is smaller than "
        f"{told['median_size']:.3f}; the top is chosen on the prompts it is shown for."
    )
