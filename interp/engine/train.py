"""One pass over depth that interventions board at the layer where each begins.

Everything before that layer is the clean run's. In the last block only the last column is computed,
and before the first changed column the clean keys and values stand in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.clean import CleanRun
from interp.engine.jobs import EARLY, LATE, Job, Values, changed, hooked
from interp.engine.replay import Replay

Patterns = list[Float[Tensor, "prompts head queries keys"]]


def boarding_stage(job: Job, splits: bool) -> int:
    """Where in its first block a job begins: 0 before it, 1 behind its attention, 2 behind its MLP.

    Blocks that cannot be entered in the middle are always run whole.
    """
    if not splits or job.first in EARLY:
        return 0
    return 2 if job.first in LATE else 1


def needs(jobs: Sequence[Job], replay: Replay) -> set[str]:
    """The parts of the clean run from which these jobs begin."""
    stages = {boarding_stage(job, replay.splits) for job in jobs}
    kinds = {kind for job in jobs for layer, kind in job.changes if layer == job.layer}
    parts: set[str] = set()
    if stages & {1, 2}:
        parts |= {"attn_out"} | (kinds & {"z"})
    if 2 in stages or (1 in stages and replay.body.parallel):
        parts |= {"mlp_out"} | (kinds & {"neurons"})
    if any(kind == "pattern" for job in jobs for _, kind in job.changes):
        parts |= {"v"}
    return parts & replay.body.blocks[0].parts.keys()


class Train:
    """Runs jobs of one group through the model, together.

    `frozen` keeps attention patterns of all blocks behind a job's own as they are there.
    """

    def __init__(self, replay: Replay, run: CleanRun, frozen: Patterns | None = None) -> None:
        self.replay = replay
        self.run = run
        self.frozen = frozen
        self.groups = replay.model.geometry.n_kv_heads

    def ride(self, jobs: Sequence[Job]) -> Float[Tensor, "jobs prompts d_model"]:
        """What leaves the last block in the last column, for every job, where the model begins.

        The streams lie on the device of each block in turn. Jobs must come in the order of
        `(layer, boarding_stage)`.
        """
        run, last = self.run, self.replay.n_layers - 1
        start = min(job.start for job in jobs) if self.replay.cached else 0
        stage = {job: boarding_stage(job, self.replay.splits) for job in jobs}
        aboard: list[Job] = []
        hidden: Tensor | None = None
        for layer in range(jobs[0].layer, last + 1):
            here = [job for job in jobs if job.layer == layer]
            early = [job for job in here if stage[job] == 0]
            if hidden is not None:
                hidden = hidden.to(self.replay.devices[layer])
            if early:
                hidden = _join(hidden, _spread(run.near(layer, "resid_pre", start), len(early)))
                aboard += early
            if hidden is not None:
                hidden = changed(aboard, layer, "resid_pre", hidden, start)
                hidden = self._advance(layer, hidden, aboard, start)
            column = run.length - 1 if layer == last else start
            for entered in (1, 2):
                joining = [job for job in here if stage[job] == entered]
                if joining:
                    enter = self._behind_attention if entered == 1 else self._behind_mlp
                    hidden = _join(hidden, enter(layer, joining, column))
                    aboard += joining
            assert hidden is not None
            hidden = changed(aboard, layer, "resid_post", hidden, column)
        assert hidden is not None
        return hidden[:, -1].unflatten(0, (len(jobs), -1)).to(self.replay.model.device)

    def _advance(self, layer: int, hidden: Tensor, jobs: Sequence[Job], start: int) -> Tensor:
        """A whole block; of the last one the last column alone."""
        replay, run, values = self.replay, self.run, self.values(layer, jobs, start)
        whole = hooked(replay.body, layer, jobs, start, hidden, values)
        end = run.length - 1
        if layer < replay.n_layers - 1 or start == end or not replay.cached:
            with whole:
                output = replay.block(run, layer, hidden, start)
            return output[:, -1:] if layer == replay.n_layers - 1 else output
        with whole:
            keys = replay.keys_of(run, layer, hidden, start)
        with hooked(replay.body, layer, jobs, end, hidden[:, -1:], values):
            return replay.last_column(run, layer, hidden, keys)

    def values(self, layer: int, jobs: Sequence[Job], start: int) -> Values | None:
        """What collects the values of a block in which patterns are put in; None if none are."""
        frozen = None if self.frozen is None else self.frozen[layer]
        if frozen is None and not any((layer, "pattern") in job.changes for job in jobs):
            return None
        clean = self.run.near(layer, "v")
        frozen = None if frozen is None else frozen.to(clean.device)
        return Values(clean, self.groups, start, frozen)

    def attended(self, layer: int, jobs: Sequence[Job], start: int) -> Tensor:
        """What the changed heads of the jobs add to the stream, their patterns being clean."""
        run = self.run
        if any(job.at(layer, "z") for job in jobs):
            z = _spread(run.near(layer, "z", start), len(jobs))
            added = self.replay.after_attention(layer, changed(jobs, layer, "z", z, start))
        else:
            added = _spread(run.near(layer, "attn_out", start), len(jobs))
        return changed(jobs, layer, "attn_out", added, start)

    def _behind_attention(self, layer: int, jobs: Sequence[Job], start: int) -> Tensor:
        """What leaves a block whose attention is changed behind its patterns."""
        replay, run = self.replay, self.run
        attended = self.attended(layer, jobs, start)
        middle = _onto(run.near(layer, "resid_pre", start), attended)
        middle = changed(jobs, layer, "resid_mid", middle, start)
        if replay.body.parallel:
            return middle + self.added_by_mlp(layer, jobs, start)
        with hooked(replay.body, layer, jobs, start, middle, kinds=LATE):
            return replay.tail(run, layer, middle, start)

    def _behind_mlp(self, layer: int, jobs: Sequence[Job], start: int) -> Tensor:
        """What leaves a block whose attention is clean, its MLP changed behind its first matrix."""
        run = self.run
        if not any(job.at(layer, "neurons") or job.at(layer, "mlp_out") for job in jobs):
            return _spread(run.near(layer, "resid_post", start), len(jobs))
        middle = run.near(layer, "resid_mid", start)
        return _onto(middle, self.added_by_mlp(layer, jobs, start))

    def added_by_mlp(self, layer: int, jobs: Sequence[Job], start: int) -> Tensor:
        """What the changed MLPs of the jobs add to the stream, what enters them being clean."""
        run = self.run
        if any(job.at(layer, "neurons") for job in jobs):
            neurons = _spread(run.near(layer, "neurons", start), len(jobs))
            neurons = changed(jobs, layer, "neurons", neurons, start)
            added = self.replay.after_neurons(layer, neurons)
        else:
            added = _spread(run.near(layer, "mlp_out", start), len(jobs))
        return changed(jobs, layer, "mlp_out", added, start)


def _spread(clean: Tensor, jobs: int) -> Tensor:
    """Clean activations, once for every job."""
    return clean.repeat(jobs, *[1] * (clean.ndim - 1))


def _onto(clean: Tensor, added: Tensor) -> Tensor:
    """The sum of clean activations and those of every job."""
    return (clean + added.unflatten(0, (-1, len(clean)))).flatten(0, 1)


def _join(hidden: Tensor | None, more: Tensor) -> Tensor:
    return more if hidden is None else torch.cat([hidden, more])
