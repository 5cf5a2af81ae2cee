"""Which layer knows which step of reasoning that is never written down?

Models that answer at once may pass through the intermediate values of a calculation, or not. The
last token of the prompt is probed, in every layer, for the value after each step.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import ProbeError
from interp.models import Model
from interp.plots.colors import SEQUENTIAL
from interp.probes.controls import untrained_states, word_types
from interp.probes.linear import probe_provenance, probe_states
from interp.probes.result import ProbeResult
from interp.probes.split import Label
from interp.probes.states import layer_names, states
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.tasks.coin_flip import QUESTION, SIDES, CoinFlip


@dataclass(frozen=True, eq=False)
class StepProbes(Saved, Displayed):
    """Probes of every layer for the value after every step.

    Attributes:
        results: By the name of the step, in order.
        provenance: Where they come from.
    """

    results: dict[str, ProbeResult]
    provenance: dict[str, Any]

    @property
    def grid(self) -> Float[Tensor, "layer steps"]:
        """Accuracy on the test prompts."""
        return torch.stack([each.accuracy() for each in self.results.values()], dim=1)

    def to_frame(self) -> pd.DataFrame:
        """One row for each step and layer: step, and the columns of `ProbeResult.to_frame`."""
        frames = [each.to_frame().assign(step=step) for step, each in self.results.items()]
        whole = pd.concat(frames, ignore_index=True)
        return whole[["step", *whole.columns.drop("step")]]

    def plot(self) -> go.Figure:
        """Heatmap of the accuracies, the first layer at the bottom."""
        layers = next(iter(self.results.values())).layers
        figure = go.Figure(
            go.Heatmap(
                z=self.grid.tolist(),
                x=list(self.results),
                y=list(layers),
                zmin=0,
                zmax=1,
                colorscale=list(SEQUENTIAL),
                colorbar={"title": "accuracy"},
                texttemplate="%{z:.2f}",
            )
        )
        title = f"Values that layers of {self.provenance['model']} hold"
        figure.update_layout(title=title, template="plotly_white")
        figure.update_xaxes(title_text="after step", type="category")
        figure.update_yaxes(title_text="layer", type="category")
        return figure

    def __repr__(self) -> str:
        told = ", ".join(
            f"{step} {float(each.accuracy().max()):.2f} in {each.layers[each.best]}"
            for step, each in self.results.items()
        )
        n = next(iter(self.results.values())).n
        return f"StepProbes(best layers: {told}; n = {n} test prompts)"


def step_probes(
    model: Model,
    prompts: PromptSet,
    values: Mapping[str, Sequence[Label]],
    *,
    kind: str = "resid",
    position: str | int = "END",
    types: str | Sequence[Hashable] | None = None,
    seed: int = 0,
) -> StepProbes:
    """Probe every layer for the value after every step.

    Args:
        model: In eval mode.
        prompts: That do not write the values down.
        values: By step, the value in each prompt, such as `coin_sides(model, prompts)`.
        kind, position, types, seed: As of `interp.probes.linear.probe`.

    Raises:
        ProbeError: No steps, or values that make no probe.
    """
    if not values:
        raise ProbeError("There are no steps; give the values of at least one.")
    most = max(len(set(each)) for each in values.values())
    kinds, where = word_types(prompts, types, position=position, classes=most)
    about = probe_provenance(model, prompts, kind, position, where, seed)
    read = states(model, prompts, kind=kind, position=position)
    fresh = untrained_states(model, prompts, kind=kind, position=position, seed=seed)
    results = {
        step: probe_states(
            read,
            labels,
            types=kinds,
            untrained=fresh,
            layers=layer_names(model, kind),
            seed=seed,
            provenance=about | {"step": step},
        )
        for step, labels in values.items()
    }
    return StepProbes(results, about | {"method": "step probes"})


def coin_steps(
    model: Model, *, flips: int = 4, n: int = 300, seed: int = 0, kind: str = "resid"
) -> StepProbes:
    """The side that is up after each person of a coin story that is answered at once.

    The sides after different people are independent: knowing one tells nothing of another.

    Raises:
        TaskError: No such story in the words of this tokenizer.
        ProbeError: Too few prompts.
    """
    prompts = CoinFlip(flips=flips, rationale=False).sample(model, n, seed=seed, split="all")
    return step_probes(model, prompts, coin_sides(model, prompts), kind=kind, seed=seed)


def coin_sides(model: Model, prompts: PromptSet) -> dict[str, list[str]]:
    """The side that is up at first ("0"), and after each person ("1", ...), read from the stories.

    Raises:
        ProbeError: Prompts that tell no such story, or stories of unequal length.
    """
    rows = zip(prompts.clean.cpu(), prompts.mask.cpu(), strict=True)
    told = [sides_of(str(model.tokenizer.decode(row[real]))) for row, real in rows]
    if len({len(sides) for sides in told}) > 1:
        raise ProbeError("The stories have unequal numbers of people; probe each number alone.")
    return {str(step): list(sides) for step, sides in enumerate(zip(*told, strict=True))}


def sides_of(story: str) -> list[str]:
    """The side that is up at first and after each person.

    Raises ProbeError for a text that is no such story.

    >>> sides_of("A coin is heads up. Ada flips the coin. Bob keeps the coin.")
    ['heads', 'tails', 'tails']
    """
    told = story.split(QUESTION.strip())[0]
    first = re.search(r"coin is (heads|tails) up", told)
    if first is None:
        raise ProbeError(f"{story[:60]!r} is no story of a coin; use the task coin_flip.")
    sides = [first[1]]
    for action in re.findall(r"\b(flips|keeps)\b", told):
        sides.append(SIDES[SIDES.index(sides[-1]) ^ (action == "flips")])
    return sides
