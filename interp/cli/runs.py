"""`interp runs`: what is kept on disk of work that takes long."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.command import Command
from interp.cli.options import AsJson
from interp.errors import RunError

if TYPE_CHECKING:
    from interp.runs import RunInfo
else:
    RunInfo = Any

Folder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]
TABLES = (".parquet", ".csv", ".json")
ROWS = {"sweep": "sites", "atlas": "heads", "evaluation": "circuits"}
"""Of what there is a row in the table of each kind of run."""
ABOUT = ("metric", "method", "ablation", "provenance")
"""What a table in JSON says beside its rows."""

runs = typer.Typer(
    no_args_is_help=True,
    help="List, show, export, verify and remove what sweeps, scans and circuits keep.",
    epilog="Begin with: interp sweep polymath --task ioi --out run",
)


@runs.command("list", cls=Command)
def list_runs(
    folder: Annotated[Path, typer.Argument(help="Where to look.")] = Path(),
    as_json: AsJson = False,
) -> None:
    """List the runs in a folder, and in the folders in it.

    Examples:
    interp runs list
    interp runs list results --json
    """
    from interp import runs as store
    from interp.cli import show

    found: list[RunInfo | RunError] = []
    paths = store.find(folder)
    for path in paths:
        try:
            found.append(store.info(path))
        except RunError as error:  # one that is damaged does not hide the others
            found.append(error)
    if as_json:
        show.print_json([_listed(path, run) for path, run in zip(paths, found, strict=True)])
        return
    rows = [_row(path, run) for path, run in zip(paths, found, strict=True)]
    title = f"{len(paths)} run{'' if len(paths) == 1 else 's'} in {folder}"
    show.table(
        ("run", "state", "chunks", "size", "kind", "model", "task", "begun"), rows, title=title
    )


@runs.command(cls=Command)
def show(run: Folder, as_json: AsJson = False) -> None:
    """Show what a run is, how far it is, and the command that resumes it.

    Examples:
    interp runs show run
    """
    from interp import runs as store
    from interp.cli import show as printing

    known = store.info(run)
    if as_json:
        printing.print_json(_told(known))
        return
    rows = [("state", known.state), ("chunks", _chunks(known)), ("size", _size(known.bytes))]
    about = {name: value for name, value in known.identity.items() if name != "settings"}
    rows += [(name, _text(value)) for name, value in about.items()]  # those are in --json
    rows += [("result", known.result or "not yet")]
    rows += [("command", known.command or "none: it was begun from Python")]
    printing.table(("", ""), rows, title=str(run))
    typer.echo()
    columns = ("at (UTC)", "process", "what")
    past = [(each["at"], str(each["process"]), each["what"]) for each in known.history]
    printing.table(columns, past, title="History")


@runs.command(cls=Command)
def export(
    run: Folder,
    out: Annotated[
        Path,
        typer.Option(
            help="A row for each site, head or circuit: .parquet, .csv or .json; or all that was "
            "found: .safetensors, of a scan .json or .parquet."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Write the result of a run into a file of another format.

    The run must be done.

    Examples:
    interp runs export run --out sweep.parquet
    """
    from interp import runs as store
    from interp.cli import show
    from interp.heads import HeadAtlas
    from interp.results import load

    if out.suffix not in (*TABLES, ".safetensors"):
        raise RunError(
            f"{out} ends in {out.suffix or 'nothing'}; name a file in .parquet, .csv, .json or "
            ".safetensors."
        )
    result, kind = load(store.result_of(run)), store.info(run).identity.get("kind", "")
    frame, rows = result.to_frame(), ROWS.get(kind, "rows")
    whole = (".json", ".parquet") if isinstance(result, HeadAtlas) else (".safetensors",)
    if out.suffix not in (*TABLES, *whole):
        raise RunError(f"{run} is a scan; name a file in .json, .parquet or .csv.")
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix in whole:
        result.save(out)
    elif out.suffix == ".parquet":
        frame.to_parquet(out)
    elif out.suffix == ".csv":
        frame.to_csv(out, index=False)
    else:
        records = json.loads(frame.to_json(orient="records"))
        about = {name: getattr(result, name) for name in ABOUT if hasattr(result, name)}
        out.write_text(json.dumps({**about, rows: records}, indent=1) + "\n", encoding="utf-8")
    show.wrote(out)
    if as_json:
        show.print_json({"run": str(run), "wrote": str(out), rows: len(frame)})


@runs.command(cls=Command)
def verify(run: Folder, as_json: AsJson = False) -> None:
    """Read all that a run has kept, and name what is damaged.

    Damaged is what is not as it was written; starting the run again mends it. Ends with code 1 if
    anything is.

    Examples:
    interp runs verify run
    """
    from interp import runs as store
    from interp.cli import show

    known, damaged = store.info(run), store.verify(run)
    if as_json:
        show.print_json({"run": str(run), "chunks": known.done, "damaged": damaged})
    else:
        for sentence in damaged:
            typer.echo(sentence)
        if not damaged:
            typer.echo(f"{run} is whole: {_chunks(known)} chunks, {_size(known.bytes)}, as written")
    if damaged:
        raise typer.Exit(1)


@runs.command(cls=Command)
def rm(
    run: Folder,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove a run from the disk.

    A folder that is no run, or that holds anything else, is left as it is.

    Examples:
    interp runs rm run
    """
    from interp import runs as store
    from interp.cli import show

    known = store.info(run)
    if not yes and (as_json or not sys.stdin.isatty()):
        raise RunError(f"{run} is not removed, since nobody can be asked here; add --yes.")
    if not yes:
        what = f"{run}, {known.state}, {_chunks(known)} chunks, {_size(known.bytes)}"
        typer.confirm(f"Remove {what}?", abort=True, err=True)
    store.remove(run)
    if as_json:
        show.print_json({"removed": str(run)})
    else:
        typer.echo(f"Removed {run}", err=True)


def _listed(path: Path, run: RunInfo | RunError) -> dict[str, Any]:
    if isinstance(run, RunError):
        return {"run": str(path), "state": "damaged", "error": str(run)}
    return _told(run)


def _told(run: RunInfo) -> dict[str, Any]:
    return {"run": str(run.folder), **{k: v for k, v in vars(run).items() if k != "folder"}}


def _row(path: Path, run: RunInfo | RunError) -> tuple[str, ...]:
    if isinstance(run, RunError):
        return (str(path), "damaged", *[""] * 6)
    about = [_text(run.identity.get(name)) for name in ("kind", "model", "task")]
    begun = run.history[0]["at"] if run.history else ""
    return (str(path), run.state, _chunks(run), _size(run.bytes), *about, begun)


def _chunks(run: RunInfo) -> str:
    return f"{run.done:,}" if run.chunks is None else f"{run.done:,} of {run.chunks:,}"


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e6 else f"{count / 1e3:,.1f} kB"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
