"""A sweep as its workers see it: one batch of interventions after another, on one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.engine.batches import BLOCK, Batch, Batches
from interp.engine.groups import Group, groups
from interp.engine.interventions import Intervention
from interp.engine.jobs import Job
from interp.engine.metrics import Metric
from interp.engine.plan import trains
from interp.engine.replay import replay_of
from interp.engine.runner import Runner
from interp.engine.score import Scorer
from interp.engine.sources import Opened, Sources
from interp.engine.stored import Room
from interp.models import Model
from interp.prompts import PromptSet
from interp.runs import Chunk


@dataclass(frozen=True, eq=False)
class SweepWork:
    """What a worker must know beside the model.

    Attributes:
        prompts: What is run.
        interventions: All of them, each once.
        measure: The metric.
        effect, freeze: As in `interp.engine.run`.
        room: What runs at once.
    """

    prompts: PromptSet
    interventions: Sequence[Intervention]
    measure: Metric
    effect: str
    freeze: str
    room: Room

    def open(self, model: Model) -> Callable[[Batch], Chunk]:
        """Look at the prompts and the interventions on this model."""
        torch.set_num_threads(self.room.threads)
        some = groups(self.prompts, self.room.largest)
        sources = Sources(replay_of(model), self.prompts, some, self.interventions)
        return Bench(self, sources, some)


def cut(
    work: SweepWork,
    sources: Sources,
    some: Sequence[Group],
    asked: Int[Tensor, " sites"],
    *,
    at_once: int | None = None,
) -> Batches:
    """The batches of a sweep: trains of each group, or `at_once` interventions on all prompts."""
    batches, replay = Batches(), sources.replay
    if at_once is not None:
        batches.add(None, [block.tolist() for block in asked.split(at_once)])
        return batches
    for number, group in enumerate(some):
        opened, kinds, rides = sources.open(group), set[str](), list[list[int]]()
        for block in asked.split(BLOCK):
            jobs = opened.jobs(work.interventions, block)
            kinds |= Runner.kinds(replay, jobs, effect=work.effect)
            size, length = len(group), group.length
            made = trains(jobs, replay, prompts=size, length=length, tokens=work.room.tokens)
            rides += [[job.index for job in train] for train in made]
        batches.add(number, rides, kinds=kinds)
    return batches


class Bench:
    """Where batches are computed: it holds the clean runs of one group of prompts at a time."""

    def __init__(self, work: SweepWork, sources: Sources, some: Sequence[Group]) -> None:
        self.work, self.sources, self.groups = work, sources, some
        self._at: tuple[int | None, frozenset[str]] | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Chunk:
        """The metric of the batch's interventions, `values`; or `start` and `other`, the metric of
        the runs as they are."""
        if batch.group is None:
            return self._all_groups(batch)
        if self._at != (batch.group, batch.kinds):
            self._enter(batch.group, batch.kinds)
        if len(batch.sites):
            return {"values": self._scorer(self._runner.ends(self._jobs(self._opened, batch)))}
        start = {"start": self._scorer(self._runner.end[None])[0]}
        if self.work.prompts.corrupt is None:
            return start
        return start | {"other": self._scorer(self._other_end(self._opened.group)[None])[0]}

    def _enter(self, number: int, kinds: frozenset[str]) -> None:
        """Run the prompts of a group, and let go of those of the last one."""
        self._leave()
        group = self.groups[number]
        self._opened = self.sources.open(group)
        self._runner = self._run(group, kinds)
        prompts = self.work.prompts[group.rows]
        self._scorer = Scorer(self.sources.replay, self.work.measure, prompts, self._runner.end)
        self._at = (number, kinds)

    def _leave(self) -> None:
        if self._at is not None:
            self._opened.close()
            del self._opened, self._runner, self._scorer
            self._at = None

    def _jobs(self, opened: Opened, batch: Batch) -> list[Job]:
        jobs = opened.jobs(self.work.interventions, batch.sites)
        for job in jobs:
            job.prepare()
        return jobs

    def _run(self, group: Group, kinds: frozenset[str] | set[str]) -> Runner:
        work = self.work
        return Runner(self.sources.replay, group, kinds, effect=work.effect, freeze=work.freeze)

    def _other_end(self, group: Group) -> Float[Tensor, "prompts d_model"]:
        assert group.corrupt is not None
        return self.sources.replay.clean(group.corrupt).stream[-1][:, -1]

    def _all_groups(self, batch: Batch) -> Chunk:
        """For a metric that wants all prompts at once."""
        if self._at is None:
            end = self._ends(torch.empty(0, dtype=torch.long))[0]
            self._scorer = Scorer(self.sources.replay, self.work.measure, self.work.prompts, end)
            self._first, self._at = end, (None, frozenset())
        if len(batch.sites):
            return {"values": self._scorer(self._ends(batch.sites)[1:])}
        start = {"start": self._scorer(self._first[None])[0]}
        if self.work.prompts.corrupt is None:
            return start
        other = torch.empty_like(self._first)
        for group in self.groups:
            other[group.rows.to(other.device)] = self._other_end(group)
        return start | {"other": self._scorer(other[None])[0]}

    def _ends(self, sites: Int[Tensor, " sites"]) -> Float[Tensor, "1+sites prompts d_model"]:
        """The last column of every prompt: as it is, and then under each intervention."""
        replay, work = self.sources.replay, self.work
        model, place = replay.model, {site: row for row, site in enumerate(sites.tolist(), 1)}
        shape = (1 + len(sites), len(work.prompts), model.geometry.d_model)
        ends = torch.empty(shape, dtype=model.dtype, device=model.device)
        for group in self.groups:
            opened, rows = self.sources.open(group), group.rows.to(model.device)
            jobs = opened.jobs(work.interventions, sites)
            runner = self._run(group, Runner.kinds(replay, jobs, effect=work.effect))
            for job in jobs:
                job.prepare()
            ends[:, rows] = runner.end  # also of interventions that change nothing here
            for train in runner.schedule(jobs, work.room.tokens):
                index = torch.tensor([place[job.index] for job in train], device=model.device)
                ends[index[:, None], rows] = runner.ends(train)
            opened.close()
        return ends
