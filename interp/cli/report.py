"""`interp report`: results on disk as one report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from interp.cli.options import AsJson


def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Files of results, folders of them, and runs that are done."
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="Where it goes, as .html, .json, .md or .pdf. [default: report.html]"),
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="Heading of the page; the model's name by default.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make one report of results on disk.

    Every command writes its results with --save FOLDER, and interp sweep with --out. A result that
    is the control of another, such as the scan of an untrained twin, is shown beside it. No model
    is run.

    With --json the report is printed, and written only if --out says where.

    Examples:
    interp scan polymath --save heads
    interp report heads
    interp report heads sweep ioi.safetensors --out ioi.html --title "Who did it?"
    """
    from interp.cli import show
    from interp.report import build

    made = build(*(result for path in paths for result in _results(path)), title=title)
    if out is not None or not as_json:
        show.wrote(made.save(out or Path("report.html")))
    if as_json:
        typer.echo(made.json)


def _results(path: Path) -> list[Any]:
    """The results that a path stands for; of a folder, those that a report has a section for."""
    from interp.report.sections import SECTIONS
    from interp.results import load_all, place_of

    found = load_all(path)
    if place_of(path) is not None:  # named on its own: the report says if it cannot show it
        return found
    kinds = tuple(SECTIONS)
    left = sorted({type(result).__name__ for result in found if not isinstance(result, kinds)})
    if left:
        told = f"Left out of {path}: {', '.join(left)}; a report has no section for them."
        typer.echo(told, err=True)
    return [result for result in found if isinstance(result, kinds)]
