"""What else probes tell, as sections of a report: code length, depth, and what erasing costs."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.probes import CodeLength, Depth, Erasure
from interp.probes.depth import POINTS
from interp.report.difference import beyond
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
from interp.report.probes.probes import CONTROLS
from interp.report.rerun import arguments, rerun, sampled

EXISTS = 0.95
"""Share of resamples in which a point has to exist."""
MEANINGS = {
    "jump": "the first layer at which accuracy rises by the factor asked for",
    "converging": "the last layer at which accuracy no longer changes",
    "settled": "the last change: from here on accuracy stays",
}


def codelength_section(found: CodeLength, results: Sequence[object] = ()) -> Section:
    """How much shorter a layer makes the code of the labels, beside its controls."""
    frame, known = found.to_frame(), found.provenance
    model = str(known.get("model", "the given states"))
    best, size = frame.loc[frame["compression"].idxmax()], f"{of(found.n)} prompts"
    beside = {name: float(best[name]) for name in CONTROLS if name in best}
    verdict = beyond(best["compression"], best["compression_low"], 1.0, *beside.values())
    does = {"found": "shortens", "doubtful": "may shorten", "not found": "does not shorten"}
    task = f"the labels of {known['task']}" if known.get("task") else "the labels"
    controls = "; ".join(f"{CONTROLS[name]} {number(value)}" for name, value in beside.items())
    drawing = curves(
        [
            Series.of(frame, "compression", "task", ends=("compression_low", "compression_high")),
            *(Series.of(frame, name, CONTROLS[name], control=True) for name in beside),
        ],
        frame["layer"].astype(str).tolist(),
        label="Compression by the probe of every layer, beside its controls. All values are in "
        "the table.",
        across="layer",
        level=("states that tell nothing", 1.0),
    )
    return Section(
        heading=f"How short is the code of {task} in {model}?",
        lead=(
            "Labels are sent one after another, each coded by a probe of those before. A layer "
            "that makes them easy to learn makes the code short, with few prompts already."
        ),
        claims=(
            Claim(
                f"Layer {best['layer']} of {model} {does[verdict]} the code of {task}: "
                f"{number(best['compression'])} times.",
                f"{best['bits']:.0f} of {best['uniform']:.0f} bits, compression "
                f"{number(best['compression'])} "
                f"({interval(best['compression_low'], best['compression_high'])}); {controls}; "
                f"{size}.",
                verdict,
            ),
        ),
        blocks=(
            Block(
                "Compression by layer",
                "1 is the code of a guess among all labels; below 1 the probe misleads.",
                (
                    Figure(
                        model,
                        drawing,
                        f"The band is the 95% interval over prompts; {size}.",
                        data=frame_table("Every layer", frame),
                    ),
                ),
            ),
        ),
        limits=(
            "The layer of the claim is the best of all: its interval does not allow for that.",
            "Intervals keep the probes as they are, and the order in which prompts were sent.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            sampled(known),
            "interp.probes.codelength(model, prompts, labels, "
            + arguments(
                kind=known.get("kind"), position=known.get("position"), seed=known.get("probe_seed")
            )
            + ")",
        ),
    )


def depth_section(found: Depth, results: Sequence[object] = ()) -> Section:
    """At which share of the depth a label comes to be known."""
    frame, known = found.to_frame(), found.provenance
    model = str(known.get("model", "the given states"))
    size = f"{of(found.n)} test prompts"
    accuracy = found.accuracy.tolist()
    table = Table(
        f"Accuracy of probes, {size}",
        ("Layer", "Accuracy"),
        tuple((layer, value) for layer, value in enumerate(accuracy)),
    )
    return Section(
        heading=f"At which depth does {model} know the label?",
        lead=(
            "Three points of the curve of probe accuracies, as shares of the depth: where it jumps "
            f"(by a factor of {found.rise:g}), where it converges and where it has settled "
            f"(changes below {found.flat:g})."
        ),
        claims=tuple(_point(frame.set_index("point").loc[point], size, model) for point in POINTS),
        blocks=(
            Block(
                "The curve, and its points",
                "; ".join(f"{point}: {meaning}" for point, meaning in MEANINGS.items()) + ".",
                (
                    Figure(
                        model,
                        curves(
                            [Series("accuracy", accuracy)],
                            [str(layer) for layer in range(len(accuracy))],
                            label="Accuracy of the probe of every layer. All values are in the "
                            "table.",
                            across="layer",
                            limits=(0.0, 1.0),
                        ),
                        f"Layer 0 is the embedding; {size}.",
                        data=table,
                    ),
                ),
                (frame_table("The points", frame, digits=2),),
            ),
        ),
        limits=(
            "The controls of these probes are in their own result: a curve of an untrained model "
            "has points too.",
            "What counts as a jump or a change is a convention.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.probes.depth(result, {arguments(rise=found.rise, flat=found.flat)})",
        ),
    )


def _point(row: pd.Series, size: str, model: str) -> Claim:
    """Found where nearly all resamples of the test prompts have the point."""
    if not row["depth"] >= 0:
        return Claim(
            f"The accuracy of probes of {model} has no {row.name} point.",
            f"{number(row['exists'])} of the resamples have one; {size}.",
            "not found",
        )
    verdict: Verdict = "found" if row["exists"] >= EXISTS else "doubtful"
    return Claim(
        f"The {row.name} point of {model} is at {number(row['depth'])} of the depth.",
        f"{number(row['depth'])} ({interval(row['low'], row['high'])}); {number(row['exists'])} of "
        f"the resamples have one; {size}.",
        verdict,
    )


def erasure_section(found: Erasure, results: Sequence[object] = ()) -> Section:
    """Whether a probe, and the model, still find a concept that was erased."""
    frame, known = found.to_frame(), found.provenance
    model = str(known["model"])
    at = int(frame["before"].idxmax())
    row, size = frame.loc[at], f"{of(int(frame['n'][0]))} test prompts"
    layers = frame["layer"].astype(str).tolist()
    probes = curves(
        [
            Series.of(frame, "before", "before", ends=("before_low", "before_high")),
            Series.of(frame, "after", "concept erased", ends=("after_low", "after_high")),
            Series.of(frame, "random", "random directions erased", control=True),
        ],
        layers,
        label="Accuracy of probes before and after the concept is erased, by layer. All values "
        "are in the table.",
        across="layer",
        limits=(0.0, 1.0),
        level=("chance", found.chance),
    )
    behaviour = curves(
        [
            Series.of(frame, "erased", "concept erased", ends=("erased_low", "erased_high")),
            Series.of(frame, "erased_random", "random directions erased", control=True),
        ],
        layers,
        label=f"{found.metric} of the model with the concept erased after each layer. All values "
        "are in the table.",
        across="erased after layer",
        level=("whole model", float(row["clean"])),
    )
    return Section(
        heading=f"What is lost when a concept is erased from {model}",
        lead=(
            "A concept is erased from the stream at one position, in one layer after another, by "
            "the least change after which no linear probe of the training prompts finds it. New "
            "probes and the model itself are then asked again, and random directions stand beside."
        ),
        claims=(
            _gone(found, row, model, size),
            _used(found, row, model, size),
        ),
        blocks=(
            Block(
                "Probes",
                "New probes, fitted on states without the concept.",
                (
                    Figure(
                        f"{model}: probes",
                        probes,
                        f"Bands are 95% intervals over test prompts; {size}.",
                        data=frame_table("Every layer", frame),
                    ),
                ),
            ),
            Block(
                "The model",
                f"{found.metric} when the model goes on from states without the concept.",
                (
                    Figure(
                        f"{model}: {found.metric}",
                        behaviour,
                        f"The band is the 95% interval over test prompts; {size}.",
                    ),
                ),
            ),
        ),
        limits=(
            "Only what a line can read is erased: what is coded otherwise stays.",
            "The layer of the claims is the one that the probe reads best.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            sampled(known),
            "interp.probes.erasure(model, prompts, labels, "
            + arguments(
                position=known.get("position"),
                metric=found.metric,
                draws=known.get("draws"),
                seed=known.get("probe_seed"),
            )
            + ")",
        ),
        baselines=Table(
            f"{found.metric} of the model, {size}",
            ("States", "Mean"),
            (
                ("as they are (clean)", float(row["clean"])),
                (f"concept erased after {row['layer']} (ablated)", float(row["erased"])),
                (f"random directions erased after {row['layer']}", float(row["erased_random"])),
            ),
            digits=3,
        ),
    )


def _gone(found: Erasure, row: pd.Series, model: str, size: str) -> Claim:
    """Nothing is gone that was not there, nor where random directions take as much."""
    verdict: Verdict = "found"
    if not row["before_low"] > found.chance:
        verdict = "doubtful"
    elif row["after_low"] > found.chance or not row["after_high"] < row["random"]:
        verdict = "doubtful" if row["after"] < row["random"] else "not found"
    does = {
        "found": "can no longer be read",
        "doubtful": "may no longer be readable",
        "not found": "can still be read",
    }[verdict]
    return Claim(
        f"After layer {row['layer']} of {model}, the erased concept {does} by a new probe.",
        f"Accuracy {number(row['before'])} ({interval(row['before_low'], row['before_high'])}) "
        f"becomes {number(row['after'])} ({interval(row['after_low'], row['after_high'])}); with "
        f"random directions erased {number(row['random'])}; chance {number(found.chance)}; {size}.",
        verdict,
    )


def _used(found: Erasure, row: pd.Series, model: str, size: str) -> Claim:
    """The model uses it where its metric leaves the interval of clean and random erasure."""
    low, high = row["erased_low"], row["erased_high"]
    others = (row["clean"], row["erased_random"])
    clear = high < min(others) or low > max(others)
    farther = abs(row["erased"] - row["clean"]) > abs(row["erased_random"] - row["clean"])
    verdict: Verdict = "found" if clear and farther else "doubtful" if farther else "not found"
    does = {"found": "uses", "doubtful": "may use", "not found": "is not shown to use"}[verdict]
    return Claim(
        f"{model} {does} the concept after layer {row['layer']}.",
        f"{found.metric} {number(row['clean'], digits=3)} becomes "
        f"{number(row['erased'], digits=3)} ({interval(low, high, digits=3)}); with "
        f"random directions erased {number(row['erased_random'], digits=3)}; {size}.",
        verdict,
    )
