"""`Consistency`: what a measurement found; all numbers follow from the latent predictions."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from plotly.subplots import make_subplots
from torch import Tensor

from interp.consistency import result_file
from interp.consistency.layer_weights import LayerWeights
from interp.consistency.questions import Question
from interp.consistency.score import (
    Separation,
    calibration_curve,
    calibration_error,
    final_label,
    final_margin,
    internal_consistency,
    layer_agreement,
    layer_votes,
    separation,
    shuffled,
)
from interp.consistency.thresholds import Thresholds
from interp.consistency.votes import PLAIN, Votes, votes
from interp.display import as_html
from interp.plots.colors import DIVERGING, MISSING, SEQUENTIAL
from interp.stats import bootstrap_ci

WEIGHTED = "SC+IC"


@dataclass(frozen=True, eq=False)
class Consistency:
    """Internal consistency of the paths of a model, and what it is worth.

    Paths on which the rule found no answer are wrong, do not vote and have NaN scores; `unread`
    counts them.

    Attributes:
        questions: What was asked.
        texts: What was written, question by question.
        given: The label that each path gives; -1 for none.
        log_probs: Mean log probability of a token of each path (nats).
        lengths: Tokens of each path.
        latents: What each layer would answer; NaN where there is no answer.
        untrained: IC of the same paths in the model with random weights, the control; None if that
            was not measured.
        thresholds: Of the calibration questions.
        tuned: Layer weights learned on the calibration questions; None if all of their paths were
            right, or all wrong.
        transferred: Layer weights learned elsewhere, if some were given.
        provenance: Model, weights hash, questions, options, cost, versions.
    """

    questions: tuple[Question, ...]
    texts: tuple[str, ...]
    given: Int[Tensor, "questions paths"]
    log_probs: Float[Tensor, "questions paths"]
    lengths: Int[Tensor, "questions paths"]
    latents: Float[Tensor, "questions paths layer labels"]
    untrained: Float[Tensor, "questions paths"] | None
    thresholds: Thresholds
    tuned: LayerWeights | None
    transferred: LayerWeights | None
    provenance: dict[str, Any]

    @cached_property
    def right(self) -> Bool[Tensor, "questions paths"]:
        """Whether each path gives the right label."""
        return self.given == torch.tensor([question.right for question in self.questions])[:, None]

    @property
    def accuracy(self) -> float:
        """The share of paths that are right."""
        return float(self.right.double().mean())

    @property
    def unread(self) -> int:
        """Paths on which the rule found no answer."""
        return int((self.given < 0).sum())

    @property
    def against_the_last_layer(self) -> float:
        """The share of answers that sampling made another than the last layer's first choice."""
        known = self.given >= 0
        return float((self.given != final_label(self.latents))[known].double().mean())

    @cached_property
    def layer_votes(self) -> Float[Tensor, "questions paths layer"]:
        """s_l[y_hat] of the embedding and each layer: 1, 1/K at a threshold, or 0."""
        return layer_votes(self.thresholds.score(self.latents, self.questions), self.latents)

    @cached_property
    def ic(self) -> Float[Tensor, "questions paths"]:
        """Internal consistency: the mean of `layer_votes`."""
        scores = self.thresholds.score(self.latents, self.questions)
        return internal_consistency(scores, self.latents)

    @property
    def scores(self) -> dict[str, Float[Tensor, "questions paths"]]:
        """All scores of paths by name.

        ic; agreement (the paper's formula, without thresholds); margin (of the last layer);
        log_prob (mean of a token); untrained (IC with random weights, the control).
        """
        log_probs = torch.where(self.given < 0, torch.nan, self.log_probs)
        control = {} if self.untrained is None else {"untrained": self.untrained}
        return {
            "ic": self.ic,
            "agreement": layer_agreement(self.latents),
            "margin": final_margin(self.latents),
            "log_prob": log_probs,
            **control,
        }

    @cached_property
    def separations(self) -> dict[str, Separation]:
        """How well each score tells right from wrong; "shuffled" is IC with labels dealt anew."""
        found = {name: separation(values, self.right) for name, values in self.scores.items()}
        return found | {"shuffled": separation(self.ic, shuffled(self.ic, self.right))}

    @cached_property
    def votes(self) -> Votes:
        """What the paths of a question answer together.

        SC: one path, one vote. SC+IC; SC+margin (of the last layer); SC+prob (the geometric mean of
        a path's token probabilities, Wang et al. 2023); SC+tune and SC+transfer (the probability of
        being right by layer weights learned on calibration questions, or given as `transfer`).
        """
        weights = {
            WEIGHTED: self.ic,
            "SC+margin": final_margin(self.latents),
            "SC+prob": self.log_probs.exp(),
        }
        learned = {"SC+tune": self.tuned, "SC+transfer": self.transferred}
        for name, layers in learned.items():
            if layers is not None:
                weights[name] = layers.weigh(self.layer_votes, self.questions)
        right = torch.tensor([question.right for question in self.questions])
        return votes(self.given, right, weights)

    @property
    def verdict(self) -> str:
        """Whether votes by consistency are better than plain ones here, in one sentence."""
        count = self.votes.counts[-1]
        plain, weighted = (self.votes.of(name, count) for name in (PLAIN, WEIGHTED))
        gain = self._gain(count)
        low, high = (float(end) for end in bootstrap_ci(gain))
        told = (
            f"with {count} paths each SC+IC answers {weighted.mean():.1%} of {len(gain)} questions "
            f"and SC {plain.mean():.1%}, a difference of {100 * gain.mean():+.1f} points "
            f"({100 * low:+.1f} to {100 * high:+.1f})"
        )
        fewer = {k: 100 * self._gain(k).mean() for k in self.votes.counts[1:-1]}
        if fewer:
            worst, best = min(fewer, key=fewer.__getitem__), max(fewer, key=fewer.__getitem__)
            told += (
                f"; with fewer paths it is between {fewer[worst]:+.1f} (of {worst}) and "
                f"{fewer[best]:+.1f} (of {best})"
            )
        if not (gain != 0).any():
            return f"Weighting by consistency changes no vote of all paths: {told}."
        if low > 0:
            return f"Weighting by consistency helps: {told}."
        if high < 0:
            return f"Weighting by consistency hurts: {told}."
        return f"Weighting by consistency makes no difference that shows: {told}."

    def _gain(self, count: int) -> Float[Tensor, " questions"]:
        return self.votes.of(WEIGHTED, count) - self.votes.of(PLAIN, count)

    def to_frame(self) -> pd.DataFrame:
        """One row a path.

        Columns: question, path, given (the label, None for none), right, tokens, and all `scores`.
        """
        paths = self.given.shape[1]
        labels = self.thresholds.labels
        return pd.DataFrame(
            {
                "question": [i for i in range(len(self.questions)) for _ in range(paths)],
                "path": [*range(paths)] * len(self.questions),
                "given": [None if i < 0 else labels[i] for i in self.given.flatten().tolist()],
                "right": self.right.flatten().tolist(),
                "tokens": self.lengths.flatten().tolist(),
                **{name: values.flatten().tolist() for name, values in self.scores.items()},
            }
        )

    def separation_frame(self) -> pd.DataFrame:
        """One row a score.

        Columns: score, auroc, low, high (95%, clustered by question), within (for two paths of one
        question), within_low, within_high, right, wrong (paths), mixed (questions with both), and
        ece (of scores between 0 and 1).
        """
        errors = {
            name: calibration_error(values, self.right)
            for name, values in self.scores.items()
            if name != "log_prob"
        }
        return pd.DataFrame(
            [
                {"score": name, **vars(found), "ece": errors.get(name, math.nan)}
                for name, found in self.separations.items()
            ]
        )

    def layer_frame(self) -> pd.DataFrame:
        """How well each layer's probability of y_hat tells right from wrong; 0 is the embedding.

        Columns: layer, auroc, low, high, share (of paths in which the layer says y_hat), accuracy
        (of paths in which it says the right label), both by its thresholds.
        """
        said_labels = self.thresholds.score(self.latents, self.questions)
        right = torch.tensor([question.right for question in self.questions])
        truth = right[:, None, None, None].expand(*self.latents.shape[:-1], 1)
        accurate = said_labels.gather(-1, truth)[..., 0]
        chosen = final_label(self.latents)[..., None, None]
        said = self.latents.gather(-1, chosen.expand(*self.latents.shape[:-1], 1))[..., 0]
        rows = []
        for layer in range(said.shape[-1]):
            found = separation(said[..., layer], self.right)
            rows.append(
                {
                    "layer": layer,
                    "auroc": found.auroc,
                    "low": found.low,
                    "high": found.high,
                    "share": float(self.layer_votes[..., layer].nanmean()),
                    "accuracy": float(accurate[..., layer].nanmean()),
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Accuracy of votes against paths; accuracy against IC; each layer's AUROC."""
        figure = make_subplots(
            cols=3, subplot_titles=("Votes", "Calibration of IC", "Right from wrong, by layer")
        )
        for trace in self.votes.plot().data:
            figure.add_trace(trace, row=1, col=1)
        bins, layers = calibration_curve(self.ic, self.right), self.layer_frame()
        even = {"mode": "lines", "line": {"color": MISSING, "dash": "dot"}, "showlegend": False}
        figure.add_scatter(x=[0, 1], y=[0, 1], **even, row=1, col=2)
        figure.add_scatter(
            x=bins["score"],
            y=bins["accuracy"],
            error_y=_bars(bins, "accuracy", "accuracy_low", "accuracy_high"),
            marker_color=DIVERGING[-2],
            showlegend=False,
            row=1,
            col=2,
        )
        figure.add_scatter(x=[0, len(layers) - 1], y=[0.5, 0.5], **even, row=1, col=3)
        figure.add_scatter(
            x=layers["layer"],
            y=layers["auroc"],
            error_y=_bars(layers, "auroc", "low", "high"),
            marker_color=SEQUENTIAL[6],
            showlegend=False,
            row=1,
            col=3,
        )
        figure.update_xaxes(title_text="paths", type="log", col=1)
        figure.update_xaxes(title_text="IC", col=2)
        figure.update_xaxes(title_text="layer (0: embedding)", col=3)
        figure.update_yaxes(title_text="right questions", col=1)
        figure.update_yaxes(title_text="right paths", range=[0, 1], col=2)
        figure.update_yaxes(title_text="AUROC", range=[0, 1], col=3)
        title = f"Internal consistency of {self.provenance['model']}"
        figure.update_layout(title=title, template="plotly_white", legend={"y": -0.2, "x": 0})
        return figure

    def save(self, path: str | Path) -> Path:
        """Write JSON, or Parquet with one row a path if the name ends so; `load` reads both."""
        return result_file.write(
            Path(path), {field.name: getattr(self, field.name) for field in fields(self)}
        )

    @classmethod
    def load(cls, path: str | Path) -> Consistency:
        """Read what `save` wrote.

        Raises FileFormatError for a file of another kind or version, or an incomplete one.
        """
        return result_file.read(Path(path), cls)

    def __repr__(self) -> str:
        found = self.separations["ic"]
        questions, paths = self.given.shape
        return (
            f"Consistency({questions} questions x {paths} paths, {self.accuracy:.1%} right, "
            f"{self.unread} unread; IC tells right from wrong with AUROC {found.auroc:.3f} "
            f"({found.low:.3f} to {found.high:.3f}))"
        )

    def _repr_html_(self) -> str:
        return as_html(self, self.verdict, self.separation_frame(), self.votes.to_frame())


def _bars(frame: pd.DataFrame, middle: str, low: str, high: str) -> dict[str, Any]:
    return {
        "type": "data",
        "array": frame[high] - frame[middle],
        "arrayminus": frame[middle] - frame[low],
        "thickness": 1,
    }
