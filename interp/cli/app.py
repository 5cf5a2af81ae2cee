"""The commands of `interp`, in the order in which a user meets them.

A command's imports stand inside it: `interp --help` answers before torch would have loaded.
Results go to stdout, the rest to stderr. `interp.cli.shell` says how a command ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import typer

from interp import __version__
from interp.cli import (
    circuit,
    consistency,
    demo,
    lens,
    models,
    overlap,
    probe,
    report,
    runs,
    scan,
    sweep,
    train,
    vectors,
    verify,
)
from interp.cli.command import Command
from interp.cli.shell import Shell

HOW_TO_GO_ON = """How to go on:
interp demo                  the whole journey on a small model, in a report
interp scan polymath         what every head of a model does
interp COMMAND --help        the options of a command, with examples
interp --install-completion  Tab then completes models, tasks and options

Results are on stdout, all else on stderr; --json makes stdout one document.
NO_COLOR=1 takes colours away, INTERP_PROGRESS=0 the bars; a pipe has neither.

Exit codes:
0    done
1    an error, told in one sentence; with --json on stdout too
2    wrong usage
130  stopped by Ctrl-C, after a line that says what is kept; 143 by SIGTERM"""

app = typer.Typer(
    name="interp",
    cls=Shell,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=HOW_TO_GO_ON,
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"interp {__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Say it and stop."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", envvar="INTERP_DEBUG", help="Show the traceback of an error.")
    ] = False,
) -> None:
    """Find, test and compare the mechanisms inside transformer language models."""


def _add(panel: str, **commands: Callable[..., None]) -> None:
    for name, function in commands.items():
        app.command(name, cls=Command, rich_help_panel=panel)(function)


BEGIN, LOOK, FIND, KEEP, MODELS = (
    "Begin",
    "Look into a model",
    "Find what does a task",
    "Keep and share",
    "Models",
)
_add(BEGIN, demo=demo.demo, models=models.models)
_add(LOOK, scan=scan.scan, lens=lens.lens, probe=probe.probe, consistency=consistency.consistency)
_add(FIND, sweep=sweep.sweep, circuit=circuit.circuit, overlap=overlap.overlap)
app.add_typer(vectors.vectors, name="vectors", rich_help_panel=FIND)
_add(KEEP, report=report.report)
app.add_typer(runs.runs, name="runs", rich_help_panel=KEEP)
_add(MODELS, train=train.train, verify=verify.verify)
