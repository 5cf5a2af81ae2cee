"""Do two observables read the same feature? (Dunefsky and Cohan 2023.)

    C(y1, y2) = y1 · y2 / |y1|²

Where states vary alike in all directions, C is the slope of `y2 · x` on `y1 · x` over states x: a
prediction from the weights. It is set beside the slope fitted on prompts. Random observables of the
same model, and the same observables of an untrained one, are the controls: where the states of any
prompts make any two observables move as predicted, the prediction says nothing of these two.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed, as_html
from interp.errors import VectorError
from interp.plots.colors import DIVERGING, MISSING
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Site
from interp.vectors.observables.observable import FeatureVector, Observable, observable

KINDS = ("observables", "random", "untrained")
COLORS = (DIVERGING[-2], MISSING, DIVERGING[1])


@dataclass(frozen=True, eq=False)
class Line:
    """A line fitted by least squares.

    Attributes:
        slope: Of y on x, with its 95% bootstrap interval over prompts.
        r2: Share of the variance of y that it explains.
    """

    slope: float
    low: float
    high: float
    r2: float


@dataclass(frozen=True, eq=False)
class Couplings(Saved, Displayed):
    """Predicted and fitted slopes between all ordered pairs of observables.

    Attributes:
        names: Of the observables.
        predicted: C; row: y1, column: y2.
        fitted: The slope of `y2 · x` on `y1 · x` over prompts.
        projections: `y · x` of each observable on each prompt.
        pairs: One row a pair: kind ("observables", or the controls "random" and "untrained"), x, y,
            predicted, fitted, ci_low and ci_high (95%, bootstrap over prompts), r2, n.
        provenance: Model, prompts, path, where the model was linearised.
    """

    names: tuple[str, ...]
    predicted: Float[Tensor, "x y"]
    fitted: Float[Tensor, "x y"]
    projections: Float[Tensor, "observables prompts"] = field(repr=False)
    pairs: pd.DataFrame = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row a pair of the observables and of the controls; see `pairs`."""
        return self.pairs

    def summary(self) -> pd.DataFrame:
        """How well C predicts, for the observables and each control.

        Columns: kind, pairs, error (mean |predicted - fitted|), inside (share of predictions inside
        the interval of the fit), correlation (of predicted and fitted over pairs), r2 (mean), n.
        """
        rows = []
        for kind, some in self.pairs.groupby("kind", sort=False):
            predicted, fitted = some["predicted"], some["fitted"]
            rows.append(
                {
                    "kind": kind,
                    "pairs": len(some),
                    "error": (predicted - fitted).abs().mean(),
                    "inside": predicted.between(some["ci_low"], some["ci_high"]).mean(),
                    "correlation": predicted.corr(fitted) if len(some) > 2 else float("nan"),
                    "r2": some["r2"].mean(),
                    "n": some["n"].iloc[0],
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Fitted against predicted slope, one point a pair; the line is where they are equal."""
        figure = go.Figure()
        ends = [self.pairs["predicted"].min(), self.pairs["predicted"].max()]
        figure.add_scatter(x=ends, y=ends, mode="lines", name="equal", line={"color": MISSING})
        for kind, color in zip(KINDS, COLORS, strict=True):
            some = self.pairs[self.pairs["kind"] == kind]
            figure.add_scatter(
                x=some["predicted"],
                y=some["fitted"],
                error_y={
                    "type": "data",
                    "array": some["ci_high"] - some["fitted"],
                    "arrayminus": some["fitted"] - some["ci_low"],
                    "thickness": 1,
                },
                mode="markers",
                name=kind,
                marker_color=color,
                hovertext=[f"{x} → {y}" for x, y in zip(some["x"], some["y"], strict=True)],
            )
        path = " > ".join(self.provenance["path"]) or "the unembedding"
        figure.update_layout(
            title=f"Coupling of observables through {path}", template="plotly_white"
        )
        figure.update_xaxes(title_text="predicted slope C")
        figure.update_yaxes(title_text="fitted slope")
        return figure

    def __repr__(self) -> str:
        told = "; ".join(
            f"{row.kind}: error {row.error:.2f}, correlation {row.correlation:.2f}"
            for row in self.summary().itertuples()
        )
        n = self.projections.shape[1]
        return f"Couplings({len(self.names)} observables; {told}; n = {n} prompts)"

    def _repr_html_(self) -> str:
        return as_html(self, self.pairs[self.pairs["kind"] == "observables"])


def coupling(one: Float[Tensor, " d_model"], other: Float[Tensor, " d_model"]) -> float:
    """C(y1, y2): the predicted slope of `y2 · x` on `y1 · x`.

    Raises VectorError for a y1 of zeros.

    >>> coupling(torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0]))
    0.5
    """
    size = float(one @ one)
    if size == 0:
        raise VectorError("Nothing couples to a vector of zeros; give a y1 that reads something.")
    return float(one @ other) / size


def fit_line(
    x: Float[Tensor, " prompts"],
    y: Float[Tensor, " prompts"],
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> Line:
    """The least-squares line of y on x; its interval comes from resampling pairs.

    Raises VectorError for fewer than three prompts, or an x that is the same on all.
    """
    if len(x) < 3 or float(x.std()) == 0:
        raise VectorError(
            f"A slope over {len(x)} values with spread {float(x.std()):g} means nothing; give at "
            "least three prompts on which the first observable differs."
        )
    picks = torch.randint(
        len(x), (resamples, len(x)), generator=torch.Generator().manual_seed(seed)
    )
    x, y = x.double().cpu(), y.double().cpu()
    ends = torch.tensor([0.025, 0.975], dtype=torch.float64)
    drawn = _slopes(x, y, picks)
    low, high = torch.quantile(drawn[drawn.isfinite()], ends).tolist()
    slope = float(_slopes(x, y, torch.arange(len(x))[None])[0])
    rest = (y - y.mean()) - slope * (x - x.mean())
    spread = (y - y.mean()).square().sum()
    return Line(slope, low, high, float(1 - rest.square().sum() / spread))


def couplings(
    observables: Sequence[Observable],
    prompts: PromptSet,
    *,
    path: Sequence[Site | str] = (),
    position: str | int = "END",
    random: int = 6,
    seed: int = 0,
) -> Couplings:
    """Predicted against fitted slopes for all ordered pairs of observables, with both controls.

    Args:
        observables: Two or more of one model, as `observable` makes them.
        prompts: On whose states x the slopes are fitted; best not those of the linearisation.
        path: Through which the observables are propagated, as in `Observable.feature`.
        position: Where x is taken, from the stream that the path reads.
        random: Random observables, each the difference of two random tokens' logits.
        seed: Of these and of the untrained model.

    Raises:
        VectorError: Observables of several models, fewer than two of them, or a path that none can
            be propagated through.
        PromptError, SiteError: What their names say.
    """
    if len(observables) < 2 or random < 2:
        raise VectorError(
            f"Couplings are between pairs: give two or more observables and random ones, not "
            f"{len(observables)} and {random}."
        )
    model, first = observables[0].model, observables[0]
    if len({id(each.model) for each in observables}) > 1:
        raise VectorError("The observables are of several models; give those of one.")
    noise = [first.with_weights(weights) for weights in _random_weights(first, random, seed)]
    fresh = observable(model.untrained(seed=seed), dict(first.weights), prompts)
    again = [fresh.with_weights(dict(each.weights)) for each in observables]
    frames = []
    for kind, some in zip(KINDS, (observables, noise, again), strict=True):
        features = [each.feature(*path) for each in some]
        projections = torch.stack([each.project(prompts, position=position) for each in features])
        frames.append(_pairs(kind, features, projections))
        if kind == "observables":
            mine, values = features, projections
    names, found = tuple(each.name for each in observables), frames[0]
    told = provenance(
        model,
        prompts,
        method="coupling",
        path=[str(site) for site in mine[0].path],
        reads=str(mine[0].reads),
        position=position,
        linearised_at=first.provenance.get("prompts_hash"),
        control_seed=seed,
    )
    return Couplings(
        names=names,
        predicted=_matrix(found["predicted"], len(names)),
        fitted=_matrix(found["fitted"], len(names)),
        projections=values.cpu(),
        pairs=pd.concat(frames, ignore_index=True),
        provenance=told,
    )


def _pairs(
    kind: str, features: Sequence[FeatureVector], projections: Float[Tensor, "features prompts"]
) -> pd.DataFrame:
    rows = []
    for i, j in permutations(range(len(features)), 2):
        line = fit_line(projections[i], projections[j])
        rows.append(
            {
                "kind": kind,
                "x": features[i].observable.name,
                "y": features[j].observable.name,
                "predicted": coupling(features[i].vector, features[j].vector),
                "fitted": line.slope,
                "ci_low": line.low,
                "ci_high": line.high,
                "r2": line.r2,
                "n": projections.shape[1],
            }
        )
    return pd.DataFrame(rows)


def _matrix(values: pd.Series, count: int) -> Float[Tensor, "x y"]:
    """Values of all ordered pairs as a matrix with ones on its diagonal."""
    found = torch.ones(count, count, dtype=torch.float64)
    found[~torch.eye(count, dtype=torch.bool)] = torch.tensor(values.tolist(), dtype=torch.float64)
    return found


def _random_weights(like: Observable, count: int, seed: int) -> list[dict[int, float]]:
    draws = torch.Generator().manual_seed(seed)
    vocab = like.model.geometry.d_vocab
    tokens = [torch.randperm(vocab, generator=draws)[:2].tolist() for _ in range(count)]
    return [{one: 1.0, other: -1.0} for one, other in tokens]


def _slopes(
    x: Float[Tensor, " prompts"],
    y: Float[Tensor, " prompts"],
    picks: Int[Tensor, "draws picks"],
) -> Float[Tensor, " draws"]:
    """The least-squares slope of each draw of prompts."""
    some, others = x[picks], y[picks]
    away = some - some.mean(dim=-1, keepdim=True)
    return (away * others).sum(dim=-1) / away.square().sum(dim=-1)
