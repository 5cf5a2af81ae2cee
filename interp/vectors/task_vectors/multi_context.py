"""Does a vector get better as the mean over more sets of demonstrations?

v(m) = mean of the task vectors of S_1, ..., S_m, each with dummy queries of its own
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import run
from interp.errors import VectorError
from interp.models import Model
from interp.plots import DIVERGING, MISSING
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.tasks import Task
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import QA, Template, prompts_of, show
from interp.vectors.relation import Pair, Relation
from interp.vectors.task_vectors.task_activations import (
    answered,
    demonstrate,
    dummies,
    put_in,
    task_activations,
)
from interp.vectors.task_vectors.task_evaluation import in_turn, other_relations
from interp.vectors.task_vectors.task_vector import task_vector

SIZES = (1, 2, 4, 8)
COLORS = {"task": DIVERGING[-2], "other relations": DIVERGING[1]}


@dataclass(frozen=True, eq=False)
class MultiContext(Saved, Displayed):
    """Whether test prompts were answered with the mean vector of more and more contexts.

    Attributes:
        relation: Its name.
        layer: Chosen with one context, on tuning queries.
        sizes: Numbers of contexts.
        values: 1 where the answer came first, else 0: with the task's contexts ("task"), and with
            as many of other relations, one relation a prompt ("other relations").
        baseline: The same without a vector.
        regular: The same with one context before the query.
        asked: The query of each prompt.
        provenance: Model, prompts, options, versions.
    """

    relation: str
    layer: int
    sizes: tuple[int, ...]
    values: dict[str, Float[Tensor, "sizes prompts"]] = field(repr=False)
    baseline: Float[Tensor, " prompts"]
    regular: Float[Tensor, " prompts"]
    asked: tuple[str, ...]
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row for each number of contexts and source of vectors.

        Columns: vectors, contexts, accuracy, ci_low and ci_high (95%, over queries), gain (over one
        context, paired) with gain_low and gain_high, baseline, regular, n (prompts), queries.
        """
        rows = []
        for name, values in self.values.items():
            each = by_query(values, self.asked)
            gains = each - each[0]
            ends, gain_ends = bootstrap_ci(each), bootstrap_ci(gains)
            for i, size in enumerate(self.sizes):
                rows.append(
                    {
                        "vectors": name,
                        "contexts": size,
                        "accuracy": each[i].mean().item(),
                        "ci_low": ends[0][i].item(),
                        "ci_high": ends[1][i].item(),
                        "gain": gains[i].mean().item(),
                        "gain_low": gain_ends[0][i].item(),
                        "gain_high": gain_ends[1][i].item(),
                        "baseline": by_query(self.baseline, self.asked).mean().item(),
                        "regular": by_query(self.regular, self.asked).mean().item(),
                        "n": len(self.asked),
                        "queries": each.shape[1],
                    }
                )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Accuracy against the number of contexts, with intervals."""
        frame = self.to_frame()
        figure = go.Figure()
        for name, some in frame.groupby("vectors", sort=False):
            figure.add_scatter(
                x=some["contexts"],
                y=some["accuracy"],
                error_y={
                    "type": "data",
                    "array": some["ci_high"] - some["accuracy"],
                    "arrayminus": some["accuracy"] - some["ci_low"],
                    "thickness": 1,
                },
                name=name,
                marker_color=COLORS[name],
            )
        for name in ("baseline", "regular"):
            figure.add_hline(
                y=frame[name][0], line={"color": MISSING, "dash": "dot"}, annotation_text=name
            )
        figure.update_layout(
            title=f"{self.provenance['model']}: {self.relation} by the mean vector of several "
            f"contexts, layer {self.layer}",
            template="plotly_white",
        )
        figure.update_xaxes(title_text="contexts", type="log", tickvals=self.sizes)
        figure.update_yaxes(title_text="accuracy on test queries", range=[-0.02, 1.05])
        return figure

    def __repr__(self) -> str:
        each = by_query(self.values["task"], self.asked).mean(dim=-1).tolist()
        told = ", ".join(f"{m}: {value:.2f}" for m, value in zip(self.sizes, each, strict=True))
        return (
            f"MultiContext({self.relation}, layer {self.layer}; accuracy by contexts {told}; n = "
            f"{len(self.asked)} prompts of {len(set(self.asked))} queries, "
            f"{self.provenance['model']})"
        )


def multi_context(
    model: Model,
    relation: str | Path | Task | Relation | Sequence[Pair],
    *,
    sizes: Sequence[int] = SIZES,
    shots: int = 5,
    queries: int = 2,
    n: int = 50,
    n_dev: int = 50,
    template: Template = QA,
    seed: int = 0,
    progress: bool = True,
) -> MultiContext:
    """Accuracy with the mean vector of several contexts set at END of each test query alone.

    Each prompt has contexts of its own; more contexts contain the fewer.

    Args:
        model: What `interp.load` returns.
        relation: As `interp.vectors.relation.relation` takes it.
        sizes: Numbers of contexts.
        n: Test prompts.
        shots, queries, n_dev, template, seed, progress: As in `task_vector`.

    Raises:
        TaskError: No such relation, or too few pairs.
        VectorError: Sizes below 1, or none.
        PromptError: Prompts too long for the model.
    """
    if not sizes or min(sizes) < 1:
        raise VectorError(f"sizes is {list(sizes)}; give numbers of contexts from 1 on.")
    options: dict[str, Any] = {"shots": shots, "queries": queries}
    found = task_vector(
        model,
        relation,
        n_dev=n_dev,
        template=template,
        seed=seed,
        progress=progress,
        **options,
    )
    pairs, layer = found.relation, found.layer
    shown = show(pairs, n, shots=shots, split="test", seed=seed)
    asked = [each.query for each in shown]
    others = other_relations(model, [pairs])
    contexts: dict[str, list[Tensor]] = {"task": [], "other relations": []}
    for draw in range(max(sizes)):
        own = shown if draw == 0 else demonstrate(pairs, asked, shots=shots, seed=seed + draw)
        dummy = {"task": dummies(pairs, own, queries=queries, seed=seed + draw)}
        if others:
            dummy["other relations"] = in_turn(others, asked, seed=seed + draw, **options)
        for name, rows in dummy.items():
            contexts[name].append(task_activations(model, rows, template=template)[layer])
    prompts = prompts_of(model, [each.alone for each in shown], template=template, task=pairs.name)
    values = {}
    for name, some in contexts.items():
        if some:
            edits = [put_in(prompts, layer, torch.stack(some[:size]).mean(dim=0)) for size in sizes]
            swept = run(model, prompts, edits, metric="accuracy", progress=False)
            values[name] = swept.values
    return MultiContext(
        relation=pairs.name,
        layer=layer,
        sizes=tuple(sizes),
        values=values,
        baseline=swept.clean,
        regular=answered(model, prompts_of(model, shown, template=template)),
        asked=tuple(x for x, _ in asked),
        provenance=provenance(
            model,
            prompts,
            method="task vectors of several contexts",
            relation=pairs.name,
            layer=layer,
            sizes=list(sizes),
            n_dev=n_dev,
            template=asdict(template),
            test_seed=seed,
            **options,
        ),
    )
