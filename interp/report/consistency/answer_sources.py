"""Where answers come from, as sections of a report: attention to the prompt, and value vectors."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.consistency import AlignedValues, AttentionMass, Sources
from interp.report.difference import beyond
from interp.report.drawing import svg
from interp.report.drawing.chart import Series, curves
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Verdict,
    interval,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, rerun, sampled

ENDS = ("ci_low", "ci_high")
ALIGNED = "aligned values"


def sources_section(found: Sources, results: Sequence[object] = ()) -> Section:
    """What the answer position looks at, and where value vectors lie along the answer."""
    frame, known = found.to_frame(), found.provenance
    model = str(known["model"])
    names = list(found.groups)
    return Section(
        heading=f"Where the answers of {model} come from",
        lead=(
            "Two profiles over layers: how much of the attention of the answer position goes to "
            "each part of the prompt, and how many value vectors of the MLPs lie along the "
            "direction that tells one answer from the other."
        ),
        claims=tuple(_aligned(frame[frame["group"] == name], name, model) for name in names),
        blocks=tuple(
            block
            for name in names
            for block in _profiles(frame[frame["group"] == name], name, model, found.threshold)
        ),
        limits=(
            "Paths count as independent: where many answer one question, intervals are too narrow.",
            "The layer of a claim is the one with the most aligned vectors: among many layers one "
            "may pass by chance.",
            "That a value vector points along the answer does not say that it is used.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            "prompts = interp.consistency.path_prompts(model, answers)  # of hash "
            f"{known.get('prompts_hash')}",
            "interp.consistency.sources(model, prompts, "
            + arguments(
                quantile=known.get("quantile"),
                draws=known.get("draws"),
                resamples=known.get("resamples"),
                seed=known.get("source_seed"),
            )
            + ")",
        ),
    )


def _aligned(frame: pd.DataFrame, group: str, model: str) -> Claim:
    """At the layer with the most of them, beside shuffled answers and random directions."""
    rows = frame[(frame["measure"] == ALIGNED) & frame["value"].notna()]
    if rows.empty:
        return Claim(
            f"Whether value vectors of {model} lie along the answer cannot be told ({group} "
            "paths).",
            f"All its paths give one answer; {of(int(frame['n'].max()))} paths.",
            "doubtful",
        )
    best = rows.loc[rows["value"].idxmax()]
    clear = (rows["ci_low"] > rows[["control", "random"]].max(axis=1)).sum()
    verdict = beyond(best["value"], best["ci_low"], best["control"], best["random"])
    does = {"found": "lie", "doubtful": "may lie", "not found": "do not lie"}[verdict]
    return Claim(
        f"Value vectors of layer {best['layer']} of {model} {does} along the answer more than by "
        f"chance ({group} paths).",
        f"{best['value']:.0f} vectors ({interval(best['ci_low'], best['ci_high'], digits=0)}); "
        f"with shuffled answers {number(best['control'], digits=1)}, random directions "
        f"{number(best['random'], digits=1)}; so in {clear} of {len(rows)} layers; "
        f"{of(int(best['n']))} paths.",
        verdict,
    )


def _profiles(frame: pd.DataFrame, group: str, model: str, threshold: float) -> tuple[Block, ...]:
    looked = frame[frame["measure"] != ALIGNED]
    values = frame[frame["measure"] == ALIGNED]
    n = of(int(frame["n"].max()))
    layers = [str(layer) for layer in values["layer"]]
    spans = [
        Series.of(
            looked[looked["measure"] == span],
            "value",
            str(span),
            ends=ENDS,
            control=span in ("first", "rest"),
        )
        for span in dict.fromkeys(looked["measure"])
    ]
    attention = curves(
        spans,
        layers,
        label=f"Attention of the answer position to each part of the prompt, by layer, {group} "
        "paths. All values are in the table.",
        across="layer",
        limits=(0.0, 1.0),
    )
    along = curves(
        [
            Series.of(values, "value", "along the answer", ends=ENDS),
            Series.of(values, "control", "with shuffled answers", control=True),
            Series.of(values, "random", "random directions", control=True),
        ],
        layers,
        label=f"Value vectors along the answer by layer, {group} paths, beside controls. All "
        "values are in the table.",
        across="layer",
    )
    return (
        Block(
            f"Profiles of {group} paths",
            f"A value vector is aligned where its cosine with the direction, either way, is above "
            f"{number(threshold)}. The control of attention, in the table, is what looking at all "
            "tokens alike would give.",
            (
                Figure(
                    f"{model}: attention of the answer position",
                    attention,
                    f"Bands are 95% intervals over paths; {n}.",
                    data=frame_table(f"Attention, {group} paths", looked.drop(columns="random")),
                ),
                Figure(
                    f"{model}: value vectors along the answer",
                    along,
                    f"The band is the 95% interval over paths; {n}.",
                    data=frame_table(f"Value vectors, {group} paths", values),
                ),
            ),
        ),
    )


def attention_mass_section(found: AttentionMass, results: Sequence[object] = ()) -> Section:
    """How much of the answer position's attention each head gives to each part of a prompt."""
    frame, known = found.to_frame(), found.provenance
    heads, model = found.to_frame(heads=True), str(known["model"])
    asked = [span for span in found.spans if span not in ("first", "rest")]
    series = [
        Series.of(frame[frame["span"] == span], "mass", span, ends=ENDS, control=span not in asked)
        for span in found.spans
    ]
    layers = [str(layer) for layer in dict.fromkeys(frame["layer"])]
    drawing = curves(
        series,
        layers,
        label="Attention of the answer position to each part of the prompt, mean over the heads of "
        "a layer. All values are in the table.",
        across="layer",
        limits=(0.0, 1.0),
    )
    return Section(
        heading=f"What the answer position of {model} looks at",
        lead=(
            "The attention of the last token of each prompt, summed over each part of the prompt. "
            "A head that looks at all tokens alike gives each part its share of the tokens."
        ),
        claims=tuple(_most(heads[heads["span"] == span], span, model) for span in asked),
        blocks=(
            Block(
                "By layer",
                "Means over the heads of a layer. “First” is the first token, where many heads "
                "rest, and “rest” all that no part covers.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Bands are 95% intervals over prompts; {of(len(found.values))} prompts.",
                        data=frame_table("Every layer and part", frame),
                    ),
                ),
            ),
            *(_heads(found, heads[heads["span"] == span], span, model) for span in asked),
        ),
        limits=(
            "Attention says where a head looks, not what it does with what it finds.",
            "The head of a claim is the best of all: its interval does not allow for that.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            sampled(known),
            f"interp.consistency.attention_mass(model, prompts, spans={asked!r})",
        ),
    )


