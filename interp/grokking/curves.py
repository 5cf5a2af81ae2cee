"""`GrokkingCurves`: the losses and the progress measures of a run, step by step."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import FileFormatError, MetricError, did_you_mean, one_line
from interp.json_file import read_json_file, write_json
from interp.json_values import numbers, required, wholes
from interp.plots import DIVERGING, MISSING
from interp.resources import data_dir

FORMAT: dict[str, Any] = {"format": "interp.GrokkingCurves", "version": 1}
ENTRIES = ("steps", "frequencies", "losses", "others", "provenance")
LOSSES = ("train_loss", "test_loss", "restricted_loss", "excluded_loss")
CONTROLLED = LOSSES[2:]
WAY_OUT = "write one with GrokkingCurves.save"
COLORS = {
    "train_loss": DIVERGING[2],
    "test_loss": DIVERGING[0],
    "restricted_loss": DIVERGING[-2],
    "excluded_loss": DIVERGING[-4],
}


@dataclass(frozen=True, eq=False)
class GrokkingCurves(Displayed):
    """Losses in nats at each checkpoint of a run; means over pairs, none of which is left out.

    Attributes:
        steps: Training steps, ascending.
        frequencies: What restricted and excluded loss keep and take away.
        losses: "train_loss" and "excluded_loss" over the pairs that were trained on, "test_loss"
            over the others, "restricted_loss" over all.
        others: Control: "restricted_loss" and "excluded_loss" of random sets of as many other
            frequencies.
        provenance: Of the run, and how it was measured.
    """

    steps: tuple[int, ...]
    frequencies: tuple[int, ...]
    losses: dict[str, Float[Tensor, " steps"]]
    others: dict[str, Float[Tensor, "steps sets"]]
    provenance: dict[str, Any]

    def first_below(self, curve: str, loss: float) -> int | None:
        """The first measured step from which a curve stays below a loss; None if it never does.

        Raises:
            MetricError: No such curve.
        """
        if curve not in self.losses:
            raise MetricError(f"There is no curve {curve!r}: {did_you_mean(curve, self.losses)}")
        above = (self.losses[curve] >= loss).nonzero()[:, 0].tolist()
        first = above[-1] + 1 if above else 0
        return self.steps[first] if first < len(self.steps) else None

    def to_frame(self) -> pd.DataFrame:
        """One row a step.

        Columns: step, train_loss, test_loss, restricted_loss, excluded_loss, and of the control
        restricted_loss_others and excluded_loss_others, means over its sets.
        """
        return pd.DataFrame(
            {"step": self.steps}
            | {name: values.tolist() for name, values in self.losses.items()}
            | {f"{name}_others": sets.mean(dim=1).tolist() for name, sets in self.others.items()}
        )

    def plot(self) -> go.Figure:
        """All losses over the steps, on a logarithmic axis; the control is dotted."""
        frame = self.to_frame()
        figure = go.Figure()
        for name in frame.columns[1:]:
            color, dash = (COLORS[name], "solid") if name in COLORS else (MISSING, "dot")
            figure.add_scatter(
                x=frame["step"],
                y=frame[name],
                name=name.replace("_", " "),
                line={"color": color, "dash": dash},
            )
        figure.update_layout(title=self.provenance["model"], template="plotly_white")
        figure.update_xaxes(title_text="training step")
        figure.update_yaxes(title_text="loss (nats)", type="log", exponentformat="power")
        return figure

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, making folders as needed; returns the path."""
        data = {
            "steps": self.steps,
            "frequencies": self.frequencies,
            "losses": {name: values.tolist() for name, values in self.losses.items()},
            "others": {name: values.tolist() for name, values in self.others.items()},
            "provenance": self.provenance,
        }
        return write_json(path, data, **FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> GrokkingCurves:
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
        last = ", ".join(f"{name} {values[-1]:.2g}" for name, values in self.losses.items())
        return (
            f"GrokkingCurves({self.provenance['model']}, frequencies "
            f"{', '.join(map(str, self.frequencies))}: {len(self.steps)} steps to "
            f"{self.steps[-1]}; {last})"
        )


def _attributes(data: dict[str, Any]) -> dict[str, Any]:
    """Those of curves, from what `save` writes; raises ValueError and the like for what is none."""
    steps = wholes(data["steps"], "steps").tolist()
    if not steps or any(one >= other for one, other in pairwise(steps)):
        raise ValueError("steps do not rise")
    losses = _curves(data["losses"], LOSSES, steps, dims=1)
    others = _curves(data["others"], CONTROLLED, steps, dims=2)
    if len({other.shape for other in others.values()}) > 1:
        raise ValueError("the controls have other sets")
    about = required(data["provenance"], dict, "provenance")
    required(about["model"], str, "model")
    frequencies = wholes(data["frequencies"], "frequencies", least=1).tolist()
    return {
        "steps": tuple(steps),
        "frequencies": tuple(frequencies),
        "losses": losses,
        "others": others,
        "provenance": about,
    }


def _curves(
    data: Any, names: tuple[str, ...], steps: list[int], *, dims: int
) -> dict[str, Float[Tensor, "steps ..."]]:
    given = required(data, dict, "losses")
    curves = {
        name: numbers(values, name, dims=dims, dtype=torch.float64)
        for name, values in given.items()
    }
    if curves.keys() != set(names) or {len(curve) for curve in curves.values()} != {len(steps)}:
        raise ValueError(f"curves are not {', '.join(names)} at {len(steps)} steps")
    return curves


def shipped_curves() -> GrokkingCurves:
    """The curves of the run that ships with `interp`, at all steps whose weights it kept.

    >>> shipped_curves().frequencies
    (1, 8, 21)
    """
    return GrokkingCurves.load(data_dir() / "modular" / "curves.json")
