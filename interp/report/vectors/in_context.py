"""What a model makes of its context, as sections of a report: mixed tasks, instructions, labels."""

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
    Verdict,
    interval,
    listed,
    number,
    of,
    provenance_rows,
)
from interp.report.rerun import arguments, pairs_of, rerun
from interp.vectors import Interpolation, Recognition, Specification, Superposition

ENDS = ("ci_low", "ci_high")
SHARE = (0.0, 1.0)


def superposition_section(found: Superposition, results: Sequence[object] = ()) -> Section:
    """Whether demonstrations of several tasks call up the answers of all of them at once."""
    frame, kl, known = found.to_frame(), found.kl_frame(), found.provenance
    model, tasks = str(known["model"]), listed(list(found.tasks))
    size = f"{of(int(frame['n'][0]))} prompts of {int(frame['queries'][0])} queries"
    evenest = max(range(len(found.counts)), key=lambda row: min(found.counts[row]))
    mixture = ":".join(map(str, found.counts[evenest]))
    at = frame[(frame["mixture"] == mixture) & (frame["task"] != "other")]
    return Section(
        heading=f"Demonstrations of {tasks}, mixed, in {model}",
        lead=(
            "The same inputs are demonstrated with the outputs of several tasks, in many mixtures. "
            "Each task's answer to the query has a probability, and all else has the rest."
        ),
        claims=(_mixed(at, kl[kl["mixture"] == mixture].iloc[0], mixture, model, size),),
        blocks=(_mixtures(found, frame, kl, model, size),),
        limits=(
            "That several answers are probable does not show that one computation makes them.",
            "Where the divergence of the mean is small and that of each prompt is not, prompts "
            "take turns: each does one task.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.vectors.superposition(model, [{', '.join(map(pairs_of, found.tasks))}], "
            + arguments(
                counts=[list(each) for each in found.counts],
                n=len(found.queries),
                seed=known.get("sampling_seed"),
                untrained=found.untrained is not None,
            )
            + ")",
        ),
    )


def _mixed(at: pd.DataFrame, kl: pd.Series, mixture: str, model: str, size: str) -> Claim:
    """All tasks have to clear the mixtures without them, and the untrained model."""
    controls = [name for name in ("absent", "untrained") if name in at and at[name].notna().all()]
    each = [
        beyond(row["prob"], row["ci_low"], 0.0, *(row[name] for name in controls))
        for _, row in at.iterrows()
    ]
    verdict = _all_of(each)
    if verdict == "found" and not controls:
        verdict = "doubtful"
    told = "; ".join(
        f"{row['task']} {number(row['prob'])} ({interval(row['ci_low'], row['ci_high'])})"
        + "".join(f", {name} {number(row[name])}" for name in controls)
        for _, row in at.iterrows()
    )
    told_kl = f"KL of the mixture to each prompt {number(kl['kl'])}, to their mean "
    told_kl += f"{number(kl['of_mean'])} nats"
    does = {
        "found": "has all their answers in mind",
        "doubtful": "may have all their answers in mind",
        "not found": "does not have all their answers in mind",
    }[verdict]
    return Claim(
        f"With demonstrations of {listed(at['task'].tolist())} mixed {mixture}, {model} {does}.",
        f"Probabilities: {told}; {told_kl}; {size}.",
        verdict,
    )


def _all_of(each: Sequence[Verdict]) -> Verdict:
    """The least sure of some verdicts."""
    order: tuple[Verdict, ...] = ("not found", "doubtful", "found")
    return min(each, key=order.index)


def _mixtures(
    found: Superposition, frame: pd.DataFrame, kl: pd.DataFrame, model: str, size: str
) -> Block:
    mixtures = kl["mixture"].tolist()
    series = []
    for task in found.tasks:
        some = frame[frame["task"] == task]
        series.append(Series.of(some, "prob", task, ends=ENDS))
        if found.untrained is not None:
            series.append(Series.of(some, "untrained", f"{task}, untrained", control=True))
    drawing = curves(
        series,
        mixtures,
        label="Probability of each task's answer in every mixture of demonstrations. All values "
        "are in the table.",
        across="mixture",
        limits=SHARE,
    )
    return Block(
        "Every mixture",
        "“Absent” is the mean probability of a task's answer in the mixtures that do not "
        "demonstrate it; “after” and “before” tell apart what the last demonstration was.",
        (
            Figure(
                model,
                drawing,
                f"Bands are 95% intervals over queries; {size}.",
                data=frame_table(f"Every mixture and task, {size}", frame),
            ),
        ),
        (frame_table("How far from the mixture (KL, nats)", kl),),
    )


