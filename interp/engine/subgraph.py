"""The model with only some of its edges: every other one carries an ablated value.

A reader sees the sum of what its sources add. Over an edge that is kept it sees what the source
computes in this very run; over any other what the source is ablated to. So with `ablated` the
stream that would be read if no edge were kept, and `delta_s` what source s computes beyond its
ablated value,

    stream of reader r in circuit c  =  ablated + sum over s of kept[c, s, r] * delta[c, s]

Queries, keys and values of each head read streams of their own. Many circuits run side by side, on
the clean and ablated activations of one run each (Hanna et al. 2024 evaluate one circuit a run).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.graph import Graph
from interp.engine.groups import Group, groups
from interp.engine.interventions import Operation
from interp.engine.memory import largest_group, train_tokens
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.replay import Replay, close, replay_of
from interp.engine.score import Scorer
from interp.engine.subgraph_work import SubgraphBatch, SubgraphWork, cut
from interp.engine.sweep import require_ready
from interp.errors import InterventionError
from interp.models import Model
from interp.models.quantised import require_plain
from interp.progress import track
from interp.prompts import PromptSet
from interp.runs import Chunk, Run
from interp.sites import Site
from interp.workers import Engine, engine_or_here, kept_and_computed
from interp.workers.opened import foreign, require_shapes, settle_chunks, threads_of


@dataclass(frozen=True, eq=False)
class Subgraphs:
    """The metric of some circuits.

    Attributes:
        values: Of each circuit on each prompt.
        clean: Of the whole model.
        empty: With no edge kept.
        metric: Its name.
    """

    values: Float[Tensor, "circuits prompts"]
    clean: Float[Tensor, " prompts"]
    empty: Float[Tensor, " prompts"]
    metric: str


@torch.no_grad()
def run_subgraphs(
    model: Model,
    prompts: PromptSet,
    circuits: Bool[Tensor, "circuits edges"],
    operation: Operation | Mapping[Site, Operation],
    *,
    places: Bool[Tensor, "circuits sources prompts pos"] | None = None,
    metric: str | Callable[..., Any] = "logit_diff",
    engine: Engine | None = None,
    run: Run | None = None,
    progress: bool = True,
) -> Subgraphs:
    """The metric of each circuit: the model with its edges alone.

    Args:
        model: In eval mode.
        prompts: What it is run on.
        circuits: Which edges of `graph_edges(model)` each circuit keeps.
        operation: What the sources of all other edges are ablated to, such as `Patch()` (the
            counterfactual) or `Mean("template")`; or one for each of `graph_nodes(model)`.
        places: Where each source is kept at all, in columns of the prompts; everywhere by default.
            At its other positions it is ablated for every reader.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        engine: Who computes; this process by default.
        run: An open run, begun for this very call, that keeps what is computed.
        progress: Show a bar.

    Raises:
        InterventionError: A model whose stream is not the sum of what heads and MLPs add, or masks
            of another model.
        PromptError, MetricError, ModelError, RunError: What their names say.
    """
    require_ready(model)
    require_plain(model, "Running circuits takes")
    require_fit(model, prompts)
    replay, graph = replay_of(model), Graph.of(model)
    _require_sum(replay)
    if circuits.shape[1] != len(graph.edges):
        raise InterventionError(
            f"A circuit has {circuits.shape[1]} edges and {model.id} has {len(graph.edges)}; give "
            "one entry for each of graph_edges(model)."
        )
    measure, operations = resolve_metric(metric), _of_nodes(graph, operation)
    engine = engine_or_here(engine)
    room = engine.ask(model, partial(_room, prompts=prompts))
    # free memory decides which batches there are, and they the last bits: as when a run was begun
    room = room if run is None else {name: run.settle(name, size) for name, size in room.items()}
    some = groups(prompts, room["prompts at once"])
    all_or_none = torch.tensor([[True], [False]]).expand(2, len(graph.edges))
    wanted = torch.cat([all_or_none, circuits.cpu()])
    if places is not None:
        places = torch.cat([torch.ones_like(places[:1]).expand(2, -1, -1, -1), places])
    batches = cut(model, some, len(wanted), operations, room["tokens at once"])
    settle_chunks(run, len(batches))
    work = SubgraphWork(
        prompts,
        circuits=wanted,
        operations=operations,
        places=places,
        largest=room["prompts at once"],
        threads=threads_of(engine, run),
    )
    ends = torch.empty(1 + len(wanted), len(prompts), model.geometry.d_model)
    ends = ends.to(model.device, model.dtype)
    with closing(kept_and_computed(engine, model, work, enumerate(batches), run)) as computed:
        # the bar has no name here, so that it goes away before an error is told
        for _, (number, chunk) in zip(
            track(batches, "Running circuits", shown=progress), computed, strict=True
        ):
            _put(ends, number, chunk, batches=batches, groups=some, run=run)
    if not close(ends[1], ends[0]):
        raise InterventionError(
            f"With all edges kept {model.id} gives something else than on its own, so that its "
            "edges cannot be cut one by one; ablate heads and MLPs whole, with interp.ablate."
        )
    scores = measure.checked(Scorer(replay, measure, prompts, ends[0])(ends)).cpu()
    return Subgraphs(scores[3:], scores[0], scores[2], measure.name)


def _put(
    ends: Float[Tensor, "runs prompts d_model"],
    number: int,
    chunk: Chunk,
    *,
    batches: Sequence[SubgraphBatch],
    groups: Sequence[Group],
    run: Run | None,
) -> None:
    """Put in what one batch gave; the model left as it is comes first.

    Raises RunError for a chunk that is not of this batch.
    """
    if not 0 <= number < len(batches):
        raise foreign(number, run)
    batch = batches[number]
    rows = groups[batch.group].rows
    shapes: dict[str, tuple[int, ...]] = {
        "ends": (batch.last - batch.first, len(rows), ends.shape[-1])
    }
    if batch.first == 0:
        shapes["clean"] = shapes["ends"][1:]
    require_shapes(number, chunk, shapes, run)
    rows = rows.to(ends.device)
    ends[1 + batch.first : 1 + batch.last, rows] = chunk["ends"].to(ends)
    if batch.first == 0:
        ends[0, rows] = chunk["clean"].to(ends)


def _room(model: Model, prompts: PromptSet) -> dict[str, int]:
    """How much fits beside the model."""
    replay, graph = replay_of(model), Graph.of(model)
    most = min(largest_group(replay, prompts), graph.prompts_at_once(prompts))
    return {"prompts at once": most, "tokens at once": train_tokens(replay)}


def _of_nodes(
    graph: Graph, operation: Operation | Mapping[Site, Operation]
) -> tuple[Operation, ...]:
    """What each node of the graph is ablated to."""
    if not isinstance(operation, Mapping):
        return (operation,) * len(graph.nodes)
    for node in graph.nodes:
        if node not in operation:
            raise InterventionError(
                f"{node} has no ablation; give one for every node of the model."
            )
    return tuple(operation[node] for node in graph.nodes)


def _require_sum(replay: Replay) -> None:
    """Raise InterventionError for blocks that cannot be taken apart into heads and MLPs."""
    body = replay.body
    alone = all(len(block.after_heads) == 1 for block in body.blocks)
    apart = all(kind in block.parts for block in body.blocks for kind in "qkv")
    if not (replay.works and replay.splits and alone and apart):
        raise InterventionError(
            f"Circuits need blocks whose heads and MLPs each add to the stream, and those of "
            f"{replay.model.id} do not (a norm stands behind the heads, or queries, keys and "
            "values cannot be told apart); ablate heads and MLPs whole, with interp.ablate."
        )
