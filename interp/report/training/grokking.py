"""Networks that learn to add, as sections of a report: their waves, and when they form."""

from __future__ import annotations

import math
from collections.abc import Sequence

from interp.grokking import GrokkingCurves, ModularAnalysis
from interp.report.drawing.chart import Series, curves
from interp.report.frame import frame_table
from interp.report.parts import (
    Block,
    Claim,
    Figure,
    Section,
    Table,
    Verdict,
    listed,
    of,
    provenance_rows,
)

LEARNED = 0.1
"""Nats below which a loss is taken as learned."""


def analysis_section(found: ModularAnalysis, results: Sequence[object] = ()) -> Section:
    """Which waves a network is made of, beside other frequencies and the untrained network."""
    frame, known = found.to_frame(), found.provenance
    model = str(known["model"])
    pairs = f"{of(int(known['pairs']))} pairs, all there are"
    drawing = curves(
        [
            Series.of(frame, "logit_share", "trained"),
            Series.of(frame, "untrained_logit_share", "untrained", control=True),
        ],
        [str(each) for each in frame["frequency"]],
        label="Share of the variance of the logits that every frequency explains. All values are "
        "in the table.",
        across="frequency",
    )
    return Section(
        heading=f"Does the network add by waves? ({model})",
        lead=(
            "Neurons and logits are taken apart into waves over a + b. A network that adds by "
            "waves has a few key frequencies, one in nearly every neuron, which explain nearly all "
            "of its logits."
        ),
        claims=(_waves(found, model, pairs),),
        blocks=(
            Block(
                "Every frequency",
                "A frequency is key where more than 2% of neurons have it: it explains more than "
                "85% of their variance.",
                (Figure(model, drawing, f"{pairs}.", data=frame_table("Every frequency", frame)),),
                (frame_table("Key frequencies", frame[frame["key"]]),),
            ),
        ),
        limits=(
            "Nothing is sampled, so no number has an interval.",
            "Another run finds other key frequencies.",
        ),
        provenance=provenance_rows(known),
        command=str(known.get("command") or "interp.grokking.analyze(network)"),
    )


def _waves(found: ModularAnalysis, model: str, pairs: str) -> Claim:
    if not found.key_frequencies:
        return Claim(f"{model} has no key frequencies.", f"{pairs}; no interval.", "not found")
    others, best = found.explained_by_others
    beats = found.explained > max(best, found.explained_untrained)
    named = listed([str(each) for each in found.key_frequencies], most=10)
    return Claim(
        f"Waves of frequency {named} explain {100 * found.explained:.1f}% of the logits of "
        f"{model}.",
        f"As many other frequencies explain {100 * others:.2f}% on average and at most "
        f"{100 * best:.2f}%; the same ones in the untrained network "
        f"{100 * found.explained_untrained:.2f}%; {pairs}, so no interval.",
        "found" if beats else "doubtful",
    )


def grokking_curves_section(found: GrokkingCurves, results: Sequence[object] = ()) -> Section:
    """When a network learns its examples, when it forms waves, and when it groks."""
    frame, known = found.to_frame(), found.provenance
    model = str(known["model"])
    steps = [str(step) for step in found.steps]
    at = [math.log(1 + step) for step in found.steps]
    named = listed([str(each) for each in found.frequencies], most=10)
    sets = of(next(iter(found.others.values())).shape[1])

    def drawn(names: Sequence[str], title: str, caption: str) -> Figure:
        series = [
            Series.of(frame, each, each.replace("_", " "), control=each.endswith("_others"))
            for each in names
        ]
        return Figure(
            f"{model}: {title}",
            curves(
                series,
                steps,
                at=at,
                label=f"{title} over training. All values are in the table.",
                across="training step (logarithmic)",
            ),
            caption,
            data=frame_table("Every checkpoint", frame) if "train_loss" in names else None,
        )

    return Section(
        heading=f"How {model} comes to add",
        lead=(
            f"Losses at {len(steps)} checkpoints from step {steps[0]} to {steps[-1]}. Restricted "
            f"loss keeps only the waves of frequencies {named} in the logits, excluded loss takes "
            "only them away."
        ),
        claims=(_grokked(found, model), *(_needed(found, name, model) for name in _WAYS)),
        blocks=(
            Block(
                "Examples, and the rest",
                "Train loss is of the pairs that were trained on, test loss of all others.",
                (drawn(("train_loss", "test_loss"), "losses", "In nats, means over all pairs."),),
            ),
            Block(
                "Waves",
                "Where restricted loss falls and excluded loss rises, the network relies on these "
                "waves. The controls are random sets of as many other frequencies.",
                tuple(
                    drawn(
                        (f"{name}_loss", f"{name}_loss_others"),
                        f"{name} loss",
                        f"In nats; control: mean of {sets} sets of other frequencies.",
                    )
                    for name in _WAYS
                ),
            ),
        ),
        limits=(
            "One run is one sample of what training does: another seed may take other steps.",
            "The frequencies were read off the last checkpoint, and are followed back from there.",
            f"That a loss below {LEARNED} nats is learned is a convention.",
        ),
        provenance=provenance_rows(known),
        command=str(known.get("command") or "interp.grokking.over_training(run)"),
        baselines=Table(
            "Losses at the ends (nats)",
            ("Loss", f"Step {steps[0]}", f"Step {steps[-1]}"),
            tuple(
                (name.replace("_", " "), float(values[0]), float(values[-1]))
                for name, values in found.losses.items()
            ),
            digits=4,
        ),
    )


_WAYS = ("restricted", "excluded")


def _grokked(found: GrokkingCurves, model: str) -> Claim:
    """It groks where the pairs that it never saw are learned, and later than its examples."""
    train, test = (found.first_below(f"{name}_loss", LEARNED) for name in ("train", "test"))
    last = f"train {found.losses['train_loss'][-1]:.2g}, test {found.losses['test_loss'][-1]:.2g}"
    told = f"Last losses: {last} nats; {of(len(found.steps))} checkpoints of one run, no interval."
    if test is None or train is None:
        what = "its examples" if train is None else "the pairs that it did not see"
        return Claim(f"The network of {model} does not learn {what}.", told, "not found")
    verdict: Verdict = "found" if test > train else "doubtful"
    return Claim(
        f"The network of {model} knows its examples from step {train} on, and adds what it never "
        f"saw from step {test} on.",
        told,
        verdict,
    )


def _needed(found: GrokkingCurves, name: str, model: str) -> Claim:
    """The last restricted loss is below, the last excluded loss above, that of every other set."""
    own = found.losses[f"{name}_loss"][-1].item()
    others = found.others[f"{name}_loss"][-1]
    restricted = name == "restricted"
    least, most = others.min().item(), others.max().item()
    beats = own < least if restricted else own > most
    better = own < others.mean().item() if restricted else own > others.mean().item()
    does = "are enough for" if restricted else "are needed by"
    return Claim(
        f"In the end, waves of these frequencies {does} the network of {model}."
        if beats
        else f"That waves of these frequencies {does} the network of {model} is not shown.",
        f"Last {name} loss {own:.2g} nats; as many other frequencies {least:.2g} to {most:.2g} "
        f"in {of(len(others))} sets; all pairs, so no interval.",
        "found" if beats else "doubtful" if better else "not found",
    )
