"""What a sweep will run, before it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from interp.engine.groups import groups
from interp.engine.interventions import Intervention
from interp.engine.memory import bytes_kept, bytes_per_token, largest_group, train_tokens
from interp.engine.outline import laid_out
from interp.engine.plan import Costs, cost, floor, trains
from interp.engine.sources import Sources
from interp.engine.sweep import require_ready
from interp.models import Model
from interp.prompts import PromptSet


@dataclass(frozen=True)
class Plan:
    """What a sweep will run, and what it will cost.

    Attributes:
        model: Its id.
        interventions: Different ones that change anything.
        prompts: How many.
        trains: Batches that pass through the model together.
        cached: Whether clean keys and values stand in for what lies before the first change.
        splits: Whether a block is entered behind its attention.
        replayed: Whether blocks run on their own; if not, the whole model does, each time.
        flops: Floating-point operations of matrix products that will be done.
        naive_flops: Those of the loop: a whole forward with all logits for each intervention.
        floor_flops: Those that no exact method can save.
        clean_flops: Those of the clean runs and source runs, which are in `flops` too.
        peak_bytes: Memory expected beside the weights.
    """

    model: str
    interventions: int
    prompts: int
    trains: int
    cached: bool
    splits: bool
    replayed: bool
    flops: float
    naive_flops: float
    floor_flops: float
    clean_flops: float
    peak_bytes: int

    @property
    def saved(self) -> float:
        """How many times fewer operations than the loop."""
        return self.naive_flops / self.flops

    def __str__(self) -> str:
        road = (
            "blocks are replayed from "
            + ("behind their attention" if self.splits else "their start")
            + (", from the first changed column on" if self.cached else ", in all columns")
            if self.replayed
            else "the whole model runs for each (its blocks cannot be run on their own)"
        )
        return "\n".join(
            [
                f"{self.interventions:,} interventions x {self.prompts:,} prompts of {self.model}",
                f"  how      {road}",
                f"  batches  {self.trains:,}",
                f"  work     {self.flops:.3g} floating-point operations, {self.saved:.2f} times "
                f"fewer than the loop's {self.naive_flops:.3g}",
                f"  floor    {self.floor_flops:.3g}, so that {self.flops / self.floor_flops:.2f} "
                "times the least possible is done",
                f"  memory   {self.peak_bytes / 1e9:.2f} GB expected beside the weights",
            ]
        )


def explain(
    model: Model,
    prompts: PromptSet,
    interventions: Sequence[Intervention],
    *,
    like: Model | None = None,
    prompts_at_once: int | None = None,
    tokens_at_once: int | None = None,
) -> Plan:
    """Plan a sweep without running it (means and sources aside, which its plan hangs on).

    >>> import interp
    >>> from interp.engine import Zero, everywhere, explain
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=8, seed=0)
    >>> plan = explain(model, prompts, everywhere(interp.sites.heads(model), Zero()))
    >>> plan.interventions, plan.saved > 2
    (48, True)

    Args:
        model: In eval mode. It may be one without weights, made on the device "meta", of any size.
        prompts: What it would run on; of a model without weights their tokens do not matter.
        interventions: What would be done.
        like: For a model without weights: another of its architecture that has some, on which is
            tried what its blocks allow. A tiny one does.
        prompts_at_once: Prompts of one length that share a clean run; by default what fits in the
            memory that is free here.
        tokens_at_once: Tokens that ride at once; the same.

    Raises ModelError for a `like` that is missing, no use or not needed, and what
    `interp.engine.run` raises for the same interventions.
    """
    require_ready(model)
    replay, _ = laid_out(model, like)
    unique = list(dict.fromkeys(interventions))
    some = groups(prompts, prompts_at_once or largest_group(replay, prompts))
    sources = Sources(replay, prompts, some, unique)
    runs = 1 + len(sources.tokens) + len(sources.keys) + (prompts.corrupt is not None)
    costs, layers = Costs.of(replay), replay.n_layers
    tokens = tokens_at_once or train_tokens(replay)
    done = naive = least = clean = 0.0
    count, peak, live = 0, 0, set()
    for group in some:
        jobs = sources.open(group).jobs(unique)
        live |= {job.index for job in jobs}
        size, length = len(group), group.length
        planned = trains(jobs, replay, prompts=size, length=length, tokens=tokens)
        clean += runs * size * layers * costs.span(length, 0)
        naive += len(unique) * size * costs.forward(layers, length)
        for train in planned:
            start = min(job.start for job in train)
            done += sum(size * cost(job, replay, costs, length, start) for job in train)
        least += sum(size * floor(job, replay, costs, length) for job in jobs)
        count += len(planned)
        widest = max((len(train) for train in planned), default=0) * size * length
        running = widest * bytes_per_token(replay)
        peak = max(peak, running + size * length * bytes_kept(replay) * (1 + len(sources.tokens)))
    if not replay.works:
        done = naive
    return Plan(
        model=model.id,
        interventions=len(live),
        prompts=len(prompts),
        trains=count,
        cached=replay.cached,
        splits=replay.splits,
        replayed=replay.works,
        flops=done + clean,
        naive_flops=naive,
        floor_flops=least + clean,
        clean_flops=clean,
        peak_bytes=peak,
    )
