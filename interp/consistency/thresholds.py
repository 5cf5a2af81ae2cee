"""When a layer counts as saying a label: thresholds from questions that are not scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from interp.consistency.questions import Question, labels_of, questions_hash, require_fresh
from interp.errors import MetricError, TaskError
from interp.saved import register

TIE = 1e-3
"""Log odds that differ by less are equal: one text rounds differently in different batches."""


@register
@dataclass(frozen=True, eq=False)
class Thresholds:
    """The (K-1)/K quantile of each layer's probability of each of K labels.

    Layers prefer one label for many reasons that have nothing to do with the question; above its
    own threshold each label is equally frequent in each layer.

    Attributes:
        values: Probabilities.
        labels: Their labels.
        fitted_on: Hashes of the questions of the calibration, which are never scored.
        n: Texts that the quantiles were taken over.
    """

    values: Float[Tensor, "layer labels"]
    labels: tuple[str, ...]
    fitted_on: frozenset[str]
    n: int

    @property
    def hash(self) -> str:
        """Of all questions of the calibration."""
        return questions_hash(self.fitted_on)

    def score(
        self, latents: Float[Tensor, "questions paths layer labels"], questions: Sequence[Question]
    ) -> Float[Tensor, "questions paths layer labels"]:
        """1 where a layer says a label, 1/K at the threshold itself, else 0; NaN stays NaN.

        Raises TaskError for a question of the calibration, and for other labels.
        """
        if labels_of(questions) != self.labels:
            raise TaskError(
                f"These thresholds are of the labels {list(self.labels)}, and the questions have "
                f"{list(questions[0].labels)}; fit others."
            )
        require_fresh(questions, self.fitted_on, "Thresholds")
        if latents.shape[2:] != self.values.shape or len(latents) != len(questions):
            raise MetricError(
                f"Latent predictions of shape {list(latents.shape)} are not of {len(questions)} "
                f"questions, {self.values.shape[0]} layers and {self.values.shape[1]} labels."
            )
        above = latents - self.values
        equal = above.abs() <= TIE * self.values * (1 - self.values)
        scores = torch.where(equal, 1 / len(self.labels), (above > 0).double())
        return torch.where(latents.isnan(), torch.nan, scores)

    def __repr__(self) -> str:
        return (
            f"Thresholds({len(self.values)} layers x {'/'.join(self.labels)}, {self.n} texts of "
            f"{len(self.fitted_on)} questions, {self.hash})"
        )


class ThresholdFitter:
    """Collects latent predictions of a calibration split."""

    def __init__(self) -> None:
        self._questions: list[Question] = []
        self._latents: list[Tensor] = []

    def update(
        self, latents: Float[Tensor, "questions paths layer labels"], questions: Sequence[Question]
    ) -> ThresholdFitter:
        """Add the paths of some questions; those whose answer was not found (NaN) do not count."""
        if len(latents) != len(questions):
            raise MetricError(
                f"There are latent predictions of {len(latents)} questions and {len(questions)} "
                "questions; give those that belong together."
            )
        flat = latents.flatten(0, 1)
        self._questions += questions
        self._latents.append(flat[~flat.isnan().any(dim=-1).any(dim=-1)])
        return self

    def fit(self) -> Thresholds:
        """Quantiles over all paths that were added.

        Raises TaskError if there are none.
        """
        labels = labels_of(self._questions)
        seen = torch.cat(self._latents)
        if not len(seen):
            raise TaskError(
                f"No path of the {len(self._questions)} calibration questions has an answer that "
                "the rule finds; check the wording of the questions and the rule."
            )
        return Thresholds(
            values=seen.quantile((len(labels) - 1) / len(labels), dim=0),
            labels=labels,
            fitted_on=frozenset(question.hash for question in self._questions),
            n=len(seen),
        )
