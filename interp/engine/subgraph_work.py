"""Circuits cut into batches: some circuits, on some prompts, wherever they are run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.graph import Graph
from interp.engine.groups import Group, groups
from interp.engine.interventions import Edit, Intervention, Operation, Patch
from interp.engine.memory import halving
from interp.engine.replay import Replay, replay_of
from interp.engine.sources import Sources
from interp.engine.subgraph_walk import SubgraphRunner
from interp.models import Model
from interp.prompts import PromptSet
from interp.runs import Chunk
from interp.sites import Input, Resid, Site


@dataclass(frozen=True)
class SubgraphBatch:
    """Some circuits on one group of prompts.

    Attributes:
        group: Number of the group.
        first, last: Its circuits, a half-open span.
    """

    group: int
    first: int
    last: int


def cut(
    model: Model,
    some: Sequence[Group],
    circuits: int,
    operations: Sequence[Operation],
    tokens: int,
) -> list[SubgraphBatch]:
    """The batches of so many circuits on each group, of at most `tokens` circuits."""
    replay, graph = replay_of(model), Graph.of(model)
    batches = []
    for number, group in enumerate(some):
        columns = group.length - first_column(replay, group, operations)
        size = max(1, min(graph.circuits_at_once(len(group), columns), tokens))
        batches += [
            SubgraphBatch(number, at, min(at + size, circuits)) for at in range(0, circuits, size)
        ]
    return batches


@dataclass(frozen=True, eq=False)
class SubgraphWork:
    """Circuits to be run, apart from the model.

    Attributes:
        prompts: What they are run on.
        circuits: Which edges each keeps.
        operations: What each source is ablated to.
        places: Where each circuit keeps each source at all, in columns of the prompts; None: at
            all of them.
        largest: Prompts of a group, at most.
        threads: With which it computes on a CPU.
    """

    prompts: PromptSet
    circuits: Bool[Tensor, "circuits edges"]
    operations: tuple[Operation, ...]
    places: Bool[Tensor, "circuits sources prompts pos"] | None
    largest: int
    threads: int

    def open(self, model: Model) -> Callable[[SubgraphBatch], Chunk]:
        """What runs one batch after another; batches of one group share its clean run."""
        torch.set_num_threads(self.threads)
        return _Batches(self, model)


class _Batches:
    """Runs batches, and keeps what the group that was run last has in common."""

    def __init__(self, work: SubgraphWork, model: Model) -> None:
        self.work, self.model = work, model
        self.replay, self.graph = replay_of(model), Graph.of(model)
        self.groups = groups(work.prompts, work.largest)
        self.edits = [
            Edit(place(node), operation)
            for node, operation in zip(self.graph.nodes, work.operations, strict=True)
        ]
        self.sources: Sources | None = None
        self.known: tuple[int, SubgraphRunner] | None = None

    @torch.no_grad()
    def __call__(self, batch: SubgraphBatch) -> Chunk:
        """What leaves the last block at END in each circuit: `ends`, [circuits, prompts, d_model].

        The first batch of a group also has `clean`, of the model left as it is.
        """
        work, group, runner = self.work, self.groups[batch.group], self._runner(batch.group)

        def ends(some: Sequence[int]) -> Float[Tensor, "circuits prompts d_model"]:
            circuits, where = work.circuits[some].to(self.model.device), None
            if work.places is not None:
                where = work.places[some][:, :, group.rows[:, None], group.columns]
                where = where.to(self.model.device)
            return runner(circuits, where).clone()

        chunk = {"ends": halving(ends, range(batch.first, batch.last), "circuit")}
        if batch.first == 0:
            chunk["clean"] = runner.run.stream[-1][:, -1].clone()
        return chunk

    def _runner(self, number: int) -> SubgraphRunner:
        if self.sources is None:  # means run all prompts: only when something is to be computed
            each = [Intervention((edit,)) for edit in self.edits]
            self.sources = Sources(self.replay, self.work.prompts, self.groups, each)
        if self.known is None or self.known[0] != number:
            self.known = None  # before the memory of the next is taken
            group = self.groups[number]
            opened = self.sources.open(group)
            ablated = [opened.change(edit).value() for edit in self.edits]
            start = first_column(self.replay, group, self.work.operations)
            runner = SubgraphRunner(self.replay, self.graph, group, ablated, start=start)
            self.known = number, runner
        return self.known[1]


def first_column(replay: Replay, group: Group, operations: Sequence[Operation]) -> int:
    """The first column in which a circuit can differ from the whole model."""
    patched = all(isinstance(each, Patch) and each.source == "corrupt" for each in operations)
    if not (patched and replay.cached and group.corrupt is not None):
        return 0
    return int((group.tokens != group.corrupt).any(dim=0).int().argmax())


def place(node: Site) -> Site:
    """Where what a node adds can be replaced: the input is what enters the first block."""
    return Resid(0, "pre") if isinstance(node, Input) else node
