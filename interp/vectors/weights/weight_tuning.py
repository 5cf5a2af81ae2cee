"""How far along a weight vector? Lambda is chosen on validation prompts, judged on test prompts.

Ilharco et al. 2023: to gain a task, the lambda with the best validation accuracy; to forget one,
that with the worst, among those that keep 95% of the base's accuracy on the control tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import VectorError
from interp.models import Model
from interp.plots.colors import DIVERGING
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.weights.fine_tune import correct
from interp.vectors.weights.weight_vector import WeightVector

AIMS = ("gain", "forget")
LAMBDAS = tuple(round(0.1 * i, 1) for i in range(11))
"""0 to 1 in steps of 0.1; 0 is the base itself."""
KEEP = 0.95
"""Share of the base's accuracy on the control tasks that forgetting must keep."""


@dataclass(frozen=True, eq=False)
class WeightTuning(Saved, Displayed):
    """Accuracy on tasks along a weight vector.

    Attributes:
        vector: Its name.
        target: The task that lambda was chosen for.
        aim: "gain" or "forget".
        lam: What was chosen on the validation prompts.
        curve: One row a lambda and task: lam, task, accuracy on the validation prompts.
        judged: 0 or 1 of each test prompt, by (weights, task); weights are "base", "vector" at
            `lam`, or the control "shuffled" at `lam`: the same values at random places.
        provenance: Model, options, hashes of the prompts.
    """

    vector: str
    target: str
    aim: str
    lam: float
    curve: pd.DataFrame = field(repr=False)
    judged: Mapping[tuple[str, str], Float[Tensor, " prompts"]] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row for each task and set of weights, on the test prompts.

        Columns: task, role ("target" or "control"), weights, lam, accuracy, ci_low and ci_high (95%
        over prompts), n.
        """
        rows = []
        for (weights, task), right in self.judged.items():
            low, high = bootstrap_ci(right)
            rows.append(
                {
                    "task": task,
                    "role": "target" if task == self.target else "control",
                    "weights": weights,
                    "lam": 0.0 if weights == "base" else self.lam,
                    "accuracy": right.mean().item(),
                    "ci_low": low.item(),
                    "ci_high": high.item(),
                    "n": len(right),
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Validation accuracy of every task against lambda; the dotted line is the chosen one."""
        figure = go.Figure()
        for task, some in self.curve.groupby("task", sort=False):
            width = 3 if task == self.target else 1
            figure.add_scatter(x=some["lam"], y=some["accuracy"], name=task, line_width=width)
        figure.add_vline(x=self.lam, line={"dash": "dot", "color": DIVERGING[1]})
        figure.update_layout(title=repr(self), template="plotly_white")
        figure.update_xaxes(title_text="lambda")
        figure.update_yaxes(title_text="validation accuracy", range=[0, 1.02])
        return figure

    def __repr__(self) -> str:
        before, after = (self.judged[key, self.target].mean() for key in ("base", "vector"))
        n = len(self.judged["base", self.target])
        return (
            f"WeightTuning({self.vector} to {self.aim} {self.target}: lambda {self.lam:g}, "
            f"accuracy {before:.2f} becomes {after:.2f}; n = {n} prompts)"
        )


def tune(
    model: Model,
    vector: WeightVector,
    target: str,
    *,
    validation: Mapping[str, PromptSet],
    test: Mapping[str, PromptSet],
    aim: str = "gain",
    lams: Sequence[float | int] = LAMBDAS,
    seed: int = 0,
    progress: bool = True,
) -> WeightTuning:
    """Choose lambda for a target task on validation prompts; judge it on test prompts.

    Args:
        model: The base, which stays as it is.
        vector: To add; `-vector` to forget what it teaches.
        target: The task among `validation` that is to be gained or forgotten; the others are
            controls, which say what else changes.
        validation, test: Prompts of each task, none of which is in both.
        aim: "gain" the target: the best validation accuracy, of equal ones the smallest lambda.
            "forget" it: the worst, of those that keep 95% of the base's mean accuracy on controls.
        lams: Candidates.
        seed: Of the shuffled vector.
        progress: Show a bar.

    Raises:
        VectorError: Another base, other tasks in the two sets, shared prompts, an unknown target or
            aim, no lambda, or none that keeps the controls.
        PromptError: Prompts that the model cannot read.
    """
    _require(target, validation, test, aim, lams)
    rows = []
    for lam in track(list(lams), "Trying lambdas", shown=progress):
        weights = vector.weights(model, lam)
        for task, prompts in validation.items():
            accuracy = correct(model, prompts, weights).mean().item()
            rows.append({"lam": float(lam), "task": task, "accuracy": accuracy})
    curve = pd.DataFrame(rows)
    base = {task: correct(model, prompts).mean().item() for task, prompts in validation.items()}
    lam = _chosen(curve, base, target, aim)
    judged: dict[tuple[str, str], Tensor] = {}
    for name, made in (
        ("base", vector.scaled(0)),
        ("vector", vector),
        ("shuffled", vector.shuffled(seed=seed)),
    ):
        weights = made.weights(model, lam)
        judged |= {(name, task): correct(model, some, weights) for task, some in test.items()}
    told = provenance(
        model,
        method="weight-space task vector",
        vector=vector.name,
        vector_provenance=vector.provenance,
        aim=aim,
        lams=list(lams),
        control_seed=seed,
        validation={task: some.hash for task, some in validation.items()},
        test={task: some.hash for task, some in test.items()},
    )
    return WeightTuning(vector.name, target, aim, lam, curve, judged, told)


def _chosen(curve: pd.DataFrame, base: Mapping[str, float], target: str, aim: str) -> float:
    table = curve.pivot_table(index="lam", columns="task", values="accuracy")
    if aim == "gain":
        return float(table[target].idxmax())  # of equals, the first and smallest
    controls = [task for task in table.columns if task != target]
    if controls:
        least = KEEP * sum(base[task] for task in controls) / len(controls)
        table = table[table[controls].mean(axis=1) >= least]
    if table.empty:
        raise VectorError(
            f"No lambda keeps {KEEP:.0%} of the base's accuracy on {', '.join(controls)}; add "
            "smaller ones to lams, such as 0.05."
        )
    return float(table[target].idxmin())


def _require(
    target: str,
    validation: Mapping[str, PromptSet],
    test: Mapping[str, PromptSet],
    aim: str,
    lams: Sequence[float | int],
) -> None:
    if aim not in AIMS:
        raise VectorError(f'aim is {aim!r}, and a vector is to "gain" or to "forget" a task.')
    if set(validation) != set(test) or target not in validation:
        raise VectorError(
            f"The target {target!r} and its controls need prompts of both kinds; validation has "
            f"{', '.join(validation)} and test has {', '.join(test)}."
        )
    if not lams:
        raise VectorError("There is no lambda to choose from; give lams, such as (0.5, 1.0).")
    for task in validation if aim == "forget" else [target]:  # what lambda is chosen on
        if shared := _rows(validation[task]) & _rows(test[task]):
            raise VectorError(
                f"{len(shared)} prompts of {task!r} stand in validation and in test, so lambda "
                "would be judged on what it is chosen on; draw them from different splits."
            )


def _rows(prompts: PromptSet) -> set[tuple[int, ...]]:
    rows = zip(prompts.clean, prompts.mask, strict=True)
    return {tuple(row[real].tolist()) for row, real in rows}
