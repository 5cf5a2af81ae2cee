"""Successor heads (Gould et al. 2023): heads that map Monday to Tuesday by their weights alone.

A head says a word of an ordered series right if, among all words of that series, the one that comes
next has the largest logit of the head's effective OV matrix; `effective_ov.py` says what is in that
matrix and what is left out. The score of a head is the share of words that it says right, over all
series together, so the numbers weigh most; `Successors.tasks` has each series alone.

A head that cannot tell the words of a series apart is right once in as many as the series has;
`Score.chance` is the mean of that over words. Where logits are equal the first word is taken. A
head that repeats what it reads, or names what comes before, is as consistent as a successor head:
`Successors.to_frame` has their shares too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import TaskError, did_you_mean
from interp.heads.score import Score
from interp.heads.succession.effective_ov import has_first_mlp, ov_logits, streams
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import head_grids
from interp.provenance import provenance
from interp.saved import Saved, register
from interp.sites import Head
from interp.tasks.words import read

AT_LEAST = 3  # pairs of a word and its successor that a series needs to be counted

VARIANTS: dict[str, Callable[[str], str]] = {
    "space": lambda word: f" {word}",
    "bare": lambda word: word,
    "capitalized": lambda word: f" {word.capitalize()}",
    "bare capitalized": lambda word: word.capitalize(),
}
"""Ways to write the words of a series; "space" is how they stand in text."""


@register
@dataclass(frozen=True, eq=False)
class Series:
    """The words of an ordered series that a tokenizer keeps whole.

    Attributes:
        name: As in `data/words/series.json`, and the variant if that is not "space".
        words: As they are written.
        tokens: The token of each.
        places: Where each stands in the whole series, from 1.
        length: Words in the whole series, kept or not.
        cyclic: Whether the first follows the last.
    """

    name: str
    words: tuple[str, ...]
    tokens: Int[Tensor, " words"]
    places: Int[Tensor, " words"]
    length: int
    cyclic: bool

    def at(self, places: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Which word stands at each place; -1 where there is none, or it is not kept."""
        if self.cyclic:
            places = (places - 1) % self.length + 1
        index = torch.full((self.length + 1,), -1)
        index[self.places] = torch.arange(len(self.words))
        inside = (places >= 1) & (places <= self.length)
        return torch.where(inside, index[places.clamp(0, self.length)], -1)

    @property
    def sources(self) -> Int[Tensor, " pairs"]:
        """Which words have a successor."""
        return (self.at(self.places + 1) >= 0).nonzero()[:, 0]

    def beside(self, by: int) -> Int[Tensor, " pairs"]:
        """Which word stands `by` places on from each of `sources`; -1 for none."""
        return self.at(self.places[self.sources] + by)


