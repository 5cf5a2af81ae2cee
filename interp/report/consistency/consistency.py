"""Internal consistency as a section of a report: by layer, as a score, and as a vote."""

from __future__ import annotations

import re
from collections.abc import Sequence

from interp.consistency import Consistency
from interp.consistency.result import WEIGHTED
from interp.consistency.score import calibration_curve
from interp.consistency.votes import PLAIN
from interp.report.drawing.chart import Series, curves, points
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

FAILURES = 5
CHANCE = 0.5
OPTIONS = (
    "n",
    "paths",
    "calibration",
    "calibration_paths",
    "temperature",
    "top_p",
    "max_new_tokens",
    "rationale",
    "seed",
)
"""Of `measure`, as its provenance has them."""
MEANINGS = {
    "ic": "internal consistency, balanced by thresholds",
    "agreement": "the paper's formula, without thresholds",
    "margin": "how sure the last layer is",
    "log_prob": "mean log probability of a written token",
    "untrained": "internal consistency with random weights: a control",
    "shuffled": "internal consistency with right and wrong dealt anew: a control",
}


def consistency_section(found: Consistency, results: Sequence[object] = ()) -> Section:
    """Whether layers agree more on right answers than on wrong ones, and what votes gain by it."""
    known = found.provenance
    model, task = str(known["model"]), str(known.get("task", "the questions"))
    questions, paths = found.given.shape
    size = f"{of(questions)} questions of {paths} paths"
    return Section(
        heading=f"Do the layers of {model} agree when it is right? ({task})",
        lead=(
            "A model answers each question on many sampled paths. The internal consistency (IC) of "
            "a path is the share of layers that already say what the last layer says. Right and "
            "wrong paths are then told apart by it, and votes weighted by it."
        ),
        claims=(_separates(found, model, size), _votes(found)),
        blocks=(
            _layers(found, model, size),
            _scores(found, model),
            _calibration(found, model),
            _voting(found, model),
            _failures(found),
        ),
        limits=(
            f"Thresholds were fitted on {known.get('calibration', 'other')} other questions "
            f"({found.thresholds.n} texts), never on those that are scored.",
            f"On {found.unread} of {questions * paths} paths the rule found no answer: they count "
            "as wrong, do not vote and have no score.",
            f"Sampling made {100 * found.against_the_last_layer:.1f}% of the answers another than "
            "the last layer's first choice, with which consistency is measured.",
            "Intervals resample questions, since paths of one question are not independent.",
        ),
        provenance=provenance_rows(known),
        command=rerun(known, _call(found)),
        baselines=Table(
            f"What the model does by itself, {size}",
            ("Answers", "Share right"),
            (
                ("single paths", found.accuracy),
                (
                    f"plain vote of {found.votes.counts[-1]} paths",
                    float(found.votes.of(PLAIN, found.votes.counts[-1]).mean()),
                ),
            ),
            digits=3,
        ),
    )


def _separates(found: Consistency, model: str, size: str) -> Claim:
    """Found where the whole interval of IC is above chance and above what its controls reach."""
    scores = found.separations
    own = scores["ic"]
    floors = [CHANCE, *(scores[name].auroc for name in ("untrained", "shuffled") if name in scores)]
    verdict: Verdict
    if own.low > max(floors):
        verdict, does = "found", "tells right from wrong paths"
    elif own.high < CHANCE:
        verdict, does = "not found", "is higher on wrong paths than on right ones"
    elif own.auroc > max(floors):
        verdict, does = "doubtful", "may tell right from wrong paths"
    else:
        verdict, does = "not found", "does not tell right from wrong paths"
    others = "; ".join(
        f"{name} {number(each.auroc, digits=3)} ({interval(each.low, each.high, digits=3)})"
        for name, each in scores.items()
        if name != "ic"
    )
    return Claim(
        f"Internal consistency {does} of {model}.",
        f"AUROC {number(own.auroc, digits=3)} ({interval(own.low, own.high, digits=3)}; chance "
        f"0.500); {others}; {own.right} right and {own.wrong} wrong paths, {size}.",
        verdict,
    )


def _votes(found: Consistency) -> Claim:
    """In the words of the result's own verdict, which begin with what is claimed."""
    statement, evidence = found.verdict.split(": ", 1)
    frame = found.votes.to_frame()
    row = frame[(frame["vote"] == WEIGHTED) & (frame["paths"] == found.votes.counts[-1])].iloc[0]
    verdict: Verdict = "found" if row["gain_low"] > 0 else "not found"
    if row["gain_low"] <= 0 < row["gain"]:
        verdict = "doubtful"
    told = re.sub(r"-(?=\d)", "−", evidence)
    return Claim(f"{statement}.", f"{told[0].upper()}{told[1:]}", verdict)