def _most(rows: pd.DataFrame, span: str, model: str) -> Claim:
    known = rows[rows["mass"].notna()]
    if known.empty:
        return Claim(f"No prompt has a {span}.", f"{of(0)} prompts with this part.", "not found")
    best = known.loc[known["mass"].idxmax()]
    return Claim(
        f"Head {best['layer']}.{best['head']} of {model} looks most at the {span}.",
        f"{number(best['mass'])} of its attention ({interval(best['ci_low'], best['ci_high'])}); "
        f"looking at all tokens alike would give {number(best['uniform'])}; the median of "
        f"{len(known)} heads is {number(float(known['mass'].median()))}; "
        f"{of(int(best['n']))} prompts.",
        beyond(float(best["mass"]), float(best["ci_low"]), float(best["uniform"])),
    )


def _heads(found: AttentionMass, rows: pd.DataFrame, span: str, model: str) -> Block:
    grid = found.grid(span)
    tips = [
        [
            f"{row.layer}.{row.head}: {number(row.mass)} ({interval(row.ci_low, row.ci_high)})"
            for row in some.itertuples()
        ]
        for _, some in rows.groupby("layer")
    ]
    drawing = svg.heatmap(
        grid.float(),
        label=f"Attention of every head to the {span}, layer by head. All values are in the table.",
        tips=tips,
        limits=(0.0, 1.0),
    )
    return Block(
        f"Attention to the {span}, head by head",
        "Looking at all tokens alike would give "
        f"{number(float(rows['uniform'].mean()))} to every head.",
        (
            Figure(
                model,
                drawing,
                "Rows are layers, columns are heads.",
                svg.legend("0", "1"),
                frame_table(f"Attention of every head to the {span}", rows),
            ),
        ),
    )


def aligned_values_section(found: AlignedValues, results: Sequence[object] = ()) -> Section:
    """In which layers value vectors lie along a direction, beside random directions."""
    frame, known = found.to_frame(), found.provenance
    model, best = str(known["model"]), frame.loc[frame["aligned"].idxmax()]
    beats = best["aligned"] > best["random_most"]
    verdict: Verdict = (
        "found" if beats else "doubtful" if best["aligned"] > best["random"] else "not found"
    )
    does = {"found": "lie", "doubtful": "may lie", "not found": "do not lie"}[verdict]
    drawing = curves(
        [
            Series.of(frame, "aligned", "along the direction"),
            Series.of(frame, "random", "random directions, mean", control=True),
            Series.of(frame, "random_most", "random directions, most", control=True),
        ],
        [str(layer) for layer in frame["layer"]],
        label="Value vectors along the direction by layer, beside random directions. All values "
        "are in the table.",
        across="layer",
    )
    return Section(
        heading=f"Which value vectors of {model} lie along a direction?",
        lead=(
            "Every value vector of every MLP is compared with a direction; those whose cosine, "
            f"either way, is above {number(found.threshold)} are counted. A random direction "
            f"exceeds that with {100 * (1 - found.quantile):.2g}% of them."
        ),
        claims=(
            Claim(
                f"Value vectors of layer {int(best['layer'])} of {model} {does} along the "
                "direction more than along random ones.",
                f"{best['aligned']:.0f} of {int(best['neurons'])}; random directions "
                f"{number(best['random'], digits=1)} "
                f"({interval(best['random_low'], best['random_high'], digits=1)}), at most "
                f"{best['random_most']:.0f} of {of(int(best['n']))} draws. Nothing is sampled of "
                "the direction itself, so its count has no interval.",
                verdict,
            ),
        ),
        blocks=(
            Block(
                "By layer",
                "The layer of the claim is the one with the most.",
                (
                    Figure(
                        model,
                        drawing,
                        f"{of(int(best['n']))} random directions.",
                        data=frame_table("Every layer", frame),
                    ),
                ),
            ),
        ),
        limits=("That a value vector points along a direction does not say that it is used.",),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            "interp.consistency.aligned_values(model, direction, "
            + arguments(
                quantile=known.get("quantile"), draws=known.get("draws"), seed=known.get("seed")
            )
            + ")",
        ),
    )
