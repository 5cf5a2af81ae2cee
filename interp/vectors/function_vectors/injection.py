"""Does a function vector make a model apply the function where nothing demonstrates it?

The vector is added at END to what leaves one block; `contexts.py` says in which prompts.
What is counted is whether the answer is the most likely next token. (Todd et al. 2024, section 3)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.display import Displayed, as_html
from interp.engine import Add, Intervention, run
from interp.engine.end_logits import end_logits
from interp.engine.metrics import METRICS, Answers
from interp.errors import VectorError
from interp.models import Model
from interp.plots import site_bars
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Resid, resid
from interp.stats import bootstrap_ci
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import QA, Shown, Template, prompts_of
from interp.vectors.function_vectors.contexts import NATURAL, asked, undemonstrated, varied
from interp.vectors.function_vectors.function_vector import (
    FunctionVector,
    head_sum,
    ranked,
    written,
)
from interp.vectors.random_vectors import random_draws
from interp.vectors.relation import Relation

DRAWS = 20
"""Random sets of heads, and random vectors, that a vector is compared with."""


@dataclass(frozen=True, eq=False)
class Injection(Saved, Displayed):
    """Accuracy with vectors put in, beside that without.

    Attributes:
        relation: Name of the relation that is judged.
        layer: At whose output vectors were added.
        dev: Accuracy on dev queries with the first vector at each layer, zero-shot and behind the
            corrupted demonstrations.
        contexts: Names of the kinds of prompts, in order.
        without: Whether the answer is the top token, with no vector in.
        correct: The same with each vector: name -> values, one row a draw.
        known: Whether the model answers the full prompt, with correct demonstrations.
        shown: The full prompts; the rows of all contexts ask their queries.
        norms: The mean norm of each vector.
        skipped: What was left out, and why.
        provenance: Model, weights hash, prompts, options, versions.
    """

    relation: str
    layer: int
    dev: Float[Tensor, "tuned layer asked"]
    contexts: tuple[str, ...]
    without: Float[Tensor, "contexts prompts"]
    correct: dict[str, Float[Tensor, "contexts draws prompts"]]
    known: Bool[Tensor, " prompts"]
    shown: tuple[Shown, ...]
    norms: dict[str, float]
    skipped: dict[str, str]
    provenance: dict[str, Any]

    def accuracy(self, vector: str, context: str = "zero-shot", *, items: str = "known") -> float:
        """The mean over queries of those items: one cell of `to_frame`.

        Raises VectorError for a vector, a context or items that were not measured.
        """
        frame = self.to_frame()
        row = frame[
            (frame["vector"] == vector) & (frame["context"] == context) & (frame["items"] == items)
        ]
        if row.empty:
            raise VectorError(
                f"There is no accuracy of {vector!r} in {context!r} on {items!r} items; vectors: "
                f"{', '.join(['none', *self.correct])}; contexts: {', '.join(self.contexts)}; "
                "items: known, all."
            )
        return float(row["accuracy"].iloc[0])

    def to_frame(self) -> pd.DataFrame:
        """One row for each context, vector and choice of items.

        Columns: context, vector ("none" is the prompt as it is), items ("known": those that the
        full prompt gets right, as in the source; or "all"), accuracy (mean over queries, of which
        each is the mean over its prompts and over draws), ci_low and ci_high (95%, over queries),
        gain (over no vector, with gain_low and gain_high), best (of all draws; the accuracy itself
        for one draw), n (prompts), queries, draws. Without a known item there is no such row.
        """
        rows = []
        for items, chosen in (("known", self.known), ("all", torch.ones_like(self.known))):
            if not chosen.any():
                continue
            some = asked([self.shown[row] for row in chosen.nonzero()[:, 0].tolist()])
            for at, context in enumerate(self.contexts):
                base = by_query(self.without[at][chosen], some)
                named = {"none": self.without[:, None], **self.correct}
                for name, values in named.items():
                    each = by_query(values[at][:, chosen], some)
                    mean = each.mean(dim=0)
                    (low, high), (less, more) = bootstrap_ci(mean), bootstrap_ci(mean - base)
                    rows.append(
                        {
                            "context": context,
                            "vector": name,
                            "items": items,
                            "accuracy": mean.mean().item(),
                            "ci_low": low.item(),
                            "ci_high": high.item(),
                            "gain": (mean - base).mean().item(),
                            "gain_low": less.item(),
                            "gain_high": more.item(),
                            "best": each.mean(dim=-1).max().item(),
                            "n": len(some),
                            "queries": len(mean),
                            "draws": len(each),
                        }
                    )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Accuracy in each context with each vector: on known items, or on all if none is known."""
        frame = self.to_frame()
        frame = frame[frame["items"] == frame["items"].iloc[0]]
        names = [f"{row.context}: {row.vector}" for row in frame.itertuples()]
        return site_bars(
            frame["accuracy"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=names,
            title=f"{self.relation} in {self.provenance['model']}, vector after block {self.layer}",
            across="accuracy",
            hover=[
                f"{name}: {value:.3f}" for name, value in zip(names, frame["accuracy"], strict=True)
            ],
        )

    def __repr__(self) -> str:
        frame = self.to_frame()
        frame = frame[frame["items"] == frame["items"].iloc[0]]
        told = "; ".join(
            f"{context} "
            + ", ".join(f"{row.vector} {row.accuracy:.2f}" for row in some.itertuples())
            for context, some in frame.groupby("context", sort=False)
        )
        return (
            f"Injection({self.relation} after block {self.layer}: {told}; "
            f"n = {frame['n'].iloc[0]} prompts of {frame['queries'].iloc[0]} queries)"
        )

    def _repr_html_(self) -> str:
        return as_html(self, self.to_frame(), *(f"{a}: {b}" for a, b in self.skipped.items()))


def inject(
    model: Model,
    function: FunctionVector,
    *,
    layer: int | None = None,
    another: FunctionVector | None = None,
    n: int = 100,
    draws: int = DRAWS,
    natural: Sequence[str] = NATURAL,
    seed: int = 0,
    progress: bool = True,
) -> Injection:
    """Add a function vector, and its controls, to prompts that do not demonstrate the function.

    The controls enter at the same layer: what as many random other heads write at their means, the
    vector of another relation, and random vectors of the same norm.

    Args:
        model: The one that the vector was found in.
        function: What `function_vector` returns.
        layer: At whose output the vector is added; by default the one of the highest accuracy on
            dev queries, zero-shot and behind corrupted demonstrations; the first of equals.
        another: The function vector of another relation; without it that control is skipped.
        n: Test prompts; with fewer test queries they come again, with other demonstrations.
        draws: Random sets of heads, and random vectors.
        natural: Texts in which `{x}` is the input, and which the answer follows after a space.
        seed: Of prompts and controls.
        progress: Show a bar.

    Raises:
        VectorError: A vector of another model, no draws, too few other heads to draw from, or a
            layer that does not exist.
    """
    vectors = {"function": function.direction[None]}
    skipped = {}
    if another is None:
        skipped["another relation"] = "no vector of another relation was given (another=)"
    else:
        another.vector(0).require(model)
        vectors[f"of {another.relation.name}"] = another.direction[None]
    function.vector(0).require(model)
    vectors["random heads"] = _of_random_heads(model, function, draws, seed)
    vectors["random"] = random_draws(function.direction, draws, seed)
    judged = compare(
        model,
        function.relation,
        vectors,
        template=function.template,
        shots=function.shots,
        layer=layer,
        other=function.other,
        natural=natural,
        skipped=skipped,
        n=n,
        seed=seed,
        progress=progress,
    )
    return replace(judged, provenance=judged.provenance | {"function": function.options})


def compare(
    model: Model,
    judged: Relation,
    vectors: Mapping[str, Float[Tensor, "draws d_model"]],
    *,
    template: Template = QA,
    shots: int = 10,
    layer: int | None = None,
    other: Relation | None = None,
    natural: Sequence[str] = NATURAL,
    skipped: Mapping[str, str] | None = None,
    n: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Injection:
    """Judge any vectors by the accuracy that they give on the test queries of a relation.

    Args:
        model: What they are put into.
        judged: The relation.
        vectors: Name -> vectors that share it, such as random draws; the first one of all picks
            the layer.
        other: A relation that is demonstrated in one more context.
        skipped: What the caller left out, and why.

    The other arguments are those of `inject`.

    Raises VectorError for a layer that does not exist.
    """
    first = next(iter(vectors.values()))
    layers = model.geometry.n_layers
    if layer is not None and not 0 <= layer < layers:
        raise VectorError(
            f"Layer {layer} is not one of the {layers} layers of {model.id}; give one from 0 to "
            f"{layers - 1}, or none."
        )
    options: dict[str, Any] = {"template": template, "other": other, "seed": seed}
    tuned = varied(judged, n, shots=shots, split="dev", seed=seed)
    every = [Intervention.at(at, Add(first[0]), position="END") for at in resid(model, "post")]
    dev = torch.stack(
        [
            run(model, prompts, every, metric="accuracy", method="vectors", progress=False).values
            for prompts in undemonstrated(model, tuned, natural=(), **options)[0].values()
        ]
    )
    best = int(dev.mean(dim=(0, 2)).argmax()) if layer is None else layer
    shown = varied(judged, n, shots=shots, split="test", seed=seed)
    full = prompts_of(model, shown, template=template)
    contexts, left = undemonstrated(model, shown, natural=natural, **options)
    stacked, draws = torch.cat(list(vectors.values())), [len(some) for some in vectors.values()]
    found = [
        _correct(model, prompts, best, stacked)
        for prompts in track(list(contexts.values()), "Adding vectors", shown=progress)
    ]
    each = torch.stack([correct for _, correct in found]).split(draws, dim=1)
    known = METRICS["accuracy"](end_logits(model, full), Answers.of(full, model.device)) > 0
    return Injection(
        relation=judged.name,
        layer=best,
        dev=dev,
        contexts=tuple(contexts),
        without=torch.stack([clean for clean, _ in found]),
        correct=dict(zip(vectors, each, strict=True)),
        known=known.cpu(),
        shown=tuple(shown),
        norms={kind: some.norm(dim=-1).mean().item() for kind, some in vectors.items()},
        skipped={**(skipped or {}), **left},
        provenance=provenance(
            model,
            full,
            method="vectors added",
            relation=judged.name,
            layer=best,
            vectors=list(vectors),
            vector_seed=seed,
        ),
    )


def _of_random_heads(
    model: Model, function: FunctionVector, draws: int, seed: int
) -> Float[Tensor, "draws d_model"]:
    """What as many other heads write at their means on this relation."""
    k = len(function.heads)
    others = [head for head in ranked(function.aie) if head not in function.heads]
    if len(others) < k or draws < 1:
        raise VectorError(
            f"{draws} times {k} random heads are to be drawn from the {len(others)} others; use at "
            "least one draw, and a vector of at most half of the heads."
        )
    rng = random.Random(f"heads {seed}")
    outputs = written(model, function.means)
    sums = [head_sum(outputs, rng.sample(others, k)) for _ in range(draws)]
    return torch.stack(sums).to(model.dtype)


def _correct(
    model: Model, prompts: PromptSet, layer: int, vectors: Float[Tensor, "draws d_model"]
) -> tuple[Float[Tensor, " prompts"], Float[Tensor, "draws prompts"]]:
    """Whether the answer is the top token: as it is, and with each vector added after a block."""
    moving = vectors.any(dim=-1)  # random heads can write nothing at all, which changes nothing
    found = run(
        model,
        prompts,
        [
            Intervention.at(Resid(layer, "post"), Add(vector), position="END")
            for vector in vectors[moving]
        ],
        metric="accuracy",
        method="vectors",
        progress=False,
    )
    correct = found.clean.repeat(len(vectors), 1)
    correct[moving] = found.values
    return found.clean, correct
