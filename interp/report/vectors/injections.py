"""Vectors put into prompts, as sections of a report: what they do, composed and rebuilt too."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.report.difference import beyond
from interp.report.drawing.chart import Series, curves, points
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    interval,
    listed,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, function_vector_of, rerun
from interp.vectors import Composition, Injection, Reconstruction

ENDS = ("ci_low", "ci_high")


def injection_section(
    found: Injection,
    results: Sequence[object] = (),
    *,
    main: str | None = None,
    references: tuple[str, ...] = (),
    heading: str = "",
    lead: str = "",
    call: str = "",
) -> Section:
    """What vectors do where nothing demonstrates the function, context by context.

    Args:
        main: Name of the vector that is judged; by default the first.
        references: Names of vectors that it is held against; all others are its controls.
        heading, lead, call: Words of a result that is judged by an injection.
    """
    frame, known = found.to_frame(), found.provenance
    main = next(iter(found.correct)) if main is None else main
    items = frame["items"].iloc[0]
    some = frame[frame["items"] == items]
    model = str(known["model"])
    call = call or (
        f"found = {function_vector_of(found.relation, known.get('function', {}))}\n"
        "interp.vectors.inject(model, found, "
        + arguments(n=len(found.known), layer=found.layer, seed=known.get("vector_seed"))
        + ")"
    )
    return Section(
        heading=heading or f"Does the vector of {found.relation} do it in {model}?",
        lead=lead
        or (
            f"The vector is added at the end of prompts that do not demonstrate {found.relation}, "
            f"after block {found.layer}, beside vectors that are not the function's."
        ),
        claims=tuple(
            _injected(found, some[some["context"] == context].set_index("vector"), main, references)
            for context in found.contexts[: len(found.dev)]
        ),
        blocks=(_contexts(found, frame, some, model), _by_layer(found, model)),
        limits=(
            *(
                ()
                if items == "known"
                else ("The model answers none of the full prompts, so all items are counted.",)
            ),
            "The layer was chosen on tuning queries, by the first vector alone.",
            "What the vectors do in natural texts stands in the table, not among the claims.",
            *(f"Left out: {what}. {why}" for what, why in found.skipped.items()),
        ),
        provenance=provenance_rows(known),
        command=rerun(known, *call.split("\n")),
        baselines=frame_table(
            "Share answered without any vector",
            frame[frame["vector"] == "none"],
            {"context": "Context", "items": "Items", "accuracy": "Accuracy", "n": "n"},
        ),
    )


def _injected(
    found: Injection, here: pd.DataFrame, main: str, references: tuple[str, ...]
) -> Claim:
    """The vector counts as doing it where it clears the bare prompt and every control."""
    own, bare = here.loc[main], here.loc["none"]
    controls = here.drop([main, "none", *references])
    verdict = beyond(own["accuracy"], own["ci_low"], bare["accuracy"], *controls["accuracy"])
    if verdict == "found" and (controls.empty or not own["gain_low"] > 0):
        verdict = "doubtful"
    does = {"found": "makes", "doubtful": "may make", "not found": "does not make"}[verdict]
    better = " any better" if verdict == "not found" else ""
    beside = [
        f"{name} {number(row['accuracy'])}" for name, row in here.drop([main, "none"]).iterrows()
    ]
    return Claim(
        f"Added after block {found.layer}, the {main} vector {does} {found.provenance['model']} do "
        f"{found.relation}{better} ({own['context']}).",
        f"Accuracy {number(own['accuracy'])} ({interval(own['ci_low'], own['ci_high'])}), without "
        f"a vector {number(bare['accuracy'])}, a gain of {number(own['gain'], sign=True)} "
        f"({interval(own['gain_low'], own['gain_high'])}); other vectors: "
        f"{', '.join(beside) or 'none, so that it has no control'}; {of(int(own['n']))} prompts of "
        f"{int(own['queries'])} queries, {own['items']} items.",
        verdict,
    )


def _contexts(found: Injection, frame: pd.DataFrame, some: pd.DataFrame, model: str) -> Block:
    names = [f"{row.context}: {row.vector}" for row in some.itertuples()]
    drawing = points(
        [Series.of(some, "accuracy", "accuracy", ends=ENDS)],
        names,
        label=f"Accuracy on {found.relation} in each context with each vector. All values are in "
        "the table.",
        across="share answered right",
        limits=(0.0, 1.0),
    )
    full = number(found.known.float().mean().item())
    return Block(
        "Every context and vector",
        "“Known” items are those that the full prompt, with right demonstrations, gets right: "
        f"{full} of all. A vector that does the function has to beat the prompt without a vector "
        "and the vectors that are not the function's.",
        (
            Figure(
                model,
                drawing,
                "Lines are 95% intervals over queries.",
                data=frame_table("Every context, vector and choice of items", frame),
            ),
        ),
        (
            Table(
                "How long the vectors are",
                ("Vector", "Mean norm"),
                tuple(found.norms.items()),
            ),
        ),
    )


def _by_layer(found: Injection, model: str) -> Block:
    each = found.dev.mean(dim=-1)
    names = found.contexts[: len(each)]
    layers = [str(layer) for layer in range(each.shape[1])]
    table = Table(
        f"Tuning queries answered, {of(found.dev.shape[-1])} a context",
        ("Layer", *names),
        tuple((layer, *values) for layer, values in enumerate(each.T.tolist())),
    )
    return Block(
        "By layer, on tuning queries",
        f"What block {found.layer} was chosen by; nothing else here uses these queries.",
        (
            Figure(
                model,
                curves(
                    [
                        Series(name, values)
                        for name, values in zip(names, each.tolist(), strict=True)
                    ],
                    layers,
                    label="Accuracy on tuning queries with the vector added after each block. All "
                    "values are in the table.",
                    across="block",
                    limits=(0.0, 1.0),
                ),
                f"{of(found.dev.shape[-1])} prompts a context.",
                data=table,
            ),
        ),
    )


def composition_section(found: Composition, results: Sequence[object] = ()) -> Section:
    """Whether the sum of three function vectors does a fourth function."""
    model, corners = str(found.injection.provenance["model"]), found.corners
    ad, bc, ac, bd = (each.name for each in (corners.ad, corners.bc, corners.ac, corners.bd))
    return injection_section(
        found.injection,
        main="composed",
        references=("true",),
        heading=f"Do vectors compose to {bd} in {model}?",
        lead=(
            f"The vector of {ad} plus that of {bc} minus that of {ac} is put in the place of the "
            f"vector of {bd}, and compared with its parts, with random vectors, and with that "
            f"vector itself (“true”). The cosine of the two is {number(found.cosine)}. All are "
            f"sums over {len(found.heads)} heads: {listed(list(map(str, found.heads)), most=12)}."
        ),
        call=f"interp.vectors.composition(model, corners)  # {corners!r}",
    )


def reconstruction_section(found: Reconstruction, results: Sequence[object] = ()) -> Section:
    """Whether a vector that says what a function vector says does what it does."""
    model, name = str(found.injection.provenance["model"]), found.injection.relation
    return injection_section(
        found.injection,
        main="reconstructed",
        references=("function",),
        heading=f"Is what the vector of {name} says all that it does in {model}?",
        lead=(
            f"{len(found.vectors)} random vectors are bent until they say what the function "
            f"vector says over {found.words} words (KL {found.kl.mean().item():.1e} nats, cosine "
            f"{number(found.cosine.mean().item())} with it), and are put in its place."
        ),
        call=f"found = {function_vector_of(name, found.injection.provenance.get('function', {}))}\n"
        "interp.vectors.reconstruction(model, found, "
        + arguments(words=found.words, draws=len(found.vectors), layer=found.injection.layer)
        + ")",
    )
