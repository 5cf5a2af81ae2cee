"""Path patching: what a sender does through some receivers alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.edges import (
    READS,
    Address,
    Columns,
    beside,
    given,
    joined,
    mlp_reading,
    moved_by,
    projections,
    unit_of,
)
from interp.engine.groups import Group
from interp.engine.jobs import Change, Job
from interp.engine.memory import halving
from interp.engine.pairs import Ends, Pair, first_difference, require_pairs, sweep_pairs
from interp.engine.plan import trains
from interp.engine.replay import Replay
from interp.engine.result import SweepResult
from interp.engine.train import Train
from interp.errors import SiteError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, Head, K, Q, Site, V
from interp.sites import resolve as resolve_sites
from interp.workers import Engine

KEPT = ("q", "k", "v", "z", "attn_out", "mlp_out")
"""Parts of the clean run that paths are computed from."""
RECORDED = 12
"""Parts that may be recorded of each token before fewer tokens are run at once."""

Stream = Float[Tensor, "rows new d_model"]
Entered = Float[Tensor, "earlier new d_model"]
"""The streams of those senders that set out before a block."""
Receivers = dict[int, dict[str, list[Site]]]
"""Receivers by layer and by the part that they read into."""


def patch_paths(
    model: Model,
    prompts: PromptSet,
    senders: Iterable[Site | str] | None,
    receivers: Iterable[Site | str] | None = None,
    *,
    metric: str | Callable[..., Any] = "logit_diff",
    through_mlps: bool = True,
    direction: str = "noise",
    engine: Engine | None = None,
    run: str | Path | None = None,
    progress: bool = True,
) -> SweepResult:
    """The metric when the receivers see one sender after another as it was in the other run.

    A sender's output comes from the other run, and all attention heads give what they gave in this
    one: what the receivers read is recorded. Then this run is made again with only the receivers'
    queries, keys, values and MLP outputs put in, all of them together, and all that follows is
    computed anew (Wang et al. 2022; Goldowsky-Dill et al. 2023). As there, paths go through MLPs;
    `through_mlps=False` leaves the direct paths alone. A receiver that is an MLP adds what it makes
    of what it reads. A key or value is read by its whole group.

    >>> import interp
    >>> from interp.engine.paths import patch_paths
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> patch_paths(model, prompts, ["0.1", "m0"], ["1.0.q", "1.1.q"]).values.shape
    torch.Size([2, 4])

    Args:
        model: In eval mode.
        prompts: Pairs of clean and corrupt prompts.
        senders: Heads and MLPs, or their printed forms, one row of the result each; None for every
            head.
        receivers: Queries, keys, values and MLPs, or their printed forms such as "9.9.q"; None for
            the logits.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at each prompt's
            last token to values `[prompts]`.
        through_mlps: MLPs on the way are computed anew; False keeps what they added.
        direction: "noise" changes the clean run; "denoise" the corrupt run.
        engine, run: Where it is computed, and where it is kept as it comes; see
            `interp.engine.run`.
        progress: Show a bar.

    Raises:
        SiteError: A site that the model lacks or that is no sender or receiver, and a sender from
            which no path leads to a receiver.
        InterventionError: A model whose blocks cannot be taken apart.
        PromptError: Prompts without counterfactuals.
        RunError: A folder that holds something else, or another run, or cannot be written.
        MetricError, ModelError: What their names say.
    """
    replay = require_pairs(model, prompts, direction)
    sites = resolve_sites(senders, model)
    ends = () if receivers is None else resolve_sites(receivers, model)
    _require_paths(replay, sites, ends)
    return sweep_pairs(
        model,
        prompts,
        PathRides(sites, _by_layer(ends), through_mlps),
        KEPT,
        metric=metric,
        method="path-patch",
        direction=direction,
        engine=engine,
        run=run,
        progress=progress,
        receivers=[str(site) for site in ends] or ["logits"],
        through_mlps=through_mlps,
    )


def _require_paths(replay: Replay, senders: Sequence[Site], receivers: Sequence[Site]) -> None:
    for sender in senders:
        if not isinstance(sender, Head | MLP):
            raise SiteError(
                f"{sender} is no sender of paths; name heads such as 5.1 or MLPs such as m3."
            )
        replay.body.part(sender)
    for receiver in receivers:
        if not isinstance(receiver, Q | K | V | MLP):
            raise SiteError(
                f"{receiver} is no receiver of paths; name queries, keys or values such as 7.2.q "
                "or MLPs such as m3, or leave receivers out for the logits."
            )
        replay.body.part(receiver)
    for sender in senders:
        if receivers and not any(_leads(replay, sender, receiver) for receiver in receivers):
            raise SiteError(
                f"No path leads from {sender} to {', '.join(map(str, receivers))}: "
                f"{sender} is not computed before; give earlier senders or later receivers."
            )


def _leads(replay: Replay, sender: Site, receiver: Site) -> bool:
    return sender < receiver and not (replay.body.parallel and beside(sender, receiver))


def _by_layer(receivers: Iterable[Site]) -> Receivers:
    found: Receivers = {}
    for receiver in receivers:
        kinds = found.setdefault(receiver.layer, {})
        kinds.setdefault(READS[type(receiver)], []).append(receiver)
    return found


@dataclass(frozen=True, eq=False)
class PathRides:
    """What a sweep of paths is: its senders, and what they are patched into; see `Rides`."""

    sites: tuple[Site, ...]
    receivers: Receivers
    through_mlps: bool

    def cut(self, replay: Replay, group: Group, tokens: int) -> list[list[int]]:
        """As many senders together as board one train."""
        rows = sorted(range(len(self.sites)), key=lambda row: self.sites[row])
        columns = group.length - first_difference(replay, group)
        size = max(1, self._tokens(tokens) // (len(group) * columns))
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    def ends(self, replay: Replay, pair: Pair, rows: Sequence[int], tokens: int) -> Ends:
        """The last column for some senders, a few after others."""
        prompts, length = pair.clean.tokens.shape
        tokens = self._tokens(tokens)
        at_once = max(1, tokens // (prompts * (length - pair.start)))
        train = Train(replay, pair.clean)
        for first in range(0, len(rows), at_once):
            some = list(rows[first : first + at_once])
            walk = _Walk(replay, pair, self.receivers, self.through_mlps)
            walk.go([self.sites[row] for row in some])
            if not self.receivers:
                assert walk.hidden is not None
                yield some, walk.hidden[:, -1].unflatten(0, (len(some), -1))
                continue
            jobs = [walk.job(number, row) for number, row in enumerate(some)]
            for ride in trains(jobs, replay, prompts=prompts, length=length, tokens=tokens):
                yield [job.index for job in ride], halving(train.ride, ride)

    def _tokens(self, tokens: int) -> int:
        recorded = sum(map(len, self.receivers.values()))
        return tokens // (1 + recorded // RECORDED)


class _Walk:
    """The stream of each sender from its block on, all attention heads giving what they gave.

    Attributes:
        hidden: The streams of the senders so far, from column `pair.start`.
        seen: What the receivers of a layer make of them, for the senders before that layer.
    """

    def __init__(
        self, replay: Replay, pair: Pair, receivers: Receivers, through_mlps: bool
    ) -> None:
        self.replay, self.pair, self.receivers = replay, pair, receivers
        self.through_mlps = through_mlps
        self.hidden: Tensor | None = None
        self.seen: dict[Address, Columns] = {}

    def go(self, senders: Sequence[Site]) -> None:
        """Walk to the last receiver. Senders come in the order of computation."""
        stop = max(self.receivers, default=self.replay.n_layers - 1)
        for layer in range(senders[0].layer, stop + 1):
            here = [sender for sender in senders if sender.layer == layer]
            self._block(layer, [each for each in here if isinstance(each, Head)])
            if mlps := [each for each in here if isinstance(each, MLP)]:
                self._join(self._moved(mlps, layer + 1))

    def job(self, number: int, row: int) -> Job:
        """What the receivers saw of one sender, as changes to the clean run."""
        changes: dict[Address, list[Change]] = {}
        for (layer, kind), seen in self.seen.items():
            if number < len(seen):
                sites = self.receivers[layer][kind]
                changes[layer, kind] = [
                    self._change(layer, kind, site, seen[number]) for site in sites
                ]
        return Job(row, changes, self.pair.start, len(self.pair.clean.tokens))

    def _change(
        self, layer: int, kind: str, site: Site, seen: Float[Tensor, "prompts pos features"]
    ) -> Change:
        heads = self.replay.body.blocks[layer].parts[kind].heads
        size, unit = seen.shape[-1] // max(1, heads), unit_of(site)
        span = slice(unit * size, (unit + 1) * size)
        return Change(layer, kind, span, None, "set", given(seen[..., span]))

    def _block(self, layer: int, heads: Sequence[Site]) -> None:
        """Walk through one block; its heads set out from behind its attention."""
        clean, start = self.pair.clean, self.pair.start
        entered = self.hidden
        if entered is not None:
            self._record_attention(layer, entered)
            self.hidden = _onto(clean.parts["attn_out"][layer][:, start:], entered)
        if heads:
            moved = moved_by(self.replay, self.pair, heads)
            self._join((clean.at(layer, "resid_mid")[:, start:] + moved).flatten(0, 1))
        if self.hidden is not None and self.replay.body.blocks[layer].mlp is not None:
            self.hidden = self.hidden + self._mlp(layer, entered, self.hidden)

    def _record_attention(self, layer: int, entered: Stream) -> None:
        clean, start = self.pair.clean, self.pair.start
        kinds = self.receivers.get(layer, {}).keys() & {"q", "k", "v"}
        if kinds:
            found = projections(self.replay, clean, layer, kinds, entered, start)
            for kind, new in found.items():
                self.seen[layer, kind] = joined(clean, layer, kind, new, start)

    def _mlp(self, layer: int, entered: Entered | None, middle: Stream) -> Stream:
        """What the MLP adds to each stream, the clean run's where it is kept or cannot change."""
        clean, start = self.pair.clean, self.pair.start
        kept = clean.parts["mlp_out"][layer][:, start:]
        added = kept.repeat(len(middle) // len(kept), 1, 1)
        read = entered if self.replay.body.parallel else middle
        wanted = "mlp_out" in self.receivers.get(layer, {})
        if read is None or not (self.through_mlps or wanted):
            return added
        new = mlp_reading(self.replay, clean, layer, read, start)
        if wanted:
            self.seen[layer, "mlp_out"] = joined(clean, layer, "mlp_out", new, start)
        if self.through_mlps:
            added[: len(new)] = new
        return added

    def _moved(self, senders: Sequence[Site], layer: int) -> Stream:
        """The clean stream that enters a layer, once for each sender, which has moved it."""
        clean = self.pair.clean.stream[layer][:, self.pair.start :]
        return (clean + moved_by(self.replay, self.pair, senders)).flatten(0, 1)

    def _join(self, more: Float[Tensor, "more new d_model"]) -> None:
        self.hidden = more if self.hidden is None else torch.cat([self.hidden, more])


def _onto(kept: Float[Tensor, "prompts new d_model"], hidden: Stream) -> Stream:
    return (kept + hidden.unflatten(0, (-1, len(kept)))).flatten(0, 1)
