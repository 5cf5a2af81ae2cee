"""In-context task vectors: demonstrations pressed into one state that does the task (Hendel et al.
2023, "In-Context Learning Creates Task Vectors").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import run
from interp.errors import VectorError
from interp.models import Model
from interp.plots import DIVERGING, MISSING
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.tasks import Task
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import QA, Template, prompts_of, show
from interp.vectors.relation import Pair, Relation
from interp.vectors.relation import relation as relation_of
from interp.vectors.task_vectors.task_activations import (
    answered,
    dummies,
    dummy_answers,
    put_in,
    task_activations,
)
from interp.vectors.task_vectors.task_evaluation import TaskEvaluation, evaluate
from interp.vectors.vector import Vector


@dataclass(frozen=True, eq=False)
class TaskVector(Saved, Displayed):
    """What stands for a task at the separator, and at which layer it does the task best.

    Attributes:
        relation: Its pairs.
        layer: The block whose output is replaced.
        dev: Whether each tuning prompt was answered, with the vector put in at each layer.
        dummy: Whether it was given the answer of one of its dummy queries instead.
        baseline: The same without any vector.
        regular: The same with the demonstrations themselves.
        asked: The query of each tuning prompt.
        vectors: Those of the tuning prompts' demonstrations, at every layer.
        shots: Demonstrations that each was made of.
        queries: Dummy queries that each is the mean over.
        template: How prompts are written.
        provenance: Model, prompts, options, versions.
    """

    relation: Relation
    layer: int
    dev: Float[Tensor, "layer prompts"]
    dummy: Float[Tensor, "layer prompts"]
    baseline: Float[Tensor, " prompts"]
    regular: Float[Tensor, " prompts"]
    asked: tuple[str, ...]
    vectors: Float[Tensor, "layer prompts d_model"] = field(repr=False)
    shots: int
    queries: int
    template: Template
    provenance: dict[str, Any] = field(repr=False)

    @property
    def vector(self) -> Vector:
        """The mean of all at the chosen layer; it is set at END."""
        mean = self.vectors[self.layer].double().mean(dim=0).to(self.vectors)
        return Vector({self.layer: mean}, "set", "task", self.provenance)

    @property
    def accuracy(self) -> Float[Tensor, " layer"]:
        """Share of tuning queries answered with the vector at each layer."""
        return by_query(self.dev, self.asked).mean(dim=-1)

    def apply(self, model: Model, prompts: PromptSet) -> Float[Tensor, "prompts vocab"]:
        """The logits after each prompt with the mean vector in it.

        Raises VectorError for another model.
        """
        return self.vector.logits(model, prompts)

    def evaluate(self, model: Model, *, n: int = 50, seed: int = 0) -> TaskEvaluation:
        """How well it does the task on queries that nothing was chosen on, beside its controls.

        Args:
            model: The one that it was made with.
            n: Prompts; each takes the vector of its own demonstrations.
            seed: Of the demonstrations, the dummy queries and the random vectors.

        Raises VectorError for another model.
        """
        return evaluate(
            model,
            self.relation,
            self.vector,
            shots=self.shots,
            queries=self.queries,
            template=self.template,
            n=n,
            seed=seed,
        )

    def decode(self, model: Model, k: int = 10) -> pd.DataFrame:
        """What the mean vector says on its own, through final norm and unembedding.

        Columns: layer, rank, token, prob, is_output (of the relation).
        """
        frame = self.vector.decode(model, k)
        outputs = {y for _, y in self.relation.pairs}
        return frame.assign(is_output=frame["token"].str.strip().isin(outputs))

    def to_frame(self) -> pd.DataFrame:
        """One row a layer.

        Columns: layer, accuracy on tuning queries, ci_low and ci_high (95%, over queries), dummy
        (share answered as a dummy query would be: the vector holds a query rather than the task),
        chosen, baseline, regular, n (prompts), queries.
        """
        each = by_query(self.dev, self.asked)
        low, high = bootstrap_ci(each)
        return pd.DataFrame(
            {
                "layer": range(len(each)),
                "accuracy": each.mean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "dummy": by_query(self.dummy, self.asked).mean(dim=-1).tolist(),
                "chosen": [layer == self.layer for layer in range(len(each))],
                "baseline": by_query(self.baseline, self.asked).mean().item(),
                "regular": by_query(self.regular, self.asked).mean().item(),
                "n": self.dev.shape[1],
                "queries": each.shape[1],
            }
        )

    def plot(self) -> go.Figure:
        """Accuracy by layer; the dotted lines are no demonstrations, and demonstrations."""
        frame = self.to_frame()
        figure = go.Figure()
        figure.add_scatter(
            x=frame["layer"],
            y=frame["accuracy"],
            error_y={
                "type": "data",
                "array": frame["ci_high"] - frame["accuracy"],
                "arrayminus": frame["accuracy"] - frame["ci_low"],
                "thickness": 1,
            },
            marker={
                "color": DIVERGING[-2],
                "size": [12 if each else 6 for each in frame["chosen"]],
            },
            name="task vector",
        )
        figure.add_scatter(
            x=frame["layer"],
            y=frame["dummy"],
            marker_color=DIVERGING[1],
            name="answered as a dummy query",
        )
        for name in ("baseline", "regular"):
            figure.add_hline(
                y=frame[name][0],
                line={"color": MISSING, "dash": "dot"},
                annotation_text=name,
            )
        figure.update_layout(
            title=f"{self.provenance['model']}: {self.relation.name} by the vector of its "
            f"demonstrations (tuning queries, n = {len(self.asked)})",
            template="plotly_white",
        )
        figure.update_xaxes(title_text="layer whose output is replaced", dtick=1)
        figure.update_yaxes(title_text="accuracy", range=[-0.02, 1.05])
        return figure

    def __repr__(self) -> str:
        frame = self.to_frame()
        return (
            f"TaskVector({self.relation.name}, {self.shots} shots: set at END of layer "
            f"{self.layer}; on tuning queries {frame['accuracy'][self.layer]:.2f} (and "
            f"{frame['dummy'][self.layer]:.2f} as a dummy query), without "
            f"{frame['baseline'][0]:.2f}, with demonstrations {frame['regular'][0]:.2f}; n = "
            f"{len(self.asked)} prompts of {frame['queries'][0]} queries, "
            f"{self.provenance['model']})"
        )


def task_vector(
    model: Model,
    relation: str | Path | Task | Relation | Sequence[Pair],
    *,
    shots: int = 5,
    queries: int = 2,
    n_dev: int = 50,
    template: Template = QA,
    layer: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> TaskVector:
    """Take a task's vectors from demonstrations, and find the layer at which they do the task.

    For each tuning prompt, its demonstrations are run before dummy queries other than its own; what
    each block gives at the separator, averaged over them, replaces what the block gives there when
    the query stands alone. The layer is the one with the highest accuracy, the first of equals.
    The vectors of different prompts come from different demonstrations, and none has seen its
    query. Test queries are not touched.

    The models of the source have rotary positions. With learned ones the state also brings the
    position at which it was taken, which is farther back than the one where it is put in.

    Args:
        model: What `interp.load` returns.
        relation: As `interp.vectors.relation.relation` takes it.
        shots: Demonstrations in a prompt.
        queries: Dummy queries that a vector is the mean over.
        n_dev: Tuning prompts.
        template: How prompts are written; `ARROW` is that of the source.
        layer: Take this one and choose none.
        seed: Of demonstrations and dummy queries.
        progress: Show a bar.

    Raises:
        TaskError: No such relation, or too few pairs.
        VectorError: A layer that the model does not have, or no tuning prompts.
        PromptError: Prompts too long for the model.
    """
    if layer is not None and not 0 <= layer < model.geometry.n_layers:
        raise VectorError(
            f"layer is {layer}, and {model.id} has layers 0 to {model.geometry.n_layers - 1}."
        )
    if n_dev < 1:
        raise VectorError(f"n_dev is {n_dev}; give at least one tuning prompt, such as 50.")
    pairs = relation_of(model, relation)
    shown = show(pairs, n_dev, shots=shots, split="dev", seed=seed)
    dummy = dummies(pairs, shown, queries=queries, seed=seed)
    found = task_activations(model, dummy, template=template)
    prompts = prompts_of(model, [each.alone for each in shown], template=template, task=pairs.name)
    sweep = partial(
        run,
        model,
        interventions=[put_in(prompts, at, vectors) for at, vectors in enumerate(found)],
        metric="accuracy",
        method="task vector",
        progress=progress,
    )
    swept = sweep(prompts)
    asked = tuple(each.query[0] for each in shown)
    scores = by_query(swept.values, asked).mean(dim=-1).tolist()
    chosen = scores.index(max(scores)) if layer is None else layer
    return TaskVector(
        relation=pairs,
        layer=chosen,
        dev=swept.values,
        dummy=sweep(dummy_answers(model, prompts, dummy, template=template)).values,
        baseline=swept.clean,
        regular=answered(model, prompts_of(model, shown, template=template)),
        asked=asked,
        vectors=found,
        shots=shots,
        queries=queries,
        template=template,
        provenance=provenance(
            model,
            prompts,
            method="task vector",
            relation=pairs.name,
            layer=chosen,
            chosen="on tuning queries" if layer is None else "by the caller",
            shots=shots,
            queries=queries,
            template=asdict(template),
            vector_seed=seed,
        ),
    )
