"""`SweepResult`: many interventions on one prompt set, with the value of every prompt."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.display import as_html
from interp.engine.result_file import read, write
from interp.engine.result_layout import columns_of, layout_of
from interp.errors import InterpError, SiteError, did_you_mean
from interp.plots import head_heatmap, site_bars
from interp.saved import register
from interp.sites import Site
from interp.stats import bootstrap_ci

ORDERS = ("abs", "lowest", "highest")
SHARES = ("ratio_of_means", "mean_of_ratios")
BARS = 30  # sites in a bar chart


@register
@dataclass(frozen=True, eq=False)
class SweepResult:
    """What a metric becomes when one site after another is changed.

    Attributes:
        sites: Where each intervention acted.
        values: The metric under each intervention, on each prompt; NaN for prompts not run.
        clean: The metric of the model left as it is.
        metric: Name of the metric.
        method: What was done at each site, such as "zero", "patch" or "eap-ig-inputs".
        provenance: Model, weights hash, prompts, dtype, device, versions. Its "direction" is
            "denoise" where the edits were put into the run on the corrupt prompts.
        corrupt: The metric on the corrupt prompts, of the model left as it is.
        exact: False where the values of a site are an approximation, such as a gradient, half
            precision or a race that was stopped; None where all are exact.
    """

    sites: tuple[Site, ...]
    values: Float[Tensor, "sites prompts"]
    clean: Float[Tensor, " prompts"]
    metric: str
    method: str
    provenance: dict[str, Any]
    corrupt: Float[Tensor, " prompts"] | None = None
    exact: Bool[Tensor, " sites"] | None = None

    @property
    def baseline(self) -> Float[Tensor, " prompts"]:
        """The metric of the run that the edits were put into: clean, or corrupt to denoise.

        Raises InterpError if the sweep denoises and has no corrupt run.
        """
        return self._needed_corrupt() if self._denoises else self.clean

    @property
    def effects(self) -> Float[Tensor, "sites prompts"]:
        """What each intervention changes on each prompt: value minus baseline."""
        return self.values - self.baseline

    def ci(self, *, level: float = 0.95) -> tuple[Float[Tensor, " sites"], Float[Tensor, " sites"]]:
        """Bootstrap confidence interval of each mean effect over prompts; NaN for one prompt."""
        return bootstrap_ci(self.effects, level=level)

    def stderr(self) -> Float[Tensor, " sites"]:
        """Standard error of each mean effect over prompts; NaN for one prompt."""
        effects, n = self.effects, self._counts()
        spread = effects - effects.nanmean(dim=-1, keepdim=True)
        return (spread.square().nansum(dim=-1) / (n - 1) / n).sqrt()

    def normalized(self, kind: str = "ratio_of_means") -> Float[Tensor, " sites"]:
        """Share of the gap between clean and corrupt that each intervention makes up.

        0 is the run that the edits were put into and 1 the other one. `kind` is "ratio_of_means",
        the mean effect over the mean gap; or "mean_of_ratios", the mean of each prompt's effect
        over its own gap, which one prompt with a small gap can decide.

        Raises InterpError for another kind, without a corrupt run, and where a gap is zero.
        """
        if kind not in SHARES:
            raise InterpError(f"There is no share {kind!r}: {did_you_mean(kind, SHARES)}")
        start, end = self.clean, self._needed_corrupt()
        if self._denoises:
            start, end = end, start
        effects = self.values - start
        gaps = torch.where(effects.isnan(), torch.nan, end - start)
        if kind == "ratio_of_means":
            return _ratio(effects.nanmean(dim=-1), gaps.nanmean(dim=-1), self.metric)
        return _ratio(effects, gaps, self.metric).nanmean(dim=-1)

    def compare(self, other: SweepResult) -> pd.DataFrame:
        """Difference between two sweeps on the same prompts, for the sites that are in both.

        One row a site: site, effect (here), other (there), difference, ci_low and ci_high (95%, of
        the difference, paired by prompt), n (prompts run in both).

        Raises InterpError unless both have the same prompts and the same metric.
        """
        _require_comparable(self, other)
        there = {site: row for row, site in enumerate(other.sites)}
        rows = [(row, there[site]) for row, site in enumerate(self.sites) if site in there]
        mine = self.effects[[row for row, _ in rows]]
        theirs = other.effects[[row for _, row in rows]].to(mine)
        run = ~(mine - theirs).isnan()
        mine, theirs = (torch.where(run, effects, torch.nan) for effects in (mine, theirs))
        low, high = bootstrap_ci(mine - theirs)
        return pd.DataFrame(
            {
                "site": [str(self.sites[row]) for row, _ in rows],
                "effect": mine.nanmean(dim=-1).tolist(),
                "other": theirs.nanmean(dim=-1).tolist(),
                "difference": (mine - theirs).nanmean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "n": run.sum(dim=-1).tolist(),
            }
        )

    def grid(self) -> Float[Tensor, "layer column"]:
        """Mean effect of each site in its layer's row; NaN for sites that were not tested.

        Columns are heads, for heads, queries and patterns; groups of heads, for keys and values;
        positions, for residual streams, MLPs or attention layers at numbered positions; and a
        single column for those at all positions.

        Raises SiteError for sites of several kinds and for other sites.
        """
        layout = layout_of(self.sites, self.provenance["geometry"])
        grid = torch.full(layout.shape, torch.nan, dtype=self.values.dtype)
        grid[layout.rows, layout.columns] = self._mean_effects().cpu()
        return grid

    def to_frame(self) -> pd.DataFrame:
        """One row a site, with its mean effect and 95% interval.

        Columns: site, layer (that of the end of an edge; the logits count as one more layer), head
        (the group of a key or value; missing for sites that are of no head), position (missing for
        all positions), mean (metric), effect, ci_low and ci_high (of the effect), n (prompts run),
        exact.
        """
        low, high = self.ci()
        exact = torch.ones(len(self.sites)).bool() if self.exact is None else self.exact
        return pd.DataFrame(
            {
                **columns_of(self.sites, self.provenance["geometry"]["n_layers"]),
                "mean": self.values.nanmean(dim=-1).tolist(),
                "effect": self._mean_effects().tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "n": self._counts().tolist(),
                "exact": exact.cpu().numpy(),
            }
        )

    def top(self, k: int = 10, *, by: str = "abs") -> pd.DataFrame:
        """The `k` rows of `to_frame` with the largest effects in size, the lowest or the highest.

        Raises InterpError unless `by` is "abs", "lowest" or "highest".
        """
        return self._largest(k, by).to_frame()

    def plot(self) -> go.Figure:
        """Heatmap of the mean effects where there is a `grid`, else bars of the 30 largest."""
        title = f"{_capitalized(_deed(self.method))} of {self._model}"
        unit = f"change of {self.metric}"
        try:
            layout = layout_of(self.sites, self.provenance["geometry"])
        except SiteError:
            return self._bars(title, unit)
        hover = [["not tested"] * layout.shape[1] for _ in range(layout.shape[0])]
        for row, column, text in zip(layout.rows, layout.columns, self._hover(), strict=True):
            hover[row][column] = text
        return head_heatmap(
            self.grid(),
            title=title,
            colorbar=unit,
            diverging=True,
            hover=hover,
            across=layout.across,
            first=layout.first,
        )

    def save(self, path: str | Path) -> Path:
        """Write one safetensors file, with everything but the numbers as JSON in its header."""
        return write(path, vars(self))

    @classmethod
    def load(cls, path: str | Path) -> SweepResult:
        """Read what `save` wrote.

        Raises FileFormatError for a file that is truncated, malformed, of another kind or version.
        """
        return cls(**read(path))

    @property
    def _denoises(self) -> bool:
        return self.provenance.get("direction") == "denoise"

    @property
    def _model(self) -> str:
        return str(self.provenance["model"])

    def _needed_corrupt(self) -> Float[Tensor, " prompts"]:
        if self.corrupt is None:
            raise InterpError(
                f"This {_deed(self.method)} has no run on corrupt prompts to measure against; "
                "sweep over prompts that have them, or use the effects themselves."
            )
        return self.corrupt

    def _counts(self) -> Int[Tensor, " sites"]:
        """How many prompts each site was run on."""
        return (~self.values.isnan()).sum(dim=-1)

    def _mean_effects(self) -> Float[Tensor, " sites"]:
        return self.effects.nanmean(dim=-1)

    def _largest(self, k: int, by: str = "abs") -> SweepResult:
        """The `k` sites with the largest effects alone; sites that were never run come last."""
        if by not in ORDERS:
            raise InterpError(f"Effects are not sorted by {by!r}: {did_you_mean(by, ORDERS)}")
        mean = self._mean_effects()
        key = {"abs": mean.abs(), "lowest": -mean, "highest": mean}[by]
        key = key.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        rows = key.argsort(descending=True, stable=True)[:k].tolist()
        return replace(
            self,
            sites=tuple(self.sites[row] for row in rows),
            values=self.values[rows],
            exact=None if self.exact is None else self.exact[rows],
        )

    def _hover(self) -> list[str]:
        return [
            f"{row.site}: {row.effect:+.3f}<br>95% interval {row.ci_low:+.3f} to "
            f"{row.ci_high:+.3f}<br>{self.metric} {row.mean:.3f}, n = {row.n}"
            + ("" if row.exact else "<br>approximate")
            for row in self.to_frame().itertuples()
        ]

    def _bars(self, title: str, unit: str) -> go.Figure:
        shown, tested = self._largest(BARS), len(self.sites)
        frame = shown.to_frame()
        return site_bars(
            frame["effect"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=frame["site"].tolist(),
            title=title if tested <= BARS else f"{title}: the largest {BARS} of {tested}",
            across=unit,
            hover=shown._hover(),
        )

    def __repr__(self) -> str:
        corrupt = "" if self.corrupt is None else f", {self.corrupt.mean():.3f} when corrupt"
        return (
            f"SweepResult({_deed(self.method)} of {len(self.sites)} sites of {self._model}; "
            f"{self.metric} on {self.values.shape[1]} prompts of "
            f"{self.provenance.get('task') or 'the user'}, {self.clean.mean():.3f} when clean"
            f"{corrupt})"
        )

    def _repr_html_(self) -> str:
        known = self.top(10).dropna(axis="columns", how="all")
        return as_html(self, "Largest effects:", known)


def _deed(method: str) -> str:
    """What was done, as a noun.

    >>> _deed("zero"), _deed("patch"), _deed("eap-ig-inputs"), _deed("scale")
    ('zero ablation', 'patching', 'EAP-IG-inputs attribution', 'scale')
    """
    if re.match(r"(zero|mean|resample)\b", method):
        return f"{method} ablation"
    if method.endswith("patch"):
        return f"{method}ing"
    if known := re.match(r"eap(-ig)?\b", method):
        return f"{known[0].upper()}{method[known.end() :]} attribution"
    return method


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ratio(
    effects: Float[Tensor, "*shape"], gaps: Float[Tensor, "*shape"], metric: str
) -> Float[Tensor, "*shape"]:
    """Raises InterpError for a gap of zero."""
    if (gaps == 0).any():
        raise InterpError(
            f"{metric} is the same clean and corrupt "
            + (
                "on average, so there is no gap to take a share of; use the effects themselves."
                if gaps.ndim == 1
                else "on a prompt, which has no gap to take a share of; use kind='ratio_of_means'."
            )
        )
    return effects / gaps


def _require_comparable(one: SweepResult, other: SweepResult) -> None:
    if one.metric != other.metric:
        raise InterpError(
            f"One sweep measures {one.metric} and the other {other.metric}; compare sweeps of one "
            "metric."
        )
    prompts = [sweep.provenance.get("prompts_hash") for sweep in (one, other)]
    if prompts[0] != prompts[1] or prompts[0] is None or len(one.clean) != len(other.clean):
        raise InterpError(
            f"The sweeps are on different prompts (hashes {prompts[0]} and {prompts[1]}), and a "
            "paired comparison needs the same; run both on one prompt set."
        )
