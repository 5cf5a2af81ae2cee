"""MAPS: which relations a head implements, read off its weights (Elhelo & Geva 2024).

    M = E' W_V W_O W_U                            one row a token read, one column a token said

A head implements a pair (source, target) if the target is among the k largest entries of the
source's row, and a relation as far as it implements its pairs. A suppressing head has the target
among the k smallest. E' is the first MLP's output; `effective_ov.py` says what is left out of the
product and what layer 0 and models without MLPs read.

Two rules of ours. A tie counts against the target, so that a head that writes nothing scores 0. And
a relation of few targets, such as animal and fruit, is also met by a head that says all of them of
everything: so every pair is scored with the target of another pair too, and `named` wants heads
that do better with their own.

Only the rows of the sources are computed: for 2,048 heads x pairs and 8,192 tokens of the
vocabulary at a time. Beside the model and the weights of one layer that takes at most 400 MB in
float32 with a `d_model` of 4,096, whatever the size of the vocabulary and the number of pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import MetricError, did_you_mean
from interp.heads.parameters.relations import Pairs, Relation, keep_pairs, published_relations
from interp.heads.succession.effective_ov import has_first_mlp, streams
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import head_grids, head_heatmap
from interp.progress import track
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci

ROWS = 2048
TOKENS = 8192
THRESHOLD = 0.15
"""A head is named after a relation from this score on: a convention; chance is k / vocabulary."""


@dataclass(frozen=True, eq=False)
class RelationScore(Saved, Displayed):
    """How far every head implements one relation.

    Attributes:
        relation: Its pairs and their tokens.
        k: How many of the largest entries count.
        chance: k / vocabulary, the score of a random map.
        values: 1 where a head has the target of a pair among the k, else 0.
        shuffled: The same with the target of another pair; NaN where there is no wrong one.
    """

    relation: Relation
    k: int
    chance: float
    values: Float[Tensor, "layer head pairs"]
    shuffled: Float[Tensor, "layer head pairs"]

    @property
    def n(self) -> int:
        """Number of pairs."""
        return self.values.shape[-1]

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """Fraction of pairs that each head implements."""
        return self.values.mean(dim=-1)

    def ci(
        self, *, level: float = 0.95
    ) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
        """Bootstrap confidence interval of every score over pairs: its low and high ends."""
        return bootstrap_ci(self.values, level=level)

    def order(self) -> list[Head]:
        """Every head, best first."""
        heads = self.values.shape[1]
        best = self.grid.flatten().argsort(descending=True, stable=True)
        return [Head(*divmod(i, heads)) for i in best.tolist()]

    def named(self, threshold: float = THRESHOLD) -> tuple[Head, ...]:
        """Heads that score `threshold` or more, and more than with shuffled targets; best first.

        More: the 95% interval of the paired difference over pairs lies above 0.
        """
        low, _ = bootstrap_ci(self.values - self.shuffled)
        return tuple(
            head
            for head in self.order()
            if self.grid[head.layer, head.head] >= threshold and low[head.layer, head.head] > 0
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a head, in order of layer and head.

        Columns: relation, head, score, ci_low, ci_high (95%), shuffled (the score with the targets
        of other pairs), chance, k, n.
        """
        low, high = self.ci()
        layers, heads, _ = self.values.shape
        return pd.DataFrame(
            {
                "relation": self.relation.name,
                "head": [
                    str(Head(layer, head)) for layer in range(layers) for head in range(heads)
                ],
                "score": self.grid.flatten().tolist(),
                "ci_low": low.flatten().tolist(),
                "ci_high": high.flatten().tolist(),
                "shuffled": self.shuffled.nanmean(dim=-1).flatten().tolist(),
                "chance": self.chance,
                "k": self.k,
                "n": self.n,
            }
        )

    def plot(self) -> go.Figure:
        """A layer x head heatmap of the fractions."""
        title = f"Heads that implement {self.relation.name}"
        return head_heatmap(self.grid, title=title, colorbar="share of pairs")

    def __repr__(self) -> str:
        best = self.order()[0]
        return (
            f"RelationScore({self.relation.name}: {best} "
            f"{self.grid[best.layer, best.head]:.2f}; k = {self.k}, n = {self.n} pairs)"
        )


