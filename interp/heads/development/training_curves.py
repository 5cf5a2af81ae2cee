"""`TrainingCurves`: how the scores of heads, the loss and in-context learning grow together."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from plotly.subplots import make_subplots
from torch import Tensor

from interp.display import Displayed
from interp.errors import FileFormatError, MetricError, did_you_mean, one_line
from interp.heads.development.phase_change import PhaseChange, phase_change
from interp.json_file import read_json_file, write_json
from interp.json_values import all_of, numbers, required, table, whole, wholes
from interp.plots import DIVERGING, MISSING
from interp.sites import Head
from interp.stats import bootstrap_ci

FORMAT: dict[str, Any] = {"format": "interp.TrainingCurves", "version": 1}
GRIDS = ("scores", "low", "high")
ENTRIES = ("steps", "kinds", *GRIDS, "curves", "leaders", "provenance")
WAY_OUT = "write one with TrainingCurves.save"
LOSS, LEARNING = "loss", "in-context learning"
BEHAVIOUR = (LOSS, LEARNING)


@dataclass(frozen=True, eq=False)
class TrainingCurves(Displayed):
    """Scores of every head, loss and in-context learning at each checkpoint.

    Attributes:
        steps: Training steps, ascending.
        kinds: Of the scores.
        scores: Mean over samples; NaN where a kind could not be measured.
        low, high: 95% bootstrap interval of each score over samples.
        curves: What each sample says at each step: "loss", "in-context learning", and for every
            kind the score of its leader.
        leaders: For each kind, the head with the highest score that any head has at any step.
        provenance: That of the last checkpoint, with the prompts and how it was measured.
    """

    steps: tuple[int, ...]
    kinds: tuple[str, ...]
    scores: Float[Tensor, "steps kinds layer head"]
    low: Float[Tensor, "steps kinds layer head"]
    high: Float[Tensor, "steps kinds layer head"]
    curves: dict[str, Float[Tensor, "steps samples"]]
    leaders: dict[str, Head]
    provenance: dict[str, Any]

    def phase_change(self, curve: str, *, resamples: int = 1000, seed: int = 0) -> PhaseChange:
        """Where one of `curves` turns, if it does; see `interp.heads.phase_change`.

        Raises:
            MetricError: No such curve, or too few checkpoints.
        """
        if curve not in self.curves:
            raise MetricError(f"There is no curve {curve!r}: {did_you_mean(curve, self.curves)}")
        name = f"{curve} of {self.leaders[curve]}" if curve in self.leaders else curve
        values = self.curves[curve]
        return phase_change(self.steps, values, name=name, resamples=resamples, seed=seed)

    def phase_changes(self) -> pd.DataFrame:
        """One row a curve: curve, head, found, step, ci_low, ci_high, from, to, n."""
        rows = []
        for curve in self.curves:
            change = self.phase_change(curve)
            rows.append(
                {
                    "curve": curve,
                    "head": str(self.leaders.get(curve, "")),
                    "found": change.found,
                    "step": change.step,
                    "ci_low": change.ci[0],
                    "ci_high": change.ci[1],
                    "from": change.levels[0],
                    "to": change.levels[1],
                    "n": change.n,
                }
            )
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row a step, kind and head, and one a step for loss and in-context learning.

        Columns: step, kind, head ("" for the model as a whole), score, ci_low, ci_high.
        """
        _, _, layers, heads = self.scores.shape
        names = [str(Head(layer, head)) for layer in range(layers) for head in range(heads)]
        index = pd.MultiIndex.from_product(
            [self.steps, self.kinds, names], names=["step", "kind", "head"]
        )
        ends = {"score": self.scores, "ci_low": self.low, "ci_high": self.high}
        columns = {name: values.flatten().tolist() for name, values in ends.items()}
        whole = [self._whole(name) for name in BEHAVIOUR]
        return pd.concat(
            [pd.DataFrame(columns, index=index).reset_index(), *whole], ignore_index=True
        )

    def _whole(self, name: str) -> pd.DataFrame:
        values = self.curves[name]
        low, high = bootstrap_ci(values)
        return pd.DataFrame(
            {
                "step": self.steps,
                "kind": name,
                "head": "",
                "score": values.mean(dim=1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
            }
        )

    def plot(self, *, log_steps: bool = True) -> go.Figure:
        """Every head of each kind over the steps, its leader in blue, then loss and learning.

        The band of a curve with a phase change is the interval of its center. On the logarithmic
        axis step 0 stands at half of the first step above it.
        """
        titles = [*(f"{kind}, leader {self.leaders[kind]}" for kind in self.kinds), *BEHAVIOUR]
        figure = make_subplots(
            rows=len(titles),
            cols=1,
            shared_xaxes=True,
            subplot_titles=titles,
            vertical_spacing=0.06,
        )
        x = self._places() if log_steps else list(self.steps)
        for row, kind in enumerate(self.kinds, 1):
            for head, values in self._heads(kind):
                leads = head == self.leaders[kind]
                figure.add_scatter(
                    x=x, y=values, name=str(head), row=row, col=1, **_line(strong=leads)
                )
        for row, name in enumerate(BEHAVIOUR, len(self.kinds) + 1):
            mean = self.curves[name].mean(dim=1).tolist()
            figure.add_scatter(x=x, y=mean, name=name, row=row, col=1, **_line(strong=True))
        for row, name in enumerate([*self.kinds, *BEHAVIOUR], 1):
            with suppress(MetricError):  # too few checkpoints to locate a change
                low, high = self.phase_change(name).ci
                if math.isfinite(low):
                    figure.add_vrect(
                        x0=max(low, x[0]), x1=high, row=row, col=1,
                        fillcolor=DIVERGING[3], opacity=0.4, line_width=0,
                    )  # fmt: skip
        figure.update_layout(
            title=f"{self.provenance.get('model', 'model')} over training",
            template="plotly_white",
            showlegend=False,
            height=180 * len(titles) + 100,
        )
        figure.update_xaxes(type="log" if log_steps else "linear")
        figure.update_xaxes(title_text="training step", row=len(titles), col=1)
        return figure

    def _places(self) -> list[float]:
        above = min((step for step in self.steps if step > 0), default=1)
        return [float(max(step, above / 2)) for step in self.steps]

    def _heads(self, kind: str) -> list[tuple[Head, list[float]]]:
        """The curve of each head of a kind, the leader's last, on top of the others."""
        grid = self.scores[:, self.kinds.index(kind)]
        _, layers, heads = grid.shape
        every = [Head(layer, head) for layer in range(layers) for head in range(heads)]
        every.sort(key=lambda head: head == self.leaders[kind])
        return [(head, grid[:, head.layer, head.head].tolist()) for head in every]

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, making folders as needed; returns the path."""
        data = {
            "steps": self.steps,
            "kinds": self.kinds,
            **{name: _listed(getattr(self, name)) for name in GRIDS},
            "curves": {name: _listed(values) for name, values in self.curves.items()},
            "leaders": {kind: [head.layer, head.head] for kind, head in self.leaders.items()},
            "provenance": self.provenance,
        }
        return write_json(path, data, **FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> TrainingCurves:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not a file, not JSON, of another kind or version, damaged or
                incomplete.
        """
        data = read_json_file(path, **FORMAT, entries=ENTRIES, way_out=WAY_OUT)
        try:
            return cls(**_attributes(data))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(
                f"{path} has a missing or broken part ({one_line(error)}); {WAY_OUT}."
            ) from error

    def __repr__(self) -> str:
        best = ", ".join(f"{kind} {head}" for kind, head in self.leaders.items())
        return (
            f"TrainingCurves({self.provenance.get('model', 'model')}: {len(self.steps)} steps from "
            f"{self.steps[0]} to {self.steps[-1]}; leaders {best})"
        )


def _line(*, strong: bool) -> dict[str, Any]:
    color, width = (DIVERGING[-2], 2.5) if strong else (MISSING, 1)
    return {"mode": "lines", "line": {"color": color, "width": width}}


def _listed(values: Float[Tensor, "*any"]) -> dict[str, Any]:
    """Shape and numbers for JSON: NaN becomes null, and a float32 keeps its 9 telling digits."""
    numbers = [float(f"{x:.9g}") if math.isfinite(x) else None for x in values.flatten().tolist()]
    return {"shape": list(values.shape), "numbers": numbers}


def _attributes(data: dict[str, Any]) -> dict[str, Any]:
    """Those of curves, from what `save` writes; raises ValueError and the like for what is none."""
    steps = wholes(data["steps"], "steps").tolist()
    kinds = all_of(data["kinds"], str, "kinds")
    if not steps or any(one >= other for one, other in pairwise(steps)):
        raise ValueError("steps do not rise")
    if not kinds or len(set(kinds)) < len(kinds):
        raise ValueError(f"kinds are {kinds!r:.80}")
    grids = {name: _tensor(data[name], name, dims=4) for name in GRIDS}
    shapes = {grid.shape for grid in grids.values()}
    shape = shapes.pop()
    if shapes or shape[:2] != (len(steps), len(kinds)):
        raise ValueError("scores, low and high are not of these steps and kinds")
    curves = {
        name: _tensor(values, name, dims=2)
        for name, values in table(data["curves"], dict, "curves").items()
    }
    leaders = table(data["leaders"], list, "leaders")
    if curves.keys() != {*BEHAVIOUR, *kinds} or leaders.keys() != set(kinds):
        raise ValueError("curves and leaders are not those of these kinds")
    if any(len(curve) != len(steps) for curve in curves.values()):
        raise ValueError("a curve has other steps")
    layers, heads = shape[2:]
    return {
        "steps": tuple(steps),
        "kinds": tuple(kinds),
        **grids,
        "curves": curves,
        "leaders": {kind: _head(place, layers, heads) for kind, place in leaders.items()},
        "provenance": required(data["provenance"], dict, "provenance"),
    }


def _tensor(data: Any, what: str, *, dims: int) -> Float[Tensor, ...]:
    told = required(data, dict, what)
    shape = wholes(told["shape"], f"shape of {what}", least=1, below=2**31).tolist()
    flat = numbers(told["numbers"], what, dims=1)
    if len(shape) != dims or math.prod(shape) != len(flat):
        raise ValueError(f"{what} has {len(flat):,} numbers for a shape of {shape!r:.80}")
    return flat.reshape(shape)


def _head(place: list[Any], layers: int, heads: int) -> Head:
    layer, head = place
    return Head(whole(layer, "layer", below=layers), whole(head, "head", below=heads))
