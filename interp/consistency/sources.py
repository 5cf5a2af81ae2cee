"""Where does inconsistency come from? What the answer looks at, and what the MLPs write.

Xie et al. 2024 set two profiles over layers side by side: middle layers attend to the query and the
rationale, late layers hold the value vectors that point along the answer; where the two part, the
layers disagree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from plotly.subplots import make_subplots
from torch import Tensor

from interp.consistency.aligned_values import (
    DRAWS,
    QUANTILE,
    aligned,
    chance_cosine,
    end_streams,
    require_two_classes,
)
from interp.consistency.attention_mass import SPANS, AttentionMass, attention_mass
from interp.display import Displayed
from interp.errors import ProbeError
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING, SEQUENTIAL
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved

RESAMPLES = 200
DASHES = ("solid", "dash", "dot", "dashdot")


@dataclass(frozen=True, eq=False)
class Sources(Saved, Displayed):
    """Attention of the answer position and aligned value vectors, by layer and group of paths.

    Attributes:
        attention: On the spans of every path.
        groups: Which paths each group has.
        counts: Value vectors of each layer aligned with the direction of a group; NaN where all its
            paths give one answer.
        resampled: The same with the group's paths drawn with replacement.
        shuffled: The same with answers dealt out anew among the group's paths, a control.
        random: The same for random directions, another control.
        threshold: |cos| from which a value vector is aligned.
        provenance: Model, prompts, options, versions.
    """

    attention: AttentionMass
    groups: dict[str, Bool[Tensor, " prompts"]]
    counts: dict[str, Float[Tensor, " layer"]]
    resampled: dict[str, Float[Tensor, "resamples layer"]]
    shuffled: dict[str, Float[Tensor, "draws layer"]]
    random: Float[Tensor, "draws layer"]
    threshold: float
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row for each group, layer and measure.

        Columns: group, layer, measure (a span, or "aligned values"), value, ci_low and ci_high
        (95%, over paths), control (attention: what looking everywhere alike would give; values:
        mean over shuffled answers), random (values: mean over random directions), n (paths).
        """
        return pd.concat([self._attention_frame(), self._values_frame()], ignore_index=True)

    def _attention_frame(self) -> pd.DataFrame:
        columns = {"span": "measure", "mass": "value", "uniform": "control"}
        return pd.concat(
            [
                self.attention.to_frame(rows).rename(columns=columns).assign(group=name)
                for name, rows in self.groups.items()
            ]
        )[["group", "layer", "measure", "value", "ci_low", "ci_high", "control", "n"]]

    def _values_frame(self) -> pd.DataFrame:
        tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
        rows = []
        for name, counts in self.counts.items():
            low, high = self.resampled[name].nanquantile(tails, dim=0)
            rows.append(
                pd.DataFrame(
                    {
                        "group": name,
                        "layer": range(len(counts)),
                        "measure": "aligned values",
                        "value": counts.tolist(),
                        "ci_low": low.tolist(),
                        "ci_high": high.tolist(),
                        "control": self.shuffled[name].mean(dim=0).tolist(),
                        "random": self.random.mean(dim=0).tolist(),
                        "n": int(self.groups[name].sum()),
                    }
                )
            )
        return pd.concat(rows)

    def plot(self) -> go.Figure:
        """Two panels over one layer axis: attention mass above, aligned value vectors below."""
        figure = make_subplots(
            rows=2,
            cols=1,
            shared_xaxes=True,
            vertical_spacing=0.08,
            subplot_titles=("attention of the answer position", "value vectors along the answer"),
        )
        spans = [span for span in self.attention.spans if span in SPANS] or self.attention.spans
        colors = (DIVERGING[1], SEQUENTIAL[4], SEQUENTIAL[7])
        frame = self.to_frame()
        for name, dash in zip(self.groups, DASHES, strict=False):
            of_group = frame[frame["group"] == name]
            for i, span in enumerate(spans):
                some = of_group[of_group["measure"] == span]
                line = {"color": colors[i % len(colors)], "dash": dash}
                figure.add_trace(_curve(some, f"{span}, {name}", line), row=1, col=1)
            some = of_group[of_group["measure"] == "aligned values"]
            line = {"color": SEQUENTIAL[8], "dash": dash}
            figure.add_trace(_curve(some, f"aligned, {name}", line), row=2, col=1)
            line = {"color": DIVERGING[2], "dash": dash}
            figure.add_trace(
                go.Scatter(
                    x=some["layer"], y=some["control"], name=f"shuffled answers, {name}", line=line
                ),
                row=2,
                col=1,
            )
        figure.add_trace(
            go.Scatter(
                x=some["layer"], y=some["random"], name="random directions", line_color=MISSING
            ),
            row=2,
            col=1,
        )
        model = self.provenance["model"]
        figure.update_layout(
            title=f"Where the answers of {model} come from", template="plotly_white", height=640
        )
        figure.update_xaxes(dtick=1)
        figure.update_xaxes(title_text="layer", row=2, col=1)
        figure.update_yaxes(title_text="attention mass", range=[0, 1], row=1, col=1)
        figure.update_yaxes(title_text=f"|cos| > {self.threshold:.2f}", row=2, col=1)
        return figure

    def __repr__(self) -> str:
        told = "; ".join(
            f"{name}: {counts.sum():.0f} aligned values, {self.shuffled[name].sum(1).mean():.0f} "
            f"with shuffled answers, n = {int(self.groups[name].sum())} paths"
            for name, counts in self.counts.items()
        )
        return f"Sources({told}; {self.random.sum(1).mean():.0f} for random directions)"


