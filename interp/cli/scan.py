"""`interp scan`: what every attention head does."""

from __future__ import annotations

import math
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import complete
from interp.cli.engines import engine_of
from interp.cli.options import (
    Address,
    AsJson,
    Device,
    Devices,
    DType,
    EngineName,
    Gpus,
    ModelName,
    Revision,
    RunFolder,
    Save,
    Seed,
    Workers,
)
from interp.cli.resumable import command_line, resumable

if TYPE_CHECKING:
    from interp.heads import HeadAtlas


def scan(
    model: ModelName,
    kinds: Annotated[
        str | None,
        typer.Option(
            help="Some kinds, with commas between; all by default.", autocompletion=complete.kinds
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option(min=1, help="Samples of each score; as published by default.")
    ] = None,
    seed: Seed = 0,
    threshold: Annotated[
        float | None, typer.Option(help="Name heads from this on, not from the kind's own.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Heads to print of each kind.")] = 3,
    check: Annotated[bool, typer.Option(help="Take the heads found out, on their tasks.")] = True,
    control: Annotated[bool, typer.Option(help="Scan an untrained twin too.")] = True,
    checkpoints: Annotated[
        Path | None,
        typer.Option(help="Scan every checkpoint in this folder instead, and say what forms when."),
    ] = None,
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
    html: Annotated[Path | None, typer.Option(help="Write a report here, as one page.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the whole atlas here: JSON, or .parquet.")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(help="Write what formed into this model card (Markdown).")
    ] = None,
) -> None:
    """Score every head by what it does, and check that it matters.

    The heads named after a kind are taken out together, on the task that they are said to serve,
    and compared with as many random heads. With --run it goes on where it was stopped, and the
    scan of the untrained twin is kept in FOLDER-untrained.

    Kinds: previous-token, duplicate-token, induction, current-token, first-token, prefix-matching,
    copying, successor, retrieval, name-copying, name-suppressing, name-mover, copy-suppression,
    s-inhibition, function-vector.

    Examples:
    interp scan polymath
    interp scan gpt2 --kinds induction,name-mover --html gpt2.html
    interp scan polymath --run runs/polymath
    interp scan induction --checkpoints data/models/induction
    """
    from interp.cli import show
    from interp.cli.keep import keep
    from interp.errors import MetricError
    from interp.heads import scan as scan_heads
    from interp.models import load

    wanted = None if kinds is None else [kind.strip() for kind in kinds.split(",")]
    options: dict[str, Any] = {"n": n, "seed": seed}
    if checkpoints is not None:
        refused = {"revision": revision, "threshold": threshold, "card": card, "run": run}
        refused |= {"devices": devices, "engine": None if engine == "here" else engine}
        refused |= {"address": address, "workers": workers, "gpus": gpus}
        for name, value in refused.items():
            if value is not None:
                raise typer.BadParameter(f"--{name} means nothing with --checkpoints.")
        _scan_checkpoints(
            model, checkpoints, wanted, options, device, dtype, as_json, save, html, out
        )
        return
    place: dict[str, Any] = {"address": address, "workers": workers, "gpus": gpus}
    place |= {"devices": devices}
    computing = engine_of(engine, **place)
    command = command_line(
        "interp scan",
        model,
        {
            "kinds": kinds,
            "n": n,
            "seed": seed,
            "threshold": threshold,
            "no-check": not check,
            "no-control": not control,
            "device": device,
            "dtype": dtype,
            "revision": revision,
            "engine": None if engine == "here" else engine,
            **place,
            "run": run,
            "save": save,
            "html": html,
            "out": out,
            "card": card,
        },
    )
    kept = nullcontext() if run is None else resumable(run, command, option="--run")
    options |= {"engine": computing, "command": None if run is None else command}
    with kept:
        show.say(f"Loading {model}")
        loaded = load(model, device=device, dtype=dtype, revision=revision)
        show.say(f"Scanning {model}")
        atlas = scan_heads(loaded, wanted, check=check, run=run, **options)
        twin = None
        if control:
            show.say(f"Scanning an untrained twin of {model}")
            beside = None if run is None else f"{run}-untrained"
            with suppress(MetricError):  # random weights do nothing that a few kinds could measure
                twin = scan_heads(
                    loaded.untrained(), atlas.kinds, check=False, run=beside, **options
                )
    if run is not None and (run / "atlas.json").exists():
        show.wrote(run / "atlas.json")
    elif run is not None:
        typer.echo(f"{run} stays open, since memory ran out: start it again", err=True)
    if out is not None:
        atlas.save(out)
        show.wrote(out)
    keep(save, atlas=atlas, **({} if twin is None else {"untrained": twin}))
    if html is not None:
        from interp.report import build

        build(atlas, *([] if twin is None else [twin])).save(html)
        show.wrote(html)
    if card is not None:
        from interp.heads.card import write_section

        write_section(atlas, card)
        show.wrote(card)
    if as_json:
        show.print_json(summary(atlas, twin, top=top, threshold=threshold))
    else:
        print_atlas(atlas, twin, top=top, threshold=threshold)


def _scan_checkpoints(
    model: str,
    folder: Path,
    kinds: list[str] | None,
    options: dict[str, Any],
    device: str | None,
    dtype: str | None,
    as_json: bool,
    save: Path | None,
    html: Path | None,
    out: Path | None,
) -> None:
    """Curves over training, and where they turn."""
    from interp.cli import show
    from interp.cli.keep import keep
    from interp.heads import checkpoints, over_training

    points = checkpoints(folder, device=device, dtype=dtype)
    show.say(f"Scanning {len(points)} checkpoints of {model}")
    curves = (
        over_training(points, **options)
        if kinds is None
        else over_training(points, kinds, **options)
    )
    if out is not None:
        curves.save(out)
        show.wrote(out)
    keep(save, curves=curves)
    if html is not None:
        from interp.report import build

        build(curves, title=f"{model} over training").save(html)
        show.wrote(html)
    changes = curves.phase_changes()
    if as_json:
        records = changes.to_dict("records")
        show.print_json({"phase_changes": records, "provenance": curves.provenance})
        return
    show.table(
        ("curve", "head", "changes at step", "95% interval", "from", "to", "n"),
        [
            (
                row.curve,
                row.head,
                f"{row.step:.0f}" if row.found else "no change",
                f"{row.ci_low:.0f} to {row.ci_high:.0f}" if row.found else "",
                _number(row.start),
                _number(row.to),
                str(row.n),
            )
            for row in changes.rename(columns={"from": "start"}).itertuples()
        ],
        title=f"{model}, {len(curves.steps)} checkpoints",
    )


def summary(
    atlas: HeadAtlas, twin: HeadAtlas | None, *, top: int, threshold: float | None = None
) -> dict[str, Any]:
    """The best heads of each kind, with what they are compared to."""
    named = atlas.named(threshold)
    return {
        "model": atlas.provenance["model"],
        "kinds": {
            kind: {
                "threshold": score.threshold if threshold is None else threshold,
                "named": [str(head) for head in named[kind]],
                "samples": score.samples,
                "chance": score.chance,
                "untrained_max": _floor(twin, kind),
                "top": score.top(top).drop(columns="chance").to_dict("records"),
            }
            for kind, score in atlas.scores.items()
        },
        "claims": atlas.claims_frame().to_dict("records"),
        "missing": atlas.missing,
        "provenance": atlas.provenance,
    }


def print_atlas(
    atlas: HeadAtlas, twin: HeadAtlas | None, *, top: int, threshold: float | None = None
) -> None:
    """The same as tables: the best heads of each kind, then what follows without them."""
    from interp.cli import show

    rows: list[tuple[str, ...]] = []
    for kind, score in atlas.scores.items():
        named = [str(head) for head in score.named(threshold)]
        for rank, row in enumerate(score.top(top).itertuples()):
            first = rank == 0
            rows.append(
                (
                    kind if first else "",
                    row.head,
                    _number(row.score),
                    _interval(row.ci_low, row.ci_high),
                    "yes" if row.head in named else "",
                    _number(_floor(twin, kind)) if first else "",
                    _number(row.chance) if first else "",
                    f"{row.n} {score.samples}" if first else "",
                )
            )
    show.table(
        ("kind", "head", "score", "95% interval", "named", "untrained", "chance", "n"),
        rows,
        title=f"Heads of {atlas.provenance['model']}",
    )
    _print_claims(atlas)
    for kind, why in atlas.missing.items():
        typer.echo(f"Not measured: {kind}. {why}")


def _print_claims(atlas: HeadAtlas) -> None:
    from interp.cli import show

    if not atlas.claims:
        return
    first = next(iter(atlas.claims.values()))
    typer.echo()
    show.table(
        ("kind", "task", "clean", "without", "95% interval", "random", "confirmed", "heads"),
        [
            (
                row.kind,
                row.task,
                f"{row.clean:.2f}",
                f"{row.effect:+.2f}",
                _interval(row.ci_low, row.ci_high),
                f"{row.random:+.2f}",
                "yes" if row.confirmed else "no",
                row.heads,
            )
            for row in atlas.claims_frame().itertuples()
        ],
        title=(
            f"Change of {first.metric} when they are taken out together, and with as many random "
            f"heads; n = {len(first.clean)}, {len(first.random)} random sets"
        ),
    )


def _interval(low: float, high: float) -> str:
    return f"{_number(low)} to {_number(high)}" if math.isfinite(low + high) else ""


def _floor(twin: HeadAtlas | None, kind: str) -> float | None:
    """The best score of the untrained twin."""
    if twin is None or kind not in twin.scores:
        return None
    return twin.grid(kind).nan_to_num(nan=-math.inf).max().item()


def _number(value: float | None) -> str:
    return "" if value is None or not math.isfinite(value) else f"{value + 0.0:z.2f}"
