"""`interp scan`: what every attention head looks at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.options import AsJson, Device, DType, ModelName, Revision, Seed

if TYPE_CHECKING:
    from interp.heads import HeadAtlas


def scan(
    model: ModelName,
    kinds: Annotated[
        str | None, typer.Option(help="Some kinds, with commas between; all by default.")
    ] = None,
    n: Annotated[int, typer.Option(help="Prompts of repeated random tokens.")] = 10,
    seq_len: Annotated[int, typer.Option(help="Random tokens in one copy.")] = 50,
    seed: Seed = 0,
    threshold: Annotated[float, typer.Option(help="Name a head after a kind from this on.")] = 0.4,
    top: Annotated[int, typer.Option(min=1, help="Heads to print of each kind.")] = 5,
    control: Annotated[bool, typer.Option(help="Scan an untrained twin too.")] = True,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
    out: Annotated[Path | None, typer.Option(help="Write the whole atlas here, as JSON.")] = None,
) -> None:
    """Score every attention head of a model by what it looks at.

    The prompts are random tokens said twice, so that only position and repetition guide attention.
    Kinds: previous-token, duplicate-token, induction, current-token, first-token.
    """
    from interp.cli import show
    from interp.heads import scan as scan_heads
    from interp.models import load

    wanted = None if kinds is None else [kind.strip() for kind in kinds.split(",")]
    options: dict[str, Any] = {"n": n, "seq_len": seq_len, "seed": seed}
    show.say(f"Loading {model}")
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    show.say(f"Scanning {model}")
    atlas = scan_heads(loaded, wanted, **options)
    twin = None
    if control:
        show.say(f"Scanning an untrained twin of {model}")
        twin = scan_heads(loaded.untrained(), wanted, **options)
    if out is not None:
        atlas.save(out)
        typer.echo(f"Wrote {out}", err=True)
    if as_json:
        show.print_json(summary(atlas, twin, top=top, threshold=threshold))
    else:
        print_atlas(atlas, twin, top=top, threshold=threshold)


def summary(
    atlas: HeadAtlas, twin: HeadAtlas | None, *, top: int, threshold: float
) -> dict[str, Any]:
    """The best heads of each kind, with what they are compared to."""
    named = atlas.named(threshold)
    return {
        "model": atlas.provenance["model"],
        "threshold": threshold,
        "kinds": {
            kind: {
                "named": [str(head) for head in named[kind]],
                "chance": atlas.chance[index].item(),
                "untrained_max": None if twin is None else twin.grid(kind).max().item(),
                "top": atlas.top(kind, top).drop(columns="chance").to_dict("records"),
            }
            for index, kind in enumerate(atlas.kinds)
        },
        "provenance": atlas.provenance,
    }


def print_atlas(atlas: HeadAtlas, twin: HeadAtlas | None, *, top: int, threshold: float) -> None:
    """The same as a table, with the meaning of each kind under it."""
    from interp.cli import show
    from interp.heads import MEANING

    rows: list[tuple[str, ...]] = []
    for kind in atlas.kinds:
        floor = "" if twin is None else f"{twin.grid(kind).max().item():.2f}"
        for rank, row in enumerate(atlas.top(kind, top).itertuples()):
            first = rank == 0
            rows.append(
                (
                    kind if first else "",
                    row.head,
                    f"{row.score:.2f}",
                    f"{row.ci_low:.2f} to {row.ci_high:.2f}",
                    "yes" if row.score >= threshold else "",
                    floor if first else "",
                    f"{row.chance:.2f}" if first else "",
                )
            )
    show.table(
        ("kind", "head", "score", "95% interval", f">= {threshold}", "untrained max", "uniform"),
        rows,
        title=f"Heads of {atlas.provenance['model']}, n = {atlas.n}",
    )
    typer.echo()
    for kind in atlas.kinds:
        typer.echo(f"{kind}: {MEANING[kind]}.")