@dataclass(frozen=True, eq=False)
class Successors(Saved, Displayed):
    """How well every head continues ordered series, by its weights alone.

    Attributes:
        score: Of kind "successor"; a sample is a word with a successor, in the order of `tasks`.
        tasks: The same for each series alone.
        series: The words of each series.
        said: Which word of its series each head says of each word that has a successor.
        other: The same with the other choice of `norm`; None where that changes nothing, since the
            model has no MLP in its first block or no norm before it.
        provenance: Model, weights hash, dtype, options.
    """

    score: Score
    tasks: dict[str, Score]
    series: dict[str, Series]
    said: dict[str, Int[Tensor, "layer head pairs"]]
    other: Successors | None
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a series and head.

        Columns: task, head, score, ci_low, ci_high (95%), chance, n (words with a successor), right
        (how many of them), other_norm (the score with the other choice of `norm`), same and before
        (shares of words of which the head says the word itself, or the one before it).
        """
        frames = []
        for name, score in self.tasks.items():
            frame = score.to_frame()
            frame.insert(0, "task", name)
            frame["right"] = score.values.sum(dim=-1).long().flatten().tolist()
            other = None if self.other is None else self.other.tasks[name].grid.flatten().tolist()
            frame["other_norm"] = math.nan if other is None else other
            for column, by in (("same", 0), ("before", -1)):
                says = self.said[name] == self.series[name].beside(by)
                frame[column] = says.double().mean(dim=-1).flatten().tolist()
            frames.append(frame)
        return pd.concat(frames, ignore_index=True)

    def words(self, head: Head) -> pd.DataFrame:
        """One row a word: task, word, successor, said (by the head), right."""
        frames = []
        for name, series in self.series.items():
            said = self.said[name][head.layer, head.head]
            columns = {"word": series.sources, "successor": series.beside(1), "said": said}
            named = {
                column: [series.words[at] for at in which.tolist()]
                for column, which in columns.items()
            }
            right = (said == series.beside(1)).tolist()
            frames.append(pd.DataFrame({"task": name, **named, "right": right}))
        return pd.concat(frames, ignore_index=True)

    def plot(self) -> go.Figure:
        """A layer x head heatmap of each series, on one colour scale."""
        grids = {name: score.grid for name, score in self.tasks.items()}
        title = f"Successor heads of {self.provenance['model']}"
        return head_grids(grids, title=title, colorbar="share of words")

    def __repr__(self) -> str:
        best = self.score.order()[0]
        at = best.layer, best.head
        other = ""
        if self.other is not None:
            asked = "without" if self.provenance["norm"] else "with"
            other = f" ({self.other.score.grid[at]:.2f} {asked} the norm)"
        return (
            f"Successors({self.provenance['model']}: best {best} {self.score.grid[at]:.2f}{other}, "
            f"chance {self.score.chance:.2f}; n = {self.score.n} words of {len(self.tasks)} series)"
        )


def successor(
    model: Model, *, norm: bool = True, variants: Sequence[str] = ("space",)
) -> Successors:
    """How well every head continues ordered series, by its weights alone.

    >>> import interp
    >>> from interp.heads.succession.successor import successor
    >>> successor(interp.load("polymath")).score.values.shape
    torch.Size([6, 8, 290])

    Args:
        model: Any whose heads have values of their own.
        norm: Whether tokens go through the norm before the first MLP. Sources differ in this, so
            the other choice is measured too.
        variants: Ways to write the words, from VARIANTS. Each has series of its own, unless their
            tokens are those of an earlier variant.

    Raises:
        TaskError: An unknown variant, or no series of which the tokenizer keeps three pairs.
        UnsupportedModel: Values of its heads cannot be told apart.
    """
    series, left_out = series_of(model, variants)
    weights = Weights(model)
    first = has_first_mlp(weights)
    chooses = first and weights.body.blocks[0].mlp_norm is not None
    notes = {
        "pairs": {each.name: len(each.sources) for each in series},
        "left out": left_out,
        "heads read": "the first MLP's output, and the embedding in layer 0"
        if first
        else "the embedding, as the first block has no MLP",
    }

    def measured(norm: bool, other: Successors | None) -> Successors:
        said = _said(weights, series, norm=norm)
        noted = {**notes, "norm": norm if chooses else None}
        return Successors(
            score=_score(series, said, weights.dtype, noted),
            tasks={each.name: _score([each], said, weights.dtype, noted) for each in series},
            series={each.name: each for each in series},
            said=said,
            other=other,
            provenance=provenance(model, norm=norm, variants=list(variants)),
        )

    return measured(norm, measured(not norm, None) if chooses else None)


def series_of(
    model: Model, variants: Sequence[str] = ("space",)
) -> tuple[list[Series], dict[str, str]]:
    """The ordered series in words that are one token each, and why others were left out.

    Raises:
        TaskError: An unknown variant, or no series of which three pairs remain.
    """
    kept: list[Series] = []
    left_out: dict[str, str] = {}
    for variant in variants:
        if variant not in VARIANTS:
            raise TaskError(f"Words are not written {variant!r}: {did_you_mean(variant, VARIANTS)}")
        for name, known in read("words/series").items():
            label = name if variant == "space" else f"{name} ({variant})"
            words = [VARIANTS[variant](word) for word in known["items"]]
            one = _kept(model, label, words, cyclic=known["cyclic"])
            if len(one.sources) < AT_LEAST:
                left_out[label] = f"{len(one.sources)} pairs of single tokens"
            elif any(torch.equal(one.tokens, before.tokens) for before in kept):
                left_out[label] = "the tokens of another variant"
            else:
                kept.append(one)
    if not kept:
        raise TaskError(
            f"No series has {AT_LEAST} words with a successor that are single tokens for "
            f"{model.id}, and successor heads need one; use a tokenizer with more whole words, or "
            f"other variants ({', '.join(VARIANTS)})."
        )
    return kept, left_out


def _kept(model: Model, name: str, words: Sequence[str], *, cyclic: bool) -> Series:
    tokens = [model.single_token(word) for word in words]
    places = [place for place, token in enumerate(tokens, start=1) if token is not None]
    return Series(
        name=name,
        words=tuple(words[place - 1] for place in places),
        tokens=torch.tensor([token for token in tokens if token is not None], dtype=torch.long),
        places=torch.tensor(places, dtype=torch.long),
        length=len(words),
        cyclic=cyclic,
    )


def _said(
    weights: Weights, series: Sequence[Series], *, norm: bool
) -> dict[str, Int[Tensor, "layer head pairs"]]:
    """Which word of its series each head says of each word that has a successor."""
    said: dict[str, Tensor] = {}
    for each in series:
        early, later = streams(weights, each.tokens[each.sources], norm=norm)
        layers = [
            ov_logits(weights, layer, later if layer else early, each.tokens).argmax(dim=-1).cpu()
            for layer in range(weights.model.geometry.n_layers)
        ]
        said[each.name] = torch.stack(layers)
    return said


def _score(
    series: Iterable[Series],
    said: dict[str, Int[Tensor, "layer head pairs"]],
    dtype: torch.dtype,
    notes: dict[str, Any],
) -> Score:
    """The words of some series as samples: 1 where a head says the successor, else 0."""
    right: list[Bool[Tensor, "layer head pairs"]] = []
    chances: list[float] = []
    for each in series:
        right.append(said[each.name] == each.beside(1))
        chances += [1 / len(each.tokens)] * len(each.sources)
    return Score(
        kind="successor",
        values=torch.cat(right, dim=-1).to(dtype),
        samples="words",
        chance=sum(chances) / len(chances),
        notes=notes,
    )
