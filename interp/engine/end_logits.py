"""All logits at END, of the model as it is and under interventions, on the engine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.groups import groups
from interp.engine.interventions import Intervention
from interp.engine.memory import largest_group
from interp.engine.replay import replay_of
from interp.engine.runner import Runner
from interp.engine.sources import Sources
from interp.engine.sweep import require_ready
from interp.errors import InterventionError
from interp.models import Model
from interp.prompts import PromptSet


@torch.no_grad()
def end_logits(model: Model, prompts: PromptSet) -> Float[Tensor, "prompts vocab"]:
    """The logits after the last token of each prompt, on the device of the model.

    Raises PromptError for prompts that the model cannot read.
    """
    require_ready(model)
    require_fit(model, prompts)
    replay = replay_of(model)
    ends = torch.empty(len(prompts), model.geometry.d_model, dtype=model.dtype, device=model.device)
    for group in groups(prompts, largest_group(replay, prompts)):
        ends[group.rows.to(model.device)] = replay.clean(group.tokens).stream[-1][:, -1]
    return replay.logits(ends)


@torch.no_grad()
def edited_end_logits(
    model: Model, prompts: PromptSet, interventions: Sequence[Intervention]
) -> Float[Tensor, "sites prompts vocab"]:
    """The same under each intervention; for one number of each, `interp.engine.run` holds less.

    Raises:
        SiteError: A site, role or position that does not exist.
        InterventionError: There are none, or one that changes nothing in any prompt.
        PromptError: Prompts that the model cannot read.
    """
    if not interventions:
        raise InterventionError("There are no interventions; give at least one.")
    require_ready(model)
    require_fit(model, prompts)
    replay, device = replay_of(model), model.device
    some = groups(prompts, largest_group(replay, prompts))
    sources = Sources(replay, prompts, some, interventions)
    shape = (len(interventions), len(prompts), model.geometry.d_model)
    ends = torch.empty(shape, dtype=model.dtype, device=device)
    idle = set(range(len(interventions)))
    for group in some:
        opened, rows = sources.open(group), group.rows.to(device)
        jobs = opened.jobs(interventions)
        kinds = Runner.kinds(replay, jobs, effect="total")
        runner = Runner(replay, group, kinds, effect="total", freeze="none")
        for job in jobs:
            job.prepare()
        ends[:, rows] = runner.end
        for train in runner.schedule(jobs):
            index = torch.tensor([job.index for job in train], device=device)
            ends[index[:, None], rows] = runner.ends(train)
        opened.close()
        idle -= {job.index for job in jobs}
    if idle:
        raise InterventionError(
            f"{interventions[min(idle)]} changes no activation of any prompt; name a position that "
            "comes at or after the first difference."
        )
    return replay.logits(ends.flatten(0, 1)).unflatten(0, shape[:2])
