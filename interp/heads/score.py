"""`Score`: one number for every head, with what each sample said."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import MetricError
from interp.heads.kinds import kind_of
from interp.plots import head_heatmap
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci


@dataclass(frozen=True, eq=False)
class Score(Saved, Displayed):
    """How much every head is of one kind.

    Attributes:
        kind: The name of the kind, such as "induction"; `interp.heads.KINDS` describes it.
        values: The score of each head on each sample; NaN where a sample says nothing of a head.
        samples: What a sample is: "prompts", "words", "runs".
        chance: The score of a head that does nothing of the kind; NaN where that is not known.
        notes: How it was measured: options, counts, what was left out.

    Raises:
        MetricError: An unknown kind, or no sample at all.
    """

    kind: str
    values: Float[Tensor, "layer head samples"]
    samples: str = "prompts"
    chance: float = math.nan
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kind_of(self.kind)
        if self.values.shape[-1] == 0:
            raise MetricError(
                f"The score {self.kind!r} was measured on no {self.samples}; give it at least one."
            )

    @property
    def n(self) -> int:
        """Samples that each score is the mean of."""
        return self.values.shape[-1]

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """Mean over the samples that say something of a head."""
        return self.values.nanmean(dim=-1)

    def ci(
        self, *, level: float = 0.95
    ) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
        """Bootstrap confidence interval of every score over samples: its low and high ends."""
        return bootstrap_ci(self.values, level=level)

    @property
    def threshold(self) -> float:
        """A head is named after the kind from this score on."""
        return kind_of(self.kind).threshold

    def named(self, threshold: float | None = None) -> tuple[Head, ...]:
        """Heads that score `threshold` or more, and not less than chance; best first."""
        least = self.threshold if threshold is None else threshold
        if not math.isnan(self.chance):
            least = max(least, self.chance)
        return tuple(head for head in self.order() if self.grid[head.layer, head.head] >= least)

    def order(self) -> list[Head]:
        """Every head, best first; those without a score last."""
        flat = self.grid.flatten().nan_to_num(nan=-math.inf)
        heads = self.values.shape[1]
        return [
            Head(*divmod(i, heads)) for i in flat.argsort(descending=True, stable=True).tolist()
        ]

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` heads with the highest score, best first.

        Columns: head, score, ci_low, ci_high (95%), chance, n.
        """
        return self._rows(self.order()[:k])

    def to_frame(self) -> pd.DataFrame:
        """One row a head, in order of layer and head; the columns of `top`."""
        layers, heads, _ = self.values.shape
        return self._rows(Head(layer, head) for layer in range(layers) for head in range(heads))

    def _rows(self, heads: Iterable[Head]) -> pd.DataFrame:
        chosen = list(heads)
        at = [head.layer for head in chosen], [head.head for head in chosen]
        low, high = self.ci()
        return pd.DataFrame(
            {
                "head": [str(head) for head in chosen],
                "score": self.grid[at].tolist(),
                "ci_low": low[at].tolist(),
                "ci_high": high[at].tolist(),
                "chance": self.chance,
                "n": (~self.values.isnan()).sum(dim=-1)[at].tolist(),
            }
        )

    def plot(self) -> go.Figure:
        """A layer x head heatmap."""
        return head_heatmap(self.grid, title=f"{self.kind} heads", colorbar="score")

    def __repr__(self) -> str:
        best = ", ".join(
            f"{head} {self.grid[head.layer, head.head]:.2f}" for head in self.order()[:3]
        )
        return f"Score({self.kind}: {best}; n = {self.n} {self.samples})"
