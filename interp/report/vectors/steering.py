"""Steering vectors as sections of a report: the layer, and what every strength does."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.report.drawing.chart import Series, curves
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    Verdict,
    interval,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, rerun
from interp.vectors import SteeringVector, StrengthSweep

ENDS = ("ci_low", "ci_high")
MEANINGS = {
    "unsteered": "the model as it is",
    "steered": "the answer rises, more than under random and shuffled vectors",
    "as controls": "the answer rises, but controls do as much",
    "no effect": "the interval of the change holds 0, or the change is below .01",
    "reversed": "the answer falls",
    "other tokens": "more probability goes to tokens that are no answer than to the answer",
    "label collapse": "the answers drift to .5 each, and no larger multiplier goes past it",
}


def steering_section(found: SteeringVector, results: Sequence[object] = ()) -> Section:
    """At which layer a vector steers most, on the pairs that the layer was chosen on."""
    frame, known = found.to_frame(), found.provenance
    row, model, name = frame.loc[found.layer], str(known["model"]), f"“{found.behavior.name}”"
    size = f"{of(int(row['n']))} dev pairs"
    return Section(
        heading=f"A vector that steers {model} to {name}",
        lead=(
            "The mean difference between positive and negative answers is added at every layer in "
            f"turn, at strength {found.strength:g} and −{found.strength:g}. The gain is half of "
            "what both add to the probability of the answer that they steer to."
        ),
        claims=(
            Claim(
                f"The vector may steer {model} to {name}, best after layer {found.layer}."
                if row["gain"] > 0
                else f"In no layer does the vector steer {model} to {name}.",
                f"Gain {number(row['gain'], sign=True)} in probability "
                f"({interval(row['ci_low'], row['ci_high'])}); {size}. The layer was chosen on "
                "these pairs, and no control is measured here: strength_sweep judges it.",
                "doubtful" if row["gain"] > 0 else "not found",
            ),
        ),
        blocks=(
            Block(
                f"Gain towards {name}, by layer",
                "Above zero, the vector moves the model the way it is meant to.",
                (
                    Figure(
                        model,
                        curves(
                            [Series.of(frame, "gain", "gain", ends=ENDS)],
                            [str(layer) for layer in frame["layer"]],
                            label=f"Gain of the steering vector in every layer. Best: layer "
                            f"{found.layer} with {number(row['gain'])}.",
                            across="layer",
                            level=("no change", 0.0),
                        ),
                        f"The band is the 95% interval over pairs; {size}.",
                        data=frame_table("Gain at every layer", frame),
                    ),
                ),
            ),
        ),
        limits=(
            "The best layer of several looks better than it is: its pairs chose it.",
            "Answers are forced choices: what the model writes freely may differ.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"behavior = ...  # {found.behavior.name}: {known.get('pairs')} training pairs",
            "interp.vectors.steering_vector(model, behavior, "
            + arguments(
                strength=found.strength,
                layer=found.layer if known.get("layer_was") == "given" else None,
                seed=known.get("shuffle_seed"),
            )
            + ")",
        ),
    )


def strengths_section(sweep: StrengthSweep, results: Sequence[object] = ()) -> Section:
    """What every strength of a vector does to all of the response, beside its controls."""
    frame, known = sweep.to_frame(), sweep.provenance
    model = str(known["model"])
    size = f"{of(int(frame['n'][0]))} prompts"
    clean = frame.set_index("strength").loc[0.0]
    sides = (
        (frame[frame["strength"] > 0], f"to “{sweep.behavior}”"),
        (frame[frame["strength"] < 0], f"away from “{sweep.behavior}”"),
    )
    controls = f"{len(sweep.random)} random vectors and {len(sweep.shuffled)} of shuffled pairs"
    return Section(
        heading=f"How strongly {model} is steered to “{sweep.behavior}”",
        lead=(
            f"The vector is added after layer {sweep.layer}, many times stronger and weaker. It "
            f"steers only where it does more than {controls}, and where the probability goes to "
            "the answer rather than to other tokens."
        ),
        claims=tuple(_side(some, way, model, size, controls) for some, way in sides if len(some)),
        blocks=(_responses(frame, model, size), _toward(frame, model, controls)),
        limits=(
            f"Among {len(frame)} strengths, one may pass for steering by chance.",
            "Answers are forced choices: what the model writes freely may differ.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"found = interp.vectors.steering_vector(model, behavior)  # {sweep.behavior}",
            "interp.vectors.strength_sweep(model, found, "
            + arguments(
                strengths=sweep.strengths,
                layer=sweep.layer,
                draws=len(sweep.random),
                seed=known.get("random_seed"),
            )
            + ")",
        ),
        baselines=Table(
            f"The model as it is, {size}",
            ("Answer", "Probability"),
            tuple((name, float(clean[name])) for name in ("positive", "negative", "other")),
        ),
    )


def _side(some: pd.DataFrame, way: str, model: str, size: str, controls: str) -> Claim:
    """One direction: by the verdicts of the sweep itself."""
    steered = some[some["verdict"] == "steered"]
    verdict: Verdict = "found"
    if steered.empty:
        verdict = "doubtful" if (some["verdict"] == "as controls").any() else "not found"
    best = (some if steered.empty else steered).sort_values("toward").iloc[-1]
    told = ", ".join(
        f"{row['strength']:g} {row['verdict']}".replace("-", "−") for _, row in some.iterrows()
    )
    statement = (
        f"No strength is shown to steer {model} {way}."
        if steered.empty
        else f"The vector steers {model} {way}, by up to {number(best['toward'], sign=True)} in "
        f"probability at strength {best['strength']:g}.".replace("-", "−")
    )
    return Claim(
        statement,
        f"At {best['strength']:g} ".replace("-", "−") + f"{number(best['toward'], sign=True)} "
        f"({interval(best['toward_low'], best['toward_high'])}); random vectors "
        f"{number(best['random_toward'], sign=True)}, the best shuffled one "
        f"{number(best['shuffled_toward'], sign=True)}, p {number(best['p'], digits=3)} "
        f"({controls}); by strength: {told}; {size}.",
        verdict,
    )


def _places(frame: pd.DataFrame) -> list[str]:
    return [f"{strength:g}".replace("-", "−") for strength in frame["strength"]]


def _responses(frame: pd.DataFrame, model: str, size: str) -> Block:
    drawing = curves(
        [
            Series.of(frame, "positive", "positive answer", ends=("positive_low", "positive_high")),
            Series.of(frame, "negative", "negative answer"),
            Series.of(frame, "other", "all other tokens", control=True),
        ],
        _places(frame),
        label="Probability of the positive answer, the negative answer and all other tokens at "
        "every strength. All values are in the table.",
        across="multiplier",
        limits=(0.0, 1.0),
    )
    return Block(
        "All of the response",
        "A rise of one answer alone can be damage: all other tokens are drawn too.",
        (
            Figure(
                model,
                drawing,
                f"The band is the 95% interval over prompts; {size}.",
                data=frame_table("Every strength", frame),
            ),
        ),
        (
            Table(
                "Verdicts",
                ("Verdict", "Strengths", "What it means"),
                tuple(
                    (name, ", ".join(_places(frame[frame["verdict"] == name])), meaning)
                    for name, meaning in MEANINGS.items()
                    if name in set(frame["verdict"])
                ),
            ),
        ),
    )


def _toward(frame: pd.DataFrame, model: str, controls: str) -> Block:
    drawing = curves(
        [
            Series.of(frame, "toward", "the vector", ends=("toward_low", "toward_high")),
            Series.of(frame, "random_toward", "random vectors, mean", control=True),
            Series.of(frame, "shuffled_toward", "best vector of shuffled pairs", control=True),
        ],
        _places(frame),
        label="Change of the answer steered to at every strength, beside random vectors and "
        "vectors of shuffled pairs. All values are in the table above.",
        across="multiplier",
        level=("no change", 0.0),
    )
    return Block(
        "Beside the controls",
        "What is added to the answer steered to: the positive one above 0, the negative one below.",
        (Figure(model, drawing, f"Controls: {controls}, of the same norm."),),
    )
