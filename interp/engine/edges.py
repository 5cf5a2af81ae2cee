"""Exact effects of edges: what one reader makes of one component, everything else left as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, NoReturn

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.anatomy import Anatomy
from interp.engine.clean import CleanRun
from interp.engine.groups import Group
from interp.engine.jobs import Change, Job
from interp.engine.memory import halving
from interp.engine.pairs import Ends, Pair, first_difference, require_pairs, sweep_pairs
from interp.engine.replay import Replay, Stream
from interp.engine.result import SweepResult
from interp.engine.train import Train, boarding_stage
from interp.errors import InterventionError, SiteError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, Edge, Head, Input, K, Logits, Q, Site, V
from interp.sites import edges as every_edge
from interp.sites import resolve as resolve_sites
from interp.workers import Engine

READS: dict[type[Site], str] = {Q: "q", K: "k", V: "v", MLP: "mlp_out", Logits: "logits"}
"""The part in which a reader shows what it makes of the stream."""
KEPT = ("q", "k", "v", "z", "attn_out", "mlp_out")
"""Parts of the clean run that edges are computed from."""

Heads = Float[Tensor, "rows pos heads"]
Moves = Float[Tensor, "sources prompts new d_model"]
Columns = Float[Tensor, "runs prompts pos features"]
Address = tuple[int, str]
"""A layer and the part of a reader in it; logits are in the layer behind the last."""


def patch_edges(
    model: Model,
    prompts: PromptSet,
    edges: Iterable[Edge | str] | None = None,
    *,
    metric: str | Callable[..., Any] = "logit_diff",
    direction: str = "noise",
    engine: Engine | None = None,
    run: str | Path | None = None,
    progress: bool = True,
) -> SweepResult:
    """The metric when one reader after another sees one component as it was in the other run.

    The residual stream that the reader's norm reads is moved, at every position, by what the
    component adds in the other run minus what it adds in this one; the norm is computed anew, and
    all that follows the reader. Every other reader sees the component as it was. This is the edge
    patching that ACDC (Conmy et al. 2023) and EAP (Syed et al. 2023) approximate or repeat; here
    all edges of a component into a layer share three runs of its attention, and the rest of the
    model is run behind it alone.

    Where a norm stands behind the sum of all heads (Gemma 2, OLMo 2), a head adds what replacing
    its z alone changes behind that norm. Where a norm joins the queries or keys of all heads
    (OLMo 2), it sees the other heads' as they were. A key or value is read by its whole group.

    >>> import interp
    >>> from interp.engine.edges import patch_edges
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> patch_edges(model, prompts, ["input->1.0.k", "1.0->logits"]).values.shape
    torch.Size([2, 4])

    Args:
        model: In eval mode.
        prompts: Pairs of clean and corrupt prompts.
        edges: Edges or their printed forms, such as "5.1->7.2.q"; None for every edge.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at each prompt's
            last token to values `[prompts]`.
        direction: "noise" moves readers of the clean run; "denoise" those of the corrupt run.
        engine, run: Where it is computed, and where it is kept as it comes; see
            `interp.engine.run`.
        progress: Show a bar.

    Raises:
        SiteError: An edge that the model lacks.
        InterventionError: Sites that are no edges, or a model whose blocks cannot be taken apart.
        PromptError: Prompts without counterfactuals.
        RunError: A folder that holds something else, or another run, or cannot be written.
        MetricError, ModelError: What their names say.
    """
    replay = require_pairs(model, prompts, direction)
    apart = {kind: heads_apart(replay, kind) for kind in "qkv"}
    return sweep_pairs(
        model,
        prompts,
        EdgeRides(_resolved(replay, edges), apart),
        KEPT,
        metric=metric,
        method="patch",
        direction=direction,
        engine=engine,
        run=run,
        progress=progress,
    )


def _resolved(replay: Replay, edges: Iterable[Edge | str] | None) -> tuple[Edge, ...]:
    """The edges that are meant, each of them in the model."""
    body = replay.body
    if edges is None:
        has_mlp = body.blocks[0].mlp is not None
        found: tuple[Site, ...] = every_edge(replay.model, parallel=body.parallel, has_mlp=has_mlp)
    else:
        found = resolve_sites(edges, replay.model)
    return tuple(_checked(body, site) for site in found)


def _checked(body: Anatomy, edge: Site) -> Edge:
    if not isinstance(edge, Edge):
        raise InterventionError(
            f"{edge} is not an edge; give edges such as 5.1->7.2.q, or patch it with interp.patch."
        )
    for end in (edge.src, edge.dst):
        if not isinstance(end, Input | Logits):
            body.part(end)
    if body.parallel and beside(edge.src, edge.dst):
        raise SiteError(
            f"{edge} does not exist in this model: its MLPs read the stream beside the heads of "
            "their own layer, not behind them; leave it out."
        )
    return edge


def beside(src: Site, dst: Site) -> bool:
    """Whether these are a head and the MLP of its own layer."""
    return isinstance(src, Head) and isinstance(dst, MLP) and src.layer == dst.layer


@dataclass(frozen=True, eq=False)
class EdgeRides:
    """What a sweep of edges is: all of them, and whether heads' parts are apart; see `Rides`."""

    sites: tuple[Edge, ...]
    apart: dict[str, bool]

    def cut(self, replay: Replay, group: Group, tokens: int) -> list[list[int]]:
        """The edges of some sources together: as many as board one train."""
        by_source: dict[Site, list[int]] = {}
        for row, edge in enumerate(self.sites):
            by_source.setdefault(edge.src, []).append(row)
        sources = sorted(by_source)
        size = _at_once(len(group), group.length - first_difference(replay, group), tokens)
        return [
            [row for source in sources[at : at + size] for row in by_source[source]]
            for at in range(0, len(sources), size)
        ]

    def ends(self, replay: Replay, pair: Pair, rows: Sequence[int], tokens: int) -> Ends:
        """The ends of some edges on one group."""
        return iter(
            _Rides(replay, pair, {row: self.sites[row] for row in rows}, self.apart, tokens)
        )


