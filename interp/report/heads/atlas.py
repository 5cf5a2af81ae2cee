"""A `HeadAtlas` as a section of a report, with the atlas of an untrained twin as its control."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from interp.heads import KINDS, AttentionPatterns, HeadAtlas, Score
from interp.heads import Claim as Check
from interp.report.drawing import svg
from interp.report.heads.attention import attention_block, patterns_for
from interp.report.parts import (
    VERDICTS,
    Block,
    Claim,
    Figure,
    Section,
    Table,
    grid_table,
    interval,
    listed,
    number,
    provenance_rows,
)

WHOLE = (0.0, 1.0)
"""Scores are shares: one colour scale for every kind, so that heatmaps compare."""


def atlas_section(atlas: HeadAtlas, results: Sequence[object] = ()) -> Section | None:
    """Claims, heatmaps and tables of an atlas, beside the atlas of its model's untrained twin.

    None for the untrained twin of another atlas of the report: it is that one's control.
    """
    others = [result for result in results if isinstance(result, HeadAtlas)]
    if any(_is_twin(atlas, other) for other in others):
        return None
    control = next((other for other in others if _is_twin(other, atlas)), None)
    layers, heads = atlas.shape
    model = atlas.provenance.get("model", "the model")
    claims = [_claim(atlas, control, kind) for kind in atlas.kinds]
    return Section(
        heading="What each head does",
        lead=(
            f"{layers} layers of {heads} heads, each scored by {len(atlas.kinds)} kinds of "
            "behaviour. The heads named after a kind are then taken out together, on the task that "
            "they are said to serve, and compared with as many random heads."
        ),
        claims=tuple(sorted(claims, key=lambda claim: VERDICTS.index(claim.verdict))),
        blocks=(
            *(_block(atlas, control, kind) for kind in atlas.kinds),
            *_attention(atlas, patterns_for(results, atlas.provenance)),
        ),
        limits=(
            "A score says what a head attends to or writes; only taking it out shows whether that "
            "matters, and then for one task.",
            "Intervals are over samples alone: they say nothing of other models or seeds.",
            "Thresholds are conventions, not boundaries in nature.",
            *(f"Not measured: {kind}. {why}" for kind, why in atlas.missing.items()),
            _control_limit(str(model), control),
        ),
        provenance=provenance_rows(atlas.provenance),
        command=str(atlas.provenance.get("command", "")),
    )


def _is_twin(twin: HeadAtlas, atlas: HeadAtlas) -> bool:
    """Whether one atlas is of the untrained twin of the other's model."""
    name = f"{atlas.provenance.get('model')} (untrained"
    return str(twin.provenance.get("model")).startswith(name) and twin.shape == atlas.shape


def _claim(atlas: HeadAtlas, control: HeadAtlas | None, kind: str) -> Claim:
    """Heads are claimed only where the whole interval clears the threshold and the control."""
    score, check = atlas.score(kind), atlas.claims.get(kind)
    least = score.threshold
    floor = _floor(control, kind)
    best = score.top(max(len(score.named()), 1))
    over = best[best["score"] >= least]
    clear = over[over["ci_low"] >= max(least, floor or 0.0)]
    context = "; ".join([_against(floor), *_by_chance(score.chance), f"{_of(score)}."])
    if over.empty:
        return Claim(
            f"No head is {_kind(kind, 1)}.",
            f"The best is {_scored(best)}, below {least}; {context}",
            "not found",
        )
    if clear.empty:
        return Claim(
            f"{_heads(over)} may be {_kind(kind, len(over))}.",
            f"Not clear of both {least} and the control: {_scored(over)}; {context}"
            + _checked(check),
            "doubtful",
        )
    unsure = over.drop(clear.index)
    also = "" if unsure.empty else f"; too close to {least} to say: {_scored(unsure)}"
    return Claim(
        f"{_heads(clear)} {'is' if len(clear) == 1 else 'are'} {_kind(kind, len(clear))}.",
        f"{_scored(clear)}{also}; {context}{_checked(check)}",
        "found" if check is None or check.confirmed else "doubtful",
    )


def _floor(control: HeadAtlas | None, kind: str) -> float | None:
    """The best score of the untrained twin."""
    if control is None or kind not in control.scores:
        return None
    return float(control.top(kind, 1)["score"].iloc[0])


def _against(floor: float | None) -> str:
    if floor is None:
        return "no untrained control"
    return f"untrained twin at most {number(floor)}"


