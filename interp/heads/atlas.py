"""`HeadAtlas`: every head x every kind of attention, with the value of each prompt."""

from __future__ import annotations

import html
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import FileFormatError, MetricError, did_you_mean
from interp.heads.attention import MEANING
from interp.plots import head_grids, head_heatmap
from interp.sites import Head
from interp.stats import bootstrap_ci

THRESHOLD = 0.4
"""A head is named after a kind from this score on: the threshold in common use."""

FORMAT = {"format": "interp.HeadAtlas", "version": 1}


@dataclass(frozen=True, eq=False)
class HeadAtlas:
    """Scores of every head; make one with `interp.heads.scan`.

    Attributes:
        kinds: Names of the scores.
        values: Score of each head on each prompt, from 0 to 1; NaN where it could not be measured.
        chance: Score of a head that attends equally to everything it may see.
        provenance: Model, weights hash, prompts, seed, versions, and the command that repeats it.
    """

    kinds: tuple[str, ...]
    values: Float[Tensor, "kinds layer head prompts"]
    chance: Float[Tensor, " kinds"]
    provenance: dict[str, Any]

    @property
    def n(self) -> int:
        """Number of prompts that each score is the mean of."""
        return self.values.shape[-1]

    @property
    def scores(self) -> Float[Tensor, "kinds layer head"]:
        """Mean over prompts."""
        return self.values.mean(dim=-1)

    def grid(self, kind: str) -> Float[Tensor, "layer head"]:
        """Scores of one kind."""
        return self.scores[self._index(kind)]

    def ci(
        self, *, level: float = 0.95
    ) -> tuple[Float[Tensor, "kinds layer head"], Float[Tensor, "kinds layer head"]]:
        """Bootstrap confidence interval of each score over prompts: its low and high ends."""
        return bootstrap_ci(self.values, level=level)

    def top(self, kind: str, k: int = 10) -> pd.DataFrame:
        """The `k` heads with the highest score of a kind, best first.

        Columns: head, score, ci_low, ci_high (95%), chance, n.

        Raises:
            MetricError: No such kind in this atlas.
        """
        index = self._index(kind)
        low, high = (end[index].flatten() for end in self.ci())
        scores = self.grid(kind).flatten()
        order = scores.nan_to_num(nan=-math.inf).argsort(descending=True, stable=True)[:k]
        names = self._names()
        return pd.DataFrame(
            {
                "head": [names[i] for i in order.tolist()],
                "score": scores[order].tolist(),
                "ci_low": low[order].tolist(),
                "ci_high": high[order].tolist(),
                "chance": self.chance[index].item(),
                "n": self.n,
            }
        )

    def named(self, threshold: float = THRESHOLD) -> dict[str, tuple[Head, ...]]:
        """Heads of each kind: those that score `threshold` or more, best first."""
        return {
            kind: tuple(
                Head(*divmod(i, self.values.shape[2]))
                for i in grid.argsort(descending=True, stable=True).tolist()
                if grid[i] >= threshold
            )
            for kind, grid in zip(self.kinds, self.scores.flatten(1), strict=True)
        }

    def to_frame(self, threshold: float = THRESHOLD) -> pd.DataFrame:
        """One row a head: its score of each kind, and in `kind` the kinds it is named after."""
        scores = self.scores.flatten(1)
        columns = dict(zip(self.kinds, scores.tolist(), strict=True))
        kind = [
            ", ".join(k for k, score in zip(self.kinds, row, strict=True) if score >= threshold)
            for row in scores.T.tolist()
        ]
        return pd.DataFrame({"head": self._names(), **columns, "kind": kind})

    def plot(self, kind: str | None = None) -> go.Figure:
        """A layer x head heatmap of one kind, or of all kinds side by side."""
        model = self.provenance.get("model", "model")
        if kind is None:
            grids = dict(zip(self.kinds, self.scores, strict=True))
            return head_grids(grids, title=f"Attention heads of {model}", colorbar="attention")
        index = self._index(kind)
        low, high = (end[index].tolist() for end in self.ci())
        hover = [
            [
                f"{layer}.{head}: {score:.3f}<br>95% interval {low[layer][head]:.3f} to "
                f"{high[layer][head]:.3f}<br>chance {self.chance[index]:.3f}, n = {self.n}"
                for head, score in enumerate(row)
            ]
            for layer, row in enumerate(self.grid(kind).tolist())
        ]
        return head_heatmap(
            self.grid(kind), title=f"{kind} heads of {model}", colorbar="attention", hover=hover
        )

    def to_json(self) -> str:
        """The atlas as JSON, exact to the last bit of float32."""
        return json.dumps(
            {
                **FORMAT,
                "kinds": list(self.kinds),
                "chance": _numbers(self.chance),
                "values": _numbers(self.values),
                "provenance": self.provenance,
            },
            allow_nan=False,
        )

    def save(self, path: str | Path) -> Path:
        """Write the atlas as JSON, making folders as needed; returns the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json() + "\n", encoding="utf-8")
        return path

    @classmethod
    def load(cls, path: str | Path) -> HeadAtlas:
        """Read what `save` wrote.

        Raises:
            FileFormatError: Not a file, not JSON, of another kind or version, or incomplete.
        """
        return _read(Path(path))

    def _index(self, kind: str) -> int:
        if kind not in self.kinds:
            raise MetricError(
                f"{kind!r} is not a kind of head in this atlas: {did_you_mean(kind, self.kinds)}"
            )
        return self.kinds.index(kind)

    def _names(self) -> list[str]:
        _, layers, heads, _ = self.values.shape
        return [str(Head(layer, head)) for layer in range(layers) for head in range(heads)]

    def __repr__(self) -> str:
        _, layers, heads, n = self.values.shape
        return (
            f"HeadAtlas({self.provenance.get('model', 'model')}: {layers} layers x {heads} heads, "
            f"{', '.join(self.kinds)}; n = {n})"
        )

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(kind)}</th>"
            f"<td style='text-align:left'>{self._best(kind)}</td>"
            f"<td style='text-align:left'>{html.escape(MEANING.get(kind, ''))}</td></tr>"
            for kind in self.kinds
        )
        return (
            f"<p><b>{html.escape(repr(self))}</b></p><table><tr><th>kind</th><th>best heads</th>"
            f"<th>meaning</th></tr>{rows}</table>"
        )

    def _best(self, kind: str) -> str:
        top = self.top(kind, 3)
        return ", ".join(
            f"{head} {score:.2f} [{low:.2f}, {high:.2f}]"
            for head, score, low, high in zip(
                top["head"], top["score"], top["ci_low"], top["ci_high"], strict=True
            )
        )


def _numbers(tensor: Float[Tensor, "*any"]) -> list[Any]:
    """Nested lists for JSON: NaN becomes null, and a float32 keeps its 9 telling digits."""

    def written(value: Any) -> Any:
        if isinstance(value, list):
            return [written(entry) for entry in value]
        return float(f"{value:.9g}") if math.isfinite(value) else None

    return written(tensor.tolist())


def _tensor(numbers: Any) -> Float[Tensor, "*any"]:
    def read(value: Any) -> Any:
        if isinstance(value, list):
            return [read(entry) for entry in value]
        return math.nan if value is None else float(value)

    return torch.tensor(read(numbers), dtype=torch.float32)


def _read(path: Path) -> HeadAtlas:
    way_out = "write one with HeadAtlas.save or `interp scan MODEL --out atlas.json`"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror}); {way_out}.") from error
    except ValueError as error:
        raise FileFormatError(f"{path} is not whole JSON ({error}); {way_out}.") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT["format"]:
        raise FileFormatError(f"{path} does not hold a HeadAtlas; {way_out}.")
    if data.get("version") != FORMAT["version"]:
        raise FileFormatError(
            f"{path} is a HeadAtlas of version {data.get('version')!r}, and this release reads "
            f"version {FORMAT['version']}; scan again, or install the release that wrote it."
        )
    try:
        kinds, provenance = tuple(data["kinds"]), dict(data["provenance"])
        values, chance = _tensor(data["values"]), _tensor(data["chance"])
    except (KeyError, TypeError, ValueError) as error:
        broken = f"{path} has a missing or broken part ({error}); {way_out}."
        raise FileFormatError(broken) from error
    if values.ndim != 4 or values.shape[0] != len(kinds) or chance.shape != (len(kinds),):
        raise FileFormatError(
            f"{path} has values of shape {tuple(values.shape)} and {chance.numel()} chance levels "
            f"for {len(kinds)} kinds; {way_out}."
        )
    return HeadAtlas(kinds, values, chance, provenance)