@dataclass(frozen=True, eq=False)
class Maps(Saved, Displayed):
    """How far every head implements each of some relations; make one with `maps`.

    Attributes:
        relations: The score of each relation, by name.
        left_out: Relations with too few single-token pairs, and `"kept/all"` of each.
        suppression: Whether the smallest entries count in place of the largest.
        provenance: Model, weights hash, dtype, options, what the heads read.
    """

    relations: dict[str, RelationScore]
    left_out: dict[str, str]
    suppression: bool
    provenance: dict[str, Any]

    def __getitem__(self, relation: str) -> RelationScore:
        """The score of one relation. Raises MetricError if it was not measured."""
        if relation in self.left_out:
            raise MetricError(
                f"The relation {relation!r} was left out, since {self.left_out[relation]} of its "
                "pairs are single tokens; use another, or a smaller min_pairs."
            )
        if relation not in self.relations:
            known = did_you_mean(relation, self.relations)
            raise MetricError(f"{relation!r} is not among the relations measured: {known}")
        return self.relations[relation]

    def named(self, threshold: float = THRESHOLD) -> dict[str, tuple[Head, ...]]:
        """Heads of each relation, best first; see `RelationScore.named`."""
        return {name: score.named(threshold) for name, score in self.relations.items()}

    def to_frame(self) -> pd.DataFrame:
        """One row a relation and head; the columns of `RelationScore.to_frame`."""
        frames = [score.to_frame() for score in self.relations.values()]
        return pd.concat(frames, ignore_index=True)

    def plot(self, relation: str | None = None) -> go.Figure:
        """A layer x head heatmap of one relation, or of all of them side by side."""
        what = "fraction of pairs suppressed" if self.suppression else "fraction of pairs"
        model = self.provenance["model"]
        if relation is None:
            grids = {name: score.grid for name, score in self.relations.items()}
            return head_grids(grids, title=f"Relations in the heads of {model}", colorbar=what)
        score = self[relation]
        frame = score.to_frame()
        text = [
            f"{row.head}: {row.score:.3f}<br>95% interval {row.ci_low:.3f} to {row.ci_high:.3f}"
            f"<br>shuffled {row.shuffled:.3f}, chance {row.chance:.4f}, n = {row.n}"
            for row in frame.itertuples()
        ]
        heads = score.values.shape[1]
        return head_heatmap(
            score.grid,
            title=f"{relation} in the heads of {model}",
            colorbar=what,
            hover=[text[start : start + heads] for start in range(0, len(text), heads)],
        )

    def __repr__(self) -> str:
        best = ", ".join(
            f"{name} {score.order()[0]} {score.grid.max():.2f}"
            for name, score in sorted(
                self.relations.items(), key=lambda item: -float(item[1].grid.max())
            )[:3]
        )
        deed = "suppression of " if self.suppression else ""
        return (
            f"Maps({self.provenance['model']}: {deed}{len(self.relations)} relations, "
            f"{len(self.left_out)} left out; {best})"
        )