def interpolation_section(found: Interpolation, results: Sequence[object] = ()) -> Section:
    """Whether a mean of two task vectors gives the answers of both tasks."""
    frame, known = found.to_frame(), found.provenance
    model, (first, second) = str(known["model"]), found.tasks
    size = f"{of(int(frame['n'][0]))} prompts"
    half = float(found.alphas[(found.alphas - 0.5).abs().argmin()])
    at = frame[frame["alpha"] == half]
    verdict = _all_of(
        [
            beyond(row["prob"], row["ci_low"], row["random"], row["zero_shot"])
            for _, row in at.iterrows()
        ]
    )
    does = {"found": "gives", "doubtful": "may give", "not found": "does not give"}[verdict]
    told = "; ".join(
        f"{row['task']} {number(row['prob'])} ({interval(row['ci_low'], row['ci_high'])}), random "
        f"directions {number(row['random'])}, no vector {number(row['zero_shot'])}"
        for _, row in at.iterrows()
    )
    series = []
    for task in found.tasks:
        some = frame[frame["task"] == task]
        series.append(Series.of(some, "prob", task, ends=ENDS))
        series.append(Series.of(some, "random", f"{task}, random direction", control=True))
    drawing = curves(
        series,
        [f"{alpha:g}" for alpha in found.alphas.tolist()],
        label=f"Probability of the answers of {first} and {second} at every weight. All values are "
        "in the table.",
        across=f"weight of the vector of {first}",
        at=found.alphas.tolist(),
        limits=SHARE,
    )
    return Section(
        heading=f"Between the vectors of {first} and {second} in {model}",
        lead=(
            "A weighted mean of two task vectors takes the place of demonstrations at the end of "
            f"the query, after layer {found.layer} (“{found.how}”)."
        ),
        claims=(
            Claim(
                f"At weight {half:g}, the mean of both vectors {does} the answers of {first} and "
                f"{second} in {model}.",
                f"Probabilities: {told}; {size}.",
                verdict,
            ),
        ),
        blocks=(
            Block(
                "Every weight",
                "Random directions of the same norm show what any push would do.",
                (
                    Figure(
                        model,
                        drawing,
                        f"Bands are 95% intervals over prompts; {size}.",
                        data=frame_table("Every weight and task", frame),
                    ),
                ),
            ),
        ),
        limits=(
            "A mean over prompts does not say whether each prompt has both answers in mind.",
            "The layer was chosen on dev queries by the unmixed vectors.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.vectors.interpolate(model, {pairs_of(first)}, {pairs_of(second)}, "
            + arguments(
                alphas=[round(alpha, 6) for alpha in found.alphas.tolist()],
                how=found.how,
                shots=known.get("shots"),
                n_mean=known.get("n_mean"),
                draws=known.get("draws"),
                seed=known.get("sampling_seed"),
            )
            + ")",
        ),
    )


