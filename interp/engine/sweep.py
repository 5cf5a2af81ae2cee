"""Many interventions on one prompt set, exactly, from a fraction of the work of a loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.devices import in_shards
from interp.engine.groups import groups
from interp.engine.interventions import Intervention
from interp.engine.jobs import Job
from interp.engine.memory import largest_group, train_tokens
from interp.engine.metrics import Metric
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.plan import trains
from interp.engine.precision import in_dtype, with_error
from interp.engine.replay import Replay, replay_of
from interp.engine.result import SweepResult
from interp.engine.runner import Runner
from interp.engine.score import Scorer
from interp.engine.sources import Opened, Sources, require_patterns
from interp.engine.stored import Chunk, Kept, by_group, cut
from interp.engine.stored import opened as opened_run
from interp.errors import InterpError, InterventionError, PromptError, did_you_mean
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.runs import Run

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
            of the model and a share of the interventions. The values are the same.
        run: A folder in which results are kept as they come. The same call with the same folder
            goes on where it was stopped, and gives the same bits on the same machine; a call that
            differs in model, prompts, interventions or options is refused. On one device alone. A
            metric of the user's is known by its name and its source.
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
    measure = resolve_metric(metric)
    shown: dict[str, Any] = {"dtype": dtype, "devices": devices, "progress": progress}
    if run is None:
        return _swept(model, prompts, interventions, measure, options, **shown)
    computed = model if dtype is None else in_dtype(model, dtype)
    with opened_run(
        run, computed, prompts, interventions, measure, devices=devices, **options
    ) as store:
        result = _swept(model, prompts, interventions, measure, options, store=store, **shown)
        store.finish(result.save)
    return result


def _swept(
    model: Model,
    prompts: PromptSet,
    interventions: Sequence[Intervention],
    measure: Metric,
    options: dict[str, Any],
    *,
    dtype: str | torch.dtype | None = None,
    devices: Sequence[str | torch.device] | None = None,
    store: Run | None = None,
    progress: bool,
) -> SweepResult:
    """The same in the precision, and on the devices, that are asked for."""
    if dtype is not None and in_dtype(model, dtype) is not model:
        rows = _spread_out(len(interventions), ERROR_SITES)
        some = [interventions[row] for row in rows]
        found = _swept(
            in_dtype(model, dtype),
            prompts,
            interventions,
            measure,
            options,
            devices=devices,
            store=store,
            progress=progress,
        )
        own = _swept(model, prompts, some, measure, options, progress=progress)
        return with_error(found, own, rows)
    if devices is not None:
        return in_shards(
            model,
            devices,
            interventions,
            lambda on, share: _swept(on, prompts, share, measure, options, progress=progress),
        )
    denoises = options["direction"] == "denoise"
    base = swapped(prompts) if denoises else prompts
    effect, freeze = options["effect"], options["freeze"]
    sweep = Sweep(model, base, interventions, measure, effect=effect, freeze=freeze, store=store)
    engine = "replay" if sweep.replay.works else "naive"
    source = provenance(model, prompts, metric=measure.name, **options, engine=engine)

    def result() -> SweepResult:
        clean, corrupt = sweep.start.cpu(), None if sweep.other is None else sweep.other.cpu()
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


class Sweep:
    """What is known of a sweep while it runs.

    Attributes:
        unique: The different interventions.
        order: For each intervention asked for, its place in `unique`.
        found: The metric of each on each prompt, NaN where it has not been run.
        start: The metric of the run that is changed.
        other: The metric of its counterfactual, if there is one.
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
        store: Run | None = None,
    ) -> None:
        if not interventions:
            raise InterventionError("There are no interventions; give at least one.")
        self.prompts, self.measure = prompts, measure
        self.effect, self.freeze = effect, freeze
        self.replay = replay_of(model)
        _require_road(self.replay, effect, freeze)
        unique = dict.fromkeys(interventions)
        number = {each: index for index, each in enumerate(unique)}
        self.unique = list(unique)
        self.order = torch.tensor([number[each] for each in interventions])
        settled = (lambda _, value: value) if store is None else store.settle
        # free memory decides which batches there are, and they the last bits: as when it was begun
        self.largest = settled("prompts at once", largest_group(self.replay, prompts))
        self.tokens = settled("tokens at once", train_tokens(self.replay))
        self.sources = Sources(self.replay, prompts, groups(prompts, self.largest), self.unique)
        dtype = torch.promote_types(model.dtype, torch.float32)
        shape = (len(self.unique), len(prompts))
        self.found = torch.full(shape, torch.nan, dtype=dtype, device=model.device)
        self.start = torch.full((len(prompts),), torch.nan, dtype=dtype, device=model.device)
        self.other = None if prompts.corrupt is None else self.start.clone()
        self.kept = Kept(store, self.found, self.start, self.other)

    def values(self) -> Float[Tensor, "sites prompts"]:
        """What is known so far, NaN elsewhere."""
        return self.found.cpu()[self.order]

    def compute(
        self,
        *,
        progress: bool,
        rows: Int[Tensor, " some_prompts"] | None = None,
        sites: Int[Tensor, " some_sites"] | None = None,
    ) -> None:
        """Fill in values: of all prompts, or `rows`; of all of `unique`, or `sites`.

        Raises MetricError if one is NaN, InterventionError if no job changes anything.
        """
        some = groups(self.prompts, self.largest, rows)
        opened = [self.sources.open(group) for group in some]
        jobs = [each.jobs(self.unique, sites) for each in opened]
        if rows is None and sites is None and not any(jobs):
            raise InterventionError(
                f"None of the {len(self.unique)} interventions changes an activation; patch from "
                "prompts that differ at or before the positions that are named."
            )
        asked = list(range(len(self.unique))) if sites is None else sites.tolist()
        if self.measure.is_ours or len(some) == 1:
            rides = [self._trains(*each) for each in zip(opened, jobs, strict=True)]
            chunks = cut(
                [
                    (each.group.rows, [[job.index for job in train] for train in trains])
                    for each, trains in zip(opened, rides, strict=True)
                ]
            )
            self.kept.restore(chunks)
            for each, trains, own in zip(opened, rides, by_group(chunks), strict=True):
                self._one_group(each, trains, own, asked, progress)
        else:
            size = max(1, KEPT_ENDS // (len(self.prompts) * self.replay.model.geometry.d_model))
            if self.kept.run is not None:
                size = min(size, KEPT_BLOCK)
            blocks = [asked[at : at + size] for at in range(0, len(asked), size)]
            chunks = cut([(torch.arange(len(self.prompts)), blocks)])
            self.kept.restore(chunks)
            self._all_groups(opened, jobs, chunks, progress)

    def _one_group(
        self,
        opened: Opened,
        trains: list[list[Job]],
        chunks: list[Chunk],
        asked: list[int],
        progress: bool,
    ) -> None:
        """Score the trains of a group as they are run."""
        rows = opened.group.rows.to(self.found.device)
        start, *ends = chunks
        jobs = [job for train in trains for job in train]
        waiting = [pair for pair in zip(ends, trains, strict=True) if not self.kept.known(pair[0])]
        if waiting or not self.kept.known(start):
            runner = self._runner(opened, jobs)
            scorer = Scorer(self.replay, self.measure, self.prompts[opened.group.rows], runner.end)
            if not self.kept.known(start):
                self.start[rows] = self.measure.checked(scorer(runner.end[None])[0])
                if self.other is not None:
                    self.other[rows] = scorer(self._other_end(opened)[None])[0]
                self.kept.keep(start)
            for chunk, train in track(waiting, "Sweeping", shown=progress):
                index = torch.tensor(chunk.sites, device=rows.device)
                self.found[index[:, None], rows] = scorer(runner.ends(train))
                self.kept.keep(chunk)
            opened.close()
        self._fill_void(jobs, rows, asked)
        self.measure.checked(self.found[torch.tensor(asked, device=rows.device)][:, rows])

    def _all_groups(
        self,
        opened: list[Opened],
        jobs: list[list[Job]],
        chunks: list[Chunk],
        progress: bool,
    ) -> None:
        """Score with a metric that wants all prompts at once, some interventions after others."""
        waiting = [chunk for chunk in chunks if not self.kept.known(chunk)]
        if not waiting:
            return
        first = self._ends(opened, [[] for _ in opened], [0])[0]
        scorer = Scorer(self.replay, self.measure, self.prompts, first)
        for chunk in track(waiting, "Sweeping", shown=progress):
            if chunk.sites:
                inside = set(chunk.sites)
                some = [[job for job in those if job.index in inside] for those in jobs]
                self.found[chunk.sites] = scorer(self._ends(opened, some, chunk.sites))
            else:
                self.start[:] = scorer(first[None])[0]
                if self.other is not None:
                    other = torch.empty_like(first)
                    for each in opened:
                        other[each.group.rows] = self._other_end(each)
                    self.other[:] = scorer(other[None])[0]
            self.kept.keep(chunk)

    def _ends(
        self, opened: list[Opened], jobs: list[list[Job]], block: list[int]
    ) -> Float[Tensor, "jobs prompts d_model"]:
        """The last column of every prompt under the interventions of a block."""
        shape = (len(block), len(self.prompts), self.replay.model.geometry.d_model)
        model, place = self.replay.model, {index: row for row, index in enumerate(block)}
        ends = torch.empty(shape, dtype=model.dtype, device=model.device)
        for each, those in zip(opened, jobs, strict=True):
            runner, rows = self._runner(each, those), each.group.rows.to(model.device)
            ends[:, rows] = runner.end
            for train in runner.schedule(those, self.tokens):
                index = torch.tensor([place[job.index] for job in train])
                ends[index[:, None].to(model.device), rows] = runner.ends(train)
            each.close()
        return ends

    def _runner(self, opened: Opened, jobs: list[Job]) -> Runner:
        return Runner(self.replay, opened.group, jobs, effect=self.effect, freeze=self.freeze)

    def _other_end(self, opened: Opened) -> Float[Tensor, "prompts d_model"]:
        assert opened.group.corrupt is not None
        return self.replay.clean(opened.group.corrupt).stream[-1][:, -1]

    def _trains(self, opened: Opened, jobs: list[Job]) -> list[list[Job]]:
        group = opened.group
        size, length = len(group), group.length
        return trains(jobs, self.replay, prompts=size, length=length, tokens=self.tokens)

    def _fill_void(self, jobs: list[Job], rows: Tensor, asked: list[int]) -> None:
        """Interventions that change nothing in a group leave its values as they are."""
        void = sorted(set(asked) - {job.index for job in jobs})
        self.found[torch.tensor(void, dtype=torch.long, device=rows.device)[:, None], rows] = (
            self.start[rows]
        )


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
