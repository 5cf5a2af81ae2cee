"""How consistent a path is inside, and how well that tells right paths from wrong ones."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.errors import MetricError
from interp.saved import register
from interp.stats import bootstrap_ci

RESAMPLES = 1000
BINS = 10


def final_label(latents: Float[Tensor, "*paths layer labels"]) -> Int[Tensor, "*paths"]:
    """y_hat: the label that the last layer finds most likely."""
    return latents[..., -1, :].nan_to_num().argmax(dim=-1)


def layer_votes(
    scores: Float[Tensor, "*paths layer labels"], latents: Float[Tensor, "*paths layer labels"]
) -> Float[Tensor, "*paths layer"]:
    """s_l[y_hat]: whether each layer says, by its thresholds, what the model says in the end."""
    chosen = final_label(latents)[..., None, None].expand(*scores.shape[:-1], 1)
    return scores.gather(-1, chosen)[..., 0]


def internal_consistency(
    scores: Float[Tensor, "*paths layer labels"], latents: Float[Tensor, "*paths layer labels"]
) -> Float[Tensor, "*paths"]:
    """IC: the mean of s_l[y_hat] over the embedding and all layers (Xie et al. 2024, balanced)."""
    return layer_votes(scores, latents).mean(dim=-1)


def layer_agreement(latents: Float[Tensor, "*paths layer labels"]) -> Float[Tensor, "*paths"]:
    """1/(L-1) sum over l = 1 .. L-1 of 1[y_hat_l = y_hat_L], without thresholds.

    This is the paper's formula as it is commonly cited; layers are blocks, the embedding not among
    them. NaN for a model of one block.
    """
    inner = latents[..., 1:-1, :]
    agree = (inner.nan_to_num().argmax(dim=-1) == final_label(latents)[..., None]).double()
    return torch.where(latents[..., -1, 0].isnan(), torch.nan, agree.mean(dim=-1))


def final_margin(latents: Float[Tensor, "*paths layer labels"]) -> Float[Tensor, "*paths"]:
    """How much more likely the last layer finds its first label than its second, 0 to 1."""
    top = latents[..., -1, :].topk(2, dim=-1).values
    return top[..., 0] - top[..., 1]


@register
@dataclass(frozen=True)
class Separation:
    """How well a score tells right paths from wrong ones.

    Attributes:
        auroc: The chance that a right path scores higher than a wrong one; 1/2 says nothing.
        low, high: Its 95% interval, over questions drawn with replacement.
        within: The same for two paths of one question, mean over the questions that have both
            kinds: what a vote can use.
        within_low, within_high: Its interval over those questions.
        right, wrong: Paths of each kind.
        mixed: Questions with both kinds.
    """

    auroc: float
    low: float
    high: float
    within: float
    within_low: float
    within_high: float
    right: int
    wrong: int
    mixed: int


def separation(
    values: Float[Tensor, "questions paths"],
    right: Bool[Tensor, "questions paths"],
    *,
    seed: int = 0,
) -> Separation:
    """AUROC of a score against being right, with an interval clustered by question.

    Paths of one question are not independent, so questions are resampled and not paths. Paths whose
    score is NaN are left out. All is NaN where there are no right or no wrong paths.

    >>> separation(torch.tensor([[0.9, 0.1], [0.8, 0.8]]), torch.tensor([[True, False]] * 2)).auroc
    0.875
    """
    known = ~values.isnan()
    kinds = [(known & right).double(), (known & ~right).double()]
    _, level = values.nan_to_num().unique(return_inverse=True)
    size = int(level.max()) + 1
    tables = [
        torch.zeros(len(values), size, dtype=torch.float64).scatter_add_(1, level, kind)
        for kind in kinds
    ]
    counts = _resamples(len(values), seed)
    resampled = _auroc(*(counts @ table for table in tables))
    ends = _interval(resampled)
    within = _auroc(*tables)
    within = within[~within.isnan()]
    low, high = bootstrap_ci(within, seed=seed)
    return Separation(
        auroc=float(_auroc(*(table.sum(dim=0, keepdim=True) for table in tables))),
        low=ends[0],
        high=ends[1],
        within=float(within.mean()),
        within_low=float(low),
        within_high=float(high),
        right=int(kinds[0].sum()),
        wrong=int(kinds[1].sum()),
        mixed=len(within),
    )


def _auroc(
    right: Float[Tensor, "rows levels"], wrong: Float[Tensor, "rows levels"]
) -> Float[Tensor, " rows"]:
    """Of tables that count the right and wrong paths at each level of a score."""
    below = wrong.cumsum(dim=-1) - wrong / 2
    return (right * below).sum(dim=-1) / (right.sum(dim=-1) * wrong.sum(dim=-1))


def _resamples(questions: int, seed: int) -> Float[Tensor, "resamples questions"]:
    """How often each question is drawn."""
    generator = torch.Generator().manual_seed(seed)
    picks = torch.randint(questions, (RESAMPLES, questions), generator=generator)
    counts = torch.zeros(RESAMPLES, questions, dtype=torch.float64)
    return counts.scatter_add_(1, picks, torch.ones_like(counts))


def _interval(resampled: Float[Tensor, " resamples"]) -> tuple[float, float]:
    tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = resampled.nanquantile(tails).tolist()
    return low, high


def shuffled(
    values: Float[Tensor, "questions paths"],
    right: Bool[Tensor, "questions paths"],
    *,
    seed: int = 0,
) -> Bool[Tensor, "questions paths"]:
    """The control: which paths are right, dealt out anew among all that have a score."""
    known = ~values.isnan()
    order = torch.randperm(int(known.sum()), generator=torch.Generator().manual_seed(seed))
    dealt = right.clone()
    dealt[known] = right[known][order]
    return dealt


def calibration_curve(
    values: Float[Tensor, "questions paths"], right: Bool[Tensor, "questions paths"]
) -> pd.DataFrame:
    """Accuracy of the paths in ten equal bins of a score between 0 and 1.

    Columns: low, high (the bin), score (mean), accuracy, accuracy_low and accuracy_high (95%, over
    questions), n (paths). Empty bins are left out.
    """
    known = ~values.isnan()
    at = (values.nan_to_num() * BINS).long().clamp(max=BINS - 1)
    counts = _resamples(len(values), 0)
    rows = []
    for bin in range(BINS):
        here = known & (at == bin)
        if not here.any():
            continue
        hits, all_ = (table.double().sum(dim=1) for table in (here & right, here))
        low, high = _interval((counts @ hits) / (counts @ all_))
        rows.append(
            {
                "low": bin / BINS,
                "high": (bin + 1) / BINS,
                "score": float(values[here].mean()),
                "accuracy": float(right[here].double().mean()),
                "accuracy_low": low,
                "accuracy_high": high,
                "n": int(here.sum()),
            }
        )
    if not rows:
        raise MetricError("No path has a score; there is nothing to calibrate.")
    return pd.DataFrame(rows)


def calibration_error(
    values: Float[Tensor, "questions paths"], right: Bool[Tensor, "questions paths"]
) -> float:
    """ECE: the mean distance of score and accuracy over the ten bins, weighted by their paths."""
    bins = calibration_curve(values, right)
    return float(((bins["score"] - bins["accuracy"]).abs() * bins["n"]).sum() / bins["n"].sum())
