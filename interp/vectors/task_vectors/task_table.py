"""Task vectors of many relations side by side, as in table 1 and figure 4 of Hendel et al. 2023."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed, as_html
from interp.errors import TaskError
from interp.models import Model
from interp.plots import DIVERGING, MISSING
from interp.progress import track
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.demonstrations import QA, Template
from interp.vectors.relation import Relation, relation
from interp.vectors.task_vectors.task_evaluation import CONDITIONS, TaskEvaluation, other_relations
from interp.vectors.task_vectors.task_vector import TaskVector, task_vector

SHOWN = ("baseline", "hypothesis", "regular")
COLORS = dict(zip((*SHOWN, "best control"), (MISSING, *DIVERGING[-2:], DIVERGING[3]), strict=True))


@dataclass(frozen=True, eq=False)
class TaskTable(Saved, Displayed):
    """How well task vectors do, relation by relation.

    Attributes:
        vectors: Of every relation.
        evaluations: Of those, on test queries.
        provenance: Model, options, versions.
    """

    vectors: tuple[TaskVector, ...] = field(repr=False)
    evaluations: tuple[TaskEvaluation, ...]
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row a relation.

        Columns: relation, layer; for each of `CONDITIONS` its accuracy on test queries, and the
        ends of its interval as `_low` and `_high` (95%, over queries); excess (hypothesis minus the
        control that it exceeds least, paired) with its ends, dummy (share of tuning prompts that
        were answered as a dummy query would be), ratio (hypothesis over regular), verdict, n
        (prompts), queries.
        """
        return pd.DataFrame(
            [_row(*each) for each in zip(self.vectors, self.evaluations, strict=True)]
        )

    def summary(self) -> pd.DataFrame:
        """One row a condition, over relations: accuracy, ci_low and ci_high (95%), relations.

        The interval resamples relations.
        """
        rows = []
        for condition in CONDITIONS:
            each = self._accuracies(condition)
            if len(each) == 0:
                continue
            low, high = bootstrap_ci(each)
            rows.append(
                {
                    "condition": condition,
                    "accuracy": each.mean().item(),
                    "ci_low": low.item(),
                    "ci_high": high.item(),
                    "relations": len(each),
                }
            )
        return pd.DataFrame(rows)

    @property
    def ratio(self) -> float:
        """Mean hypothesis over mean regular: 0.83 to 0.91 in the models of the source."""
        return (self._accuracies("hypothesis").mean() / self._accuracies("regular").mean()).item()

    @property
    def verdict(self) -> str:
        """For how many relations the vector exceeds all its controls, and for which."""
        fine = [each.relation for each in self.evaluations if not each.not_exceeded]
        named = f": {', '.join(fine)}" if fine else ""
        return f"exceeds all controls in {len(fine)} of {len(self.evaluations)} relations{named}"

    def plot(self) -> go.Figure:
        """Baseline, hypothesis, regular and the best control of each relation, with intervals."""
        frame = self.to_frame()
        figure = go.Figure()
        for name in SHOWN:
            figure.add_bar(
                x=frame["relation"],
                y=frame[name],
                error_y={
                    "type": "data",
                    "array": frame[f"{name}_high"] - frame[name],
                    "arrayminus": frame[name] - frame[f"{name}_low"],
                    "thickness": 1,
                },
                name=name,
                marker_color=COLORS[name],
            )
        figure.add_scatter(
            x=frame["relation"],
            y=frame["hypothesis"] - frame["excess"],
            mode="markers",
            marker={"symbol": "diamond", "size": 8, "color": COLORS["best control"]},
            name="control exceeded least",
        )
        figure.update_layout(
            title=f"Task vectors of {self.provenance['model']}: {self.verdict}",
            template="plotly_white",
            barmode="group",
        )
        figure.update_yaxes(title_text="accuracy on test queries", range=[0, 1.05])
        return figure

    def _accuracies(self, condition: str) -> Float[Tensor, " relations"]:
        return torch.tensor(
            [each.accuracy(condition) for each in self.evaluations if condition in each.values]
        )

    def __repr__(self) -> str:
        told = ", ".join(
            f"{row.condition} {row.accuracy:.2f}" for row in self.summary().itertuples()
        )
        return (
            f"TaskTable({self.provenance['model']}: {told}; ratio {self.ratio:.2f}; {self.verdict})"
        )

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        ends = [name for name in frame if name.endswith(("_low", "_high"))]
        return as_html(self, frame.drop(columns=ends))


def task_table(
    model: Model,
    relations: Sequence[str | Relation] | None = None,
    *,
    shots: int = 5,
    queries: int = 2,
    n: int = 50,
    n_dev: int = 50,
    template: Template = QA,
    seed: int = 0,
    progress: bool = True,
) -> TaskTable:
    """Find and judge the task vector of every relation.

    Args:
        model: What `interp.load` returns; `model.untrained()` is a control.
        relations: Names or `Relation`s; by default all that the tokenizer keeps.
        n: Test prompts.
        progress: Show a bar.
        shots, queries, n_dev, template, seed: As in `task_vector`.

    Raises:
        TaskError: No relation that the tokenizer keeps, or one with too few pairs.
        PromptError: Prompts too long for the model.
    """
    known = kept(model, relations)
    options: dict[str, Any] = {"shots": shots, "queries": queries, "n_dev": n_dev, "seed": seed}
    vectors, evaluations = [], []
    for each in track(known, "Task vectors", shown=progress):
        found = task_vector(model, each, template=template, progress=False, **options)
        vectors.append(found)
        evaluations.append(found.evaluate(model, n=n, seed=seed))
    return TaskTable(
        vectors=tuple(vectors),
        evaluations=tuple(evaluations),
        provenance=provenance(
            model,
            method="task vectors",
            relations=[each.name for each in known],
            n=n,
            template=asdict(template),
            **options,
        ),
    )


def kept(model: Model, relations: Iterable[str | Relation] | None) -> list[Relation]:
    """These relations, or all that the tokenizer keeps. Raises TaskError if there are none."""
    if relations is None:
        found = other_relations(model, [])
    else:
        found = [relation(model, each) for each in relations]
    if not found:
        raise TaskError(
            f"{model.id} has no relation whose words are single tokens; pass relations of its own."
        )
    return found


def _row(vector: TaskVector, evaluation: TaskEvaluation) -> dict[str, Any]:
    frame = evaluation.to_frame().set_index("condition")
    row: dict[str, Any] = {"relation": evaluation.relation, "layer": evaluation.layer}
    for name, each in frame.iterrows():
        row |= {
            name: each["accuracy"],
            f"{name}_low": each["ci_low"],
            f"{name}_high": each["ci_high"],
        }
    controls = frame[frame["control"]]
    least = controls.loc[controls["excess"].idxmin()]
    row |= {end: least[end] for end in ("excess", "excess_low", "excess_high")}
    return row | {
        "dummy": vector.to_frame()["dummy"][vector.layer],
        "ratio": evaluation.ratio,
        "verdict": evaluation.verdict,
        "n": evaluation.n,
        "queries": evaluation.queries,
    }
