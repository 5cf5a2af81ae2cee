"""A learned task vector as a section of a report, beside what the same learning does by chance."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from interp.report.difference import judged
from interp.report.drawing.chart import Series, points
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
from interp.report.rerun import arguments, pairs_of, rerun
from interp.vectors import LearnedEvaluation
from interp.vectors.learned.learned_evaluation import ARMS, SETTINGS


def learned_section(found: LearnedEvaluation, results: Sequence[object] = ()) -> Section:
    """Whether weights learned for a relation do it where nothing, or the wrong thing, is shown."""
    frame, known = found.to_frame(), found.provenance
    model, name = str(known["model"]), found.relation
    size = f"{of(found.n)} prompts of {int(frame['queries'][0])} queries"
    right = frame[frame["measure"] == "accuracy"].set_index("setting")
    made = known.get("vector", {})
    how = ("shots", "steps", "learning_rate", "batch", "learn_on", "seed")
    return Section(
        heading=f"Does the learned vector of {name} do it in {model}?",
        lead=(
            "Weights over all heads were learned so that what the heads write answers the "
            "relation. It is judged on test queries, beside the same weights at other heads and a "
            "vector learned from shuffled answers."
        ),
        claims=tuple(
            _claim(right.loc[setting].set_index("arm"), setting, name, model, size)
            for setting in ("zero-shot", "shuffled")
        ),
        blocks=tuple(_block(frame, measure, model, size) for measure in ("accuracy", "log_prob")),
        limits=(
            "A vector learned from shuffled answers shows what the learning alone can do; it is "
            "one draw.",
            "Intervals are over queries: they say nothing of another run of the learning.",
        ),
        provenance=provenance_rows({k: v for k, v in known.items() if k != "vector"}),
        command=rerun(
            known,
            f"found = interp.vectors.learn_vector(model, {pairs_of(name)}, "
            + arguments(**{each: made.get(each) for each in how})
            + ")",
            "found.evaluate(model, "
            + arguments(n=found.n, permutations=known.get("permutations"))
            + ")",
        ),
        baselines=Table(
            f"Share answered without a vector, {size}",
            ("Prompt", "Accuracy"),
            tuple(
                (SETTINGS[setting], found.mean(setting, "none"))
                for setting in ("zero-shot", "shuffled", "regular")
            ),
        ),
    )


def _claim(arms: pd.DataFrame, setting: str, name: str, model: str, size: str) -> Claim:
    own, controls = arms.loc["learned"], arms.drop("learned")
    least = controls.loc[controls["excess"].idxmin()]
    verdict = judged(float(least["excess"]), float(controls["excess_low"].min()))
    does = {"found": "makes", "doubtful": "may make", "not found": "does not make"}[verdict]
    better = " any better" if verdict == "not found" else ""
    beside = "; ".join(f"{arm} {number(row['mean'])}" for arm, row in controls.iterrows())
    return Claim(
        f"The learned vector {does} {model} do {name}{better} ({SETTINGS[setting]}).",
        f"Accuracy {number(own['mean'])} ({interval(own['ci_low'], own['ci_high'])}); controls: "
        f"{beside}; it exceeds “{least.name}” least, by {number(least['excess'], sign=True)} "
        f"({interval(least['excess_low'], least['excess_high'])}); {size}.",
        verdict,
    )


def _block(frame: pd.DataFrame, measure: str, model: str, size: str) -> Block:
    some = frame[frame["measure"] == measure]
    own = some["arm"] == "learned"
    ends = ("ci_low", "ci_high")
    hidden = ["mean", *ends]
    alone, beside = some.copy(), some.copy()
    alone.loc[~own, hidden] = float("nan")
    beside.loc[own, hidden] = float("nan")
    words = "accuracy" if measure == "accuracy" else "log probability of the answer (nats)"
    drawing = points(
        [
            Series.of(alone, "mean", "learned", ends=ends),
            Series.of(beside, "mean", "controls", ends=ends, control=True),
        ],
        [f"{row.setting}: {row.arm}" for row in some.itertuples()],
        label=f"{words} in each setting under each arm. All values are in the table.",
        across=words,
        limits=(0.0, 1.0) if measure == "accuracy" else None,
    )
    return Block(
        f"By setting: {words}",
        "; ".join(f"{arm}: {meaning}" for arm, meaning in ARMS.items()) + ".",
        (
            Figure(
                model,
                drawing,
                f"Lines are 95% intervals over queries; {size}.",
                data=frame_table(f"Every setting and arm: {words}", some),
            ),
        ),
    )
