"""Many interventions on one prompt set, exactly, from a fraction of the work of a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.batches import Batches
from interp.engine.groups import Group, groups
from interp.engine.interventions import Intervention
from interp.engine.metrics import Metric
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.precision import in_dtype, with_error
from interp.engine.replay import Replay, replay_of
from interp.engine.result import SweepResult
from interp.engine.sources import Sources, require_patterns
from interp.engine.stored import edits_hash, opened, room, settle
from interp.engine.sweep_work import Bench, SweepWork, cut
from interp.engine.table import Table
from interp.errors import InterpError, InterventionError, PromptError, did_you_mean
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.runs import Run
from interp.workers import Devices, Engine, Here, engine_or_here, kept_and_computed

EFFECTS = ("total", "direct")
FREEZE = ("none", "patterns")
DIRECTIONS = ("noise", "denoise")
ERROR_SITES = 16
"""Interventions on which another precision is compared with the model's own."""
KEPT_ENDS = 2**26
"""Numbers kept while a metric of the user's waits for prompts of all lengths."""
KEPT_BLOCK = 128
"""Interventions that such a metric scores together in a run: what a kill can cost."""


@torch.no_grad()
def run(
    model: Model,
    prompts: PromptSet,
    interventions: Sequence[Intervention],
    *,
    metric: str | Callable[..., Any] = "logit_diff",
    method: str = "intervention",
    direction: str = "noise",
    effect: str = "total",
    freeze: str = "none",
    dtype: str | torch.dtype | None = None,
    devices: Sequence[str | torch.device] | None = None,
    engine: Engine | None = None,
    run: str | Path | None = None,
    progress: bool = True,
    **how: Any,
) -> SweepResult:
    """The metric on each prompt under each intervention.

    Args:
        model: In eval mode.
        prompts: What it is run on.
        interventions: What is done, one after another; equal ones are computed once.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at each prompt's
            last token to values `[prompts]`.
        method: How the result calls itself.
        direction: "noise" changes the clean run; "denoise" runs the counterfactuals and changes
            them, so that their "corrupt" source is the clean run.
        effect: "total"; or "direct": all later components add what they added before, so that the
            change reaches the logits along the residual stream alone.
        freeze: "patterns" keeps the attention patterns of all layers as they are in the run that
            is changed.
        dtype: Compute in another precision, such as "bfloat16"; the error against the model's own,
            measured on some of the interventions, is in `provenance["error"]`.
        devices: Several devices of this machine, such as ["cuda:0", "cuda:1"]: each takes a copy
            of the model and computes what is next. The values are the same.
        engine: Where it is computed, such as `interp.workers.Ray()`; in this process by default.
        run: A folder in which results are kept as they come. The same call with the same folder
            goes on where it was stopped, and gives the same bits on the same kind of machine; a
            call that differs in model, prompts, interventions or options is refused. It may go on
            elsewhere, on other devices of the kind or on another engine. A metric of the user's
            is known by its name and its source.
        progress: Show a bar.
        how: More for the provenance.

    Raises:
        SiteError: A site, role or position that does not exist.
        InterventionError: Interventions that cannot run or change nothing.
        RunError: A folder that holds something else, another run or a damaged one; that another
            process writes; or that cannot be written.
        PromptError, MetricError, ModelError: What their names say.

    What was finished before an error or an interrupt is its attribute `partial`, a SweepResult.
    """
    _require_one_of("effect", effect, EFFECTS)
    _require_one_of("freeze", freeze, FREEZE)
    _require_one_of("direction", direction, DIRECTIONS)
    require_ready(model)
    require_fit(model, prompts)
    options: dict[str, Any] = {"method": method, "direction": direction}
    options |= {"effect": effect, "freeze": freeze, **how}
    measure, used = resolve_metric(metric), engine_of(engine, devices)
    computed = model if dtype is None else in_dtype(model, dtype)
    edits = {"interventions": len(interventions), "edits": edits_hash(interventions)}
    with opened(run, computed, prompts, measure, used, edits=edits, **options) as store:
        found = _swept(
            computed, prompts, interventions, measure, options, used, store, progress=progress
        )
        if computed is not model:
            rows = _spread_out(len(interventions), ERROR_SITES)
            some = [interventions[row] for row in rows]
            own = _swept(model, prompts, some, measure, options, Here(), None, progress=progress)
            found = with_error(found, own, rows)
        if store is not None:
            store.finish(found.save)
    return found


