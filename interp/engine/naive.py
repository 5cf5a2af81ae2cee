"""The reference: the whole model once for every intervention, with one hook.

Slow and obvious. Every faster path is tested against it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations import capture
from interp.activations.batches import batch_size_for, require_fit
from interp.activations.names import find
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.result import SweepResult
from interp.errors import InterventionError, SiteError, did_you_mean
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.sites import Head, Resid, Site
from interp.sites import resolve as resolve_sites

METHODS = ("zero", "mean")


@torch.no_grad()
def naive_ablate(
    model: Model,
    prompts: PromptSet,
    sites: Iterable[Site | str] | None = None,
    *,
    method: str = "zero",
    metric: str | Callable[..., Any] = "logit_diff",
    progress: bool = True,
) -> SweepResult:
    """The metric on each clean prompt when one site after another is taken out, at all positions.

    `sites` is every attention head by default. `method` is "zero", or "mean": the site's mean over
    all real tokens of these prompts. `metric` is a name in METRICS, or a function from logits
    `[prompts, vocab]` at each prompt's last token to values `[prompts]`.

    Raises SiteError for a site that the model lacks, InterventionError for an unknown method and
    for a hook that this architecture never runs, MetricError and PromptError for what they name.
    """
    sites = resolve_sites(sites, model)
    measure = resolve_metric(metric)
    if method not in METHODS:
        raise InterventionError(f"There is no method {method!r}: {did_you_mean(method, METHODS)}")
    require_fit(model, prompts)
    hooks = list(find(model.bridge, dict.fromkeys(map(_hook, sites))))
    source = provenance(model, prompts, method=method, metric=measure.name)
    means = _means(model, prompts, hooks) if method == "mean" else {}

    clean_logits = _end_logits(model, prompts)
    clean = measure(clean_logits, prompts, clean=clean_logits)
    rows = []
    for site in track(sites, f"{method.capitalize()} ablation", shown=progress):
        value = means[site.hook][_part(site)] if method == "mean" else torch.zeros(())
        logits = _ablated_logits(model, prompts, site, value)
        rows.append(measure(logits, prompts, clean=clean_logits))
    return SweepResult(sites, torch.stack(rows), clean, measure.name, method, source)


def _ablated_logits(
    model: Model, prompts: PromptSet, site: Site, value: Tensor
) -> Float[Tensor, "prompts vocab"]:
    firings = 0

    def edit(activation: Tensor, hook: Any) -> Tensor:
        nonlocal firings
        firings += 1
        edited = activation.clone()
        edited[_part(site)] = value
        return edited

    with model.bridge.hooks(fwd_hooks=[(site.hook, edit)]):
        logits = _end_logits(model, prompts)
    if not firings:
        raise InterventionError(f"{site.hook} never fires, so {site} cannot be taken out.")
    return logits


def _hook(site: Site) -> str:
    if isinstance(site, Resid) and site.point == "mid":
        # TransformerLens 4 puts this hook on the input of the norm alone
        raise SiteError(
            f"{site} is read by the MLP, and an edit there leaves the stream beside it as it was; "
            f"use r{site.layer}.pre or r{site.layer}.post."
        )
    return site.hook


def _part(site: Site) -> tuple[Any, ...]:
    """Where a site is in the activation of its hook."""
    return (..., site.head, slice(None)) if isinstance(site, Head) else (...,)


def _end_logits(model: Model, prompts: PromptSet) -> Float[Tensor, "prompts vocab"]:
    """Logits of the bridge at the last token of every prompt, in batches of bounded memory."""
    size, ends = batch_size_for(model, prompts), []
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size].to(model.device)
        logits = model.bridge(batch.clean, attention_mask=batch.mask.long())
        ends.append(logits[torch.arange(len(batch), device=logits.device), batch.end])
    return torch.cat(ends)


def _means(model: Model, prompts: PromptSet, hooks: list[str]) -> dict[str, Tensor]:
    """Mean of each hook over all real tokens of all prompts; padding never counts."""
    totals: dict[str, Tensor] = {}
    size = batch_size_for(model, prompts, hooks)
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        for name, activation in capture(model, batch, hooks, batch_size=size).items():
            total = activation[batch.mask.cpu()].double().sum(dim=0)
            totals[name] = totals.get(name, torch.zeros_like(total)) + total
    tokens = int(prompts.mask.sum())
    return {name: (t / tokens).to(model.device, model.dtype) for name, t in totals.items()}
