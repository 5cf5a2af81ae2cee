"""Do function vectors compose? (Todd et al. 2024, section 3.3)

Two choices between two functions make a parallelogram, such as first or last (A, B) of a list, as
it is or in upper case (C, D). Three corners then predict the fourth:

    v_BD = v_AD + v_BC - v_AC

It is judged on the fourth relation, beside that relation's own function vector and the parts. All
are sums over the same heads, those with the largest average indirect effect over the four. (The
formula and the common heads are as we remember the source.)
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import TaskError
from interp.models import Model
from interp.saved import Saved, register
from interp.sites import Head
from interp.vectors.demonstrations import QA, Template
from interp.vectors.function_vectors.function_vector import (
    function_vector,
    head_sum,
    ranked,
    written,
)
from interp.vectors.function_vectors.injection import DRAWS, Injection, compare
from interp.vectors.random_vectors import random_draws
from interp.vectors.relation import Relation, relation


@register
@dataclass(frozen=True)
class Parallelogram:
    """Four relations of the same inputs: `bd` is to `bc` what `ad` is to `ac`."""

    ac: Relation
    ad: Relation
    bc: Relation
    bd: Relation

    def __repr__(self) -> str:
        return f"Parallelogram({self.bd.name} = {self.ad.name} + {self.bc.name} - {self.ac.name})"


@dataclass(frozen=True, eq=False)
class Composition(Saved, Displayed):
    """A composed vector beside the vector of the composed relation.

    Attributes:
        corners: The relations.
        directions: Function vectors of the corners: "ac", "ad", "bc" and "bd".
        composed: ad + bc - ac.
        heads: Those that all of them are sums over.
        injection: The accuracy on `bd` with each vector.
    """

    corners: Parallelogram
    directions: dict[str, Float[Tensor, " d_model"]]
    composed: Float[Tensor, " d_model"]
    heads: tuple[Head, ...]
    injection: Injection

    @property
    def cosine(self) -> float:
        """Between the composed vector and that of the composed relation."""
        return torch.cosine_similarity(self.composed, self.directions["bd"], dim=0).item()

    def to_frame(self) -> pd.DataFrame:
        """The table of `Injection`: the composed vector, the true one (bd), the parts, random."""
        return self.injection.to_frame()

    def plot(self) -> go.Figure:
        """Accuracy in each context with each vector."""
        return self.injection.plot()

    def __repr__(self) -> str:
        frame = self.to_frame()
        frame = frame[(frame["context"] == "zero-shot") & (frame["items"] == "all")]
        told = ", ".join(f"{row.vector} {row.accuracy:.2f}" for row in frame.itertuples())
        return (
            f"Composition({self.corners.bd.name}, zero-shot {told}; cosine {self.cosine:.2f}; "
            f"full prompt {self.injection.known.float().mean():.2f}; n = {frame['n'].iloc[0]})"
        )


def composition(
    model: Model,
    corners: Parallelogram,
    *,
    shots: int = 10,
    n_mean: int = 100,
    n_effect: int = 25,
    k: int | None = None,
    other: bool = False,
    template: Template = QA,
    layer: int | None = None,
    n: int = 100,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = True,
) -> Composition:
    """Compose the vector of a relation out of three others, and judge it on that relation.

    The layer is that at which the relation's own vector does best on dev queries. Where a model
    cannot do the composed relation from demonstrations, there is nothing to compose: look at
    `result.injection.known`.

    Args:
        model: Of any architecture that adds up its heads.
        corners: What `chain` or `lists` return, or any four relations.
        other: Measure effects against demonstrations of the opposite corner, not shuffled ones.
        layer: At whose output vectors are added.
        n: Test prompts, as in `inject`.
        draws: Random vectors.
        progress: Show a bar.

    The other arguments, and the errors, are those of `function_vector`; nothing is asked of what
    the corruption costs.
    """
    opposite = {"ac": "bd", "ad": "bc", "bc": "ad", "bd": "ac"}
    found = {
        name: function_vector(
            model,
            getattr(corners, name),
            shots=shots,
            n_mean=n_mean,
            n_effect=n_effect,
            k=k,
            other=getattr(corners, opposite[name]) if other else None,
            template=template,
            least_gap=-1.0,
            seed=seed,
        )
        for name in opposite
    }
    aie = torch.stack([each.aie for each in found.values()]).mean(dim=0)
    heads = ranked(aie)[: len(found["bd"].heads)]
    own = {
        name: head_sum(written(model, each.means), heads).to(model.dtype)
        for name, each in found.items()
    }
    composed = own["ad"] + own["bc"] - own["ac"]
    vectors = {"true": own["bd"][None], "composed": composed[None]}
    vectors |= {getattr(corners, name).name: own[name][None] for name in ("ad", "bc", "ac")}
    injection = compare(
        model,
        corners.bd,
        vectors | {"random": random_draws(own["bd"], draws, seed)},
        template=template,
        shots=shots,
        layer=layer,
        n=n,
        seed=seed,
        progress=progress,
    )
    return Composition(corners, own, composed, heads, injection)


def chain(
    model: Model, first: str | Relation, second: str | Relation, *, seed: int = 0
) -> Parallelogram:
    """Two functions one after another, as comparative after antonym: hot -> colder.

    The corners are x -> x, x -> second(x), x -> first(x) and x -> second(first(x)), for all x for
    which they exist. Raises TaskError for fewer than 10 of these.
    """
    inner, outer = relation(model, first), relation(model, second)
    f, g = dict(inner.pairs), dict(outer.pairs)
    inputs = sorted(x for x in f if x in g and f[x] in g)
    if len(inputs) < 10:
        raise TaskError(
            f"{len(inputs)} inputs of {inner.name} are inputs of {outer.name} as their outputs "
            "are, and a chain needs 10; use other relations."
        )
    pairs = {
        "copy": [(x, x) for x in inputs],
        outer.name: [(x, g[x]) for x in inputs],
        inner.name: [(x, f[x]) for x in inputs],
        f"{outer.name} after {inner.name}": [(x, g[f[x]]) for x in inputs],
    }
    made = [replace(relation(model, some, seed=seed), name=name) for name, some in pairs.items()]
    return Parallelogram(*made)


def lists(
    model: Model, source: str | Relation, *, length: int = 3, n: int = 100, seed: int = 0
) -> Parallelogram:
    """The first or the last word of a list, as it is or with a function applied: the source's case.

    The corners are "a, b, c" -> a, -> f(a), -> c and -> f(c), for `n` lists of `length` inputs.
    The lists of demonstrations, of dev and of test queries are made of words that the same part of
    the relation has, so that no list asks for an output that a demonstration showed.

    Raises TaskError for lists of fewer than two words, or longer than a part of the relation is.
    """
    whole, rng = relation(model, source), random.Random(f"lists {seed}")
    parts = (whole.train, whole.dev, whole.test)
    if not 2 <= length <= min(map(len, parts)):
        raise TaskError(
            f"length is {length}, and lists of {whole!r} have from 2 to {min(map(len, parts))} "
            "words; give such a length."
        )
    counts = (n // 2, n // 5, n - n // 2 - n // 5)
    rows = [
        [rng.sample(part, length) for _ in range(count)]
        for part, count in zip(parts, counts, strict=True)
    ]

    def corner(name: str, place: int, applied: int) -> Relation:
        made = [
            tuple((", ".join(x for x, _ in row), row[place][applied]) for row in some)
            for some in rows
        ]
        return Relation(f"{name} of {length}", *made)

    return Parallelogram(
        corner("first", 0, 0),
        corner(f"{whole.name} of first", 0, 1),
        corner("last", -1, 0),
        corner(f"{whole.name} of last", -1, 1),
    )
