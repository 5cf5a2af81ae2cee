"""`LensReading`: what every layer said at every token, and how sure it was."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import as_html
from interp.errors import LensError, did_you_mean
from interp.lens import reading_file
from interp.lens.picture import picture, visible
from interp.saved import fitted
from interp.stats import bootstrap_ci

STATISTICS = {
    "kl": "KL(final || lens), nats",
    "entropy": "entropy, nats",
    "cross_entropy": "cross-entropy of the target, nats",
    "rank": "words that are more likely than the target",
    "prob": "probability of the target",
    "max_prob": "probability of the first word",
}
"""What is kept of each layer and token, with its unit."""


@dataclass(frozen=True, eq=False)
class LensReading:
    """What a lens reads off the stream, at every token of every text.

    The tokens of all texts stand side by side. Layer 0 is the embedding and layer l what leaves the
    l-th block; the last is the model's own prediction. The target of a token is what follows it,
    unless one was named; -1 and NaN where nothing follows.

    Attributes:
        layers: Which were read.
        text, position: Which text each token is of, and its place there.
        token, target: Ids of the tokens and of what they are followed by.
        values: For each name in `STATISTICS`.
        top: The likeliest words, best first, and `top_prob` their probabilities.
        words: What the ids in it stand for.
        lens: The kind of the lens.
        provenance: Model, lens, options, versions.
    """

    layers: tuple[int, ...]
    text: Int[Tensor, " tokens"]
    position: Int[Tensor, " tokens"]
    token: Int[Tensor, " tokens"]
    target: Int[Tensor, " tokens"]
    values: Mapping[str, Float[Tensor, "layer tokens"]]
    top: Int[Tensor, "layer tokens k"]
    top_prob: Float[Tensor, "layer tokens k"]
    words: Mapping[int, str] = field(repr=False)
    lens: str
    provenance: dict[str, Any] = field(repr=False)

    @property
    def n_texts(self) -> int:
        """Texts that were read."""
        return int(self.text.max()) + 1

    def per_text(self, value: str) -> Float[Tensor, "layer texts"]:
        """The mean of a statistic over the tokens of each text; NaN where none has one."""
        numbers = self.values[known(value)]
        there = ~numbers.isnan()
        empty = numbers.new_zeros(len(self.layers), self.n_texts)
        sums = empty.index_add(1, self.text, numbers.nan_to_num())
        return sums / empty.index_add(1, self.text, there.to(numbers))

    def summary(self, *, level: float = 0.95) -> pd.DataFrame:
        """Each statistic at each layer: the mean over texts of their means over tokens.

        Columns: layer, statistic, mean, ci_low, ci_high, texts (n of the interval), tokens. Tokens
        of one text are not independent, so texts are resampled.
        """
        rows = []
        for name in STATISTICS:
            each = self.per_text(name)
            low, high = bootstrap_ci(each, level=level)
            for index, layer in enumerate(self.layers):
                row = {"layer": layer, "statistic": name, "mean": each[index].nanmean().item()}
                row |= {"ci_low": low[index].item(), "ci_high": high[index].item()}
                row |= {"texts": int((~each[index].isnan()).sum())}
                rows.append(row | {"tokens": int((~self.values[name][index].isnan()).sum())})
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """One row for each layer and token.

        Columns: layer, text, position, token_id, token, target_id, target, the names in
        `STATISTICS`, and the lists top_id, top, top_prob.
        """
        n = len(self.layers)
        tokens, targets = self.token.tolist(), self.target.tolist()
        tops = self.top.flatten(0, 1).tolist()
        return pd.DataFrame(
            {
                "layer": [layer for layer in self.layers for _ in tokens],
                "text": self.text.tolist() * n,
                "position": self.position.tolist() * n,
                "token_id": tokens * n,
                "token": [self.words[token] for token in tokens] * n,
                "target_id": targets * n,
                "target": [self.words.get(target, "") for target in targets] * n,
                **{name: self.values[name].flatten().tolist() for name in STATISTICS},
                "top_id": tops,
                "top": [[self.words[token] for token in row] for row in tops],
                "top_prob": self.top_prob.flatten(0, 1).tolist(),
            }
        )

    def plot(self, value: str = "prob", *, text: int = 0) -> go.Figure:
        """A layer x token heatmap of a statistic, with the likeliest word in each cell.

        The first k words stand in the hover. Raises LensError for an unknown statistic or text.
        """
        known(value)
        return picture(self, value, STATISTICS[value], self._of(text))

    def table(self, text: int = 0) -> pd.DataFrame:
        """The likeliest word at each layer (rows) and token (columns) of a text."""
        some = self._of(text)
        return pd.DataFrame(
            [[visible(self.words[i]) for i in row] for row in self.top[:, some, 0].tolist()],
            index=pd.Index(self.layers, name="layer"),
            columns=[visible(self.words[i]) for i in self.token[some].tolist()],
        )

    def save(self, path: str | Path) -> Path:
        """Write Parquet if the name ends so, else JSON: the rows of `to_frame` and the provenance.

        Makes folders as needed; returns the path.
        """
        told = {"lens": self.lens, "provenance": self.provenance}
        return reading_file.write(Path(path), self.to_frame(), told)

    @classmethod
    def load(cls, path: str | Path) -> LensReading:
        """Read what `save` wrote.

        Raises FileFormatError: not such a file, of another version, or damaged.
        """
        return reading_file.read(Path(path), cls._from_frame)

    @classmethod
    def _from_frame(cls, frame: pd.DataFrame, told: dict[str, Any]) -> LensReading:
        layers = tuple(dict.fromkeys(frame["layer"].tolist()))
        shape = (len(layers), len(frame) // len(layers))
        first = frame.iloc[: shape[1]]
        if frame["layer"].tolist() != [layer for layer in layers for _ in range(shape[1])]:
            raise ValueError("its rows are not those of one layer after another")
        if not frame["text"].between(0, shape[1]).all():
            raise ValueError("a token is of a text that is none")
        words = dict(zip(frame["token_id"], frame["token"], strict=True))
        words |= {i: w for i, w in zip(frame["target_id"], frame["target"], strict=True) if i >= 0}
        for ids, names in zip(frame["top_id"], frame["top"], strict=True):
            words |= dict(zip(ids, names, strict=True))

        def ints(name: str) -> Int[Tensor, " tokens"]:
            return torch.tensor(first[name].tolist(), dtype=torch.long)

        def lists(name: str, dtype: torch.dtype) -> Tensor:
            return torch.tensor(frame[name].tolist(), dtype=dtype).unflatten(0, shape)

        return fitted(
            cls,
            layers=layers,
            text=ints("text"),
            position=ints("position"),
            token=ints("token_id"),
            target=ints("target_id"),
            values={
                name: torch.tensor(frame[name].astype(float).tolist(), dtype=torch.float64).view(
                    shape
                )
                for name in STATISTICS
            },
            top=lists("top_id", torch.long),
            top_prob=lists("top_prob", torch.float64),
            words=words,
            **told,
        )

    def _of(self, text: int) -> Int[Tensor, " some"]:
        if not 0 <= text < self.n_texts:
            raise LensError(f"Text {text} was not read; there are 0 to {self.n_texts - 1}.")
        return (self.text == text).nonzero()[:, 0]

    def _repr_html_(self) -> str:
        return as_html(self, self.table())

    def __repr__(self) -> str:
        return (
            f"LensReading({self.lens} lens of {self.provenance.get('model')}; {len(self.layers)} "
            f"layers, {self.n_texts} texts, {len(self.token)} tokens)"
        )


def known(value: str) -> str:
    """The name of a statistic. Raises LensError for another."""
    if value not in STATISTICS:
        raise LensError(f"No statistic is called {value!r}: {did_you_mean(value, STATISTICS)}")
    return value
