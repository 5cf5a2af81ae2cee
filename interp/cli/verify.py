"""`interp verify`: does what is published about a model hold on the weights at hand?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import complete
from interp.cli.options import AsJson, Device, DType, ModelName, Revision

if TYPE_CHECKING:
    from interp.heads.facts import Verification


def verify(
    model: ModelName,
    facts: Annotated[
        str | None,
        typer.Option(help="Whose facts: gpt2; MODEL's by default.", autocompletion=complete.facts),
    ] = None,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
) -> None:
    """Check on its weights what is published about a model.

    Ends with code 1 if anything does not hold.

    Examples:
    interp verify gpt2
    interp verify ./my-gpt2 --facts gpt2 --json
    """
    from interp.cli import show
    from interp.errors import ModelError, did_you_mean
    from interp.heads.facts import verify as verify_facts
    from interp.heads.gpt2_facts import SHEETS
    from interp.models import load

    whose = facts or model
    if whose not in SHEETS:
        raise ModelError(
            f"There are no facts about {whose!r}: {did_you_mean(whose, SHEETS)} Name them with "
            "--facts."
        )
    show.say(f"Loading {model}")
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    found = verify_facts(loaded, SHEETS[whose])
    if as_json:
        show.print_json(summary(found))
    else:
        print_verdicts(found)
    if not found.held:
        raise typer.Exit(1)


def summary(found: Verification) -> dict[str, Any]:
    """Every fact with the numbers that were measured."""
    return {
        "model": found.provenance["model"],
        "holds": found.held,
        "facts": [
            {
                "fact": verdict.fact.text,
                "source": verdict.fact.source,
                "expected": verdict.fact.expected,
                "tolerance": verdict.fact.tolerance,
                "measured": verdict.measured,
                "error": verdict.error,
                "holds": verdict.held,
            }
            for verdict in found.verdicts
        ],
        "provenance": found.provenance,
    }


def print_verdicts(found: Verification) -> None:
    """The same as a table, with the tolerance of each fact under it."""
    from interp.cli import show

    rows = found.to_frame().to_dict("records")
    held = sum(row["holds"] for row in rows)
    show.table(
        ("holds", "fact", "source", "expected", "measured"),
        [
            (
                "yes" if row["holds"] else "no",
                *(row[key] for key in ("fact", "source", "expected")),
                row["measured"],
            )
            for row in rows
        ],
        title=f"{held} of {len(rows)} facts hold in {found.provenance['model']}",
    )
    typer.echo()
    for row in rows:
        typer.echo(f"{row['fact']}: {row['tolerance']}.")
