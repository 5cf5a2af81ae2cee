"""`SweepResult`: many interventions on one prompt set, with the value of every prompt."""

from __future__ import annotations

import html
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import FileFormatError, InterpError, SiteError, did_you_mean
from interp.plots import head_heatmap
from interp.sites import Head, Site, parse
from interp.stats import bootstrap_ci

FORMAT = {"format": "interp.SweepResult", "version": 1}
ORDERS = ("abs", "lowest", "highest")


@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a metric becomes when one site after another is changed.

    Attributes:
        sites: Where each intervention acted.
        values: The metric under each intervention, on each prompt.
        clean: The metric of the model left as it is.
        metric: Name of the metric.
        method: What was done at each site, such as "zero" or "mean".
        provenance: Model, weights hash, prompts, dtype, device, versions.
    """

    sites: tuple[Site, ...]
    values: Float[Tensor, "sites prompts"]
    clean: Float[Tensor, " prompts"]
    metric: str
    method: str
    provenance: dict[str, Any]

    @property
    def effects(self) -> Float[Tensor, "sites prompts"]:
        """What each intervention changes on each prompt: value minus clean value."""
        return self.values - self.clean

    def ci(self, *, level: float = 0.95) -> tuple[Float[Tensor, " sites"], Float[Tensor, " sites"]]:
        """Bootstrap confidence interval of each mean effect over prompts; NaN for one prompt."""
        return bootstrap_ci(self.effects, level=level)

    def grid(self) -> Float[Tensor, "layer head"]:
        """Mean effect of each head; NaN for heads that were not tested.

        Raises SiteError if a site is not a head.
        """
        for site in self.sites:
            if not isinstance(site, Head):
                raise SiteError(
                    f"A grid has a cell for each head and {site} is not a head; "
                    "use to_frame(), or sweep over heads alone."
                )
        shape = self.provenance["geometry"]
        grid = torch.full((shape["n_layers"], shape["n_heads"]), torch.nan, dtype=self.values.dtype)
        for site, effect in zip(self.sites, self.effects.mean(dim=-1), strict=True):
            if isinstance(site, Head):
                grid[site.layer, site.head] = effect
        return grid

    def to_frame(self) -> pd.DataFrame:
        """One row a site: site, layer, head, mean (metric), effect, ci_low, ci_high (95%), n.

        `ci_low` and `ci_high` are those of the effect; `head` is missing for other sites.
        """
        low, high = self.ci()
        heads = [site.head if isinstance(site, Head) else None for site in self.sites]
        return pd.DataFrame(
            {
                "site": [str(site) for site in self.sites],
                "layer": [site.layer for site in self.sites],
                "head": pd.array(heads, dtype="Int64"),
                "mean": self.values.mean(dim=-1).tolist(),
                "effect": self.effects.mean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "n": self.values.shape[1],
            }
        )

    def top(self, k: int = 10, *, by: str = "abs") -> pd.DataFrame:
        """The `k` rows of `to_frame` with the largest effects in size, the lowest or the highest.

        Raises InterpError unless `by` is "abs", "lowest" or "highest".
        """
        if by not in ORDERS:
            raise InterpError(f"Effects are not sorted by {by!r}: {did_you_mean(by, ORDERS)}")
        mean = self.effects.mean(dim=-1)
        key = {"abs": mean.abs(), "lowest": -mean, "highest": mean}[by]
        order = key.argsort(descending=True, stable=True)[:k].tolist()
        return self.to_frame().iloc[order].reset_index(drop=True)

    def plot(self) -> go.Figure:
        """Layer x head heatmap of the mean effects. Raises SiteError if a site is not a head."""
        frame = self.to_frame()
        hover = [["not tested"] * self.grid().shape[1] for _ in self.grid()]
        for row in frame.itertuples():
            hover[row.layer][row.head] = (
                f"{row.site}: {row.effect:+.3f}<br>95% interval {row.ci_low:+.3f} to "
                f"{row.ci_high:+.3f}<br>{self.metric} {row.mean:.3f}, n = {row.n}"
            )
        return head_heatmap(
            self.grid(),
            title=f"{self.method.capitalize()} ablation of {self.provenance['model']}",
            colorbar=f"change of {self.metric}",
            diverging=True,
            hover=hover,
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, with everything but the numbers as JSON in its header."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        header = {
            **FORMAT,
            "sites": [str(site) for site in self.sites],
            "metric": self.metric,
            "method": self.method,
            "provenance": self.provenance,
        }
        partial = path.with_name(f".{path.name}.partial")
        tensors = {"values": self.values.contiguous(), "clean": self.clean.contiguous()}
        save_file(tensors, partial, metadata={"interp": json.dumps(header)})
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path: str | Path) -> SweepResult:
        """Read what `save` wrote.

        Raises FileFormatError for a file that is truncated, of another kind or version.
        """
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("interp", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise FileFormatError(
                f"{path} cannot be read ({error}); run the sweep again."
            ) from error
        if header.get("format") != FORMAT["format"]:
            raise FileFormatError(
                f"{path} is not a sweep; give a file that SweepResult.save wrote."
            )
        if header["version"] != FORMAT["version"]:
            raise FileFormatError(
                f"{path} is written in version {header['version']} of the format and this interp "
                f"reads version {FORMAT['version']}; run the sweep again."
            )
        return cls(
            sites=tuple(parse(site) for site in header["sites"]),
            values=tensors["values"],
            clean=tensors["clean"],
            metric=header["metric"],
            method=header["method"],
            provenance=header["provenance"],
        )

    def __repr__(self) -> str:
        return (
            f"SweepResult({self.method} ablation of {len(self.sites)} sites of "
            f"{self.provenance['model']}; {self.metric} on {self.values.shape[1]} prompts of "
            f"{self.provenance['task'] or 'the user'}, {self.clean.mean():.3f} when clean)"
        )

    def _repr_html_(self) -> str:
        table = self.top(10).to_html(index=False, float_format="{:.3f}".format)
        return f"<p>{html.escape(repr(self))}</p><p>Largest effects:</p>{table}"
