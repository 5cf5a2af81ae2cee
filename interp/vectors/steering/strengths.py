"""How strong a vector steers, and whether it steers at all: all of the response, beside controls.

At each multiplier the whole response is kept: the positive answer, the negative one, all other
tokens. A rise of the answer steered to is called steering only if few random vectors of the same
norm reach it, and no vector from pairs of which half had their answers exchanged. Two ways in which
a model breaks look like success where one answer alone is read, and are named instead:

- "other tokens": more probability goes to tokens that are neither answer than to the one steered
  to.
- "label collapse": the answers drift to .5 each and no larger multiplier carries them past it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import VectorError
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.in_context.curves import probability_axes
from interp.vectors.random_vectors import random_draws
from interp.vectors.steering.contrasts import Contrast, asked
from interp.vectors.steering.steering import SteeringVector, added, responses

STRENGTHS = (-8.0, -4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
LOST = 0.1
"""Probability that must have gone to other tokens before they are named."""
UNDECIDED = 0.1
"""How near to .5 the answers are that cannot be told from chance."""
NEGLIGIBLE = 0.01
"""A mean change of probability below which a vector has no effect, however certain."""
LEVEL = 0.05
"""Share of random vectors that may do as much, the vector itself among them."""
ANSWERS = ("positive", "negative", "other")


@dataclass(frozen=True, eq=False)
class StrengthSweep(Saved, Displayed):
    """Responses to a steering vector, and to its controls, at many multipliers.

    Attributes:
        behavior: Name of the behavior.
        layer: Where the vector is added.
        strengths: Multipliers; 0 is the model as it is.
        steered: Probability of the positive answer, the negative answer and all other tokens.
        random: The same with random vectors of the same norm.
        shuffled: The same with vectors from pairs of which half had their answers exchanged.
        provenance: Model, weights hash, prompts, options, versions.
    """

    behavior: str
    layer: int
    strengths: tuple[float, ...]
    steered: Float[Tensor, "strengths prompts answers"]
    random: Float[Tensor, "draws strengths prompts answers"]
    shuffled: Float[Tensor, "shuffles strengths prompts answers"]
    provenance: dict[str, Any]

    @property
    def toward(self) -> Float[Tensor, "strengths prompts"]:
        """What is added to the answer steered to: the positive one above 0, the negative below."""
        return self._toward(self.steered)

    @property
    def p(self) -> Float[Tensor, " strengths"]:
        """The share of random vectors, itself among them, whose mean `toward` is as high."""
        random = self._toward(self.random).mean(dim=-1)
        return (1 + (random >= self.toward.mean(dim=-1)).sum(dim=0)) / (1 + len(random))

    @property
    def verdicts(self) -> tuple[str, ...]:
        """For each strength, the first of these that is true.

        "unsteered" at 0; "other tokens" and "label collapse" as this module says; "no effect" where
        the interval of `toward` holds 0 or its mean is below .01; "reversed" where it is below 0;
        "as controls" where `p` is above .05 or a shuffled vector does as much; else "steered".
        """
        return tuple(self._verdict(i) for i in range(len(self.strengths)))

    def to_frame(self) -> pd.DataFrame:
        """One row for each strength.

        Columns: strength, positive, positive_low, positive_high (95% over prompts), negative, other
        (mean probabilities), toward (mean change of the answer steered to), toward_low,
        toward_high, random_toward (mean over draws), shuffled_toward (of the shuffled vector that
        does most), p (share of random vectors, itself among them, that do as much), verdict, n.
        """
        low, high = bootstrap_ci(self.steered[..., 0])
        toward_low, toward_high = bootstrap_ci(self.toward)
        mean = self.steered.mean(dim=1)
        return pd.DataFrame(
            {
                "strength": self.strengths,
                "positive": mean[:, 0].tolist(),
                "positive_low": low.tolist(),
                "positive_high": high.tolist(),
                "negative": mean[:, 1].tolist(),
                "other": mean[:, 2].tolist(),
                "toward": self.toward.mean(dim=-1).tolist(),
                "toward_low": toward_low.tolist(),
                "toward_high": toward_high.tolist(),
                "random_toward": self._toward(self.random).mean(dim=(0, 2)).tolist(),
                "shuffled_toward": self._toward(self.shuffled).mean(dim=-1).amax(dim=0).tolist(),
                "p": self.p.tolist(),
                "verdict": self.verdicts,
                "n": self.steered.shape[1],
            }
        )

    def plot(self) -> go.Figure:
        """The three shares of the response against the multiplier; dotted: random vectors."""
        figure = go.Figure()
        colors = (DIVERGING[-2], DIVERGING[1], MISSING)
        low, high = bootstrap_ci(self.steered.transpose(1, 2))
        mean, random = self.steered.mean(dim=1), self.random.mean(dim=(0, 2))
        for i, (name, color) in enumerate(zip(ANSWERS, colors, strict=True)):
            figure.add_scatter(
                x=self.strengths,
                y=mean[:, i].tolist(),
                error_y={
                    "type": "data",
                    "array": (high - mean)[:, i].tolist(),
                    "arrayminus": (mean - low)[:, i].tolist(),
                    "thickness": 1,
                },
                name=name,
                line_color=color,
            )
            figure.add_scatter(
                x=self.strengths,
                y=random[:, i].tolist(),
                name=f"{name}, random vectors",
                line={"color": color, "dash": "dot"},
            )
        title = f"Steering {self.provenance['model']} to {self.behavior}, layer {self.layer}"
        probability_axes(figure, title, "multiplier", up="probability")
        return figure

    def __repr__(self) -> str:
        told = zip(self.strengths, self.verdicts, strict=True)
        return (
            f"StrengthSweep({self.behavior!r}, layer {self.layer}, n = {self.steered.shape[1]}: "
            + ", ".join(f"{strength:g} {verdict}" for strength, verdict in told)
            + ")"
        )

    def _toward(
        self, found: Float[Tensor, "*draws strengths prompts answers"]
    ) -> Float[Tensor, "*draws strengths prompts"]:
        change = found - self._clean
        upward = torch.tensor(self.strengths)[:, None] >= 0
        return torch.where(upward, change[..., 0], change[..., 1])

    @property
    def _clean(self) -> Float[Tensor, "prompts answers"]:
        return self.steered[self.strengths.index(0.0)]

    def _verdict(self, i: int) -> str:
        if self.strengths[i] == 0:
            return "unsteered"
        toward = self.toward[i]
        lost = (self.steered[i] - self._clean)[:, 2].mean()
        if lost > LOST and lost > toward.mean():
            return "other tokens"
        if self._collapsed(i):
            return "label collapse"
        low, high = bootstrap_ci(toward)
        if low <= 0 <= high or toward.mean().abs() < NEGLIGIBLE:
            return "no effect"
        if high < 0:
            return "reversed"
        shuffled = self._toward(self.shuffled)[:, i].mean(dim=-1).max()
        return "steered" if self.p[i] <= LEVEL and toward.mean() > shuffled else "as controls"

    def _collapsed(self, i: int) -> bool:
        """Whether the answers have come to .5, on the mean or on every prompt, and stay there."""
        strength, side = self.strengths[i], 0 if self.strengths[i] > 0 else 1
        before, after = (_beyond_half(each, side) for each in (self._clean, self.steered[i]))
        farther = [
            _beyond_half(self.steered[j], side).mean() > UNDECIDED
            for j, each in enumerate(self.strengths)
            if each * strength > 0 and abs(each) > abs(strength)
        ]
        drifted = before.mean().abs() > UNDECIDED >= after.mean().abs()
        leveled = before.abs().mean() > UNDECIDED >= after.abs().mean()
        return bool(drifted or leveled) and not any(farther)


def strength_sweep(
    model: Model,
    steering: SteeringVector,
    *,
    strengths: Sequence[float] = STRENGTHS,
    layer: int | None = None,
    contrasts: Sequence[Contrast] | None = None,
    draws: int = 50,
    seed: int = 0,
    progress: bool = True,
) -> StrengthSweep:
    """The response to multiples of a steering vector on the test pairs.

    Args:
        model: That the vector was made with.
        steering: What `steering_vector` returns.
        strengths: Multipliers; 0 is always among them.
        layer: Another layer than the chosen one.
        contrasts: Other pairs than the behavior's test pairs.
        draws: Random vectors.
        seed: Of the random vectors.
        progress: Show a bar.

    Raises:
        VectorError: A vector of another model, a layer that does not exist, strengths that are no
            numbers, or too few random vectors.
        PromptError: Pairs that the model cannot read, or answers of several tokens.
    """
    vector = steering.vector if layer is None else steering.at(layer)
    vector.require(model)
    fewest = math.ceil(1 / LEVEL) - 1
    if draws < fewest:
        raise VectorError(
            f"draws={draws} random vectors are too few to tell steering from chance; use {fewest} "
            "or more."
        )
    multipliers = tuple(sorted({0.0, *map(float, strengths)}))
    if not torch.tensor(multipliers).isfinite().all():
        raise VectorError(f"Strengths are finite numbers, and these are {list(strengths)}.")
    ((where, own),) = vector.layers.items()
    prompts = asked(model, steering.behavior.test if contrasts is None else contrasts)
    random = random_draws(own, draws, seed)
    vectors = torch.cat([own[None], random, steering.shuffled[:, where]])
    every = [added({where: m * each}) for each in vectors for m in multipliers]
    found = responses(model, prompts, every, progress=progress)
    found = found.unflatten(0, (len(vectors), len(multipliers)))
    return StrengthSweep(
        behavior=steering.behavior.name,
        layer=where,
        strengths=multipliers,
        steered=found[0],
        random=found[1 : 1 + draws],
        shuffled=found[1 + draws :],
        provenance=provenance(
            model,
            prompts,
            method="strengths of a steering vector",
            behavior=steering.behavior.name,
            layer=where,
            draws=draws,
            random_seed=seed,
        ),
    )


def _beyond_half(found: Float[Tensor, "prompts answers"], side: int) -> Float[Tensor, " prompts"]:
    """By how much the share of an answer, among both, exceeds .5."""
    return found[:, side] / found[:, :2].sum(dim=-1) - 0.5
