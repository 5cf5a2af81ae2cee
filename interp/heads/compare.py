"""`compare`: heads that one model has and another of the same shape has not."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import MetricError
from interp.heads.atlas import HeadAtlas
from interp.heads.score import Score
from interp.plots import head_grids
from interp.saved import Saved, register
from interp.sites import Head
from interp.stats import bootstrap_ci

RESAMPLES = 1000


@register
@dataclass(frozen=True, eq=False)
class Change:
    """How the scores of one kind differ between two models of the same shape.

    Attributes:
        kind: Its name.
        difference: Score in the second model minus score in the first.
        low, high: 95% bootstrap interval of each difference over samples.
        paired: Whether both models were measured on the same samples, and the bootstrap takes the
            same ones of both.
        gained: Heads named after the kind in the second model alone, the largest change first.
        lost: In the first alone.
        correlation: Pearson's, between the scores of all heads in the two models.
    """

    kind: str
    difference: Float[Tensor, "layer head"]
    low: Float[Tensor, "layer head"]
    high: Float[Tensor, "layer head"]
    paired: bool
    gained: tuple[Head, ...]
    lost: tuple[Head, ...]
    correlation: float


@dataclass(frozen=True, eq=False)
class AtlasDifference(Saved, Displayed):
    """What is different in a second model; `compare` makes one.

    Attributes:
        first, second: Names of the models.
        changes: One for each kind that both atlases have.
        missing: Kinds that one of them alone has.
    """

    first: str
    second: str
    changes: dict[str, Change]
    missing: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """One row a kind and head: kind, head, difference, ci_low, ci_high, paired, change.

        `change` is "gained", "lost" or "".
        """
        return pd.DataFrame(
            [
                {
                    "kind": kind,
                    "head": f"{layer}.{head}",
                    "difference": value,
                    "ci_low": change.low[layer, head].item(),
                    "ci_high": change.high[layer, head].item(),
                    "paired": change.paired,
                    "change": _said(change, Head(layer, head)),
                }
                for kind, change in self.changes.items()
                for layer, row in enumerate(change.difference.tolist())
                for head, value in enumerate(row)
            ]
        )

    def summary(self) -> pd.DataFrame:
        """One row a kind: kind, gained, lost, correlation, largest (difference), head, paired."""
        rows = []
        for kind, change in self.changes.items():
            largest = int(change.difference.abs().nan_to_num().argmax())
            head = Head(*divmod(largest, change.difference.shape[1]))
            rows.append(
                {
                    "kind": kind,
                    "gained": ", ".join(map(str, change.gained)),
                    "lost": ", ".join(map(str, change.lost)),
                    "correlation": change.correlation,
                    "largest": change.difference.flatten()[largest].item(),
                    "head": str(head),
                    "paired": change.paired,
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """The differences of each kind as layer x head heatmaps; blue where the second has more."""
        return head_grids(
            {kind: change.difference for kind, change in self.changes.items()},
            title=f"Heads of {self.second} against {self.first}",
            colorbar="difference of scores",
            diverging=True,
        )

    def __repr__(self) -> str:
        gained = sum(len(change.gained) for change in self.changes.values())
        lost = sum(len(change.lost) for change in self.changes.values())
        return (
            f"AtlasDifference({self.second} against {self.first}: {gained} heads gained and {lost} "
            f"lost in {len(self.changes)} kinds)"
        )


def compare(a: HeadAtlas, b: HeadAtlas, *, paired: bool | None = None) -> AtlasDifference:
    """Head by head, what the second of two models of the same shape has and the first has not.

    Args:
        a, b: Atlases of two checkpoints, or of a model before and after fine-tuning.
        paired: Whether sample i of a score is the same in both, as it is where both were scanned
            with the same tokenizer, seed and n. By default it is read from their provenance.

    A head is gained (or lost) that is named after a kind in the second atlas (first) alone, and
    whose difference has an interval that excludes zero. The interval is of one head: among a
    hundred heads that do not differ, five have one that excludes zero. What two scans of one model
    with different seeds differ by is the control. Heads are compared place by place, which tells
    most where one model was made from the other: two trainings put the same kind elsewhere.

    Raises:
        MetricError: Models of different shape, atlases without a common kind, or paired=True with
            different numbers of samples.
    """
    if a.shape != b.shape:
        raise MetricError(
            f"The atlases are of {_shape(a)} and of {_shape(b)} heads, which are not the same "
            "heads; use compare_depths for models of different shape."
        )
    same = _same_samples(a, b)
    changes = {
        kind: _change(a.score(kind), b.score(kind), paired=paired, same=same)
        for kind in common_kinds(a, b)
    }
    return AtlasDifference(
        first=model_name(a),
        second=model_name(b),
        changes=changes,
        missing=tuple(sorted(set(a.kinds) ^ set(b.kinds))),
    )


def _change(a: Score, b: Score, *, paired: bool | None, same: bool) -> Change:
    if paired and a.n != b.n:
        raise MetricError(
            f"{a.kind!r} has {a.n} {a.samples} in one atlas and {b.n} in the other, so they cannot "
            "be paired; leave paired= out."
        )
    if paired is None:
        paired = same and a.n == b.n and a.notes == b.notes
    if paired:
        apart = (b.values - a.values).float()
        difference, (low, high) = apart.nanmean(dim=-1), bootstrap_ci(apart)
    else:
        difference, (low, high) = (b.grid - a.grid).float(), _interval(a, b)
    sure = {Head(*place) for place in ((low > 0) | (high < 0)).nonzero().tolist()}
    before, after = set(a.named()), set(b.named())

    def largest_first(heads: set[Head]) -> tuple[Head, ...]:
        order = sorted(heads & sure, key=lambda head: (head.layer, head.head))
        order.sort(key=lambda head: -difference[head.layer, head.head].abs().item())
        return tuple(order)

    return Change(
        kind=a.kind,
        difference=difference,
        low=low,
        high=high,
        paired=paired,
        gained=largest_first(after - before),
        lost=largest_first(before - after),
        correlation=_correlation(a.grid.flatten(), b.grid.flatten()),
    )


def _interval(
    a: Score, b: Score
) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
    """Percentile interval of a difference of means, the two sets of samples drawn independently."""
    generator = torch.Generator().manual_seed(0)
    difference = _resampled(b.values, generator) - _resampled(a.values, generator)
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile(difference, tails, dim=-1).float()
    return low, high


def _resampled(
    values: Float[Tensor, "layer head samples"], generator: torch.Generator
) -> Float[Tensor, "layer head resamples"]:
    """Mean under each resample; NaN for a single sample, which says nothing of the spread."""
    n = values.shape[-1]
    if n == 1:
        return torch.full((*values.shape[:2], RESAMPLES), math.nan, dtype=torch.float64)
    picks = torch.randint(n, (RESAMPLES, n), generator=generator)
    counts = torch.zeros(RESAMPLES, n, dtype=torch.float64)
    counts.scatter_add_(1, picks, torch.ones_like(counts))
    known = (~values.isnan()).double()
    return (values.double().nan_to_num() @ counts.T) / (known @ counts.T)


def _correlation(a: Float[Tensor, " heads"], b: Float[Tensor, " heads"]) -> float:
    both = ~(a.isnan() | b.isnan())
    pair = torch.stack([a[both], b[both]]).double()
    if pair.shape[1] < 3 or (pair.std(dim=1) == 0).any():
        return math.nan
    return float(torch.corrcoef(pair)[0, 1])


def _same_samples(a: HeadAtlas, b: HeadAtlas) -> bool:
    """Whether two scans drew the same prompts: equal seed and n, context and vocabulary."""

    def drawn(atlas: HeadAtlas) -> tuple[Any, ...]:
        sizes = atlas.provenance.get("geometry", {})
        told = [atlas.provenance.get(name) for name in ("seed", "n")]
        return (*told, sizes.get("d_vocab"), sizes.get("n_ctx"))

    return drawn(a) == drawn(b) and drawn(a)[2] is not None


def common_kinds(a: HeadAtlas, b: HeadAtlas) -> tuple[str, ...]:
    """The kinds that both atlases have. Raises MetricError if there are none."""
    common = tuple(kind for kind in a.kinds if kind in b.kinds)
    if not common:
        raise MetricError(
            f"The atlases share no kind: one has {', '.join(a.kinds)}, the other "
            f"{', '.join(b.kinds)}; scan both for the same kinds."
        )
    return common


def _said(change: Change, head: Head) -> str:
    return "gained" if head in change.gained else "lost" if head in change.lost else ""


def model_name(atlas: HeadAtlas) -> str:
    """The model of an atlas, with its revision if it has one."""
    revision = atlas.provenance.get("revision")
    name = str(atlas.provenance.get("model", "model"))
    return name if revision is None else f"{name} ({revision})"


def _shape(atlas: HeadAtlas) -> str:
    return " x ".join(map(str, atlas.shape))
