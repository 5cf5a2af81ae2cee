"""`GrokkingCurves`: the losses and the progress measures of a run, step by step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import FileFormatError, MetricError, did_you_mean
from interp.plots import DIVERGING, MISSING
from interp.resources import data_dir

FORMAT = {"format": "interp.GrokkingCurves", "version": 1}
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
        path = Path(path)
        data = {
            **FORMAT,
            "steps": self.steps,
            "frequencies": self.frequencies,
            "losses": {name: values.tolist() for name, values in self.losses.items()},
            "others": {name: values.tolist() for name, values in self.others.items()},
            "provenance": self.provenance,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, allow_nan=False) + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> GrokkingCurves:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not a file, not JSON, of another kind or version, or incomplete.
        """
        way_out = "write one with GrokkingCurves.save"
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if {key: data.get(key) for key in FORMAT} != FORMAT:
                raise ValueError(f"it is not of version {FORMAT['version']}")
            return cls(
                steps=tuple(data["steps"]),
                frequencies=tuple(data["frequencies"]),
                losses={name: _tensor(values) for name, values in data["losses"].items()},
                others={name: _tensor(values) for name, values in data["others"].items()},
                provenance=dict(data["provenance"]),
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileFormatError(
                f"{path} cannot be read as GrokkingCurves ({error}); {way_out}."
            ) from error

    def __repr__(self) -> str:
        last = ", ".join(f"{name} {values[-1]:.2g}" for name, values in self.losses.items())
        return (
            f"GrokkingCurves({self.provenance['model']}, frequencies "
            f"{', '.join(map(str, self.frequencies))}: {len(self.steps)} steps to "
            f"{self.steps[-1]}; {last})"
        )


def _tensor(values: list[Any]) -> Float[Tensor, "*any"]:
    return torch.tensor(values, dtype=torch.float64)


def shipped_curves() -> GrokkingCurves:
    """The curves of the run that ships with `interp`, at all steps whose weights it kept.

    >>> shipped_curves().frequencies
    (1, 8, 21)
    """
    return GrokkingCurves.load(data_dir() / "modular" / "curves.json")
