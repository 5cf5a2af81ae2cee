"""`TrainingCurves` as a section of a report: what forms when."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from interp.heads import KINDS, TrainingCurves
from interp.report.drawing import svg
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


def curves_section(curves: TrainingCurves, results: Sequence[object] = ()) -> Section:
    """Phase changes as claims, and a drawing of every curve."""
    changes = curves.phase_changes().set_index("curve")
    return Section(
        heading="What forms over training",
        lead=(
            f"{len(curves.steps)} checkpoints from step {curves.steps[0]} to {curves.steps[-1]}. A "
            "change is found where a sigmoid of the logarithm of the step describes a curve much "
            "better than a flat line and a steady drift do."
        ),
        claims=tuple(_claim(name, changes.loc[name]) for name in curves.curves),
        blocks=tuple(_block(curves, name, changes.loc[name]) for name in curves.curves),
        limits=(
            "One run is one sample of what training does: another seed may change elsewhere.",
            "Nothing is known of the steps between two checkpoints; intervals are widened to them.",
            "The leader of a kind was chosen as its best head at any step.",
        ),
        provenance=provenance_rows(curves.provenance),
        command=str(curves.provenance.get("command", "")),
    )


def _claim(name: str, change: pd.Series) -> Claim:
    what = f"{name} of head {change['head']}" if change["head"] else name
    if not change["found"]:
        return Claim(f"No phase change in {what}.", f"{of(int(change['n']))} samples.", "not found")
    return Claim(
        f"{what.capitalize()} changes around step {change['step']:.0f}.",
        f"Center {interval(change['ci_low'], change['ci_high'], digits=0)}; from "
        f"{number(change['from'])} to {number(change['to'])}; {of(int(change['n']))} samples.",
        "found",
    )


def _block(curves: TrainingCurves, name: str, change: pd.Series) -> Block:
    leader = curves.leaders.get(name)
    lines, names = _lines(curves, name)
    first = min((step for step in curves.steps if step > 0), default=1)
    places = [math.log(max(step, first / 2)) for step in curves.steps]
    low, high = (math.log(max(change[end], first / 2)) for end in ("ci_low", "ci_high"))
    band = (low, high) if change["found"] else None
    mean = curves.curves[name].mean(dim=1).tolist()
    rows = [(step, value) for step, value in zip(curves.steps, mean, strict=True)]
    return Block(
        heading=name.capitalize() if leader is None else f"{name.capitalize()} heads",
        meaning=_meaning(name),
        figures=(
            Figure(
                str(curves.provenance.get("model", "model")),
                svg.lines(
                    lines,
                    names,
                    places,
                    label=f"{name} over training, from {number(mean[0])} to {number(mean[-1])}. "
                    "All values are in the table below.",
                    first=f"step {curves.steps[0]}",
                    last=f"step {curves.steps[-1]} (logarithmic)",
                    band=band,
                ),
                (
                    "The mean over samples"
                    if leader is None
                    else f"All heads; head {leader} is strong"
                )
                + ("; the band is the interval of the change." if band else "."),
                data=Table(f"{name} at every checkpoint", ("Step", "Mean"), tuple(rows)),
            ),
        ),
        tables=(
            Table(
                f"Every sixth checkpoint, {of(curves.curves[name].shape[1])}",
                ("Step", "Mean"),
                tuple(rows[:: max(1, len(rows) // 6)]),
            ),
        ),
    )


def _lines(curves: TrainingCurves, name: str) -> tuple[list[Float[Tensor, " points"]], list[str]]:
    """Every head's curve, the leader's last; or the one curve of loss and in-context learning."""
    leader = curves.leaders.get(name)
    if leader is None:
        return [curves.curves[name].mean(dim=1)], [name]
    grid = curves.scores[:, curves.kinds.index(name)]
    layers, heads = grid.shape[1:]
    every = [(layer, head) for layer in range(layers) for head in range(heads)]
    every.sort(key=lambda place: place == (leader.layer, leader.head))
    lines = [torch.as_tensor(grid[:, layer, head]) for layer, head in every]
    return lines, [f"{layer}.{head}" for layer, head in every]


def _meaning(name: str) -> str:
    if name in KINDS:
        return f"The score is the {KINDS[name].meaning} ({KINDS[name].source})."
    if name == "loss":
        return "The mean loss of all tokens, in nats."
    return "The loss of the later half of the tokens minus that of the earlier half, in nats."
