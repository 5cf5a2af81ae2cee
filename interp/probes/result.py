"""`ProbeResult`: what each layer tells of the labels, beside its controls."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import FileFormatError, ProbeError, one_line
from interp.json_file import read_json_file, write_json
from interp.json_values import all_of, numbers, required, table, wholes
from interp.plots.colors import DIVERGING, MISSING
from interp.probes.directions import Probes
from interp.probes.scores import accuracy, auc, bootstrap_weights, interval, macro_f1
from interp.probes.split import Label
from interp.saved import register

FORMAT: dict[str, Any] = {"format": "interp.ProbeResult", "version": 1}
ENTRIES = ("layers", "classes", "test", "chance", "judged", "provenance")
NEEDED = ("task", "control", "shuffled")
WAY_OUT = "write one with ProbeResult.save or `interp probe MODEL --task TASK --out probe.json`"
COLORS = {
    "task": DIVERGING[-2],
    "control": DIVERGING[1],
    "shuffled": DIVERGING[3],
    "untrained": "#555555",
}


@register
@dataclass(frozen=True, eq=False)
class Judged:
    """What the probes of one condition say of its test prompts.

    Attributes:
        truth: The number of each test prompt's class.
        probabilities: That each layer's probe gives to each class.
    """

    truth: Int[Tensor, " test"]
    probabilities: Float[Tensor, "layer test classes"]

    @property
    def right(self) -> Float[Tensor, "layer test"]:
        """1 where the most probable class is the true one, else 0."""
        return (self.probabilities.argmax(dim=-1) == self.truth).double()


@register
@dataclass(frozen=True, eq=False)
class ProbeResult(Displayed):
    """Linear probes of every layer, judged on prompts that they were not fitted on.

    Attributes:
        layers: Names of the layers.
        classes: The labels.
        judged: By condition: "task", "control", "shuffled" and, for states of a model, "untrained".
        test: Rows of the test prompts.
        chance: Share of test prompts with the label that most of the others have.
        probes: Those of the task; None in a result that was read from a file.
        provenance: Where it comes from.
    """

    layers: tuple[str, ...]
    classes: tuple[Label, ...]
    judged: dict[str, Judged]
    test: Int[Tensor, " test"]
    chance: float
    probes: Probes | None = None
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Test prompts."""
        return len(self.test)

    def accuracy(self, condition: str = "task") -> Float[Tensor, " layer"]:
        """The share of test prompts that each layer's probe gets right.

        Raises ProbeError for a condition that was not measured.
        """
        if condition not in self.judged:
            raise ProbeError(f"{condition!r} was not measured; there are {sorted(self.judged)}.")
        return self.judged[condition].right.mean(dim=-1)

    @property
    def selectivity(self) -> Float[Tensor, " layer"]:
        """Accuracy on the task minus accuracy on the control task."""
        return self.accuracy() - self.accuracy("control")

    @property
    def best(self) -> int:
        """The number of the layer with the highest accuracy on the test prompts; the first."""
        return int(self.accuracy().argmax())

    def to_frame(self) -> pd.DataFrame:
        """One row a layer.

        Columns: layer, accuracy, f1 (mean over classes), auc (of two classes; of more the mean of
        each against the rest), selectivity, and the accuracy of each control: control, shuffled,
        untrained. Each has its `_low` and `_high` (95%, bootstrap over test prompts, which says
        nothing of another split). chance (the most common label), n.
        """
        weights = bootstrap_weights(self.n)
        task = self.judged["task"]
        measured = {
            "accuracy": accuracy(task.truth, task.probabilities, weights),
            "f1": macro_f1(task.truth, task.probabilities, weights),
            "auc": auc(task.truth, task.probabilities, weights),
        }
        controls = {
            name: accuracy(each.truth, each.probabilities, weights)
            for name, each in self.judged.items()
            if name != "task"
        }
        measured["selectivity"] = measured["accuracy"] - controls["control"]
        columns: dict[str, Any] = {"layer": self.layers}
        for name, resampled in (measured | controls).items():
            low, high = interval(resampled)
            columns[name] = resampled[0].tolist()
            columns[f"{name}_low"], columns[f"{name}_high"] = low.tolist(), high.tolist()
        return pd.DataFrame(columns | {"chance": self.chance, "n": self.n})

    def plot(self) -> go.Figure:
        """Accuracy by layer with its intervals, and that of the controls; dotted: chance."""
        frame, figure = self.to_frame(), go.Figure()
        for name in self.judged:
            column = "accuracy" if name == "task" else name
            figure.add_scatter(
                x=frame["layer"],
                y=frame[column],
                error_y={
                    "type": "data",
                    "array": frame[f"{column}_high"] - frame[column],
                    "arrayminus": frame[column] - frame[f"{column}_low"],
                    "thickness": 1,
                },
                name=name,
                line={"color": COLORS[name]},
            )
        figure.add_hline(y=self.chance, line={"color": MISSING, "dash": "dot"})
        told = self.provenance.get("model", "given states")
        figure.update_layout(title=f"Linear probes of {told}", template="plotly_white")
        figure.update_xaxes(title_text="layer", type="category")
        figure.update_yaxes(title_text="accuracy on test prompts", range=[0, 1.02])
        return figure

    def save(self, path: str | Path) -> Path:
        """Write all but the probes as JSON; `result.probes.save` writes those as safetensors."""
        data = {
            "layers": self.layers,
            "classes": self.classes,
            "test": self.test.tolist(),
            "chance": self.chance,
            "judged": {
                name: {"truth": each.truth.tolist(), "probabilities": each.probabilities.tolist()}
                for name, each in self.judged.items()
            },
            "provenance": self.provenance,
        }
        return write_json(path, data, **FORMAT)

    @classmethod
    def load(cls, path: str | Path) -> ProbeResult:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not such a file, of another version, or damaged.
        """
        data = read_json_file(path, **FORMAT, entries=ENTRIES, way_out=WAY_OUT)
        try:
            return cls(**_attributes(data))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FileFormatError(
                f"{path} has a missing or broken part ({one_line(error)}); {WAY_OUT}."
            ) from error

    def __repr__(self) -> str:
        layer = self.best
        beside = ", ".join(
            f"{name} {float(self.accuracy(name)[layer]):.2f}"
            for name in self.judged
            if name != "task"
        )
        return (
            f"ProbeResult({len(self.classes)} classes; best layer {self.layers[layer]}: accuracy "
            f"{float(self.accuracy()[layer]):.2f} ({beside}, chance {self.chance:.2f}); "
            f"n = {self.n} test prompts)"
        )


def _attributes(data: dict[str, Any]) -> dict[str, Any]:
    """Those of a result, from what `save` writes; raises ValueError and the like for any other."""
    layers = all_of(data["layers"], str, "layers")
    classes = required(data["classes"], list, "classes")
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers are {layers!r:.80}")
    odd = {type(each) for each in classes} - {str, int, bool}
    # whole numbers that are larger may all have one hash, and a set of them takes for ever
    odd |= {int for each in classes if isinstance(each, int) and not -(2**63) <= each < 2**63}
    if odd or len(classes) < 2 or len(set(classes)) < len(classes):
        raise ValueError(f"classes are {classes!r:.80}")
    test = wholes(data["test"], "test")
    if not len(test):
        raise ValueError("no prompt was tested")
    shape = (len(layers), len(test), len(classes))
    judged = {
        name: _judged(each, name, shape)
        for name, each in table(data["judged"], dict, "judged").items()
    }
    if not set(NEEDED) <= judged.keys() <= COLORS.keys():
        raise ValueError(f"conditions are {list(judged)!r:.80}")
    chance = numbers(data["chance"], "chance", dims=0, dtype=torch.float64).item()
    if not 0 <= chance <= 1:
        raise ValueError(f"chance is {chance}")
    return {
        "layers": tuple(layers),
        "classes": tuple(classes),
        "judged": judged,
        "test": test,
        "chance": chance,
        "provenance": required(data["provenance"], dict, "provenance"),
    }


def _judged(data: dict[str, Any], name: str, shape: tuple[int, int, int]) -> Judged:
    truth = wholes(data["truth"], f"truth of {name}", below=shape[2])
    given = numbers(data["probabilities"], f"probabilities of {name}", dims=3, dtype=torch.float64)
    if given.shape != shape or len(truth) != shape[1]:
        raise ValueError(f"{name} is not of {' x '.join(map(str, shape))} numbers")
    if not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"{name} holds what is no probability")
    return Judged(truth, given)
