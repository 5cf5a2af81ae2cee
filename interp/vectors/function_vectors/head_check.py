"""Are the heads of a function vector needed where the function is demonstrated?

They were found by what they bring back. Here they are taken out of the full prompts together, and
so are random sets of as many other heads of the same layers.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import Intervention, run
from interp.engine.ablation import operation_of
from interp.engine.interventions import Edit
from interp.errors import VectorError
from interp.models import Model
from interp.plots import site_bars
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import Shown, prompts_of, show
from interp.vectors.function_vectors.contexts import asked
from interp.vectors.function_vectors.function_vector import FunctionVector, ranked

SETS = 20


@dataclass(frozen=True, eq=False)
class HeadCheck(Saved, Displayed):
    """The full prompts without the heads of a function vector, and without random ones.

    Attributes:
        heads: Those of the vector.
        sets: Those that were drawn.
        clean: The answer's probability on each prompt, with all heads.
        without: Without the heads.
        random: Without each set.
        shown: The prompts.
        provenance: Model, weights hash, prompts, options, versions.
    """

    heads: tuple[Head, ...]
    sets: tuple[tuple[Head, ...], ...]
    clean: Float[Tensor, " prompts"]
    without: Float[Tensor, " prompts"]
    random: Float[Tensor, "sets prompts"]
    shown: tuple[Shown, ...]
    provenance: dict[str, Any]

    @property
    def p_value(self) -> float:
        """Share of sets, the heads themselves among them, that cost at least as much."""
        as_much = (self.random.mean(dim=1) <= self.without.mean()).sum().item()
        return (1 + as_much) / (1 + len(self.random))

    def to_frame(self) -> pd.DataFrame:
        """One row each for the heads, for the mean of the random sets, and for their difference.

        Columns: heads, mean (probability of the answer without them), change (from the clean
        prompts), ci_low and ci_high (of the change, 95%, over queries), n (prompts), queries, sets.
        """
        top, others = self.without - self.clean, self.random.mean(dim=0) - self.clean
        rows = []
        for name, change, sets in (
            ("vector", top, 1),
            ("random", others, len(self.sets)),
            ("difference", top - others, len(self.sets)),
        ):
            each = by_query(change, asked(self.shown))
            low, high = bootstrap_ci(each)
            level = self.clean.mean() if name != "difference" else torch.tensor(0.0)
            rows.append(
                {
                    "heads": name,
                    "mean": (level + change.mean()).item(),
                    "change": each.mean().item(),
                    "ci_low": low.item(),
                    "ci_high": high.item(),
                    "n": len(change),
                    "queries": len(each),
                    "sets": sets,
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """What is lost without the heads, and without random ones."""
        frame = self.to_frame()
        return site_bars(
            frame["change"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=frame["heads"].tolist(),
            title=f"{self.provenance['model']} without the heads of its function vector",
            across="change of the answer's probability",
            hover=[f"{row.heads}: {row.change:+.3f}" for row in frame.itertuples()],
        )

    def __repr__(self) -> str:
        return (
            f"HeadCheck({len(self.heads)} heads: answer {self.clean.mean():.3f} clean, "
            f"{self.without.mean():.3f} without, {self.random.mean():.3f} without random ones; "
            f"p = {self.p_value:.3f}, n = {len(self.clean)} prompts)"
        )


def head_check(
    model: Model,
    function: FunctionVector,
    *,
    method: str = "mean",
    n: int = 100,
    sets: int = SETS,
    seed: int = 0,
    progress: bool = True,
) -> HeadCheck:
    """Take the heads of a function vector out of full prompts of the test queries, at all tokens.

    Args:
        model: The one that the vector was found in.
        function: What `function_vector` returns.
        method: What takes their place: "mean" (over all tokens of the prompts), "zero" or
            "resample", as in `interp.ablate`.
        n: Prompts; with fewer test queries they come again, with other demonstrations.
        sets: Random sets: as many heads of each layer as the vector has, as far as it has others.
        seed: Of prompts and sets.
        progress: Show a bar.

    Raises:
        VectorError: A vector of another model, no sets, or too few other heads.
        InterventionError: An unknown method.
    """
    function.vector(0).require(model)
    drawn = _random_sets(function, sets, seed)
    shown = show(function.relation, n, shots=function.shots, split="test", seed=seed)
    operation = operation_of(method, "all", seed)
    found = run(
        model,
        prompts_of(model, shown, template=function.template),
        [
            Intervention(tuple(Edit(head, operation) for head in heads))
            for heads in (function.heads, *drawn)
        ],
        metric="prob",
        method=method,
        progress=progress,
        relation=function.relation.name,
        function=function.options,
        set_seed=seed,
    )
    return HeadCheck(
        heads=function.heads,
        sets=tuple(drawn),
        clean=found.clean,
        without=found.values[0],
        random=found.values[1:],
        shown=tuple(shown),
        provenance=found.provenance,
    )


def _random_sets(function: FunctionVector, sets: int, seed: int) -> list[tuple[Head, ...]]:
    """Other heads, as many in each layer; where a layer has too few, the rest from any layer."""
    others = [head for head in ranked(function.aie) if head not in function.heads]
    if sets < 1 or len(others) < len(function.heads):
        raise VectorError(
            f"{sets} sets of {len(function.heads)} heads are to be drawn from the {len(others)} "
            "that are not in the vector; use at least one set, and a vector of fewer heads."
        )
    rng = random.Random(f"sets {seed}")
    return [_like(function.heads, others, rng) for _ in range(sets)]


def _like(heads: Sequence[Head], others: Sequence[Head], rng: random.Random) -> tuple[Head, ...]:
    drawn: list[Head] = []
    for layer in sorted({head.layer for head in heads}):
        count = sum(head.layer == layer for head in heads)
        there = [head for head in others if head.layer == layer]
        drawn += rng.sample(there, min(count, len(there)))
    left = [head for head in others if head not in drawn]
    return tuple(sorted([*drawn, *rng.sample(left, len(heads) - len(drawn))]))
