"""False demonstrations as sections of a report: the layers, the heads, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.consistency import FalseInduction, GapReduction, Overthinking
from interp.report.difference import beyond, judged
from interp.report.drawing import svg
from interp.report.drawing.chart import Series, curves, points
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    interval,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, rerun

TOP = 10
AS_GOOD = 0.05
"""Share of random sets that may close as much of the gap."""


def overthinking_section(found: Overthinking, results: Sequence[object] = ()) -> Section:
    """Whether false demonstrations mislead the late layers, and from which layer on."""
    frame, known = found.to_frame(), found.provenance
    model, last = str(known["model"]), frame.iloc[-1]
    size = f"{of(int(last['n']))} prompts"
    verdict = judged(float(last["gap"]), float(last["gap_low"]))
    where = found.critical_layer
    said = {
        "found": f"False demonstrations mislead {model}, from layer {where} on.",
        "doubtful": f"False demonstrations may mislead {model}.",
        "not found": f"False demonstrations do not mislead {model}.",
    }[verdict]
    layers = [str(layer) for layer in frame["layer"]]
    accuracy = curves(
        [
            Series.of(frame, "true", "true labels", ends=("true_low", "true_high")),
            Series.of(frame, "false", "false labels", ends=("false_low", "false_high")),
            Series.of(frame, "random", "random labels", control=True),
        ],
        layers,
        label="Calibrated accuracy of every layer under true, false and random demonstrations. All "
        "values are in the table.",
        across="layer",
        limits=(0.0, 1.0),
        level=("chance", float(last["chance"])),
    )
    gap = curves(
        [Series.of(frame, "gap", "true minus false", ends=("gap_low", "gap_high"))],
        layers,
        label="Gap of accuracy under true and false demonstrations at every layer.",
        across="layer",
        level=("no gap", 0.0),
    )
    return Section(
        heading=f"Do late layers of {model} follow false demonstrations?",
        lead=(
            "The same words are demonstrated with true, with false and with random labels, and "
            "every layer is asked for its answer. The critical layer is the first at which the "
            "gap of true and false is half its final value."
        ),
        claims=(
            Claim(
                said,
                f"Last layer: accuracy {number(last['true'])} under true labels, "
                f"{number(last['false'])} under false ones, a gap of {number(last['gap'])} "
                f"({interval(last['gap_low'], last['gap_high'])}); random labels "
                f"{number(last['random'])}, chance {number(last['chance'])}; {size} of each kind.",
                verdict,
            ),
        ),
        blocks=(
            Block(
                "Accuracy by layer",
                "Layer 0 is the embedding. Accuracy is calibrated: each label is said equally "
                "often, by thresholds from prompts about other words.",
                (
                    Figure(
                        f"{model}: by kind of labels",
                        accuracy,
                        f"Bands are 95% intervals over prompts; {size}.",
                        data=frame_table("Every layer", frame),
                    ),
                    Figure(f"{model}: the gap", gap, "The band is the 95% interval."),
                ),
            ),
        ),
        limits=(
            "The model's untrained twin is the control of the gap: it is not among these numbers.",
            f"Labels: {', '.join(map(str, found.labels))}.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.consistency.overthinking(model, {_source(known)}, "
            + arguments(n=len(found.truth), calibration=known.get("calibration"), **_shown(known))
            + ")",
        ),
    )


def _source(known: dict[str, object]) -> str:
    """The relation that the prompts' task is named after."""
    return repr(str(known.get("task", "")).split("demonstrations of ")[-1])


def _shown(known: dict[str, object]) -> dict[str, object]:
    notes = known.get("notes")
    notes = notes if isinstance(notes, dict) else {}
    return {"shots": notes.get("shots"), "demo": known.get("demo"), "seed": notes.get("seed")}


def false_induction_section(found: FalseInduction, results: Sequence[object] = ()) -> Section:
    """Which heads look at earlier uses of the label that comes next."""
    frame, grid, known = found.to_frame(), found.grid, found.provenance
    model, best = str(known["model"]), frame.iloc[0]
    usual = float(frame["score"].iloc[1:].quantile(0.95))
    size = f"{of(int(best['n']))} prompts"
    verdict = beyond(float(best["score"]), float(best["ci_low"]), 0.0, usual)
    said = {
        "found": f"Head {best['head']} of {model} looks up labels.",
        "doubtful": f"Head {best['head']} of {model} may look up labels.",
        "not found": f"No head of {model} looks up labels.",
    }[verdict]
    rows = frame.set_index("head")
    reach = float(grid.abs().max()) or 1.0
    tips = [
        [
            f"{head}: {number(rows['score'][head], digits=3)} "
            f"({interval(rows['ci_low'][head], rows['ci_high'][head], digits=3)})"
            for head in (f"{layer}.{i}" for i in range(grid.shape[1]))
        ]
        for layer in range(len(grid))
    ]
    drawing = svg.heatmap(
        grid.float(),
        label=f"Prefix-matching score of every head, layer by head. Best: {best['head']} with "
        f"{number(best['score'])}.",
        tips=tips,
        limits=(-reach, reach),
        diverging=True,
    )
    return Section(
        heading=f"Which heads of {model} look up labels?",
        lead=(
            "At the token before a label, a head that copies labels looks at earlier uses of the "
            "one that comes next. The score is its attention to them, minus that to other labels."
        ),
        claims=(
            Claim(
                said,
                f"{best['head']} scores {number(best['score'], digits=3)} "
                f"({interval(best['ci_low'], best['ci_high'], digits=3)}); a head that looks at "
                f"all labels alike scores 0; the other {len(frame) - 1} heads: median "
                f"{number(float(frame['score'].iloc[1:].median()), digits=3)}, nineteen in twenty "
                f"below {number(usual, digits=3)}; {size}.",
                verdict,
            ),
        ),
        blocks=(
            Block(
                "Every head",
                "Above zero, a head looks at uses of the coming label more than at other labels.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Rows are layers, columns are heads; {size}.",
                        svg.legend(
                            number(-reach), number(reach, sign=True), diverging=True, middle="0"
                        ),
                        frame_table(f"Every head, {size}", frame),
                    ),
                ),
                (frame_table(f"The {TOP} best heads, {size}", frame[:TOP]),),
            ),
        ),
        limits=("Looking is not doing: GapReduction takes the heads out.",),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"prompts = interp.consistency.demonstrations(model, {_source(known)}, "
            + arguments(
                n=known.get("n"),
                kind=str(known.get("task")).split(" ")[0],
                part=known.get("notes", {}).get("part"),
                **_shown(known),
            )
            + ")",
            "interp.consistency.false_induction(model, prompts)",
        ),
    )


