"""What would patching change? Estimated for all sites at once, from gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.edge_plan import EdgePlan, plan_edges, require_sum
from interp.engine.edge_scores import score_edges
from interp.engine.gradients import Measure, contrast, forward, frozen, is_known, largest_group
from interp.engine.groups import Group, groups
from interp.engine.memory import is_out_of_memory
from interp.engine.metrics import Metric, kl
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.node_scores import NodePlan, all_nodes, at_positions, plan_nodes, score_nodes
from interp.engine.replay import Replay, replay_of
from interp.engine.result import SweepResult
from interp.errors import InterventionError, MetricError, ModelError, PromptError, did_you_mean
from interp.models import Model
from interp.models.quantised import require_gradients
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.sites import Site
from interp.sites import edges as all_edges
from interp.sites import resolve as resolve_sites

NODES = ("atp", "nap-ig")
EDGES = ("eap", "eap-ig-inputs", "eap-ig-activations")
METHODS = NODES + EDGES

Found = tuple[Float[Tensor, "sites prompts"], Float[Tensor, " prompts"], Float[Tensor, " prompts"]]


def attribute(
    model: Model,
    prompts: PromptSet,
    sites: Iterable[Site | str] | None = None,
    *,
    method: str = "eap-ig-inputs",
    metric: str | Callable[..., Any] = "logit_diff",
    steps: int = 5,
    positions: str | int | None = None,
    progress: bool = True,
) -> SweepResult:
    """Estimate what patching each site with its corrupt activation would do to the clean run.

    An effect is the estimate of metric(the site as in the corrupt run, all else clean) minus
    metric(clean): the site's change, corrupt minus clean, times the gradient of the metric, summed
    over positions and features. What differs is where the gradient is taken:

    - "atp": nodes; in the clean run (attribution patching, Nanda 2023; Syed et al. 2023).
    - "nap-ig": nodes; the mean over the embeddings corrupt + k/steps (clean - corrupt),
      k = 1..steps, so that one step is "atp".
    - "eap": edges; in the clean run (edge attribution patching, Syed et al. 2023).
    - "eap-ig-inputs": edges; the mean over the same embeddings (Hanna et al. 2024).
    - "eap-ig-activations": edges; for the sources in one sublayer (the input, the heads of a
      layer, an MLP), the mean over runs on the clean prompt with the outputs of that sublayer
      alone at corrupt + k/steps (clean - corrupt). The effects of all edges out of a sublayer
      then add up to that of patching it, as steps grow. The code published with EAP-IG gives
      every edge the mean over the paths of all sublayers instead, which has no such sum.

    The gradient of an edge is that at the residual stream through its reader alone: in front of
    the reader's norm, with the norm's Jacobian at that point. Readers are the query of each head,
    the key and the value of each group of heads, MLPs, and the logits. Where a norm follows the
    output projection (Gemma 2, OLMo 2), what one head adds is taken through that norm's Jacobian
    in the clean run. Unlike the published code no head is materialised in all layers at once, key
    and value readers are those of a group, and every prompt keeps its own score.

    Args:
        model: In eval mode.
        prompts: With counterfactuals.
        sites: Nodes (heads, MLPs, attentions, streams, queries, keys, values, neurons) or edges;
            by default every head and MLP, or every edge.
        method: See above.
        metric: A name in METRICS with a gradient, or a function from logits `[prompts, vocab]` at
            END to values `[prompts]`, each of which depends on its own row alone.
        steps: Points of the mean; used by the methods with "ig".
        positions: For nodes; None sums over positions, a role or a number takes one, "each" gives
            a row for each.
        progress: Show a bar.

    Returns the clean metric plus the estimate as `values`, in float64 since the effects of edges
    are small beside the metric.

    Raises PromptError without counterfactuals, MetricError for a metric without a gradient,
    SiteError for sites that the model lacks, ModelError where one prompt does not fit in memory,
    InterventionError for other calls that cannot run.
    """
    _require_call(model, prompts, method, steps)
    measure = resolve_metric(metric)
    steps = steps if "ig" in method.split("-") else 1
    if measure.function is kl and steps == 1:
        raise MetricError(
            f"The gradient of kl is zero at the clean run, where {method} takes it; use "
            '"nap-ig" or "eap-ig-inputs" with several steps, or another metric.'
        )
    replay = replay_of(model)
    with frozen(replay.body.module):
        sites, plan = _plan(replay, prompts, sites, method, steps, positions)
        scores, clean, corrupt = _scores(replay, prompts, plan, measure, progress)
    _require_finite(sites, scores)
    return SweepResult(
        sites=sites,
        values=clean + scores,
        clean=clean,
        metric=measure.name,
        method=method,
        provenance=provenance(
            model,
            prompts,
            method=method,
            metric=measure.name,
            steps=steps,
            direction="noise",
            exact="none",
        ),
        corrupt=corrupt,
        exact=torch.zeros(len(sites), dtype=torch.bool),
    )


def _require_call(model: Model, prompts: PromptSet, method: str, steps: int) -> None:
    if method not in METHODS:
        raise InterventionError(f"There is no method {method!r}: {did_you_mean(method, METHODS)}")
    if steps < 1:
        raise InterventionError(f"steps is {steps}; a gradient needs at least one point.")
    if prompts.corrupt is None:
        raise PromptError(
            "Attribution compares clean with corrupt prompts and these have no counterfactuals; "
            "make them with corrupt=, or use interp.ablate."
        )
    require_gradients(model, "Attribution takes")
    if model.hf.training:
        raise InterventionError(
            f"{model.id} is in training mode, so dropout would change every run; call "
            "model.hf.eval() first."
        )
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in model.hf.parameters()):
        raise InterventionError(
            "Gradients do not exist in torch.inference_mode(); load the model and call attribute "
            "outside of it (torch.no_grad() is no obstacle)."
        )
    require_fit(model, prompts)


def _plan(
    replay: Replay,
    prompts: PromptSet,
    sites: Iterable[Site | str] | None,
    method: str,
    steps: int,
    positions: str | int | None,
) -> tuple[tuple[Site, ...], NodePlan | EdgePlan]:
    """The sites of the result, and how they are scored."""
    body, model = replay.body, replay.model
    if method in NODES:
        found = resolve_sites(all_nodes(body, model) if sites is None else sites, model)
        found = at_positions(found, positions, prompts)
        return found, plan_nodes(replay, found, steps)
    if positions is not None:
        raise InterventionError(
            f"{method} sums over all positions and positions is {positions!r}; leave it out, or "
            'use method="atp" or "nap-ig".'
        )
    if sites is None:
        has_mlp = any(block.mlp is not None for block in body.blocks)
        sites = all_edges(model, parallel=body.parallel, has_mlp=has_mlp)
    found = resolve_sites(sites, model)
    plan = plan_edges(body, found, steps, activations=method == "eap-ig-activations")
    require_sum(replay, groups(prompts, 1)[0])
    return found, plan


def _scores(
    replay: Replay,
    prompts: PromptSet,
    plan: NodePlan | EdgePlan,
    metric: Metric,
    progress: bool,
) -> Found:
    """Scores, and the metric of the clean and of the corrupt run."""
    batches = groups(prompts, largest_group(replay.model, prompts))
    ends = None if is_known(metric) else _ends(replay, batches, len(prompts))
    count = len(plan.sites if isinstance(plan, NodePlan) else plan.src)
    scores = torch.zeros(count, len(prompts), dtype=torch.float64)
    clean, corrupt = (torch.zeros(len(prompts), dtype=torch.float64) for _ in range(2))
    for group in track(batches, "Attribution", shown=progress):
        found = _halving(replay, group, plan, metric, ends)
        scores[:, group.rows], clean[group.rows], corrupt[group.rows] = found
    return scores, clean, corrupt


def _halving(
    replay: Replay, group: Group, plan: NodePlan | EdgePlan, metric: Metric, ends: Tensor | None
) -> Found:
    """What `_of_group` gives, in halves where the memory does not suffice.

    Raises ModelError if it does not suffice for one prompt.
    """
    try:
        return _of_group(replay, group, plan, metric, ends)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if len(group) == 1:
            raise ModelError(
                f"The gradients of one prompt of {group.length} tokens do not fit in memory "
                f"({error}); give shorter prompts, dtype='bfloat16', or a larger device."
            ) from error
    half = len(group) // 2
    parts = [
        Group(group.prompts, group.rows[part], group.columns[part])
        for part in (slice(half), slice(half, None))
    ]
    first, second = (_halving(replay, part, plan, metric, ends) for part in parts)
    scores, clean, corrupt = (torch.cat(both, dim=-1) for both in zip(first, second, strict=True))
    return scores, clean, corrupt


def _of_group(
    replay: Replay, group: Group, plan: NodePlan | EdgePlan, metric: Metric, ends: Tensor | None
) -> Found:
    both = contrast(replay, group, plan.addresses)
    measure = Measure(metric, group.prompts, group.rows, ends)
    if isinstance(plan, NodePlan):
        scores = score_nodes(plan, replay, both, measure)
    else:
        scores = score_edges(plan, replay, both, measure)
    with torch.no_grad():
        clean, corrupt = (measure(each, both.logits) for each in (both.logits, both.corrupt))
    return scores.cpu(), clean.double(), corrupt.double()


@torch.no_grad()
def _ends(replay: Replay, batches: list[Group], count: int) -> Float[Tensor, "prompts vocab"]:
    """Clean logits at END of all prompts in their order."""
    found = [forward(replay, group.tokens).logits for group in batches]
    rows = torch.cat([group.rows for group in batches])
    return torch.cat(found)[rows.argsort().to(found[0].device)]


def _require_finite(sites: tuple[Site, ...], scores: Float[Tensor, "sites prompts"]) -> None:
    bad = ~scores.isfinite()
    if bad.any():
        row, prompt = bad.nonzero()[0].tolist()
        raise InterventionError(
            f"The score of {sites[row]} is {float(scores[row, prompt])} on prompt {prompt}; load "
            "the model with dtype='float32', or look for a metric whose gradient is infinite."
        )
