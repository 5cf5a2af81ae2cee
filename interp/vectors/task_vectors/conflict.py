"""Demonstrations against a vector: which task is done where they disagree?

The prompt demonstrates task A; at END the vector of task B is set. Each answer is scored under A
and under B (Hendel et al. 2023, section 5.2: next -> upper .10 under A and .77 under B).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import run
from interp.errors import TaskError, VectorError
from interp.models import Model
from interp.plots import SEQUENTIAL
from interp.progress import track
from interp.provenance import provenance
from interp.saved import Saved, register
from interp.stats import bootstrap_ci
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import QA, Template, prompts_of
from interp.vectors.random_vectors import random_like
from interp.vectors.relation import Pair, Relation
from interp.vectors.task_vectors.task_activations import (
    demonstrate,
    dummies,
    mismatched,
    put_in,
    task_activations,
)
from interp.vectors.task_vectors.task_evaluation import in_turn
from interp.vectors.task_vectors.task_table import kept
from interp.vectors.task_vectors.task_vector import task_vector

CONDITIONS = ("clean", "vector", "own", "third", "random", "other_query")
"""What is set at END: nothing, B's vector, A's own from other demonstrations, one of a relation
that is neither A nor B, a random vector with the norm of B's; or B's vector, scored by the answers
to other queries, which it meets by chance where outputs are few."""


@register
@dataclass(frozen=True, eq=False)
class PairConflict:
    """Prompts of one relation with the vector of another.

    Attributes:
        shown: A, which is demonstrated.
        put_in: B, whose vector is set.
        layer: The one chosen for B on its tuning queries.
        under_shown: 1 where A's answer came first, else 0, by condition: see `CONDITIONS`.
        under_put_in: The same for B's answer.
        asked: The query of each prompt: an input of both relations.
    """

    shown: str
    put_in: str
    layer: int
    under_shown: dict[str, Float[Tensor, " prompts"]] = field(repr=False)
    under_put_in: dict[str, Float[Tensor, " prompts"]] = field(repr=False)
    asked: tuple[str, ...]

    def accuracy(self, under: str, condition: str) -> tuple[float, float, float]:
        """Mean over queries, and the ends of its 95% interval; `under` is "shown" or "put_in"."""
        return _interval(by_query(getattr(self, f"under_{under}")[condition], self.asked))

    @property
    def excess(self) -> tuple[float, float, float]:
        """B's answers with B's vector minus those with its best control, and the interval.

        That control is the one of the other `CONDITIONS` with the highest mean.
        """
        each = {name: by_query(it, self.asked) for name, it in self.under_put_in.items()}
        rest = [each[name] for name in each if name != "vector"]
        return _interval(each["vector"] - max(rest, key=lambda one: one.mean().item()))

    @property
    def verdict(self) -> str:
        """Which task is done: "vector" if B's is, beyond A's and beyond every control."""
        gap = self.under_put_in["vector"] - self.under_shown["vector"]
        _, low, high = _interval(by_query(gap, self.asked))
        if low > 0 and self.excess[1] > 0:
            return "vector"
        return "demonstrations" if high < 0 else "neither"


@dataclass(frozen=True, eq=False)
class Conflict(Saved, Displayed):
    """Every ordered pair of relations that share inputs.

    Attributes:
        pairs: What was measured.
        skipped: Pairs of relations that share inputs, and why they were not measured.
        provenance: Model, options, versions.
    """

    pairs: tuple[PairConflict, ...]
    skipped: dict[tuple[str, str], str]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def relations(self) -> list[str]:
        """Those in any pair."""
        return sorted({name for pair in self.pairs for name in (pair.shown, pair.put_in)})

    def matrix(self, under: str = "put_in", condition: str = "vector") -> pd.DataFrame:
        """Accuracy by demonstrated relation (rows) and that of the vector (columns).

        NaN where two relations share no inputs. `under` is "shown" or "put_in", `condition` one of
        `CONDITIONS`.
        """
        names = self.relations
        found = pd.DataFrame(float("nan"), index=names, columns=names)
        for pair in self.pairs:
            found.loc[pair.shown, pair.put_in] = pair.accuracy(under, condition)[0]
        return found

    def to_frame(self) -> pd.DataFrame:
        """One row an ordered pair.

        Columns: shown (A), put_in (B), layer; for each condition its accuracy under_shown (A's
        answers) and under_put_in (B's), those of the vector with `_low` and `_high` (95%, over
        queries); excess (B's answers with its vector minus those with the best control, paired)
        with its ends, verdict, n (prompts), queries.
        """
        return pd.DataFrame([_row(pair) for pair in self.pairs])

    def plot(self) -> go.Figure:
        """Heatmap of B's answers with B's vector in A's prompts; hover tells the rest."""
        matrix, names = self.matrix(), self.relations
        hover = [["no shared inputs"] * len(names) for _ in names]
        for row in self.to_frame().itertuples():
            hover[names.index(row.shown)][names.index(row.put_in)] = (
                f"{row.shown} shown, {row.put_in} put in at layer {row.layer}<br>"
                f"under {row.put_in} {row.under_put_in_vector:.2f} (without the vector "
                f"{row.under_put_in_clean:.2f}, random {row.under_put_in_random:.2f}, third "
                f"{row.under_put_in_third:.2f})<br>under {row.shown} {row.under_shown_vector:.2f} "
                f"(without {row.under_shown_clean:.2f})<br>{row.n} prompts of {row.queries} queries"
            )
        heatmap = go.Heatmap(
            z=matrix.to_numpy(),
            x=names,
            y=names,
            zmin=0,
            zmax=1,
            colorscale=[[i / (len(SEQUENTIAL) - 1), color] for i, color in enumerate(SEQUENTIAL)],
            colorbar={"title": {"text": "share answered as the vector's task", "side": "right"}},
            hovertext=hover,
            hoverinfo="text",
            hoverongaps=False,
        )
        figure = go.Figure(heatmap)
        figure.update_layout(
            title=f"Demonstrations against task vectors in {self.provenance['model']}",
            template="plotly_white",
        )
        figure.update_xaxes(title_text="vector put in", type="category")
        figure.update_yaxes(title_text="demonstrated", type="category", autorange="reversed")
        return figure

    def __repr__(self) -> str:
        told = [pair.verdict for pair in self.pairs]
        return (
            f"Conflict({self.provenance['model']}, {len(told)} ordered pairs: the vector decides "
            f"in {told.count('vector')}, the demonstrations in {told.count('demonstrations')}, "
            f"neither in {told.count('neither')}; {len(self.skipped)} pairs skipped)"
        )


def conflict(
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
) -> Conflict:
    """Set the vector of each relation in prompts of each other one that takes the same inputs.

    Only pairs that share inputs are scored, as in the source: the query is an input of both, with
    different outputs, and not one of those that B's layer was chosen on. It is neither demonstrated
    nor a dummy query, in A's prompt and in B's vector. Each prompt has the vector of demonstrations
    of its own.

    Args:
        model: What `interp.load` returns.
        relations: Names or `Relation`s; by default all that the tokenizer keeps.
        n: Prompts for each pair; queries come again where there are fewer.
        progress: Show a bar.
        shots, queries, n_dev, template, seed: As in `task_vector`.

    Raises:
        TaskError: Relations that the tokenizer does not keep, no two that share inputs, or too few
            pairs.
        VectorError: No prompts.
        PromptError: Prompts too long for the model.
    """
    if n < 1:
        raise VectorError(f"n is {n}; give at least one prompt for each pair, such as 50.")
    known = kept(model, relations)
    sharing = [(a, b) for a in known for b in known if a is not b and _inputs(a) & _inputs(b)]
    if not sharing:
        raise TaskError(
            f"No two of {', '.join(each.name for each in known)} take the same inputs; name "
            "relations such as 'gerund' and 'past'."
        )
    options: dict[str, Any] = {"shots": shots, "queries": queries, "seed": seed}
    layers: dict[str, int] = {}
    found, skipped = [], {}
    for shown, other in track(sharing, "Conflicting tasks", shown=progress):
        asked = _contested(shown, other)
        if not asked:
            skipped[shown.name, other.name] = (
                "all shared inputs have the same output, or the layer was chosen on them"
            )
            continue
        random.Random(f"{shown.name} {other.name} {seed}").shuffle(asked)
        asked = [asked[i % len(asked)] for i in range(n)]
        if other.name not in layers:
            tuned = task_vector(
                model, other, n_dev=n_dev, template=template, progress=False, **options
            )
            layers[other.name] = tuned.layer
        third = [each for each in known if each not in (shown, other)]
        found.append(
            _measure(model, shown, other, third, asked, layers[other.name], template, **options)
        )
    if not found:
        raise TaskError("No query is contested: relations that share inputs agree on all of them.")
    return Conflict(
        pairs=tuple(found),
        skipped=skipped,
        provenance=provenance(
            model,
            method="conflicting tasks",
            relations=[each.name for each in known],
            n=n,
            n_dev=n_dev,
            template=asdict(template),
            **options,
        ),
    )


def _inputs(relation: Relation) -> set[str]:
    return {x for x, _ in relation.pairs}


def _contested(shown: Relation, other: Relation) -> list[tuple[Pair, Pair]]:
    """Inputs of both, with the answer of each, which differ; not those that B was tuned on."""
    tuned = {x for x, _ in other.dev}
    answers = {x: y for x, y in other.pairs if x not in tuned}
    return [((x, y), (x, answers[x])) for x, y in shown.pairs if x in answers and answers[x] != y]


def _measure(
    model: Model,
    shown: Relation,
    other: Relation,
    third: Sequence[Relation],
    asked: Sequence[tuple[Pair, Pair]],
    layer: int,
    template: Template,
    *,
    shots: int,
    queries: int,
    seed: int,
) -> PairConflict:
    ours, theirs = [one for one, _ in asked], [two for _, two in asked]

    def vectors_of(some: Relation, draw: int) -> Float[Tensor, "prompts d_model"]:
        contexts = demonstrate(some, theirs, shots=shots, seed=seed + draw)
        dummy = dummies(some, contexts, queries=queries, seed=seed + draw)
        return task_activations(model, dummy, template=template)[layer]

    vectors = {"vector": vectors_of(other, 0), "own": vectors_of(shown, 1)}
    if third:
        dummy = in_turn(third, ours, shots=shots, queries=queries, seed=seed)
        vectors["third"] = task_activations(model, dummy, template=template)[layer]
    vectors["random"] = random_like(vectors["vector"], seed=seed)
    prompts = prompts_of(model, demonstrate(shown, ours, shots=shots, seed=seed), template=template)
    answers = prompts_of(
        model, demonstrate(shown, theirs, shots=shots, seed=seed), template=template
    )
    inputs = tuple(x for x, _ in ours)
    edits = [put_in(prompts, layer, each) for each in vectors.values()]

    def scored(answer: Tensor) -> dict[str, Float[Tensor, " prompts"]]:
        told = replace(prompts, answer=answer)
        found = run(model, told, edits, metric="accuracy", progress=False)
        values = {"clean": found.clean, **dict(zip(vectors, found.values, strict=True))}
        return values | {"other_query": mismatched(model, told, edits[0], inputs)}

    return PairConflict(
        shown=shown.name,
        put_in=other.name,
        layer=layer,
        under_shown=scored(prompts.answer),
        under_put_in=scored(answers.answer),
        asked=inputs,
    )


def _row(pair: PairConflict) -> dict[str, Any]:
    row: dict[str, Any] = {"shown": pair.shown, "put_in": pair.put_in, "layer": pair.layer}
    for condition in CONDITIONS:
        for under in ("shown", "put_in"):
            if condition not in pair.under_shown:
                row[f"under_{under}_{condition}"] = float("nan")
                continue
            mean, low, high = pair.accuracy(under, condition)
            row[f"under_{under}_{condition}"] = mean
            if condition == "vector":
                row |= {f"under_{under}_low": low, f"under_{under}_high": high}
    row |= dict(zip(("excess", "excess_low", "excess_high"), pair.excess, strict=True))
    return row | {
        "verdict": pair.verdict,
        "n": len(pair.asked),
        "queries": len(set(pair.asked)),
    }


def _interval(each: Float[Tensor, " queries"]) -> tuple[float, float, float]:
    low, high = bootstrap_ci(each)
    return each.mean().item(), low.item(), high.item()
