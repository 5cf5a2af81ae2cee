"""Does a task vector do its task, and do vectors that are not the task's do as much?

hypothesis = accuracy with the vector of a prompt's own demonstrations set at END of its query alone

A query alone may be ambiguous, and any push may settle it: what a task vector shows is what it does
beyond its controls.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import run
from interp.errors import TaskError, did_you_mean
from interp.models import Model
from interp.plots import site_bars
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.tasks.words import relations
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import Shown, Template, prompts_of, show
from interp.vectors.random_vectors import random_like
from interp.vectors.relation import Pair, Relation, relation
from interp.vectors.task_vectors.task_activations import (
    answered,
    demonstrate,
    dummies,
    mismatched,
    put_in,
    task_activations,
)
from interp.vectors.vector import Vector

CONDITIONS = {
    "baseline": "the query alone",
    "regular": "demonstrations and the query",
    "hypothesis": "the vector of each prompt's own demonstrations",
    "mean_vector": "one vector for all, the mean over the tuning prompts",
    "other_relation": "the vector of demonstrations of another relation",
    "shuffled_labels": "the vector of the same demonstrations with their outputs shuffled",
    "random_vector": "a random vector as long as the prompt's own",
    "other_query": "the hypothesis, scored by the answers to the other queries",
}
"""What stands at END of the query, or before it."""
CONTROLS = ("baseline", "other_relation", "shuffled_labels", "random_vector", "other_query")
"""What the hypothesis has to exceed."""


@dataclass(frozen=True, eq=False)
class TaskEvaluation(Saved, Displayed):
    """How each test prompt was answered, under each of `CONDITIONS`.

    Accuracies are means over queries, each the mean of its prompts, and intervals resample queries.

    Attributes:
        relation: Its name.
        layer: The block whose output was replaced.
        values: 1 where the answer came first, else 0, by condition; of "other_query" the share of
            other queries. "other_relation" is missing where the tokenizer keeps no other relation.
        asked: The query of each prompt.
        provenance: Model, prompts, options, versions.
    """

    relation: str
    layer: int
    values: dict[str, Float[Tensor, " prompts"]] = field(repr=False)
    asked: tuple[str, ...]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.asked)

    @property
    def queries(self) -> int:
        """Different queries among them."""
        return len(set(self.asked))

    def accuracy(self, condition: str) -> float:
        """Share of queries answered. Raises TaskError for an unknown condition."""
        return self._each(condition).mean().item()

    def excess(self, control: str, *, of: str = "hypothesis") -> tuple[float, float, float]:
        """A condition minus a control on the same prompts, and the ends of its 95% interval.

        Raises TaskError for an unknown condition.
        """
        gap = self._each(of) - self._each(control)
        low, high = bootstrap_ci(gap)
        return gap.mean().item(), low.item(), high.item()

    @property
    def not_exceeded(self) -> tuple[str, ...]:
        """Controls that the hypothesis does not exceed: the interval of the difference holds 0."""
        known = [control for control in CONTROLS if control in self.values]
        return tuple(control for control in known if not self.excess(control)[1] > 0)

    @property
    def verdict(self) -> str:
        """In words, whether the hypothesis exceeds its controls."""
        if not self.not_exceeded:
            return "exceeds all controls"
        return f"does not exceed {', '.join(self.not_exceeded)}"

    @property
    def ratio(self) -> float:
        """Hypothesis over regular; NaN where the demonstrations themselves do nothing."""
        regular = self.accuracy("regular")
        return self.accuracy("hypothesis") / regular if regular else math.nan

    def to_frame(self) -> pd.DataFrame:
        """One row a condition.

        Columns: condition, accuracy, ci_low and ci_high (95%, over queries), excess (hypothesis
        minus it, paired) with excess_low and excess_high, control, n (prompts), queries.
        """
        rows = []
        for condition in self.values:
            each = self._each(condition)
            low, high = bootstrap_ci(each)
            gap = self.excess(condition)
            rows.append(
                {
                    "condition": condition,
                    "accuracy": each.mean().item(),
                    "ci_low": low.item(),
                    "ci_high": high.item(),
                    **dict(zip(("excess", "excess_low", "excess_high"), gap, strict=True)),
                    "control": condition in CONTROLS,
                    "n": self.n,
                    "queries": self.queries,
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Accuracy under each condition, with its interval."""
        frame = self.to_frame()
        return site_bars(
            frame["accuracy"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=[name.replace("_", " ") for name in frame["condition"]],
            title=f"{self.provenance['model']}: {self.relation} by its task vector, set at END of "
            f"layer {self.layer} ({self.n} prompts of {self.queries} queries)",
            across="accuracy",
            hover=[
                f"{CONDITIONS[name]}: {value:.2f}"
                for name, value in zip(frame["condition"], frame["accuracy"], strict=True)
            ],
        )

    def _each(self, condition: str) -> Float[Tensor, " queries"]:
        if condition not in self.values:
            raise TaskError(
                f"There is no condition {condition!r}: {did_you_mean(condition, self.values)}"
            )
        return by_query(self.values[condition], self.asked)

    def __repr__(self) -> str:
        told = ", ".join(f"{name} {self.accuracy(name):.2f}" for name in self.values)
        return (
            f"TaskEvaluation({self.relation}, layer {self.layer}: {told}; {self.verdict}; n = "
            f"{self.n} prompts of {self.queries} queries)"
        )


def evaluate(
    model: Model,
    pairs: Relation,
    vector: Vector,
    *,
    shots: int,
    queries: int,
    template: Template,
    n: int,
    seed: int,
) -> TaskEvaluation:
    """Answer the test queries under each of `CONDITIONS`; see `TaskVector.evaluate`.

    Raises VectorError for another model, TaskError for too few pairs.
    """
    vector.require(model)
    (layer, mean), *_ = vector.layers.items()
    shown = show(pairs, n, shots=shots, split="test", seed=seed)
    prompts = prompts_of(model, [each.alone for each in shown], template=template, task=pairs.name)
    dummy = dummies(pairs, shown, queries=queries, seed=seed)
    own = task_activations(model, dummy, template=template)[layer]
    vectors = {"hypothesis": own, "mean_vector": mean}
    others = other_relations(model, [pairs])
    if others:
        asked = [each.query for each in shown]
        foreign = in_turn(others, asked, shots=shots, queries=queries, seed=seed)
        vectors["other_relation"] = task_activations(model, foreign, template=template)[layer]
    rng = random.Random(f"{pairs.name} shuffled {seed}")
    turned = [
        [each.asking(other.query) for other in row]
        for each, row in zip((one.shuffled(rng) for one in shown), dummy, strict=True)
    ]
    vectors["shuffled_labels"] = task_activations(model, turned, template=template)[layer]
    vectors["random_vector"] = random_like(own, seed=seed)
    edits = {name: put_in(prompts, layer, each) for name, each in vectors.items()}
    found = run(
        model,
        prompts,
        list(edits.values()),
        metric="accuracy",
        method="task vector",
        progress=False,
    )
    regular = answered(model, prompts_of(model, shown, template=template))
    values = {"baseline": found.clean, "regular": regular}
    values |= dict(zip(vectors, found.values, strict=True))
    inputs = [each.query[0] for each in shown]
    values["other_query"] = mismatched(model, prompts, edits["hypothesis"], inputs)
    return TaskEvaluation(
        relation=pairs.name,
        layer=layer,
        values=values,
        asked=tuple(inputs),
        provenance=provenance(
            model,
            prompts,
            method="task vector, evaluated",
            relation=pairs.name,
            layer=layer,
            shots=shots,
            queries=queries,
            template=asdict(template),
            others=[each.name for each in others],
            test_seed=seed,
        ),
    )


def other_relations(model: Model, but: list[Relation]) -> list[Relation]:
    """The relations that this tokenizer keeps, but for these: what controls are drawn from."""
    found = []
    for name in relations():
        try:
            found.append(relation(model, name))
        except TaskError:
            continue  # too few of its words are single tokens
    return [each for each in found if each.name not in {one.name for one in but}]


def in_turn(
    others: Sequence[Relation], asked: Sequence[Pair], *, shots: int, queries: int, seed: int
) -> list[list[Shown]]:
    """Dummy prompts for these queries from other relations, which take turns."""
    found: dict[int, list[Shown]] = {}
    for turn, other in enumerate(others):
        rows = range(turn, len(asked), len(others))
        shown = demonstrate(other, [asked[row] for row in rows], shots=shots, seed=seed)
        found |= zip(rows, dummies(other, shown, queries=queries, seed=seed), strict=True)
    return [found[row] for row in range(len(asked))]