def _at_once(prompts: int, columns: int, tokens: int) -> int:
    return max(1, tokens // (prompts * columns))


class _Rides:
    """Runs edges on one group: some sources after others, each into one layer after another.

    Only the jobs of one train and what some sources add are held at a time.
    """

    def __init__(
        self,
        replay: Replay,
        pair: Pair,
        edges: dict[int, Edge],
        apart: dict[str, bool],
        tokens: int,
    ) -> None:
        self.replay, self.pair, self.apart = replay, pair, apart
        self.train = Train(replay, pair.clean)
        self.sources = sorted({edge.src for edge in edges.values()})
        self.readers = _by_reader(edges, replay.n_layers)
        prompts, length = pair.clean.tokens.shape
        self.at_once = _at_once(prompts, length - pair.start, tokens)
        self.waiting: list[Job] = []

    def __iter__(self) -> Ends:
        for first in range(0, len(self.sources), self.at_once):
            some = self.sources[first : first + self.at_once]
            moves = moved_by(self.replay, self.pair, some)
            for (layer, kind), edges in self.readers.items():
                numbers = [number for number, src in enumerate(some) if src in edges]
                if not numbers:
                    continue
                here = [edges[some[number]] for number in numbers]
                if kind == "logits":
                    rows = [row for pairs in here for row, _ in pairs]
                    yield rows, self.pair.end + moves[numbers][:, :, -1]
                else:
                    seen = self._seen(layer, kind, moves[numbers])
                    yield from self._board(self._jobs(layer, kind, here, seen))
        if self.waiting:
            yield self._leave()

    def _seen(self, layer: int, kind: str, moves: Moves) -> Columns:
        """What the readers of one kind in a layer give when one source after another is moved."""
        replay, clean, last = self.replay, self.pair.clean, self.replay.n_layers - 1
        of_end = layer == last and replay.cached and kind in ("q", "mlp_out")
        start = clean.length - 1 if of_end else self.pair.start
        behind = kind == "mlp_out" and not replay.body.parallel
        read = clean.at(layer, "resid_mid" if behind else "resid_pre")[:, start:]
        stream = (read + moves[:, :, start - self.pair.start :]).flatten(0, 1)
        if kind == "mlp_out":
            return joined(
                clean, layer, kind, mlp_reading(replay, clean, layer, stream, start), start
            )
        if not self.apart[kind]:
            new = projections(replay, clean, layer, {kind}, stream, start)[kind]
            return joined(clean, layer, kind, new, start)
        z = heads_reading(replay, clean, layer, kind, stream, start)
        return joined(clean, layer, "z", z, start)

    def _jobs(
        self, layer: int, kind: str, edges: list[list[tuple[int, int]]], seen: Columns
    ) -> Iterator[Job]:
        """One job for each edge: its reader gives what it was seen to give."""
        changed = "z" if self.apart.get(kind) else kind
        prompts, features = len(self.pair.clean.tokens), seen.shape[-1]
        size = features // _units(self.replay, kind)
        for values, readers in zip(seen, edges, strict=True):
            for row, unit in readers:
                span = slice(unit * size, (unit + 1) * size)
                change = Change(layer, changed, span, None, "set", given(values[..., span]))
                yield Job(row, {(layer, changed): [change]}, self.pair.start, prompts)

    def _board(self, jobs: Iterable[Job]) -> Ends:
        """Fill trains, and let the full ones leave."""
        for job in jobs:
            self.waiting.append(job)
            if len(self.waiting) == self.at_once:
                yield self._leave()

    def _leave(self) -> tuple[list[int], Float[Tensor, "rows prompts d_model"]]:
        splits = self.replay.splits
        jobs = sorted(self.waiting, key=lambda job: (job.layer, boarding_stage(job, splits)))
        self.waiting = []
        return [job.index for job in jobs], halving(self.train.ride, jobs)


def _by_reader(
    edges: dict[int, Edge], n_layers: int
) -> dict[Address, dict[Site, list[tuple[int, int]]]]:
    """By part in the order of computation, and by source: row of each edge and unit of its end."""
    found: dict[Address, dict[Site, list[tuple[int, int]]]] = {}
    for row, edge in edges.items():
        address = min(edge.dst.layer, n_layers), READS[type(edge.dst)]
        by_source = found.setdefault(address, {})
        by_source.setdefault(edge.src, []).append((row, unit_of(edge.dst)))
    order = list(READS.values())
    return dict(sorted(found.items(), key=lambda item: (item[0][0], order.index(item[0][1]))))


def unit_of(site: Site) -> int:
    """Which head, or group of heads, a site is of; 0 for a whole part."""
    return site.group if isinstance(site, K | V) else getattr(site, "head", 0)


def _units(replay: Replay, kind: str) -> int:
    return max(1, replay.body.blocks[0].parts[kind].heads)


def given(value: Tensor) -> Callable[[], Tensor]:
    """A function that gives a tensor."""
    return lambda: value


def moved_by(replay: Replay, pair: Pair, sources: Sequence[Site]) -> Moves:
    """What each source adds in the corrupt run minus what it adds in the clean one, from `start`.

    Sources are in the order of computation: the input, heads and MLPs.
    """
    clean, corrupt, start = pair.clean, pair.corrupt, pair.start
    moves = []
    for (kind, layer), some in groupby(sources, key=lambda site: (type(site), site.layer)):
        if kind is Head:
            z = with_heads(replay, pair, layer, [unit_of(head) for head in some])
            added = replay.after_attention(layer, z).unflatten(0, (-1, len(clean.tokens)))
            moves.append(added - clean.parts["attn_out"][layer][:, start:])
        elif kind is MLP:
            before, after = (run.parts["mlp_out"][layer] for run in (clean, corrupt))
            moves.append((after - before)[None, :, start:])
        else:
            moves.append((corrupt.stream[0] - clean.stream[0])[None, :, start:])
    return torch.cat(moves)


def with_heads(replay: Replay, pair: Pair, layer: int, heads: Sequence[int]) -> Heads:
    """The outputs of all heads, from `start`, with one head after another from the corrupt run."""
    before, after = (run.parts["z"][layer][:, pair.start :] for run in (pair.clean, pair.corrupt))
    z = before.repeat(len(heads), 1, 1, 1)
    size = z.shape[-1] // _units(replay, "z")
    for number, head in enumerate(heads):
        span = slice(head * size, (head + 1) * size)
        z[number, ..., span] = after[..., span]
    return z.flatten(0, 1)


def joined(
    clean: CleanRun, layer: int, kind: str, new: Float[Tensor, "rows new features"], start: int
) -> Columns:
    """A part in all columns: the clean run's before `start`, and the new ones behind."""
    held = clean.parts[kind][layer]
    whole = held.repeat(len(new) // len(held), 1, 1)
    whole[:, start:] = new
    return whole.unflatten(0, (-1, len(held)))


class PartSeen(Exception):
    """Ends a block when the part that was wanted is known."""


def projections(
    replay: Replay, run: CleanRun, layer: int, kinds: Iterable[str], stream: Stream, start: int
) -> dict[str, Tensor]:
    """The queries, keys or values, `[rows, pos, features]`, of a stream that begins at `start`."""
    seen: dict[str, Tensor] = {}
    parts = replay.body.blocks[layer].parts

    def keep(kind: str) -> Callable[[Tensor], None]:
        shape, device = stream.shape[:2], stream.device
        return lambda x: seen.__setitem__(kind, x.reshape(*shape, -1).clone().to(device))

    with ExitStack() as hooks:
        for kind in kinds:
            hooks.enter_context(parts[kind].hook(keep(kind)))
        hooks.enter_context(parts["z"].hook(_stop))
        with suppress(PartSeen):
            replay.block(run, layer, stream, start)
    return seen


def heads_reading(
    replay: Replay, run: CleanRun, layer: int, kind: str, stream: Stream, start: int
) -> Heads:
    """The outputs of all heads when their queries, keys or values alone are read from a stream."""
    seen: list[Tensor] = []
    parts = replay.body.blocks[layer].parts

    def restore(other: str) -> Callable[[Tensor], Tensor]:
        clean = run.parts[other][layer][:, start:]
        return lambda x: clean.repeat(len(stream) // len(clean), 1, 1).view_as(x)

    def keep(z: Tensor) -> None:
        seen.append(z.reshape(*stream.shape[:2], -1).clone().to(stream.device))
        _stop(z)

    with ExitStack() as hooks:
        for other in {"q", "k", "v"} - {kind}:
            hooks.enter_context(parts[other].hook(restore(other)))
        hooks.enter_context(parts["z"].hook(keep))
        with suppress(PartSeen):
            replay.block(run, layer, stream, start)
    return seen[0]


def mlp_reading(replay: Replay, run: CleanRun, layer: int, stream: Stream, start: int) -> Stream:
    """What an MLP adds when it reads a stream.

    The stream is the one that enters the block where attention and MLP run in parallel, and the
    one behind the attention where they do not.
    """
    seen: list[Tensor] = []
    run_on = replay.block if replay.body.parallel else replay.tail
    part = replay.body.blocks[layer].parts["mlp_out"]
    with part.hook(lambda x: seen.append(x.reshape(stream.shape).clone().to(stream.device))):
        run_on(run, layer, stream, start)
    return seen[0]


def _stop(activation: Tensor) -> NoReturn:
    raise PartSeen


@torch.no_grad()
def heads_apart(replay: Replay, kind: str) -> bool:
    """Whether no head is changed by the queries (or keys, or values) of the others.

    A norm over those of all heads joins them. It is tried on a few tokens, in the first block.
    """
    units = _units(replay, kind)
    if units == 1:
        return True
    model, part = replay.model, replay.body.blocks[0].parts[kind]
    tokens = torch.arange(min(4, model.geometry.d_vocab), device=model.device)[None]
    tokens = tokens[:, : model.geometry.n_ctx]
    run = replay.clean(tokens, ("z", "q", "k", "v"))
    size, read = replay.width(0, kind) // units, replay.width(0, "z") // units
    seen: list[Tensor] = []

    def double_others(x: Tensor) -> Tensor:
        return torch.cat([x[..., :size], 2 * x[..., size:] + 1], dim=-1)

    with (
        part.hook(double_others),
        replay.body.blocks[0].parts["z"].hook(lambda z: seen.append(z.clone())),
    ):
        replay.block(run, 0, run.stream[0], 0)
    found = seen[0].reshape(run.parts["z"][0].shape)[..., :read]
    return torch.allclose(found, run.parts["z"][0][..., :read], rtol=1e-3, atol=1e-5)