def gap_reduction_section(found: GapReduction, results: Sequence[object] = ()) -> Section:
    """How much of the gap is gone without some heads, beside random sets of heads."""
    frame, known = found.to_frame(), found.provenance
    model, (own, random) = str(known["model"]), (frame.iloc[0], frame.iloc[1])
    size = f"{of(int(own['n']))} prompts"
    return Section(
        heading=f"Do these heads lead {model} astray?",
        lead=(
            "The heads that look up labels are zeroed at the last token, and so are random sets of "
            "as many heads of the same layers. What counts is how much of the gap between true and "
            "false demonstrations is gone."
        ),
        claims=(_closed(found, own, random, size),),
        blocks=(_beside_random(frame, model, size),),
        limits=(
            "The heads were chosen on other prompts than these.",
            "Zeroing can do damage that has nothing to do with labels: the column “true” says how "
            "much is left under true demonstrations.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.consistency.gap_reduction(model, {_source(known)}, "
            + arguments(
                k=len(found.heads[0]),
                n=len(found.true),
                calibration=known.get("calibration"),
                draws=known.get("draws"),
                **_shown(known),
            )
            + ")",
        ),
        baselines=Table(
            f"Accuracy at the last layer, {size}",
            ("Heads", "True demonstrations", "False demonstrations"),
            (
                ("all heads (clean)", float(found.true.mean()), float(found.false.mean())),
                ("without the heads (ablated)", float(own["true"]), float(own["false"])),
                ("without random heads (ablated)", float(random["true"]), float(random["false"])),
            ),
        ),
    )


def _closed(found: GapReduction, own: pd.Series, random: pd.Series, size: str) -> Claim:
    """Beyond what random sets close on the mean, and beyond nearly each of them."""
    model, named = found.provenance["model"], ", ".join(map(str, found.heads[0]))
    gap, low, high = found.gap
    told = f"the gap is {number(gap)} ({interval(low, high)}); {size}."
    if not low > 0:
        return Claim(
            f"There is no gap to close in {model}.", f"{told[0].upper()}{told[1:]}", "not found"
        )
    verdict = beyond(own["reduction"], own["ci_low"], 0.0, random["reduction"])
    if verdict == "found" and random["as_good"] > AS_GOOD:
        verdict = "doubtful"
    statement = (
        f"Zeroing heads {named} of {model} closes no more of the gap than zeroing random heads."
        if verdict == "not found"
        else f"Zeroing heads {named} of {model} closes {number(own['reduction'])} of the gap under "
        "false demonstrations."
    )
    return Claim(
        statement,
        f"{number(own['reduction'])} ({interval(own['ci_low'], own['ci_high'])}); random heads "
        f"{number(random['reduction'])} ({interval(random['ci_low'], random['ci_high'])}), at most "
        f"{number(random['most'])}, and {number(random['as_good'])} of {int(random['sets'])} sets "
        f"do as well; {told}",
        verdict,
    )


def _beside_random(frame: pd.DataFrame, model: str, size: str) -> Block:
    drawing = points(
        [Series.of(frame, "reduction", "share of the gap", ends=("ci_low", "ci_high"))],
        [f"{row.heads} ({row.sets} sets)" for row in frame.itertuples()],
        label="Share of the gap that zeroing heads closes, and zeroing random heads.",
        across="share of the gap that is closed",
        level=("nothing", 0.0),
    )
    values = frame_table("The heads, and random sets together", frame)
    figure = Figure(model, drawing, f"Lines are 95% intervals over prompts; {size}.", data=values)
    drawn = bool(frame["reduction"].notna().any())
    return Block(
        "Beside random heads",
        "1 would be no gap at all; below 0 the gap has grown."
        if drawn
        else "Without a gap there is no share of it to draw.",
        (figure,) if drawn else (),
        () if drawn else (values,),
    )
