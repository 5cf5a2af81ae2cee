"""A `SweepResult` as a section of a report: its largest effect beside those of all other sites."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from interp.engine import SweepResult
from interp.report.parts import Block, Section, listed, of, provenance_rows
from interp.report.sweeps.claim import Largest, claim_of, largest, shares
from interp.report.sweeps.command import command_of
from interp.report.sweeps.pictures import baselines_of, figures_of, top_table
from interp.report.sweeps.words import (
    LOWER_IS_BETTER,
    Writer,
    article,
    deed_of,
    inner,
    noun_of,
    task_of,
)
from interp.sites import Resid
from interp.stats import bootstrap_ci


def sweep_section(sweep: SweepResult, results: Sequence[object] = ()) -> Section:
    """The claim, drawings, tables, baselines and controls of a sweep over any sites."""
    best = largest(sweep)
    return Section(
        heading=_heading(sweep),
        lead=_lead(sweep),
        claims=(claim_of(sweep, best),),
        blocks=(_block(sweep, best),),
        limits=tuple(_limits(sweep)),
        provenance=(
            *provenance_rows(sweep.provenance),
            ("Changes without any effect", _idle(sweep)),
        ),
        command=command_of(sweep),
        baselines=baselines_of(sweep, best),
    )


def _idle(sweep: SweepResult) -> str:
    """The sites at which the change moved the metric of no prompt by a single bit."""
    still = (sweep.effects == 0).all(dim=-1).tolist()
    names = [str(site) for site, idle in zip(sweep.sites, still, strict=True) if idle]
    return f"{len(names) or 'none'} of {len(still)}{f': {listed(names)}' if names else ''}"


def _heading(sweep: SweepResult) -> str:
    part, task = article(noun_of(sweep.sites)), task_of(sweep)
    return {
        "ablate": f"What breaks when {part} is removed, on {task}",
        "break": f"What breaks when {part} is corrupted, on {task}",
        "restore": f"What {part} restores, on {task}",
        "estimate": f"What corrupting {part} would break, by gradients, on {task}",
        "change": f"What changes at {part}, on {task}",
    }[deed_of(sweep)]


def _lead(sweep: SweepResult) -> str:
    noun, n, metric = noun_of(sweep.sites), len(sweep.clean), sweep.metric
    told = {
        "ablate": (
            f"Each {noun} in turn is switched off ({sweep.method} ablation) while the model "
            f"answers {n} prompts, and the change of {metric} is measured. Unlike attention, this "
            f"is a cause: the number says what the model loses without that {noun}."
        ),
        "break": (
            f"The model answers {n} clean prompts, and each {noun} in turn takes the value that it "
            f"has on {_other(sweep)} prompt. The change of {metric} says what is needed."
        ),
        "restore": (
            f"The model reads {n} corrupt prompts, and each {noun} in turn takes the value that it "
            f"has on the clean prompt. The change of {metric} says what is enough to bring the "
            "answer back."
        ),
        "estimate": (
            f"What putting each {noun} of the corrupt run into the clean run would do to {metric} "
            f"on {n} prompts is estimated from gradients ({sweep.method}), all sites at once."
        ),
        "change": (
            f"One {noun} after another is changed ({sweep.method}) while the model answers {n} "
            f"prompts, and the change of {metric} is measured."
        ),
    }[deed_of(sweep)]
    known = sweep.provenance
    if known.get("effect") == "direct":
        told += " Only the direct way along the residual stream counts: later parts stay as is."
    if known.get("freeze") == "patterns":
        told += " All attention patterns stay as they were."
    return told


def _other(sweep: SweepResult) -> str:
    return "another" if sweep.corrupt is None else "the corrupt"


def _block(sweep: SweepResult, best: Largest) -> Block:
    write, start, n = Writer.of(sweep), sweep.baseline, len(sweep.clean)
    low, high = (end.item() for end in bootstrap_ci(start))
    run = "corrupt run" if deed_of(sweep) == "restore" else "clean run"
    return Block(
        heading=f"Change of {sweep.metric} on {task_of(sweep)}",
        meaning=(
            f"The number is {sweep.metric} with the change minus that of the {run} as it is, "
            f"{write.in_units(write.plain(start.mean().item()))} ({write.interval(low, high)}, "
            f"{of(n)}). {_colours(sweep)}"
        ),
        figures=figures_of(sweep, best),
        tables=(top_table(sweep),),
    )


def _colours(sweep: SweepResult) -> str:
    """What red and blue mean."""
    better, worse = ("Red", "Blue") if sweep.metric in LOWER_IS_BETTER else ("Blue", "Red")
    noun, deed = noun_of(sweep.sites), deed_of(sweep)
    if deed == "restore":
        return f"{better}: this {noun} brings the answer back. {worse}: it leads further away."
    if deed == "change":
        return f"{better}: the model does better with the change. {worse}: it does worse."
    return f"{worse}: the model needs the {noun} for this. {better}: it does better without."


def _limits(sweep: SweepResult) -> list[str]:
    deed, noun, tested = deed_of(sweep), noun_of(sweep.sites, plural=True), len(sweep.sites)
    missed = max(1, round(0.05 * tested))
    limits = {
        "ablate": [
            f"{sweep.method.capitalize()} ablation hands later layers values that they may never "
            "see in use, so an effect can be damage that has nothing to do with the task."
        ],
        "estimate": [
            "Gradients are exact for small changes alone; what they name has to be patched to be "
            "sure of it."
        ],
    }.get(deed, [])
    if deed in ("break", "restore", "estimate"):
        limits.append(
            "Patching sees what differs between the two prompts: what they share stays hidden."
        )
        if sweep.corrupt is not None and shares(sweep, torch.tensor([0])) is None:
            limits.append(
                "No shares of the gap are told: clean and corrupt are not clearly apart, or not "
                "all prompts were run."
            )
    if any(isinstance(inner(site), Resid) for site in sweep.sites):
        limits.append(
            "A residual stream holds all that was written before: an effect there says where "
            "the answer passes, not what makes it."
        )
    hidden = (
        "what needs a second one beside it looks idle."
        if deed == "restore"
        else "two that stand in for each other both look idle."
    )
    return [
        *limits,
        f"{noun[0].upper()}{noun[1:]} are changed one at a time: {hidden}",
        f"If none mattered, about {missed} of {tested:,} intervals would still miss zero, by "
        "chance, and the largest effect of many is somewhat overstated.",
        f"The numbers are of {len(sweep.clean)} prompts of {task_of(sweep)} and say nothing of "
        "other tasks.",
    ]
