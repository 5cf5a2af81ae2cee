"""`HeadAtlas`: what every attention head does, and whether that matters."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import as_html
from interp.errors import MetricError, did_you_mean
from interp.heads.atlas_file import Parts, read, write
from interp.heads.claims import Claim
from interp.heads.kinds import kind_of
from interp.heads.score import Score
from interp.plots import head_grids, head_heatmap
from interp.sites import Head, Site


@dataclass(frozen=True, eq=False)
class HeadAtlas:
    """Every head x every score, with the causal check of each claim; `interp.heads.scan` makes one.

    Attributes:
        scores: What was measured, by kind.
        claims: Whether the heads named after a kind matter for what they are said to do.
        missing: Kinds that could not be measured and claims that could not be checked, and why.
        provenance: Model, weights hash, seed, versions, and the command that repeats it.

    Raises:
        MetricError: No score, or scores of different models.
    """

    scores: dict[str, Score]
    claims: dict[str, Claim] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.scores:
            why = "".join(f"; {kind}: {reason}" for kind, reason in self.missing.items())
            raise MetricError(f"An atlas needs a score, and none could be measured{why}")
        shapes = {tuple(score.grid.shape) for score in self.scores.values()}
        if len(shapes) > 1:
            raise MetricError(
                f"An atlas needs scores of one model, and these are of the shapes {sorted(shapes)}."
            )

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that were measured."""
        return tuple(self.scores)

    @property
    def shape(self) -> tuple[int, int]:
        """Layers, and heads in a layer."""
        layers, heads, _ = next(iter(self.scores.values())).values.shape
        return layers, heads

    def score(self, kind: str) -> Score:
        """The score of a kind. Raises MetricError for one that is not in this atlas."""
        if kind in self.scores:
            return self.scores[kind]
        if kind in self.missing:
            raise MetricError(f"{kind!r} was not measured: {self.missing[kind]}")
        raise MetricError(
            f"{kind!r} is not a kind of head in this atlas: {did_you_mean(kind, self.kinds)}"
        )

    def grid(self, kind: str) -> Float[Tensor, "layer head"]:
        """Scores of one kind."""
        return self.score(kind).grid

    def ci(
        self, kind: str, *, level: float = 0.95
    ) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
        """Bootstrap confidence interval of the scores of a kind: its low and high ends."""
        return self.score(kind).ci(level=level)

    def top(self, kind: str, k: int = 10) -> pd.DataFrame:
        """The `k` heads with the highest score of a kind, best first.

        Columns: head, score, ci_low, ci_high (95%), chance, n.
        """
        return self.score(kind).top(k)

    def named(self, threshold: float | None = None) -> dict[str, tuple[Head, ...]]:
        """Heads of each kind, best first: those at the kind's threshold, or at another one."""
        return {kind: score.named(threshold) for kind, score in self.scores.items()}

    def labels(self, threshold: float | None = None) -> dict[Site, tuple[str, ...]]:
        """The kinds that each head is named after; heads that are named after none are left out."""
        named = [(head, kind) for kind, heads in self.named(threshold).items() for head in heads]
        return {head: tuple(kind for each, kind in named if each == head) for head, _ in named}

    def to_frame(self, threshold: float | None = None) -> pd.DataFrame:
        """One row a head: its score of each kind, and in `kinds` those that it is named after."""
        layers, heads = self.shape
        names = [Head(layer, head) for layer in range(layers) for head in range(heads)]
        labels = self.labels(threshold)
        return pd.DataFrame(
            {
                "head": [str(head) for head in names],
                **{kind: self.grid(kind).flatten().tolist() for kind in self.kinds},
                "kinds": [", ".join(labels.get(head, ())) for head in names],
            }
        )

    def claims_frame(self) -> pd.DataFrame:
        """One row a claim.

        Columns: kind, heads, task, metric, clean, effect, ci_low, ci_high, random (mean effect of
        random sets), beyond_low, beyond_high (see `Claim`), p, sets, n, confirmed.
        """
        return pd.DataFrame([_row(claim) for claim in self.claims.values()])

    def plot(self, kind: str | None = None) -> go.Figure:
        """A layer x head heatmap of one kind, or of all kinds side by side."""
        model = self.provenance.get("model", "model")
        if kind is None:
            grids = {name: score.grid for name, score in self.scores.items()}
            return head_grids(grids, title=f"Attention heads of {model}", colorbar="score")
        score = self.score(kind)
        low, high = (end.tolist() for end in score.ci())
        known = "" if math.isnan(score.chance) else f", chance {score.chance:.3f}"
        hover = [
            [
                f"{layer}.{head}: {value:.3f}<br>95% interval {low[layer][head]:.3f} to "
                f"{high[layer][head]:.3f}<br>n = {score.n} {score.samples}{known}"
                for head, value in enumerate(row)
            ]
            for layer, row in enumerate(score.grid.tolist())
        ]
        title = f"{kind} heads of {model}"
        return head_heatmap(score.grid, title=title, colorbar="score", hover=hover)

    def save(self, path: str | Path) -> Path:
        """Write the atlas as Parquet (`.parquet`) or else as JSON; returns the path."""
        parts = Parts(self.scores, self.claims, self.missing, self.provenance)
        return write(Path(path), parts)

    @classmethod
    def load(cls, path: str | Path) -> HeadAtlas:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not a file, of another kind or version, or incomplete.
        """
        return cls(*read(Path(path)))

    def __repr__(self) -> str:
        layers, heads = self.shape
        confirmed = sum(claim.confirmed for claim in self.claims.values())
        checked = f"; {confirmed} of {len(self.claims)} claims confirmed" if self.claims else ""
        return (
            f"HeadAtlas({self.provenance.get('model', 'model')}: {layers} layers x {heads} heads, "
            f"{len(self.kinds)} kinds{checked})"
        )

    def _repr_html_(self) -> str:
        columns = ("kind", "best heads [95% interval]", "without those named", "the score is")
        told = pd.DataFrame([self._told(kind) for kind in self.kinds], columns=columns)
        missing = (f"{kind} was not measured: {why}" for kind, why in self.missing.items())
        return as_html(self, told, *missing)

    def _told(self, kind: str) -> tuple[str, str, str, str]:
        top, claim = self.top(kind, 3), self.claims.get(kind)
        best = ", ".join(
            f"{head} {score:.2f} [{low:.2f}, {high:.2f}]"
            for head, score, low, high in zip(
                top["head"], top["score"], top["ci_low"], top["ci_high"], strict=True
            )
        )
        return kind, best, "" if claim is None else _verdict(claim), kind_of(kind).meaning


def _verdict(claim: Claim) -> str:
    return (
        f"{claim.provenance.get('task', 'task')} {claim.effect:+.2f} (random "
        f"{claim.random_effects.mean():+.2f}): {'' if claim.confirmed else 'not '}confirmed"
    )


def _row(claim: Claim) -> dict[str, Any]:
    (low, high), (beyond_low, beyond_high) = claim.effect_ci, claim.beyond_ci
    return {
        "kind": claim.kind,
        "heads": ", ".join(map(str, claim.heads)),
        "task": claim.provenance.get("task", ""),
        "metric": claim.metric,
        "clean": claim.clean.mean().item(),
        "effect": claim.effect,
        "ci_low": low,
        "ci_high": high,
        "random": claim.random_effects.mean().item(),
        "beyond_low": beyond_low,
        "beyond_high": beyond_high,
        "p": claim.p_value,
        "sets": len(claim.random),
        "n": len(claim.clean),
        "confirmed": claim.confirmed,
    }
