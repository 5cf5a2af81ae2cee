"""`scan`: what every head of a model does, by every score, and whether it matters."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from interp.errors import MetricError
from interp.heads.atlas import HeadAtlas
from interp.heads.claims import Claim
from interp.heads.kinds import KINDS, kind_of
from interp.heads.scan_work import DETECTORS, ClaimWork, ScoreWork, unpacked
from interp.heads.score import Score
from interp.models import Model
from interp.progress import track
from interp.provenance import provenance
from interp.runs import Run
from interp.workers import Engine, Here, Item, Work, engine_or_here, kept_and_computed
from interp.workers.opened import foreign, opened, settle_chunks, threads_of

RESULT = "atlas.json"
"""The file in a run's folder that holds the whole atlas, for `HeadAtlas.load`."""


def scan(
    model: Model,
    kinds: str | Sequence[str] | None = None,
    *,
    n: int | None = None,
    seed: int = 0,
    check: bool = True,
    run: str | Path | None = None,
    engine: Engine | None = None,
    command: str | None = None,
    progress: bool = True,
) -> HeadAtlas:
    """Score every attention head by every kind, and check what the heads found are said to do.

    Args:
        model: What `interp.load` returns.
        kinds: Some of `KINDS`, or one; all by default.
        n: Samples of each score; by default as many as each was published with.
        seed: Of all random choices.
        check: Take the heads of each kind out, and as many random ones, on the kind's own task.
        run: A folder in which scores and claims are kept as they come. The same call with the same
            folder goes on where it was stopped, and gives the same atlas; a call that differs in
            model or options is refused.
        engine: Who computes: this process by default, or an engine of `interp.workers`.
        command: The shell line that does the same, for the provenance and the run; by default the
            provenance names one that keeps no run.
        progress: Show bars.

    Raises:
        MetricError: An unknown kind, or none that can be measured in this model.
        RunError: A folder that holds something else or another run; that another process writes;
            or that cannot be written.

    A kind that this model or its tokenizer cannot be asked about is in `missing`, with the reason.
    The control of a scan is `scan(model.untrained())`: the same shape with random weights.
    """
    wanted, engine = _resolve(kinds), engine_or_here(engine)
    repeated = command or _command(model, wanted, n=n, seed=seed, check=check)
    source = provenance(model, method="head scan", seed=seed, n=n, command=repeated)
    source |= {"device": engine.where(model)}
    about = {**source, "kinds": list(wanted), "check": check}
    bars = progress and isinstance(engine, Here)  # elsewhere nobody sees those of a single chunk
    with opened(
        run, model, engine, kind="atlas", result=RESULT, about=about, command=command
    ) as store:
        computed = partial(_computed, model, engine, store, shown=progress)
        detectors = [
            (number, kinds) for number, kinds in enumerate(DETECTORS) if {*kinds} & {*wanted}
        ]
        threads = threads_of(engine, store)
        work: Work = ScoreWork(n, seed=seed, threads=threads, progress=bars)
        answers = computed(work, detectors, "Scoring heads", answer=list[Score] | str)
        scores, missing = _scores(answers, wanted)
        to_check = _claims(scores) if check else []
        settle_chunks(store, len(detectors) + len(to_check))
        claims: dict[str, Claim] = {}
        work = ClaimWork(seed, threads=threads, progress=bars)
        for (kind, _), claim in computed(work, to_check, "Checking claims", answer=Claim | str):
            if isinstance(claim, Claim):
                claims[kind] = claim
            else:
                missing[f"claim of {kind}"] = claim
        atlas = HeadAtlas(
            scores={kind: scores[kind] for kind in wanted if kind in scores},
            claims=claims,
            missing=missing,
            provenance=source,
        )
        if store is not None:
            store.finish(atlas.save)
    return atlas


def _computed(
    model: Model,
    engine: Engine,
    run: Run | None,
    work: Work,
    items: list[Item],
    what: str,
    *,
    answer: Any,
    shown: bool,
) -> list[tuple[Any, Any]]:
    """Each item, and what became of it, in their order: of the type `answer`.

    Raises RunError for a chunk that no scan has written.
    """
    found: dict[int, Any] = {}
    asked = {number for number, _ in items}
    with closing(kept_and_computed(engine, model, work, items, run)) as every:
        chunks = ((number, chunk) for number, chunk in every if number in asked)
        for _, (number, chunk) in zip(track(items, what, shown=shown), chunks, strict=True):
            try:
                found[number] = unpacked(chunk, answer)
            except ValueError as error:
                raise foreign(number, run) from error
    return [(item, found[number]) for number, item in items]


def _scores(
    answers: list[tuple[tuple[str, ...], list[Score] | str]], wanted: Sequence[str]
) -> tuple[dict[str, Score], dict[str, str]]:
    """The scores that were asked for, and why others are missing, by kind."""
    scores: dict[str, Score] = {}
    missing: dict[str, str] = {}
    for kinds, answer in answers:
        asked = [kind for kind in kinds if kind in wanted]
        if isinstance(answer, str):
            missing |= dict.fromkeys(asked, answer)
        else:
            scores |= {score.kind: score for score in answer if score.kind in asked}
    return scores, missing


def _claims(scores: dict[str, Score]) -> list[Item]:
    """One for each kind that has heads and a task."""
    claims = [(kind, score.named()) for kind, score in scores.items() if kind_of(kind).task]
    some = [(kind, heads) for kind, heads in claims if heads]
    return list(enumerate(some, start=len(DETECTORS)))


def _command(model: Model, kinds: Sequence[str], *, n: int | None, seed: int, check: bool) -> str:
    """What repeats the scan: in the shell, or in Python for a model that has no name to load."""
    every = tuple(kinds) == tuple(KINDS)
    if model.id.startswith(type(model.hf).__name__):
        options = [] if every else [str(list(kinds))]
        options += [] if n is None else [f"n={n}"]
        options += [f"seed={seed}"] + ([] if check else ["check=False"])
        return f"interp.heads.scan(model, {', '.join(options)})"
    words = ["interp scan", shlex.quote(model.id.partition(" (untrained")[0])]
    words += [] if every else [f"--kinds {','.join(kinds)}"]
    dtype = str(model.dtype).removeprefix("torch.")
    words += [] if dtype == "float32" else [f"--dtype {dtype}"]
    words += [] if model.revision is None else [f"--revision {shlex.quote(model.revision)}"]
    words += [] if n is None else [f"--n {n}"]
    return " ".join([*words, f"--seed {seed}"] + ([] if check else ["--no-check"]))


def _resolve(kinds: str | Sequence[str] | None) -> tuple[str, ...]:
    wanted = (kinds,) if isinstance(kinds, str) else tuple(KINDS if kinds is None else kinds)
    if not wanted:
        raise MetricError(f"No kind of head was asked for; pass some of {', '.join(KINDS)}.")
    return tuple(dict.fromkeys(kind_of(kind).name for kind in wanted))
