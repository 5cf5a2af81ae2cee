"""A `HeadAtlas` as a section of a report, with the atlas of an untrained twin as its control."""

from __future__ import annotations

import pandas as pd

from interp.heads import MEANING, THRESHOLD, HeadAtlas
from interp.report import svg
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    grid_table,
    interval,
    listed,
    number,
    of,
    provenance_rows,
)

WHOLE = (0.0, 1.0)
"""Attention is a share: one colour scale for every kind, so that heatmaps compare."""


def atlas_section(atlas: HeadAtlas, control: HeadAtlas | None) -> Section:
    """Claims, heatmaps and tables of an atlas; `control` is that of the untrained twin."""
    _, layers, heads, n = atlas.values.shape
    model = atlas.provenance.get("model", "the model")
    return Section(
        heading="What each head attends to",
        lead=(
            f"{layers} layers of {heads} heads read {n} prompts of random tokens said twice. "
            "Nothing in them has meaning, so only position and repetition can guide attention. "
            "Each score is the share of a head's attention that goes where its kind says."
        ),
        claims=tuple(_claim(atlas, control, kind) for kind in atlas.kinds),
        blocks=tuple(_block(atlas, control, kind) for kind in atlas.kinds),
        limits=(
            "Attention says where a head looks, not what it does there: the ablation shows "
            "what the model loses without it.",
            "Prompts are random tokens; a head may behave otherwise on text.",
            f"Intervals are over the {n} prompts alone: they say nothing of other models or seeds.",
            f"The threshold of {THRESHOLD} is a convention, not a boundary in nature.",
            _control_limit(str(model), control),
        ),
        provenance=provenance_rows(atlas.provenance),
        command=str(atlas.provenance.get("command", "")),
    )


def _claim(atlas: HeadAtlas, control: HeadAtlas | None, kind: str) -> Claim:
    """Heads are claimed only where the whole interval clears the threshold and the control."""
    floor = None if control is None else float(control.top(kind, 1)["score"].iloc[0])
    best = atlas.top(kind, max(len(atlas.named()[kind]), 1))
    over = best[best["score"] >= THRESHOLD]
    clear = over[over["ci_low"] >= max(THRESHOLD, floor or 0.0)]
    against = "no untrained control" if floor is None else f"untrained twin at most {number(floor)}"
    context = f"{against}; uniform attention {number(best['chance'].iloc[0])}; {of(atlas.n)}"
    if over.empty:
        return Claim(
            f"No head is {_kind(kind, 1)}.",
            f"The best is {_scored(best)}, below {THRESHOLD}; {context}.",
            "not found",
        )
    if clear.empty:
        return Claim(
            f"{_heads(over)} may be {_kind(kind, len(over))}.",
            f"Not clear of both {THRESHOLD} and the control: {_scored(over)}; {context}.",
            "doubtful",
        )
    unsure = over.drop(clear.index)
    also = "" if unsure.empty else f"; too close to {THRESHOLD} to say: {_scored(unsure)}"
    return Claim(
        f"{_heads(clear)} {'is' if len(clear) == 1 else 'are'} {_kind(kind, len(clear))}.",
        f"{_scored(clear)}{also}; {context}.",
        "found",
    )


def _heads(rows: pd.DataFrame) -> str:
    return f"Head{'s' * (len(rows) > 1)} {listed(list(rows['head']))}"


def _kind(kind: str, count: int) -> str:
    """`an induction head`, `induction heads`."""
    article = "an" if kind[0] in "aeiou" else "a"
    return f"{article} {kind} head" if count == 1 else f"{kind} heads"


def _scored(rows: pd.DataFrame) -> str:
    return listed(
        [
            f"{head} at {number(score)} ({interval(low, high)})"
            for head, score, low, high in zip(
                rows["head"], rows["score"], rows["ci_low"], rows["ci_high"], strict=True
            )
        ]
    )


def _block(atlas: HeadAtlas, control: HeadAtlas | None, kind: str) -> Block:
    grid, top = atlas.grid(kind), atlas.top(kind, 5)
    names = [[f"{layer}.{head}" for head in range(grid.shape[1])] for layer in range(grid.shape[0])]
    index = atlas.kinds.index(kind)
    low, high = (end[index].tolist() for end in atlas.ci())
    tips = [
        [
            f"{name}: {number(score)}, 95% interval {interval(low[layer][head], high[layer][head])}"
            for head, (name, score) in enumerate(zip(names[layer], row, strict=True))
        ]
        for layer, row in enumerate(grid.tolist())
    ]
    return Block(
        heading=f"{kind.capitalize()} heads",
        meaning=(
            f"The number is the mean {MEANING.get(kind, kind)}. A head that attends equally to "
            f"everything it may see scores {top['chance'].iloc[0]:.3f}."
        ),
        figure=Figure(
            str(atlas.provenance.get("model", "model")),
            svg.heatmap(
                grid,
                label=f"{kind} score of every head, layer by head. Best: {top['head'].iloc[0]} "
                f"with {number(top['score'].iloc[0])}. All values are in the table below.",
                tips=tips,
                limits=WHOLE,
            ),
            "Rows are layers, columns are heads.",
            svg.legend("0: none", "1: all of its attention"),
        ),
        control=None if control is None else _control(control, kind, names),
        table=Table(
            f"Strongest heads, {of(atlas.n)}",
            ("Head", "Score", "95% interval"),
            tuple(
                (str(row["head"]), number(row["score"]), interval(row["ci_low"], row["ci_high"]))
                for _, row in top.iterrows()
            ),
        ),
        values=grid_table(f"{kind} score of every head", grid),
    )


def _control(control: HeadAtlas, kind: str, names: list[list[str]]) -> Figure:
    grid = control.grid(kind)
    best = control.top(kind, 1).iloc[0]
    return Figure(
        "Control: untrained twin",
        svg.heatmap(
            grid,
            label=f"{kind} scores of the untrained twin; the largest is {number(best['score'])}.",
            tips=svg.all_tips(names, grid, " (untrained)"),
            limits=WHOLE,
            small=True,
        ),
        f"Same shape, random weights. Largest: {best['head']} at {number(best['score'])} "
        f"({interval(best['ci_low'], best['ci_high'])}), {of(control.n)}.",
    )


def _control_limit(model: str, control: HeadAtlas | None) -> str:
    if control is None:
        return f"There is no untrained control: add scan(model.untrained()) of {model}."
    return "The control is one untrained model: one seed, at the architecture's own initial scale."