@torch.no_grad()
def maps(
    model: Model,
    relations: Mapping[str, Pairs] | None = None,
    *,
    k: int = 10,
    copying_k: int = 1,
    suppression: bool = False,
    min_pairs: int = 30,
    leading_space: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> Maps:
    """How far every head implements each of some relations, by its weights alone.

    >>> import interp
    >>> from interp.heads.parameters.relations import task_relations
    >>> found = maps(interp.load("polymath"), {"antonym": task_relations()["antonym"]})
    >>> found["antonym"].values.shape
    torch.Size([6, 8, 64])

    Args:
        model: Any whose heads have values of their own.
        relations: Pairs of words by name, such as `{"antonym": [("hot", "cold"), ...]}`; by default
            the 20 of the paper, in our own words (`published_relations`).
        k: How many of the largest entries of a row count. The paper takes 25 for Llama-3.
        copying_k: The same where every source is its own target. The paper takes 3 for Llama-3.
        suppression: Count the k smallest entries in place of the largest.
        min_pairs: A relation with fewer single-token pairs is left out.
        leading_space: Whether words have a space before them; False takes them as written.
        seed: Of the shuffled targets.
        progress: Show a bar.

    Raises:
        TaskError: No relation has enough pairs that are single tokens.
        MetricError: A k that is no number of tokens.
        UnsupportedModel: Values or outputs of its heads cannot be told apart.
    """
    vocab = model.geometry.d_vocab
    for name, value in (("k", k), ("copying_k", copying_k)):
        if not 1 <= value < vocab:
            raise MetricError(f"{name} is {value}; give a number of tokens from 1 to {vocab - 1}.")
    kept, left_out = keep_pairs(
        model,
        published_relations() if relations is None else relations,
        min_pairs=min_pairs,
        leading_space=leading_space,
        seed=seed,
    )
    weights = Weights(model)
    asked = torch.cat([torch.cat([each.sources, each.sources]) for each in kept])
    wanted = torch.cat([torch.cat([each.targets, each.shuffled]) for each in kept])
    tokens, row = asked.unique(return_inverse=True)
    parts = [streams(weights, some) for some in tokens.split(ROWS)]
    early, later = (torch.cat(stream) for stream in zip(*parts, strict=True))
    sign = -1 if suppression else 1
    shape = model.geometry.n_layers, model.geometry.n_heads, len(asked)
    ranks = torch.zeros(shape, dtype=torch.long)
    for layer in track(range(shape[0]), "Mapping heads", shown=progress):
        stream = later if layer else early
        w_v, w_o = weights.w_v(layer), weights.w_o(layer)
        for pairs, some, at in chunks(row, shape[1]):
            said = sign * torch.einsum("sd,hde->hse", stream[some.to(stream.device)], w_v) @ w_o
            ranks[layer, :, pairs] = ranks_of(weights, said, at, wanted[pairs])
    scores = {}
    sizes = [2 * len(each.pairs) for each in kept]
    for each, found in zip(kept, ranks.split(sizes, dim=-1), strict=True):
        own_k = copying_k if each.copies else k
        values, shuffled = (found < own_k).to(weights.dtype).chunk(2, dim=-1)
        shuffled = shuffled.masked_fill(each.shuffled < 0, torch.nan)
        scores[each.name] = RelationScore(each, own_k, own_k / vocab, values, shuffled)
    source = provenance(
        model,
        k=k,
        copying_k=copying_k,
        suppression=suppression,
        min_pairs=min_pairs,
        leading_space=leading_space,
        seed=seed,
        read="the first MLP's output; in layer 0 the embedding"
        if has_first_mlp(weights)
        else "the embedding: there is no MLP in the first block",
    )
    return Maps(scores, left_out, suppression, source)


def chunks(
    row: Int[Tensor, " pairs"], heads: int
) -> Iterator[tuple[Int[Tensor, " some"], Int[Tensor, " rows"], Int[Tensor, " some"]]]:
    """Some pairs at a time: which, the rows that they need, and where among these each has its own.

    Pairs of one row come together, so that few rows are needed twice.
    """
    for pairs in row.argsort(stable=True).split(max(1, ROWS // heads)):
        rows, at = row[pairs].unique(return_inverse=True)
        yield pairs, rows, at


def ranks_of(
    weights: Weights,
    said: Float[Tensor, "head rows d_model"],
    at: Int[Tensor, " pairs"],
    targets: Int[Tensor, " pairs"],
) -> Int[Tensor, "head pairs"]:
    """How many other tokens have at least the logit of a pair's target in what a head says.

    `at` is the row of each pair. A target of -1 is none; its rank means nothing.
    """
    at, targets = at.to(said.device), targets.to(said.device)
    own = torch.einsum("hpd,dp->hp", said[:, at], weights.w_u(targets.clamp(min=0)))
    ranks = torch.zeros_like(own, dtype=torch.long)
    for tokens in torch.arange(weights.model.geometry.d_vocab, device=said.device).split(TOKENS):
        logits = said @ weights.w_u(tokens)
        others = tokens != targets[:, None]
        ranks += ((logits[:, at] >= own[..., None]) & others).sum(dim=-1)
    return ranks.cpu()