def _swept(
    model: Model,
    prompts: PromptSet,
    interventions: Sequence[Intervention],
    measure: Metric,
    options: dict[str, Any],
    engine: Engine,
    store: Run | None,
    *,
    progress: bool,
) -> SweepResult:
    """The same in the precision of the model that is given."""
    denoises = options["direction"] == "denoise"
    base = swapped(prompts) if denoises else prompts
    effect, freeze = options["effect"], options["freeze"]
    sweep = Sweep(
        model,
        base,
        interventions,
        measure,
        effect=effect,
        freeze=freeze,
        engine=engine,
        store=store,
    )
    road = "replay" if sweep.replay.works else "naive"
    source = provenance(model, prompts, metric=measure.name, **options, engine=road)
    source |= {"device": engine.where(model)}

    def result() -> SweepResult:
        table = sweep.table
        clean, corrupt = table.start.cpu(), None if table.other is None else table.other.cpu()
        if denoises:
            assert corrupt is not None
            clean, corrupt = corrupt, clean
        labels, method = tuple(each.label for each in interventions), options["method"]
        return SweepResult(labels, sweep.values(), clean, measure.name, method, source, corrupt)

    try:
        sweep.compute(progress=progress)
    except (InterpError, KeyboardInterrupt) as error:
        # an attribute that these errors have only here
        error.partial = result()  # type: ignore[union-attr]
        raise
    return result()


def engine_of(engine: Engine | None, devices: Sequence[str | torch.device] | None) -> Engine:
    """Where it is computed: on an engine, on several devices, or here.

    Raises InterventionError for both, ModelError for an empty list of devices.
    """
    if devices is None:
        return engine_or_here(engine)
    if engine is not None:
        raise InterventionError(
            "devices names devices of this machine and engine says where to compute; give one of "
            "the two."
        )
    return Devices(devices)


