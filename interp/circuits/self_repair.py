"""Do other parts take over when some heads are knocked out?

Two signs of it. The heads together matter more than the sum of what each does alone: while one is
out the others stand in for it. And backup heads: heads that matter more once the primaries are
out than they did before (Wang et al. 2023, section 3.4, who knock out the name movers of GPT-2).
Both are differences of differences of the metric on each prompt, with random heads of the same
layers in the place of the primaries as control.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.controls import other_heads
from interp.display import Displayed, as_html
from interp.engine import Edit, Intervention, run
from interp.engine.ablation import operation_of
from interp.errors import CircuitError
from interp.models import Model
from interp.plots import site_bars
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import Head, Site
from interp.sites import heads as all_heads
from interp.sites import mlps as all_mlps
from interp.sites import resolve as resolve_sites
from interp.stats import bootstrap_ci

BARS = 20
CONTROLS = 3
"""Random sets whose backups are looked for too: each costs as many runs as the primaries."""


@dataclass(frozen=True, eq=False)
class SelfRepair(Saved, Displayed):
    """What some heads and the rest of the model do for each other; `self_repair` makes one.

    Damage is the metric that is lost: clean minus ablated.

    Attributes:
        primaries: The heads that are knocked out.
        sites: All heads, and MLPs if they were asked for: the candidates and the primaries.
        clean: The metric on each prompt.
        single: Without each of `sites` alone.
        joint: Without all primaries.
        after: Without all primaries and each of `sites`; NaN for the primaries themselves.
        random_sets: As many other heads of the same layers, several times.
        random_joint: Without all heads of each random set.
        random_after: Without the first random sets and each of `sites`; NaN for their own heads.
        threshold: Share of the clean metric by which a backup's damage must grow.
        metric: Its name.
        provenance: Model, weights hash, prompts, method, seed, versions.
    """

    primaries: tuple[Site, ...]
    sites: tuple[Site, ...]
    clean: Float[Tensor, " prompts"]
    single: Float[Tensor, "sites prompts"]
    joint: Float[Tensor, " prompts"]
    after: Float[Tensor, "sites prompts"]
    random_sets: tuple[tuple[Site, ...], ...]
    random_joint: Float[Tensor, "sets prompts"]
    random_after: Float[Tensor, "some_sets sites prompts"]
    threshold: float
    metric: str
    provenance: dict[str, Any]

    @property
    def excess(self) -> Float[Tensor, " prompts"]:
        """Joint damage less the sum of single damages; above 0 the singles hide damage."""
        return self._excess(self.primaries, self.joint)

    @property
    def random_excess(self) -> Float[Tensor, "sets prompts"]:
        """That of the random sets."""
        if not self.random_sets:
            return self.random_joint
        both = zip(self.random_sets, self.random_joint, strict=True)
        return torch.stack([self._excess(some, joint) for some, joint in both])

    @property
    def gains(self) -> Float[Tensor, "sites prompts"]:
        """How much more damage each site does once the primaries are out; NaN for these."""
        return self._gains(self.joint, self.after)

    @property
    def random_gains(self) -> Float[Tensor, "some_sets sites prompts"]:
        """The same once each of the first random sets is out instead."""
        some = self.random_joint[: len(self.random_after)]
        return self._gains(some, self.random_after)

    @property
    def backups(self) -> tuple[Site, ...]:
        """Sites whose gain is beyond the threshold, with an interval above 0; largest first.

        Many sites are tested, of which one in 40 has such an interval by chance; the threshold and
        the count of `random_backups` guard against that.
        """
        found = self._beyond(self.gains).nonzero()[:, 0]
        order = self.gains[found].mean(dim=-1).argsort(descending=True)
        return tuple(self.sites[i] for i in found[order].tolist())

    @property
    def random_backups(self) -> list[int]:
        """How many sites would be called backups of each of the first random sets."""
        return [int(self._beyond(gains).sum()) for gains in self.random_gains]

    def summary(self) -> pd.DataFrame:
        """One row: joint damage against the sum of single ones.

        Columns: heads, clean, joint_damage, sum_of_damages, excess with ci_low and ci_high,
        random_excess (mean of the random sets), p (share of these and the heads themselves with at
        least as large an excess), backups, random_backups (mean count), n.
        """
        low, high = bootstrap_ci(self.excess)
        random, counts = self.random_excess.mean(dim=-1), self.random_backups
        singles = self.clean - self.single[self._rows(self.primaries)]
        row = {
            "heads": "+".join(map(str, self.primaries)),
            "clean": self.clean.mean().item(),
            "joint_damage": (self.clean - self.joint).mean().item(),
            "sum_of_damages": singles.sum(dim=0).mean().item(),
            "excess": self.excess.mean().item(),
            "ci_low": low.item(),
            "ci_high": high.item(),
            "random_excess": random.mean().item(),
            "p": (1 + int((random >= self.excess.mean()).sum())) / (1 + len(random)),
            "backups": len(self.backups),
            "random_backups": sum(counts) / len(counts) if counts else float("nan"),
            "n": len(self.clean),
        }
        return pd.DataFrame([row])

    def to_frame(self) -> pd.DataFrame:
        """One row a candidate, the largest gain first.

        Columns: site, before and after (its damage with the primaries in and out), gain, ci_low,
        ci_high, share (gain as a share of the clean metric), random_gain (mean gain once random
        heads are out instead; missing for heads in all of those sets), backup, n.
        """
        low, high = bootstrap_ci(self.gains)
        random = self.random_gains.nanmean(dim=(0, 2))
        frame = pd.DataFrame(
            {
                "site": [str(site) for site in self.sites],
                "before": (self.clean - self.single).mean(dim=-1).tolist(),
                "after": (self.joint - self.after).mean(dim=-1).tolist(),
                "gain": self.gains.mean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "share": (self.gains.mean(dim=-1) / self.clean.mean()).tolist(),
                "random_gain": random.tolist(),
                "backup": self._beyond(self.gains).tolist(),
                "n": len(self.clean),
            }
        )
        rest = frame[~frame["site"].isin([str(site) for site in self.primaries])]
        return rest.sort_values("gain", ascending=False, ignore_index=True)

    def plot(self) -> go.Figure:
        """Bars of the 20 largest gains."""
        frame = self.to_frame().head(BARS)
        return site_bars(
            frame["gain"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=frame["site"].tolist(),
            title=f"Who matters more without {', '.join(map(str, self.primaries))}?",
            across=f"growth of damage ({self.metric})",
            hover=[
                f"{row.site}: damage {row.before:.3f} before, {row.after:.3f} after"
                f"<br>95% interval of the growth {row.ci_low:+.3f} to {row.ci_high:+.3f}"
                f"<br>{row.random_gain:+.3f} after random heads, n = {row.n}"
                for row in frame.itertuples()
            ],
        )

    def _rows(self, sites: Sequence[Site]) -> list[int]:
        place = {site: row for row, site in enumerate(self.sites)}
        return [place[site] for site in sites]

    def _excess(
        self, some: Sequence[Site], joint: Float[Tensor, " prompts"]
    ) -> Float[Tensor, " prompts"]:
        singles = (self.clean - self.single[self._rows(some)]).sum(dim=0)
        return self.clean - joint - singles

    def _gains(
        self, out: Float[Tensor, "*sets prompts"], after: Float[Tensor, "*sets sites prompts"]
    ) -> Float[Tensor, "*sets sites prompts"]:
        return (out[..., None, :] - after) - (self.clean - self.single)

    def _beyond(self, gains: Float[Tensor, "sites prompts"]) -> Bool[Tensor, " sites"]:
        low, _ = bootstrap_ci(gains)
        return (gains.mean(dim=-1) > self.threshold * self.clean.mean()) & (low > 0)

    def __repr__(self) -> str:
        row = self.summary().iloc[0]
        return (
            f"SelfRepair({row.heads} of {self.provenance['model']}: together {row.joint_damage:.2f}"
            f" of {self.metric} lost, {row.sum_of_damages:.2f} one by one; "
            f"{row.backups} backups, {row.random_backups:.1f} of random heads; n = {row.n})"
        )

    def _repr_html_(self) -> str:
        return as_html(self, self.summary(), "Candidates:", self.to_frame().head(10))


def self_repair(
    model: Model,
    prompts: PromptSet,
    heads: Iterable[Head | str],
    *,
    method: str = "mean",
    over: str = "all",
    metric: str | Callable[..., Any] = "logit_diff",
    threshold: float = 0.02,
    mlps: bool = False,
    random: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> SelfRepair:
    """Knock some heads out, and see what the rest of the model does about it.

    Args:
        model: In eval mode.
        prompts: Of the task that the heads serve.
        heads: The primaries, such as the name movers. The joint damage of one is its single one.
        method: What takes the place of an ablated head: "zero", "mean", "resample" or
            "counterfactual"; see `interp.ablate`.
        over: Of "mean".
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        threshold: Share of the clean metric by which a backup's damage must grow (Wang: 2%).
        mlps: Look for backups among MLPs too.
        random: Random sets of other heads of the same layers; backups of the first 3 of them are
            looked for.
        seed: Of the random sets, and of "resample".
        progress: Show a bar.

    Wang et al. measure direct effects after the knock-out; here it is the whole effect of ablating
    the candidate, so that a head which feeds a backup can count as one.

    Raises:
        CircuitError: Sites that are no heads.
        SiteError: Heads that the model does not have.
        InterventionError, PromptError, MetricError: As `interp.ablate` does.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=8, seed=0)
    >>> self_repair(model, prompts, ["3.5", "2.6"], random=2).excess.shape
    torch.Size([8])
    """
    primaries = resolve_sites(heads, model)
    if not all(isinstance(site, Head) for site in primaries):
        raise CircuitError(
            f"Heads are knocked out here, and got {', '.join(map(str, primaries))}; give heads "
            "such as 3.5, each once."
        )
    primaries = tuple(sorted(primaries))
    sites = (*all_heads(model), *(all_mlps(model) if mlps else ()))
    sets = other_heads(primaries, model.geometry.n_heads, sets=random, seed=seed)
    out = [primaries, *sets[:CONTROLS]]
    wanted = [frozenset({site}) for site in sites]
    wanted += [frozenset(some) for some in (primaries, *sets)]
    wanted += [frozenset({*some, site}) for some in out for site in sites]
    operation = operation_of(method, over, seed)
    sweep = run(
        model,
        prompts,
        [Intervention(tuple(Edit(site, operation) for site in sorted(some))) for some in wanted],
        metric=metric,
        method=method,
        progress=progress,
        over=over if method == "mean" else None,
        random=random,
        random_seed=seed,
    )
    single, joint, after = sweep.values.split([len(sites), 1 + len(sets), len(out) * len(sites)])
    own = torch.tensor([[site in some for site in sites] for some in out])
    after = after.unflatten(0, own.shape).masked_fill(own[..., None], torch.nan)
    return SelfRepair(
        primaries=primaries,
        sites=sites,
        clean=sweep.clean,
        single=single,
        joint=joint[0],
        after=after[0],
        random_sets=tuple(sets),
        random_joint=joint[1:],
        random_after=after[1:],
        threshold=threshold,
        metric=sweep.metric,
        provenance=sweep.provenance,
    )
