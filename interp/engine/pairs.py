"""Sweeps that carry what one run of a pair computed into the other: their runs and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.batches import Batch, Batches
from interp.engine.clean import CleanRun
from interp.engine.groups import Group, groups
from interp.engine.metrics import Metric
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.replay import Replay, replay_of
from interp.engine.result import SweepResult
from interp.engine.score import Scorer
from interp.engine.stored import Room, opened, room, settle, sites_hash
from interp.engine.sweep import DIRECTIONS, require_ready, scored_together, swapped
from interp.engine.table import Table
from interp.errors import InterpError, InterventionError, PromptError, did_you_mean
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.runs import Chunk
from interp.sites import Site
from interp.workers import Engine, engine_or_here, kept_and_computed

WRITTEN = {"z", "mlp_out"}
"""What is kept of the run that values are taken from: the outputs of heads and MLPs."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Both runs on the prompts of one group.

    Attributes:
        clean: The run that is changed.
        corrupt: The run that values are taken from: its `WRITTEN` parts, and of its stream what
            enters the first block and what leaves the last.
        start: The first column in which they can differ; 0 for models without a cache.
    """

    clean: CleanRun
    corrupt: CleanRun
    start: int

    @classmethod
    def of(cls, replay: Replay, group: Group, kinds: Iterable[str]) -> Pair:
        """Run both, keeping the named parts of the clean one where the model has them."""
        assert group.corrupt is not None
        clean = replay.clean(group.tokens, [kind for kind in kinds if replay.has(kind)])
        corrupt = replay.clean(group.corrupt, [kind for kind in WRITTEN if replay.has(kind)])
        corrupt.keys.clear()
        corrupt.values.clear()
        del corrupt.stream[1:-1]
        return cls(clean, corrupt, first_difference(replay, group))

    @property
    def end(self) -> Float[Tensor, "prompts d_model"]:
        """What leaves the last block in the last column when nothing is changed."""
        return self.clean.stream[-1][:, -1]

    @property
    def other_end(self) -> Float[Tensor, "prompts d_model"]:
        """The same of the run that values are taken from."""
        return self.corrupt.stream[-1][:, -1]


def first_difference(replay: Replay, group: Group) -> int:
    """The first column in which two runs can differ; 0 for models without a cache."""
    assert group.corrupt is not None
    differs = (group.tokens != group.corrupt).any(dim=0)
    return int(differs.int().argmax()) if replay.cached else 0


Ends = Iterator[tuple[list[int], Float[Tensor, "rows prompts d_model"]]]
"""Some rows of the result, and what leaves the last block in the last column for each of them."""


@runtime_checkable
class Rides(Protocol):
    """One kind of sweep over pairs; it may be sent to another process."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """The rows of the result."""

    def cut(self, replay: Replay, group: Group, tokens: int) -> list[list[int]]:
        """All rows, those together that share what they are computed from."""

    def ends(self, replay: Replay, pair: Pair, rows: Sequence[int], tokens: int) -> Ends:
        """The ends of some rows on one group, in any order."""


@dataclass(frozen=True, eq=False)
class PairWork:
    """What a worker must know beside the model.

    Attributes:
        prompts: What is run.
        rides: What is done.
        kinds: The parts of the clean run that it wants.
        measure: The metric.
        room: What runs at once.
    """

    prompts: PromptSet
    rides: Rides
    kinds: tuple[str, ...]
    measure: Metric
    room: Room

    def open(self, model: Model) -> Callable[[Batch], Chunk]:
        """Look at the prompts on this model."""
        torch.set_num_threads(self.room.threads)
        return _Bench(self, replay_of(model), groups(self.prompts, self.room.largest))

    def cut(self, replay: Replay, some: Sequence[Group], at_once: int | None) -> Batches:
        """The batches: rows of each group, or `at_once` rows on all prompts."""
        batches = Batches()
        if at_once is not None:
            rows = torch.arange(len(self.rides.sites))
            batches.add(None, [block.tolist() for block in rows.split(at_once)])
            return batches
        for number, group in enumerate(some):
            batches.add(number, self.rides.cut(replay, group, self.room.tokens))
        return batches


@torch.no_grad()
def sweep_pairs(
    model: Model,
    prompts: PromptSet,
    rides: Rides,
    kinds: Iterable[str],
    *,
    metric: str | Callable[..., Any],
    method: str,
    direction: str,
    engine: Engine | None,
    run: str | Path | None,
    progress: bool,
    **how: Any,
) -> SweepResult:
    """The metric on each prompt for each site, from what `rides` makes of pairs of runs.

    `kinds` are the parts of the clean run that it wants, `how` is for the provenance. What was
    finished before an error or an interrupt is its attribute `partial`.
    """
    measure, used = resolve_metric(metric), engine_or_here(engine)
    base = swapped(prompts) if direction == "denoise" else prompts
    options = {"method": method, "direction": direction, "effect": "total", **how}
    edits = {"interventions": len(rides.sites), "edits": sites_hash(rides.sites)}
    table = Table(model, base, len(rides.sites))
    source = provenance(model, prompts, metric=measure.name, **options, engine="replay")
    source |= {"device": used.where(model)}

    def result() -> SweepResult:
        assert table.other is not None
        runs = table.start.cpu(), table.other.cpu()
        clean, corrupt = runs[::-1] if direction == "denoise" else runs
        values = table.found.cpu()
        return SweepResult(rides.sites, values, clean, measure.name, method, source, corrupt)

    with opened(run, model, prompts, measure, used, edits=edits, **options) as store:
        work = PairWork(base, rides, tuple(kinds), measure, room(model, base, used, store))
        some = groups(base, work.room.largest)
        at_once = scored_together(measure, base, some, model, store)
        batches = work.cut(replay_of(model), some, at_once)
        settle(store, batches)
        every = torch.arange(len(rides.sites))
        try:
            with closing(kept_and_computed(used, model, work, enumerate(batches), store)) as chunks:
                table.fill(
                    batches, some, chunks, measure, asked=every, run=store, progress=progress
                )
        except (InterpError, KeyboardInterrupt) as error:
            # an attribute that these errors have only here
            error.partial = result()  # type: ignore[union-attr]
            raise
        found = result()
        if store is not None:
            store.finish(found.save)
    return found


def require_pairs(model: Model, prompts: PromptSet, direction: str) -> Replay:
    """The replay of a model whose blocks can be taken apart.

    Raises InterventionError if they cannot be, for a model that is not ready and for an unknown
    direction; PromptError for prompts without counterfactuals, or that do not fit the model.
    """
    if direction not in DIRECTIONS:
        raise InterventionError(
            f"direction is {direction!r}: {did_you_mean(direction, DIRECTIONS)}"
        )
    require_ready(model)
    require_fit(model, prompts)
    if prompts.corrupt is None:
        raise PromptError(
            "Edges and paths are patched from the counterfactual of each prompt and these have "
            "none; make them with corrupt=."
        )
    replay = replay_of(model)
    if not (replay.works and replay.splits):
        raise InterventionError(
            f"Edges and paths need blocks that can be entered behind their attention and whose "
            f"output is a sum, and those of {model.id} are not; patch its heads and MLPs whole, "
            "with interp.patch."
        )
    return replay


class _Bench:
    """Where batches are computed: it holds both runs of one group of prompts at a time."""

    def __init__(self, work: PairWork, replay: Replay, some: Sequence[Group]) -> None:
        self.work, self.replay, self.groups = work, replay, some
        self._at: int | None = None
        self._scorer: Scorer | None = None

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Chunk:
        """The metric of the batch's rows, `values`; or that of both runs, `start` and `other`."""
        if batch.group is None:
            return self._all_groups(batch)
        if self._scorer is None or self._at != batch.group:
            group = self.groups[batch.group]
            self._pair = self._opened(group)
            prompts = self.work.prompts[group.rows]
            self._scorer = Scorer(self.replay, self.work.measure, prompts, self._pair.end)
            self._at = batch.group
        if not len(batch.sites):
            return _both(self._scorer, self._pair.end, self._pair.other_end)
        place = {row: at for at, row in enumerate(batch.sites.tolist())}
        values: Tensor | None = None
        for rows, ends in self._ends(self._pair, batch):
            scores = self._scorer(ends)
            values = scores.new_empty(len(place), scores.shape[1]) if values is None else values
            values[[place[row] for row in rows]] = scores
        assert values is not None
        return {"values": values}

    def _ends(self, pair: Pair, batch: Batch) -> Ends:
        return self.work.rides.ends(self.replay, pair, batch.sites.tolist(), self.work.room.tokens)

    def _opened(self, group: Group) -> Pair:
        return Pair.of(self.replay, group, self.work.kinds)

    def _all_groups(self, batch: Batch) -> Chunk:
        """For a metric that wants all prompts at once."""
        model, count = self.replay.model, len(self.work.prompts)
        place = {row: at for at, row in enumerate(batch.sites.tolist())}
        shape = (2 + len(place), count, model.geometry.d_model)
        every = torch.empty(shape, dtype=model.dtype, device=model.device)
        end, other, ends = every[0], every[1], every[2:]
        for group in self.groups:
            pair, columns = self._opened(group), group.rows.to(model.device)
            end[columns], other[columns] = pair.end, pair.other_end
            for rows, some in self._ends(pair, batch) if place else ():
                index = torch.tensor([place[row] for row in rows], device=model.device)
                ends[index[:, None], columns] = some
        scorer = Scorer(self.replay, self.work.measure, self.work.prompts, end)
        return {"values": scorer(ends)} if place else _both(scorer, end, other)


def _both(scorer: Scorer, end: Tensor, other: Tensor) -> Chunk:
    start, changed = scorer(torch.stack([end, other]))
    return {"start": start, "other": changed}