def _layers(found: Consistency, model: str, size: str) -> Block:
    frame = found.layer_frame()
    layers = [str(layer) for layer in frame["layer"]]
    agreement = curves(
        [
            Series.of(frame, "share", "says the final answer"),
            Series.of(frame, "accuracy", "says the right answer"),
        ],
        layers,
        label="Share of paths in which each layer says the final answer, and the right one. All "
        "values are in the table.",
        across="layer",
        limits=(0.0, 1.0),
        level=("a guess", 1 / len(found.thresholds.labels)),
    )
    auroc = curves(
        [Series.of(frame, "auroc", "AUROC", ends=("low", "high"))],
        layers,
        label="How well each layer's probability of the final answer tells right from wrong. All "
        "values are in the table.",
        across="layer",
        limits=(0.0, 1.0),
        level=("chance", CHANCE),
    )
    return Block(
        "Agreement by layer",
        "Layer 0 is the embedding. A layer says an answer where its probability is above the "
        "layer's threshold for it.",
        (
            Figure(
                f"{model}: what layers say",
                agreement,
                f"{size}.",
                data=frame_table("Every layer", frame),
            ),
            Figure(f"{model}: right from wrong, by layer", auroc, "The band is the 95% interval."),
        ),
    )


def _scores(found: Consistency, model: str) -> Block:
    frame = found.separation_frame()
    drawing = points(
        [Series.of(frame, "auroc", "AUROC", ends=("low", "high"))],
        frame["score"].tolist(),
        label="AUROC of every score against being right. All values are in the table.",
        across="chance that a right path scores higher than a wrong one",
        limits=(0.0, 1.0),
        level=("chance", CHANCE),
    )
    columns = {
        "score": "Score",
        "auroc": "AUROC",
        "low": "from",
        "high": "to",
        "within": "Within a question",
        "ece": "Calibration error",
    }
    return Block(
        "Right from wrong, by every score",
        "; ".join(f"{name}: {meaning}" for name, meaning in MEANINGS.items())
        + ". “Within a question” compares two paths of one question: only that can help a vote.",
        (
            Figure(
                model,
                drawing,
                "Lines are 95% intervals over questions.",
                data=frame_table("Every score", frame),
            ),
        ),
        (frame_table("AUROC of every score", frame, columns),),
    )


def _calibration(found: Consistency, model: str) -> Block:
    bins = calibration_curve(found.ic, found.right)
    drawing = curves(
        [
            Series.of(
                bins, "accuracy", "share of right paths", ends=("accuracy_low", "accuracy_high")
            ),
            Series("score = accuracy", bins["score"].tolist(), control=True),
        ],
        [f"{score:.2f}" for score in bins["score"]],
        at=bins["score"].tolist(),
        label="Share of right paths in bins of internal consistency. All values are in the table.",
        across="internal consistency",
        limits=(0.0, 1.0),
    )
    return Block(
        "Calibration",
        "If the score were the chance of being right, both lines would be one.",
        (
            Figure(
                model,
                drawing,
                "The band is the 95% interval over questions.",
                data=frame_table("Ten bins of internal consistency", bins),
            ),
        ),
    )


def _voting(found: Consistency, model: str) -> Block:
    frame = found.votes.to_frame()
    counts = [str(count) for count in found.votes.counts]
    order = sorted(found.votes.methods, key=lambda name: (name != WEIGHTED, name != PLAIN))
    series = [
        Series.of(
            frame[frame["vote"] == name],
            "accuracy",
            name,
            ends=("low", "high") if name == WEIGHTED else None,
            control=name not in (WEIGHTED, PLAIN),
        )
        for name in order
    ]
    return Block(
        "Votes, by number of paths",
        f"{PLAIN} is one path, one vote; {WEIGHTED} weights paths by internal consistency. Gain is "
        "over the plain vote of as many paths, question by question.",
        (
            Figure(
                model,
                curves(
                    series,
                    counts,
                    label="Share of questions that votes answer right, by number of paths. All "
                    "values are in the table.",
                    across="paths",
                ),
                f"The band is the 95% interval of {WEIGHTED} over questions.",
                data=frame_table("Every vote", frame),
            ),
        ),
    )


def _failures(found: Consistency) -> Block:
    """Wrong paths on which the layers agree most: where the measure misleads."""
    frame = found.to_frame()
    wrong = frame[~frame["right"] & frame["ic"].notna()]
    worst = wrong.sort_values("ic", ascending=False, kind="stable")[:FAILURES]
    paths = found.given.shape[1]
    rows = tuple(
        (
            found.questions[row.question].text,
            found.texts[row.question * paths + row.path],
            str(row.given),
            found.questions[row.question].answer,
            float(row.ic),
            float(row.log_prob),
        )
        for row in worst.itertuples()
    )
    return Block(
        "Where it misleads",
        f"The {len(rows)} wrong paths with the highest internal consistency, of {len(wrong)} wrong "
        "paths that were read.",
        tables=(
            Table(
                "Wrong, and yet the layers agree",
                ("Question", "What was written", "Answer given", "Right", "IC", "Log probability"),
                rows,
            ),
        )
        if rows
        else (),
    )


def _call(found: Consistency) -> str:
    known = found.provenance
    makers = {
        "coin_flip": "interp.tasks.coin_flip.CoinFlip",
        "ontology": "interp.consistency.Ontology",
    }
    maker = makers.get(str(known.get("task")))
    asked = "questions" if maker is None else f"{maker}({arguments(**known.get('options', {}))})"
    how = {name: known.get(name) for name in OPTIONS}
    told = arguments(**how, untrained=found.untrained is not None)
    return f"interp.consistency.measure(model, {asked}, {told})"
