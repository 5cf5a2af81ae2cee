"""Find the sites that matter most without measuring all of them exactly.

Three screens:

- "race": all sites run on the first prompts, and only those that are undecided on more of them; see
  `racing.py`. No site need be run on all prompts.
- "half": all sites run in bfloat16; those that could be in the top k, given the error that was
  measured on some of them, run again in the model's own precision.
- "attribution": gradients score all sites; the best `keep` times k run exactly.

`SweepResult.exact` says which numbers are exact, `provenance["top"]` names the top k, best first.
Effects are ranked by the size of their means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.ablation import operation_of
from interp.engine.interventions import Patch, everywhere
from interp.engine.linear import estimate
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.places import Positions, expand
from interp.engine.precision import in_dtype
from interp.engine.racing import RULES, race
from interp.engine.result import SweepResult
from interp.engine.sweep import Sweep, require_ready, run
from interp.errors import InterventionError, MetricError, did_you_mean
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.sites import Site
from interp.sites import resolve as resolve_sites

SCREENS = ("race", "half", "attribution")
SAFETY = 2
"""How many times the largest error of bfloat16 that was measured is allowed for."""


def screen(
    model: Model,
    prompts: PromptSet,
    sites: Iterable[Site | str] | None = None,
    *,
    k: int = 20,
    by: str = "race",
    method: str = "mean",
    over: str = "all",
    positions: Positions = None,
    metric: str | Callable[..., Any] = "logit_diff",
    level: float = 0.98,
    rule: str = "normal",
    keep: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> SweepResult:
    """The `k` sites whose ablation (or patch) changes the metric most, found with less work.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=64, seed=0)
    >>> found = interp.engine.screen(model, prompts, k=5)
    >>> found.top(1)["site"][0]
    '3.5'

    Args:
        model: In eval mode.
        prompts: What it is run on.
        sites: Every attention head by default.
        k: How many are wanted.
        by: "race", "half" or "attribution".
        method: As in `interp.ablate`, or "patch" (corrupt activations into the clean run).
        over: As in `interp.ablate`.
        positions: As in `interp.ablate`.
        metric: As in `interp.ablate`.
        level: Of a race: the share of the true top k that is expected to be found ("normal"), or
            the confidence that none of it is lost ("bernstein").
        rule: Of a race: "normal" or "bernstein"; see `interp.engine.racing`.
        keep: Of "attribution": how many times k are run exactly.
        seed: Of the order in which a race takes the prompts.
        progress: Show a bar.

    Raises:
        InterventionError: An unknown screen, or k beyond the number of sites.
        MetricError: A race or an attribution with a metric of the user's.
        SiteError, PromptError, ModelError: What their names say.
    """
    found = expand(resolve_sites(sites, model), prompts, positions)
    if not 0 < k < len(found):
        raise InterventionError(
            f"k is {k} and there are {len(found)} sites; ask for fewer than there are, or sweep."
        )
    if by not in SCREENS:
        raise InterventionError(f"There is no screen {by!r}: {did_you_mean(by, SCREENS)}")
    if rule not in RULES:
        raise InterventionError(f"There is no rule {rule!r}: {did_you_mean(rule, RULES)}")
    operation = Patch() if method == "patch" else operation_of(method, over, seed)
    interventions = everywhere(found, operation)
    require_ready(model)
    require_fit(model, prompts)
    measure = resolve_metric(metric)
    if by == "race" and not measure.is_ours:
        raise MetricError(
            f"The metric {measure.name} wants the logits of all prompts and a race runs some of "
            "them; use one of interp.engine.METRICS, or by='half'."
        )
    sweep = Sweep(model, prompts, interventions, measure)
    with torch.no_grad():
        if by == "race":
            top = _race(sweep, k=k, level=level, rule=rule, seed=seed, progress=progress)
            exact = ~sweep.table.found.isnan().any(dim=-1).cpu()
        elif by == "half":
            exact = _half(sweep, model, k=k, progress=progress)
            top = _largest(sweep, k)
        else:
            exact = _attribution(sweep, count=k * keep, progress=progress)
            top = _largest(sweep, k)
    labels = tuple(each.label for each in interventions)
    how = {"screen": by, "k": k, "top": [str(labels[i]) for i in top.tolist()]}
    how |= {"direction": "noise", "engine": "replay"}
    name = sweep.work.measure.name
    return SweepResult(
        labels,
        sweep.values(),
        sweep.table.start.cpu(),
        name,
        method,
        provenance(model, prompts, method=method, metric=name, **how),
        None if sweep.table.other is None else sweep.table.other.cpu(),
        exact,
    )


def _largest(sweep: Sweep, k: int) -> Int[Tensor, " best"]:
    return (sweep.table.found - sweep.table.start).mean(dim=-1).abs().topk(k).indices


def _attribution(sweep: Sweep, *, count: int, progress: bool) -> Bool[Tensor, " sites"]:
    """Run exactly what first-order estimates put first; estimates stand for the rest."""
    guess = estimate(sweep.sources, sweep.work.interventions, sweep.work.measure)
    best = guess.mean(dim=-1).abs().topk(min(count, len(guess))).indices
    sweep.compute_some(progress=progress, sites=best)
    exact = torch.zeros(len(guess), dtype=torch.bool)
    exact[best] = True
    others = (~exact).nonzero()[:, 0].to(sweep.table.found.device)
    sweep.table.found[others] = sweep.table.start + guess.to(sweep.table.found)[others]
    return exact


def _half(sweep: Sweep, model: Model, *, k: int, progress: bool) -> Bool[Tensor, " sites"]:
    """Run all in bfloat16, and again exactly what its measured error leaves in doubt."""
    rough = run(
        in_dtype(model, torch.bfloat16),
        sweep.work.prompts,
        sweep.work.interventions,
        metric=sweep.work.measure.function,
        progress=progress,
    )
    size = rough.effects.double().mean(dim=-1)
    order = size.abs().argsort(descending=True)
    exact = torch.zeros(len(order), dtype=torch.bool)
    doubtful = order[: k + k // 2]
    while len(doubtful):
        sweep.compute_some(progress=progress, sites=doubtful)
        exact[doubtful] = True
        known = exact.nonzero()[:, 0]
        true = (sweep.table.found - sweep.table.start).double().mean(dim=-1).cpu()[known]
        error = (true - size[known]).abs().max()
        bar = true.abs().topk(k).values[-1] - SAFETY * error
        doubtful = order[(size.abs()[order] >= bar) & ~exact[order]]
    others = (~exact).nonzero()[:, 0].to(sweep.table.found.device)
    values = sweep.table.start.cpu() + rough.effects.to(sweep.table.start.dtype)
    sweep.table.found[others] = values.to(sweep.table.found)[others]
    return exact


def _race(
    sweep: Sweep, *, k: int, level: float, rule: str, seed: int, progress: bool
) -> Int[Tensor, " best"]:
    """Run rounds of prompts for the sites that are undecided; the k that lead."""

    def effects(rows: Tensor, sites: Tensor) -> Tensor:
        sweep.compute_some(progress=progress, rows=rows, sites=sites)
        return (sweep.table.found - sweep.table.start).cpu()[sites[:, None], rows]

    try:
        guess = estimate(sweep.sources, sweep.work.interventions, sweep.work.measure)
    except MetricError:  # without a gradient: a race needs no estimates, only time
        guess = torch.zeros(len(sweep.work.interventions), len(sweep.work.prompts))
    _, best = race(effects, guess, k=k, level=level, rule=rule, seed=seed)
    return best
