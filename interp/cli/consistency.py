"""`interp consistency`: do the layers of a model agree with its answers, and what is that worth?"""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli import complete
from interp.cli.options import AsJson, Device, DType, ModelName, Revision, Save, Seed

if TYPE_CHECKING:
    from interp.consistency.result import Consistency
else:
    Consistency = Any


def consistency(
    model: ModelName,
    task: Annotated[
        str,
        typer.Option(
            help="coin_flip, or ontology: made-up classes.", autocompletion=complete.reasoning
        ),
    ] = "coin_flip",
    questions: Annotated[
        Path | None,
        typer.Option(help='Instead: JSON lines {"question": ..., "answer": ...[, "labels": []]}.'),
    ] = None,
    template: Annotated[
        str, typer.Option(help="The prompt of a question of a file; \\n is a new line.")
    ] = r"Q: {question}\nA:",
    flips: Annotated[int, typer.Option(min=1, help="People in a story of a coin.")] = 6,
    hops: Annotated[int, typer.Option(min=1, help="Rules in a question on made-up classes.")] = 3,
    n: Annotated[int, typer.Option(min=1, help="Questions to score.")] = 64,
    calibration: Annotated[int, typer.Option(min=2, help="Others, to set thresholds on.")] = 64,
    paths: Annotated[int, typer.Option(min=1, help="Paths of each question.")] = 40,
    temperature: Annotated[float, typer.Option(min=0, help="Of the sampling.")] = 0.7,
    top_p: Annotated[float, typer.Option(help="Share of the probability to sample from.")] = 0.95,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of a path.")] = 128,
    rationale: Annotated[bool, typer.Option(help="Think before the answer, or not.")] = True,
    seed: Seed = 0,
    device: Device = None,
    dtype: DType = None,
    revision: Revision = None,
    as_json: AsJson = False,
    save: Save = None,
    out: Annotated[Path | None, typer.Option(help="Write here, as JSON or .parquet.")] = None,
) -> None:
    """Score answers by how far the layers agree, and vote by it.

    Paths to answers are sampled; every layer is asked for its answer; the paths whose layers agree
    weigh more in the vote. Votes without weights, and by probability, stand beside it.

    Examples:
    interp consistency polymath --flips 6 --temperature 1.5
    interp consistency ./model --questions questions.jsonl --n 100
    """
    from interp import tasks
    from interp.cli import show
    from interp.cli.keep import keep
    from interp.consistency.json_lines import read_questions
    from interp.consistency.measure import measure
    from interp.consistency.ontology import Ontology
    from interp.models import load

    asked: Any
    if questions is not None:
        asked = read_questions(questions, template=template.replace("\\n", "\n"))
    elif task == "ontology":
        asked = Ontology(hops=hops)
    else:
        asked = tasks.get(task, **({"flips": flips} if task == "coin_flip" else {}))
    show.say(f"Loading {model}")
    loaded = load(model, device=device, dtype=dtype, revision=revision)
    found = measure(
        loaded,
        asked,
        n=n,
        calibration=calibration,
        paths=paths,
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        rationale=rationale,
        seed=seed,
    )
    source = f"--task {task}"
    if questions is not None:
        source = f"--questions {shlex.quote(str(questions))} --template {shlex.quote(template)}"
    command = (
        f"interp consistency {model} {source} --flips {flips} --hops {hops} --n {n} --calibration "
        f"{calibration} --paths {paths} --temperature {temperature} --top-p {top_p} "
        f"--max-new-tokens {max_new_tokens} --{'' if rationale else 'no-'}rationale --seed {seed}"
    )
    found = replace(found, provenance=found.provenance | {"command": command})
    if out is not None:
        found.save(out)
        show.wrote(out)
    keep(save, consistency=found)
    if as_json:
        show.print_json(
            {
                "verdict": found.verdict,
                "accuracy": found.accuracy,
                "unread": found.unread,
                "separation": found.separation_frame().to_dict("records"),
                "votes": found.votes.to_frame().to_dict("records"),
                "layers": found.layer_frame().to_dict("records"),
                "provenance": found.provenance,
            }
        )
    else:
        _print(found)


def _print(found: Consistency) -> None:
    from interp.cli import show

    show.table(
        ("score", "AUROC", "95%", "within a question", "ECE"),
        [
            (
                row.score,
                f"{row.auroc:.3f}",
                _ends(row.low, row.high),
                f"{row.within:.3f}",
                f"{row.ece:.3f}".replace("nan", ""),
            )
            for row in found.separation_frame().itertuples()
        ],
        title=str(found),
    )
    typer.echo()
    show.table(
        ("vote", "paths", "accuracy", "95%", "gain over SC", "95%"),
        [
            (
                row.vote,
                str(row.paths),
                f"{row.accuracy:.3f}",
                _ends(row.low, row.high),
                f"{row.gain:+.3f}",
                _ends(row.gain_low, row.gain_high),
            )
            for row in found.votes.to_frame().itertuples()
        ],
        title=str(found.votes),
    )
    typer.echo(f"\n{found.verdict}")


def _ends(low: float, high: float) -> str:
    return f"{low:.3f} to {high:.3f}"
