"""Direct effects: the change reaches the logits along the residual stream alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.jobs import EARLY, Job, changed, hooked
from interp.engine.train import Train

_ATTENTION = {*EARLY, "z", "attn_out"} - {"resid_pre"}


def needs(jobs: Sequence[Job]) -> set[str]:
    """The parts of the clean run from which direct effects are computed."""
    kinds = {kind for job in jobs for _, kind in job.changes}
    parts = {"attn_out"} | (kinds & {"z", "neurons"})
    parts |= {"v"} if "pattern" in kinds else set()
    return parts | ({"mlp_out"} if kinds & {"neurons", "mlp_out"} else set())


def direct_stream(train: Train, jobs: Sequence[Job]) -> Float[Tensor, "jobs prompts d_model"]:
    """What leaves the last block in the last column when all components behind each change keep
    what they added.

    The changes of a job are made each from the clean run, and add up.
    """
    end = train.run.stream[-1][:, -1]
    total = end.repeat(len(jobs), 1, 1)
    for layer in range(train.replay.n_layers):
        here = [
            number for number, job in enumerate(jobs) if any(at == layer for at, _ in job.changes)
        ]
        if here:
            added = _added(train, layer, [jobs[number] for number in here])
            total[here] += added.to(total.device)
    return total


def _added(train: Train, layer: int, jobs: Sequence[Job]) -> Float[Tensor, "jobs prompts d_model"]:
    """What the changes of one layer add to the stream in the last column."""
    run, column = train.run, train.run.length - 1
    total = torch.zeros_like(run.near(layer, "resid_pre", column)).repeat(len(jobs), 1, 1)
    kinds = {kind for job in jobs for at, kind in job.changes if at == layer}
    for kind in ("resid_pre", "resid_mid", "resid_post"):
        if kind in kinds:
            clean = run.near(layer, kind, column).repeat(len(jobs), 1, 1)
            total = total + changed(jobs, layer, kind, clean, column) - clean
    if kinds & _ATTENTION:
        clean = run.near(layer, "attn_out", column).repeat(len(jobs), 1, 1)
        total = total + _attended(train, layer, jobs) - clean
    if kinds & {"neurons", "mlp_out"}:
        clean = run.near(layer, "mlp_out", column).repeat(len(jobs), 1, 1)
        total = total + train.added_by_mlp(layer, jobs, column) - clean
    return total.unflatten(0, (len(jobs), -1))[:, :, 0]


def _attended(train: Train, layer: int, jobs: Sequence[Job]) -> Tensor:
    """What changed attention adds in the last column."""
    if not any(job.at(layer, kind) for job in jobs for kind in _ATTENTION & {*EARLY}):
        return train.attended(layer, jobs, train.run.length - 1)
    seen: list[Tensor] = []
    stream = train.run.near(layer, "resid_pre").repeat(len(jobs), 1, 1)
    values = train.values(layer, jobs, 0)
    part = train.replay.body.blocks[layer].parts["attn_out"]
    with (
        hooked(train.replay.body, layer, jobs, 0, stream, values, kinds=_ATTENTION),
        part.hook(lambda x: seen.append(x)),
    ):
        train.replay.block(train.run, layer, stream, 0)
    return seen[0][:, -1:]
