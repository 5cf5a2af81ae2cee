"""`interp demo`: from a model to a report, on a model that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from interp.cli.options import AsJson, Device, Seed

if TYPE_CHECKING:
    from interp.heads import HeadAtlas
    from interp.models import Model
    from interp.report import Report
else:
    HeadAtlas = Model = Report = Any

MODEL, PROMPTS, JUDGED = "polymath", 64, 32
TASKS = ("ioi", "colored_objects", "retrieval")
RELATION, RIVAL = "antonym", "comparative"


def demo(
    out: Annotated[Path, typer.Option(help="Folder of the report.")] = Path("interp-demo"),
    seed: Seed = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Examine a model that ships with the package, and write a report.

    An atlas of its heads, each head switched off on a task, the circuits of three tasks and what
    they share, the vectors of a task, and whether its layers agree with its answers: each beside
    its controls. Needs no network. The last line printed is the path of the report.

    Examples:
    interp demo
    interp demo --out somewhere --json
    """
    from interp.cli import show
    from interp.models import load
    from interp.report import build

    out.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    show.say(f"Loading {MODEL}")
    model = load(MODEL, device=device)
    atlas, twin = _atlases(model, seed)
    results = [
        atlas,
        twin,
        *_sweeps(model, seed),
        *_circuits(model, seed, atlas),
        *_vectors(model, seed),
        *_consistency(model, seed),
    ]
    report = build(*results, title=f"Inside {MODEL}")
    path = report.save(out / "report.html")
    if as_json:
        show.print_json({"report": str(path), "verdict": report.verdict, "claims": _claims(report)})
        return
    _print_claims(report)
    typer.echo(path)


def _atlases(model: Model, seed: int) -> tuple[HeadAtlas, HeadAtlas]:
    """What every head does, and what those of an untrained twin do."""
    from interp.cli import show
    from interp.heads import scan

    show.say("Scanning its heads, and those of an untrained twin")
    atlas = scan(model, seed=seed)
    # random weights find no needle, and write long answers before that is known
    kinds = [kind for kind in atlas.kinds if kind != "retrieval"]
    return atlas, scan(model.untrained(), kinds, seed=seed, check=False)


def _sweeps(model: Model, seed: int) -> list[object]:
    """A task without each head, what each layer brings back, and where the strongest heads look."""
    from interp import sites, tasks
    from interp.cli import show
    from interp.engine import ablate, patch
    from interp.heads import attention_patterns

    show.say(f"Switching off each head on {PROMPTS} prompts of {TASKS[0]}")
    prompts = tasks.get(TASKS[0]).sample(model, PROMPTS, seed=seed)
    without = ablate(model, prompts)
    restored = patch(model, prompts, sites.resid(model), positions=["S2", "END"])
    named = [str(site) for site in without.top(6)["site"]]
    return [without, restored, attention_patterns(model, prompts[:4], named)]


def _circuits(model: Model, seed: int, atlas: HeadAtlas) -> list[object]:
    """The circuits of some tasks, each judged on other prompts, and what they share."""
    from interp import tasks
    from interp.circuits import curve, discover, evaluate, overlap
    from interp.cli import show

    found, judged = {}, {}
    results: list[object] = []
    for name in TASKS:
        show.say(f"Finding the circuit of {name}")
        task = tasks.get(name)
        circuit = discover(model, task.sample(model, PROMPTS, seed=seed, split="train"), size=0.05)
        found[name] = circuit = circuit.labelled(atlas.labels())
        judged[name] = task.sample(model, JUDGED, seed=seed, split="test")
        control = model.untrained()
        results += [circuit, evaluate(model, judged[name], {name: circuit}, control=control)]
    results.append(curve(model, judged[TASKS[0]], found[TASKS[0]]))
    show.say("Comparing the circuits")
    shared = overlap(model, {name: (found[name], judged[name]) for name in TASKS}, seed=seed)
    return [*results, shared]


def _vectors(model: Model, seed: int) -> list[object]:
    """A task vector and a function vector of one relation."""
    from interp.cli import show
    from interp.vectors import function_vector, inject, task_vector

    show.say(f"Finding the vectors of {RELATION}")
    vector = task_vector(model, RELATION, seed=seed)
    function = function_vector(model, RELATION, shots=5, n_mean=50, other=RIVAL, seed=seed)
    return [vector, vector.evaluate(model, seed=seed), function, inject(model, function, n=50)]


def _consistency(model: Model, seed: int) -> list[object]:
    """Whether the layers agree with the answers to coin flips."""
    from interp import tasks
    from interp.cli import show
    from interp.consistency import measure

    show.say("Sampling answers to coin flips")
    task = tasks.get("coin_flip", flips=6)
    return [measure(model, task, n=48, calibration=48, paths=10, temperature=1.5, seed=seed)]


def _claims(report: Report) -> list[dict[str, str]]:
    return [
        {"section": section.heading, "verdict": claim.verdict, "claim": claim.statement}
        for section in report.sections
        for claim in section.claims
    ]


def _print_claims(report: Report) -> None:
    from interp.cli import show

    for section in report.sections:
        if rows := [(claim.verdict, claim.statement) for claim in section.claims]:
            show.table(("verdict", "claim"), rows, title=section.heading)
            typer.echo()
    typer.echo(report.verdict)