def _by_chance(chance: float) -> list[str]:
    return [] if math.isnan(chance) else [f"by chance {number(chance)}"]


def _of(score: Score) -> str:
    return f"n\u00a0=\u00a0{score.n} {score.samples}"


def _checked(check: Check | None) -> str:
    """What taking the heads out did."""
    if check is None:
        return ""
    task = check.provenance.get("task", "the task")
    told = (
        f" Taken out together, {'it changes' if len(check.heads) == 1 else 'they change'} "
        f"{check.metric} on {task} by {number(check.effect, sign=True)} "
        f"({interval(*check.effect_ci)}), and random heads by "
        f"{number(check.random_effects.mean().item(), sign=True)} "
        f"({len(check.random)} sets; n\u00a0=\u00a0{len(check.clean)})"
    )
    if check.confirmed:
        return f"{told}: confirmed."
    return f"{told}: that they serve this task is not confirmed."


def _heads(rows: pd.DataFrame) -> str:
    return f"Head{'s' * (len(rows) > 1)} {listed(list(rows['head']))}"


def _kind(kind: str, count: int) -> str:
    """`an induction head`, `induction heads`."""
    article = "an" if kind[0] in "aeio" or kind.startswith("s-") else "a"
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
    score = atlas.score(kind)
    grid, top = score.grid, score.top(5)
    names = [[f"{layer}.{head}" for head in range(grid.shape[1])] for layer in range(grid.shape[0])]
    low, high = (end.tolist() for end in score.ci())
    tips = [
        [
            f"{name}: {number(value)}, 95% interval {interval(low[layer][head], high[layer][head])}"
            for head, (name, value) in enumerate(zip(names[layer], row, strict=True))
        ]
        for layer, row in enumerate(grid.tolist())
    ]
    by_chance = "" if math.isnan(score.chance) else f" By chance it is {score.chance:.3f}."
    return Block(
        heading=f"{kind.capitalize()} heads",
        meaning=f"The score is the {KINDS[kind].meaning} ({_sources(kind)}).{by_chance}",
        figures=(
            Figure(
                str(atlas.provenance.get("model", "model")),
                svg.heatmap(
                    grid,
                    label=f"{kind} score of every head, layer by head. Best: {top['head'].iloc[0]} "
                    f"with {number(top['score'].iloc[0])}. All values are in the table below.",
                    tips=tips,
                    limits=WHOLE,
                ),
                "Rows are layers, columns are heads.",
                svg.legend("0 or less", "1 or more"),
                grid_table(f"{kind} score of every head", grid),
            ),
            *([] if _floor(control, kind) is None else [_control(control, kind, names)]),
        ),
        tables=(
            Table(
                f"Strongest heads, {_of(score)}",
                ("Head", "Score", "95% interval"),
                tuple(
                    (str(row["head"]), float(row["score"]), interval(row["ci_low"], row["ci_high"]))
                    for _, row in top.iterrows()
                ),
            ),
        ),
    )


def _attention(atlas: HeadAtlas, patterns: AttentionPatterns | None) -> tuple[Block, ...]:
    """Where the named heads look; all heads that were looked at, if none of them is named."""
    if patterns is None:
        return ()
    named = [head for head in atlas.labels() if head in patterns.heads]
    left = len(patterns.heads) - len(named)
    if not named or not left:
        return (attention_block(patterns),)
    block = attention_block(patterns.select(named))
    also = f" {left} more heads were looked at, and are left out: they are named after no kind."
    return (replace(block, meaning=block.meaning + also),)


def _sources(kind: str) -> str:
    """Who described a kind, and its name in the survey of Zheng et al. 2024."""
    known = KINDS[kind]
    named = f"; “{known.survey}” in Zheng et al. 2024" if known.survey else ""
    return known.source + named


def _control(control: HeadAtlas | None, kind: str, names: list[list[str]]) -> Figure:
    assert control is not None
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
        f"({interval(best['ci_low'], best['ci_high'])}), {_of(control.score(kind))}.",
        data=grid_table(f"{kind} score of every head of the untrained twin", grid),
        role="control",
    )


def _control_limit(model: str, control: HeadAtlas | None) -> str:
    if control is None:
        return f"There is no untrained control: add scan(model.untrained()) of {model}."
    return "The control is one untrained model: one seed, at the architecture's own initial scale."
