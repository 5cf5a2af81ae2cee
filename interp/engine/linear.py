"""First-order estimates of any interventions: two passes through the model for all of them.

The metric's gradient at the run that is changed, times what each intervention changes (attribution
patching, Nanda 2023, for any operation). Used to choose what is then run exactly, and as the
control variate of a race; never as the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.groups import groups
from interp.engine.interventions import Intervention
from interp.engine.jobs import Job
from interp.engine.memory import largest_group
from interp.engine.metrics import Metric
from interp.engine.replay import Replay
from interp.engine.score import Scorer
from interp.engine.sources import Opened, Sources
from interp.errors import InterventionError, MetricError
from interp.models.quantised import require_gradients
from interp.prompts import PromptSet

Place = tuple[int, str]


def estimate(
    sources: Sources, interventions: Sequence[Intervention], measure: Metric
) -> Float[Tensor, "sites prompts"]:
    """The change of the metric on each prompt under each intervention, to first order.

    Raises InterventionError where gradients are off for good, or for attention patterns;
    MetricError for a metric without a gradient.
    """
    if torch.is_inference_mode_enabled():
        raise InterventionError(
            "Estimates need gradients, and this runs in torch.inference_mode(); leave it, or use "
            "another screen."
        )
    if not measure.is_ours:
        raise MetricError(
            f"The metric {measure.name} is not known to have a gradient for each prompt; use one "
            "of interp.engine.METRICS, or another screen."
        )
    replay, prompts = sources.replay, sources.prompts
    require_gradients(replay.model, "Estimates take")
    some = groups(prompts, max(1, largest_group(replay, prompts) // 8))
    found = torch.zeros(len(interventions), len(prompts))
    for group in some:
        opened = sources.open(group)
        jobs = opened.jobs(interventions)
        places = {place for job in jobs for place in job.changes}
        held, slopes = _slopes(replay, opened, prompts[group.rows], measure, places)
        with torch.no_grad():
            for job in jobs:
                found[job.index, group.rows] = _change(job, held, slopes)
        opened.close()
    return found


def _slopes(
    replay: Replay, opened: Opened, prompts: PromptSet, measure: Metric, places: set[Place]
) -> tuple[dict[Place, Tensor], dict[Place, Tensor]]:
    """What the parts held, and the gradient of the metric with respect to each."""
    held: dict[Place, Tensor] = {}
    wanted = [place for place in places if place[1] != "resid_mid"]
    with torch.enable_grad():
        with ExitStack() as hooks:
            for layer, kind in wanted:
                part = replay.body.blocks[layer].parts[kind]
                hooks.enter_context(part.hook(_holder(held, (layer, kind))))
            run = replay.clean(opened.group.tokens)
        scorer = Scorer(replay, measure, prompts, run.stream[-1][:, -1].detach())
        values = scorer(run.stream[-1][:, -1][None])[0]
        if not values.requires_grad:
            raise MetricError(f"The metric {measure.name} has no gradient; use logit_diff.")
        tensors = [held[place] for place in wanted]
        found = torch.autograd.grad(values.sum(), tensors, allow_unused=True)
    slopes = {
        place: torch.zeros_like(held[place]) if slope is None else slope
        for place, slope in zip(wanted, found, strict=True)
    }
    return {place: each.detach() for place, each in held.items()}, slopes


def _holder(held: dict[Place, Tensor], place: Place) -> Callable[[Tensor], Tensor]:
    def hold(activation: Tensor) -> Tensor:
        if not activation.requires_grad:
            activation = activation.detach().requires_grad_()
        held[place] = activation
        return activation.clone()  # blocks may add to what they are given, in place

    return hold


def _change(
    job: Job, held: dict[Place, Tensor], slopes: dict[Place, Tensor]
) -> Float[Tensor, " prompts"]:
    total: Tensor | float = 0.0
    for place, changes in job.changes.items():
        before = held[place].reshape(job.prompts, -1, held[place].shape[-1])
        slope = slopes[place].reshape(before.shape)
        for change in changes:
            span = change.span
            after = change.after(before[..., span])
            total = total + ((after - before[..., span]) * slope[..., span]).sum(dim=(1, 2))
    assert isinstance(total, Tensor)
    return total.float().cpu()
