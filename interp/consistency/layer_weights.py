"""Which layers to listen to: weights learned on calibration questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from interp.consistency.questions import Question, questions_hash, require_fresh
from interp.errors import MetricError
from interp.saved import register


@register
@dataclass(frozen=True, eq=False)
class LayerWeights:
    """How much it tells of a path being right that each layer says what the last one does.

    Attributes:
        weights: Log odds for each layer, the embedding first.
        bias: Log odds.
        fitted_on: Hashes of the questions of the calibration, which are never weighed.
        n: Paths that they were learned from.
    """

    weights: Float[Tensor, " layer"]
    bias: float
    fitted_on: frozenset[str]
    n: int

    @property
    def hash(self) -> str:
        """Of all questions of the calibration."""
        return questions_hash(self.fitted_on)

    def require_fit(self, layers: int, questions: Sequence[Question]) -> None:
        """Refuse to weigh layers of another model, or questions of the calibration.

        Raises MetricError or TaskError.
        """
        require_fresh(questions, self.fitted_on, "Layer weights")
        if layers != len(self.weights):
            raise MetricError(
                f"These weights are of {len(self.weights)} layers with the embedding, and the "
                f"model has {layers}; learn them with this model."
            )

    def weigh(
        self, votes: Float[Tensor, "questions paths layer"], questions: Sequence[Question]
    ) -> Float[Tensor, "questions paths"]:
        """The probability that each path is right; raises what `require_fit` does."""
        self.require_fit(votes.shape[-1], questions)
        return (votes @ self.weights + self.bias).sigmoid()


def learn(
    votes: Float[Tensor, "questions paths layer"],
    right: Bool[Tensor, "questions paths"],
    questions: Sequence[Question],
) -> LayerWeights | None:
    """Logistic regression (L2, C = 1) of being right on s_l[y_hat] of all layers.

    None if all paths are right or all wrong: there is then nothing to learn from.
    """
    known = ~votes.isnan().any(dim=-1)
    seen, labels = votes[known], right[known]
    if not labels.any() or labels.all():
        return None
    fitted = LogisticRegression(C=1.0, max_iter=1000).fit(seen.numpy(), labels.numpy())
    return LayerWeights(
        weights=torch.tensor(fitted.coef_[0], dtype=torch.float64),
        bias=float(fitted.intercept_[0]),
        fitted_on=frozenset(question.hash for question in questions),
        n=len(seen),
    )