def specification_section(found: Specification, results: Sequence[object] = ()) -> Section:
    """Whether a task that is told leaves a vector that does what one of examples does."""
    frame, known = found.to_frame(), found.provenance
    model = str(known["model"])
    size = f"{of(int(frame['n'][0]))} prompts"
    alone = frame[frame["prompt"] == "zero-shot"]
    return Section(
        heading=f"{found.tasks[0]} and {found.tasks[1]}, shown and told, in {model}",
        lead=(
            "Each task is shown by examples, or told by an instruction: "
            + " and ".join(f"“{line}”" for line in found.instructions)
            + ". The vectors that either leaves enter every kind of prompt, and the other task's "
            "stand beside them."
        ),
        claims=tuple(
            _specified(alone[alone["task"] == task].set_index("vector"), task, kind, model, size)
            for task in found.tasks
            for kind in ("examples", "instruction")
        ),
        blocks=tuple(_prompts(frame, task, model, size) for task in found.tasks),
        limits=(
            "The control is the vector of one other task on the same inputs.",
            "An instruction that the model does not follow leaves a vector of nothing: compare "
            "with the instruction prompts without a vector.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            "interp.vectors.specification(model, "
            f"{pairs_of(found.tasks[0])}, {pairs_of(found.tasks[1])}, "
            + arguments(
                instructions=dict(zip(found.tasks, found.instructions, strict=True)),
                how=found.how,
                shots=known.get("shots"),
                n_mean=known.get("n_mean"),
                seed=known.get("sampling_seed"),
            )
            + ")",
        ),
        baselines=frame_table(
            f"Probability of the task's own answer without a vector, {size}",
            frame[frame["vector"] == "none"],
            {"task": "Task", "prompt": "Prompt", "own": "Own answer", "other": "The other task's"},
        ),
    )


def _specified(vectors: pd.DataFrame, task: str, kind: str, model: str, size: str) -> Claim:
    own, bare, other = vectors.loc[kind], vectors.loc["none"], vectors.loc[f"other {kind}"]
    verdict = beyond(own["own"], own["own_low"], bare["own"], other["own"])
    does = {"found": "makes", "doubtful": "may make", "not found": "does not make"}[verdict]
    better = " any better" if verdict == "not found" else ""
    return Claim(
        f"The vector that {kind}{'s' * (kind == 'instruction')} of {task} leave {does} {model} do "
        f"it{better}, with nothing shown or told.",
        f"Probability of the answer {number(own['own'])} "
        f"({interval(own['own_low'], own['own_high'])}); without a vector {number(bare['own'])}, "
        f"with that of the other task {number(other['own'])}; {size}.",
        verdict,
    )


def _prompts(frame: pd.DataFrame, task: str, model: str, size: str) -> Block:
    some = frame[frame["task"] == task]
    drawing = points(
        [
            Series.of(some, "own", f"answer of {task}", ends=("own_low", "own_high")),
            Series.of(some, "other", "answer of the other task", ends=("other_low", "other_high")),
        ],
        [f"{row.prompt}: {row.vector}" for row in some.itertuples()],
        label=f"Probability of the answers in every kind of prompt of {task} with every vector. "
        "All values are in the table.",
        across="probability",
        limits=SHARE,
    )
    return Block(
        f"Prompts of {task}",
        "Rows are the kind of prompt and the vector that enters it.",
        (
            Figure(
                model,
                drawing,
                f"Lines are 95% intervals over prompts; {size}.",
                data=frame_table(f"Every prompt and vector of {task}", some),
            ),
        ),
    )


LABELS = {
    "gold": "the right labels: recognising and learning together",
    "random": "labels drawn anew: recognising the task",
    "abstract": "symbols in place of labels: learning the task",
    "scrambled": "symbols drawn anew: nothing, the control",
}


def recognition_section(found: Recognition, results: Sequence[object] = ()) -> Section:
    """Whether demonstrations are recognised or learned from, by changing their labels."""
    frame, known = found.to_frame(), found.provenance
    model = str(known["model"])
    last = frame[frame["shots"] == found.shots[-1]].set_index("setting")
    size = f"{of(int(frame['n'][0]))} prompts of {int(frame['queries'][0])} queries"
    series = [
        Series.of(
            frame[frame["setting"] == setting],
            "accuracy",
            setting,
            ends=ENDS,
            control=setting == "scrambled",
        )
        for setting in LABELS
    ]
    drawing = curves(
        series,
        [str(shots) for shots in found.shots],
        label=f"Accuracy on {found.task} under changed labels, by number of demonstrations. All "
        "values are in the table.",
        across="demonstrations",
        limits=SHARE,
        level=("chance", found.chance),
    )
    return Section(
        heading=f"Does {model} recognise {found.task}, or learn it?",
        lead=(
            "The labels of demonstrations are changed. With labels drawn anew only a model that "
            "recognises the task can be right; with symbols in their place only one that learns "
            "it from the demonstrations."
        ),
        claims=(
            _labels(last, "random", f"{model} recognises {found.task}", found, size),
            _labels(last, "abstract", f"{model} learns {found.task} in context", found, size),
        ),
        blocks=(
            Block(
                "By number of demonstrations",
                "; ".join(f"{name}: {meaning}" for name, meaning in LABELS.items()) + ".",
                (
                    Figure(
                        model,
                        drawing,
                        f"Bands are 95% intervals over queries; {size}.",
                        data=frame_table("Every setting and number of demonstrations", frame),
                    ),
                ),
            ),
        ),
        limits=(
            "Answers are scored among the labels: that the model would name one at all is the "
            "column “best”.",
            f"Symbols: {listed(list(found.symbols), most=10)}.",
        ),
        provenance=provenance_rows(known),
        command=rerun(
            known,
            f"interp.vectors.recognition(model, {pairs_of(found.task)}, "
            + arguments(
                shots=list(found.shots),
                seeds=known.get("seeds"),
                n=found.best.shape[-1],
                symbols=list(found.symbols),
            )
            + ")",
        ),
    )


def _labels(
    last: pd.DataFrame, setting: str, statement: str, found: Recognition, size: str
) -> Claim:
    row, control = last.loc[setting], last.loc["scrambled"]
    verdict = beyond(
        row["accuracy"], row["ci_low"], row["chance"], row["commonest"], control["accuracy"]
    )
    said = {
        "found": f"{statement}.",
        "doubtful": f"That {statement} is not clear.",
        "not found": f"It is not so that {statement}.",
    }[verdict]
    return Claim(
        said,
        f"With {LABELS[setting]}, {found.shots[-1]} demonstrations give accuracy "
        f"{number(row['accuracy'])} ({interval(row['ci_low'], row['ci_high'])}); chance "
        f"{number(row['chance'])}, naming the commonest label {number(row['commonest'])}, "
        f"scrambled symbols {number(control['accuracy'])}; single seeds from "
        f"{number(row['seeds_low'])} to {number(row['seeds_high'])}; {size}.",
        verdict,
    )
