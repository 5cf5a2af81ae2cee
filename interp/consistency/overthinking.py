"""Do late layers follow false demonstrations that early layers do not? (Halawi et al. 2023)

A model that reads demonstrations with false labels may know better half-way: the accuracy of its
layers, read through the final norm and the unembedding, parts from that under true labels at a
*critical layer*.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.consistency.false_demonstrations import (
    DEMO,
    KINDS,
    PARTS,
    SHOTS,
    Pairs,
    demonstrations,
)
from interp.consistency.latent import latent_predictions
from interp.consistency.thresholds import TIE
from interp.display import Displayed
from interp.errors import MetricError
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci


@dataclass(frozen=True, eq=False)
class Overthinking(Saved, Displayed):
    """The accuracy of every layer under true, false and random demonstrations.

    Attributes:
        latents: Probabilities of the labels, by kind of demonstrations; layer 0 is the embedding.
        thresholds: Of each layer and label, from other prompts of the same kind.
        truth: The number of the true label of each prompt.
        labels: What the numbers mean.
        provenance: Model, prompts, options, versions.
    """

    latents: dict[str, Float[Tensor, "prompts layer labels"]]
    thresholds: dict[str, Float[Tensor, "layer labels"]]
    truth: Int[Tensor, " prompts"]
    labels: tuple[str, ...]
    provenance: dict[str, Any] = field(repr=False)

    def accuracy(self, kind: str, *, calibrated: bool = True) -> Float[Tensor, "layer prompts"]:
        """Whether each layer says the true label: above its threshold, or as the likeliest label.

        Raises MetricError for a kind that was not measured.
        """
        if kind not in self.latents:
            raise MetricError(f"No demonstrations are {kind!r}; give one of {list(self.latents)}.")
        if calibrated:
            return calibrated_hits(self.latents[kind], self.thresholds[kind], self.truth)
        return (self.latents[kind].argmax(dim=-1) == self.truth[:, None]).double().T

    @property
    def gap(self) -> Float[Tensor, "layer prompts"]:
        """Calibrated accuracy under true minus under false demonstrations of the same words."""
        return self.accuracy("true") - self.accuracy("false")

    @property
    def critical_layer(self) -> int | None:
        """The first layer at which the gap is half its final value; 0 is the embedding.

        None where the interval of the final gap does not lie above 0: nothing then parts.
        """
        low, _ = bootstrap_ci(self.gap[-1])
        mean = self.gap.mean(dim=-1)
        return int((mean >= mean[-1] / 2).int().argmax()) if low > 0 else None

    def to_frame(self) -> pd.DataFrame:
        """One row a layer.

        Columns: layer; true, false and random (calibrated accuracy under such demonstrations) and
        gap, each with its _low and _high (95%, over prompts); chance; n.
        """
        frame: dict[str, Any] = {"layer": range(len(self.gap))}
        for name, values in {**{k: self.accuracy(k) for k in KINDS}, "gap": self.gap}.items():
            low, high = bootstrap_ci(values)
            frame |= {name: values.mean(dim=-1).tolist()}
            frame |= {f"{name}_low": low.tolist(), f"{name}_high": high.tolist()}
        return pd.DataFrame({**frame, "chance": 1 / len(self.labels), "n": len(self.truth)})

    def plot(self) -> go.Figure:
        """Accuracy by layer for each kind of demonstrations, with intervals and critical layer."""
        frame, figure = self.to_frame(), go.Figure()
        colors = {"true": DIVERGING[-2], "false": DIVERGING[1], "random": MISSING}
        for kind, color in colors.items():
            figure.add_scatter(
                x=frame["layer"],
                y=frame[kind],
                error_y={
                    "type": "data",
                    "array": frame[f"{kind}_high"] - frame[kind],
                    "arrayminus": frame[kind] - frame[f"{kind}_low"],
                    "thickness": 1,
                },
                name=f"{kind} labels",
                line_color=color,
            )
        figure.add_hline(1 / len(self.labels), line={"color": MISSING, "dash": "dot"})
        if self.critical_layer is not None:
            figure.add_vline(
                self.critical_layer, line={"dash": "dash"}, annotation_text="critical layer"
            )
        model = self.provenance["model"]
        figure.update_layout(title=f"Layers of {model} under false labels", template="plotly_white")
        figure.update_xaxes(title_text="layer (0: embedding)", dtick=1)
        figure.update_yaxes(title_text="calibrated accuracy", range=[0, 1])
        return figure

    def __repr__(self) -> str:
        low, high = bootstrap_ci(self.gap[-1])
        last = {kind: self.accuracy(kind)[-1].mean() for kind in KINDS}
        found = self.critical_layer
        where = "no critical layer" if found is None else f"critical layer {found}"
        return (
            f"Overthinking(last layer {last['true']:.2f} true, {last['false']:.2f} false, "
            f"{last['random']:.2f} random, chance {1 / len(self.labels):.2f}; gap "
            f"{self.gap[-1].mean():.2f} [{low:.2f}, {high:.2f}], {where}; "
            f"n = {len(self.truth)} prompts)"
        )


def overthinking(
    model: Model,
    source: str | Pairs = "category",
    *,
    n: int = 120,
    calibration: int = 120,
    shots: int = SHOTS,
    demo: str = DEMO,
    seed: int = 0,
    progress: bool = False,
) -> Overthinking:
    """The accuracy of every layer under demonstrations with true, false and random labels.

    A layer says a label when its probability (among the labels) exceeds its (K-1)/K quantile over
    calibration prompts of the same kind; at the quantile it counts 1/K. Halawi et al. take the
    quantiles over the prompts that they report; here they come from prompts about other words.
    `overthinking(model.untrained(), ...)` is the control of the gap.

    Args:
        model: In eval mode.
        source: As of `demonstrations`.
        n: Prompts that are reported, of each kind.
        calibration: Prompts that set the thresholds, of each kind.
        shots, demo, seed: As of `demonstrations`.
        progress: Show a bar.

    Raises:
        TaskError: Words or options that make no demonstrations.
        MetricError: Fewer calibration prompts than would give each label a quantile.
        PromptError: More demonstrations than the model's context holds.
    """
    made = {
        (kind, part): demonstrations(
            model, source, n=count, kind=kind, shots=shots, part=part, demo=demo, seed=seed
        )
        for kind in KINDS
        for part, count in zip(PARTS, (calibration, n), strict=True)
    }
    prompts = made["true", "test"]
    words = label_words(prompts)
    if calibration < 2 * len(words):
        raise MetricError(
            f"{calibration} calibration prompts set no thresholds for {len(words)} labels; give "
            f"at least {2 * len(words)}."
        )
    latents = {
        which: latent_predictions(
            model,
            [row[real].tolist() for row, real in zip(some.clean, some.mask, strict=True)],
            words,
            progress=progress,
        )
        for which, some in made.items()
    }
    return Overthinking(
        latents={kind: latents[kind, "test"] for kind in KINDS},
        thresholds={kind: label_thresholds(latents[kind, "calibration"]) for kind in KINDS},
        truth=torch.tensor(prompts.notes["truth"]),
        labels=prompts.notes["labels"],
        provenance=provenance(
            model, prompts, method="overthinking", calibration=calibration, demo=demo
        ),
    )


def label_words(prompts: PromptSet) -> Int[Tensor, " labels"]:
    """The token of each label of `demonstrations`, in the order of `notes["labels"]`.

    Raises MetricError if no prompt asks for some of them.
    """
    tokens = dict(zip(prompts.notes["truth"], prompts.answer[:, 0].tolist(), strict=True))
    labels = prompts.notes["labels"]
    if len(tokens) < len(labels):
        raise MetricError(
            f"{len(prompts)} prompts ask for {len(tokens)} of the {len(labels)} labels; give more."
        )
    return torch.tensor([tokens[label] for label in range(len(labels))])


def label_thresholds(
    latents: Float[Tensor, "prompts *layer labels"],
) -> Float[Tensor, "*layer labels"]:
    """The (K-1)/K quantile of each of K labels over prompts: all are then said equally often."""
    count = latents.shape[-1]
    return latents.quantile((count - 1) / count, dim=0)


def calibrated_hits(
    latents: Float[Tensor, "prompts layer labels"],
    thresholds: Float[Tensor, "layer labels"],
    truth: Int[Tensor, " prompts"],
) -> Float[Tensor, "layer prompts"]:
    """1 where the true label is above its threshold, 1/K at the threshold itself, else 0."""
    own = latents[torch.arange(len(truth)), :, truth].T
    least = thresholds[:, truth]
    equal = (own - least).abs() <= TIE * least * (1 - least)
    return torch.where(equal, 1 / latents.shape[-1], (own > least).double())