class Sweep:
    """A sweep that is ready to run: how it is cut up, and what is known of it.

    Attributes:
        work: What its workers must know; each different intervention is in it once.
        order: For each intervention asked for, its row in `table`.
        table: The values, as far as they are known.
    """

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        interventions: Sequence[Intervention],
        measure: Metric,
        *,
        effect: str = "total",
        freeze: str = "none",
        engine: Engine | None = None,
        store: Run | None = None,
    ) -> None:
        if not interventions:
            raise InterventionError("There are no interventions; give at least one.")
        self.model, self.engine, self.store = model, engine_or_here(engine), store
        self.replay = replay_of(model)
        _require_road(self.replay, effect, freeze)
        unique = dict.fromkeys(interventions)
        number = {each: index for index, each in enumerate(unique)}
        self.order = torch.tensor([number[each] for each in interventions])
        self.work = SweepWork(
            prompts,
            list(unique),
            measure,
            effect,
            freeze,
            room(model, prompts, self.engine, store),
        )
        self.groups = groups(prompts, self.work.room.largest)
        self.sources = Sources(self.replay, prompts, self.groups, self.work.interventions)
        self.table = Table(model, prompts, len(unique))

    def values(self) -> Float[Tensor, "sites prompts"]:
        """What is known so far, NaN elsewhere."""
        return self.table.found.cpu()[self.order]

    def compute(self, *, progress: bool) -> None:
        """Fill in all values.

        Raises MetricError if one is NaN, InterventionError if no intervention changes anything.
        """
        work, asked = self.work, torch.arange(len(self.work.interventions))
        batches = cut(work, self.sources, self.groups, asked, at_once=self._at_once(self.groups))
        if not self._changes_anything(batches):
            raise InterventionError(
                f"None of the {len(asked)} interventions changes an activation; patch from "
                "prompts that differ at or before the positions that are named."
            )
        settle(self.store, batches)
        items = enumerate(batches)
        with closing(kept_and_computed(self.engine, self.model, work, items, self.store)) as chunks:
            self.table.fill(
                batches,
                self.groups,
                chunks,
                work.measure,
                asked=asked,
                run=self.store,
                progress=progress,
            )

    def compute_some(
        self,
        *,
        progress: bool,
        sites: Int[Tensor, " some_sites"],
        rows: Int[Tensor, " some_prompts"] | None = None,
    ) -> None:
        """Fill in the values of some of the interventions, on all prompts or on some, here.

        Raises MetricError if one is NaN.
        """
        work, some = self.work, groups(self.work.prompts, self.work.room.largest, rows)
        batches = cut(work, self.sources, some, sites, at_once=self._at_once(some))
        bench = Bench(work, self.sources, some)
        chunks = ((number, bench(batch)) for number, batch in enumerate(batches))
        self.table.fill(batches, some, chunks, work.measure, asked=sites, progress=progress)

    def _at_once(self, some: Sequence[Group]) -> int | None:
        work = self.work
        return scored_together(work.measure, work.prompts, some, self.model, self.store)

    def _changes_anything(self, batches: Batches) -> bool:
        if batches.groups != [None]:
            return len(batches) > len(batches.groups)
        return any(
            self.sources.open(group).job(row, intervention)
            for group in self.groups
            for row, intervention in enumerate(self.work.interventions)
        )


def scored_together(
    measure: Metric, prompts: PromptSet, some: Sequence[Group], model: Model, store: Run | None
) -> int | None:
    """Rows that are scored together, where a metric wants all prompts at once; else None."""
    if measure.is_ours or len(some) == 1:
        return None
    most = KEPT_ENDS if store is None else KEPT_BLOCK
    return max(1, min(most, KEPT_ENDS // (len(prompts) * model.geometry.d_model)))


def _spread_out(count: int, wanted: int) -> list[int]:
    """So many places among `count`, first and last among them, evenly apart."""
    return torch.linspace(0, count - 1, min(count, wanted)).round().long().unique().tolist()


def swapped(prompts: PromptSet) -> PromptSet:
    """The counterfactuals as prompts, and the prompts as their counterfactuals.

    Raises PromptError if there are none.
    """
    if prompts.corrupt is None:
        raise PromptError(
            "Denoising starts from the counterfactual of each prompt and these have none; make "
            "them with corrupt=, or use direction='noise'."
        )
    return replace(prompts, clean=prompts.corrupt, corrupt=prompts.clean)


def require_ready(model: Model) -> None:
    """Raise InterventionError for a model in training mode, or one that looks ahead."""
    if model.hf.training:
        raise InterventionError(
            f"{model.id} is in training mode, in which dropout changes every run; call "
            "model.hf.eval()."
        )
    if getattr(getattr(model.hf, "config", None), "is_causal", True) is False:
        raise InterventionError(f"{model.id} is not causal; use a model that reads left to right.")


def _require_one_of(name: str, value: str, known: Iterable[str]) -> None:
    if value not in known:
        raise InterventionError(f"{name} is {value!r}: {did_you_mean(value, known)}")


def _require_road(replay: Replay, effect: str, freeze: str) -> None:
    if effect == "direct" and not replay.splits:
        raise InterventionError(
            f"Direct effects need blocks whose output is a sum, and those of {replay.model.id} are "
            "not; use effect='total'."
        )
    if freeze == "patterns":
        if not replay.works:
            raise InterventionError(
                f"Patterns are kept in blocks that run on their own, and those of "
                f"{replay.model.id} do not; use freeze='none'."
            )
        require_patterns(replay)