def sources(
    model: Model,
    prompts: PromptSet,
    groups: Mapping[str, Bool[Tensor, " prompts"]] | None = None,
    *,
    classes: Bool[Tensor, " prompts"] | None = None,
    quantile: float = QUANTILE,
    draws: int = DRAWS,
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> Sources:
    """Both profiles of some paths: attention of the answer position, and aligned value vectors.

    The direction of a group is the difference, at the answer position of each layer, between its
    paths that give one answer and those that give the other. Paths count as independent: where many
    answer one question, the intervals are too narrow.

    Args:
        model: In eval mode.
        prompts: `path_prompts(model, answers)`, or others with the roles context, query, rationale.
        groups: Which paths to compare, such as {"right": right, "wrong": ~right}; by default those
            that `prompts.notes["right"]` tells apart, else all in one.
        classes: What the direction tells apart; by default which of two answers a prompt has.
        quantile: Of |cos| to random directions; value vectors above it are aligned.
        draws: Of either control.
        resamples: Of the paths, for the intervals of the counts.
        seed: Of all draws.
        progress: Show a bar.

    Raises:
        ProbeError: Classes that are not two, more than four groups, or an empty one.
        PromptError: Prompts without spans, or that the model cannot read.
        UnsupportedModel: MLPs without a single hidden layer.
    """
    chosen = _groups(prompts) if groups is None else {name: groups[name] for name in groups}
    _require(chosen, len(prompts))
    told = _two_answers(prompts) if classes is None else classes
    require_two_classes(told, len(prompts))
    threshold = chance_cosine(model.geometry.d_model, quantile)
    generator = torch.Generator().manual_seed(seed)
    ends = end_streams(model, prompts)
    counts, resampled, shuffled = {}, {}, {}
    for name, rows in chosen.items():
        some, said = ends[rows], told[rows]
        picks = torch.randint(len(said), (resamples, len(said)), generator=generator)
        deals = torch.stack(
            [said[torch.randperm(len(said), generator=generator)] for _ in range(draws)]
        )
        own = torch.ones(1, len(said), dtype=torch.float64)
        times = torch.zeros(picks.shape, dtype=torch.float64)
        times.scatter_add_(1, picks, torch.ones_like(times))
        counts[name] = aligned(model, _differences(some, said, own), threshold)[0]
        resampled[name] = aligned(model, _differences(some, said, times), threshold)
        dealt = torch.cat([_differences(some, each, own) for each in deals])
        shuffled[name] = aligned(model, dealt, threshold)
    noise = torch.randn(draws, *ends.shape[1:], generator=generator, dtype=torch.float64)
    return Sources(
        attention=attention_mass(model, prompts, progress=progress),
        groups=chosen,
        counts=counts,
        resampled=resampled,
        shuffled=shuffled,
        random=aligned(model, noise, threshold),
        threshold=threshold,
        provenance=provenance(
            model,
            prompts,
            method="sources of inconsistency",
            quantile=quantile,
            draws=draws,
            resamples=resamples,
            source_seed=seed,
        ),
    )


def _differences(
    ends: Float[Tensor, "prompts layer d_model"],
    said: Bool[Tensor, " prompts"],
    times: Float[Tensor, "resamples prompts"],
) -> Float[Tensor, "resamples layer d_model"]:
    """Differences of class means with prompts counted some times; NaN where a class is empty."""

    def mean(weights: Float[Tensor, "resamples prompts"]) -> Tensor:
        total = torch.einsum("rp,pld->rld", weights, ends)
        return total / weights.sum(dim=-1)[:, None, None]

    return mean(times * said) - mean(times * ~said)


def _groups(prompts: PromptSet) -> dict[str, Bool[Tensor, " prompts"]]:
    """Right and wrong paths, where the prompts say which are which and there are both."""
    right = torch.tensor(prompts.notes.get("right", [True] * len(prompts)))
    if right.all() or not right.any():
        return {"all": torch.ones(len(prompts), dtype=torch.bool)}
    return {"right": right, "wrong": ~right}


def _two_answers(prompts: PromptSet) -> Bool[Tensor, " prompts"]:
    first = prompts.answer[:, 0].cpu()
    if len(first.unique()) != 2:
        raise ProbeError(
            f"The prompts have {len(first.unique())} different answers, and a direction tells two "
            "apart; give classes=, True or False for each prompt."
        )
    return first == first.min()


def _require(groups: Mapping[str, Bool[Tensor, " prompts"]], count: int) -> None:
    if not 1 <= len(groups) <= len(DASHES):
        raise ProbeError(f"There are {len(groups)} groups; give 1 to {len(DASHES)}.")
    for name, rows in groups.items():
        if rows.shape != (count,) or not rows.any():
            raise ProbeError(
                f"The group {name!r} has {int(rows.sum())} paths of {len(rows)}, and there are "
                f"{count} prompts; give True or False for each prompt, and at least one True."
            )


def _curve(frame: pd.DataFrame, name: str, line: dict[str, str]) -> go.Scatter:
    return go.Scatter(
        x=frame["layer"],
        y=frame["value"],
        error_y={
            "type": "data",
            "array": frame["ci_high"] - frame["value"],
            "arrayminus": frame["value"] - frame["ci_low"],
            "thickness": 1,
        },
        name=name,
        line=line,
    )
