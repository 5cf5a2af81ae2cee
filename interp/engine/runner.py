"""Runs the jobs of one group, by the fastest road that the model and the options allow."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine import direct
from interp.engine.groups import Group
from interp.engine.jobs import Job
from interp.engine.memory import halving, train_tokens
from interp.engine.naive import edited
from interp.engine.plan import trains
from interp.engine.replay import Replay
from interp.engine.sources import patterns_of
from interp.engine.train import Train, needs


class Runner:
    """What leaves the last block in the last column, for prepared jobs of one group.

    `kinds` are the parts of the clean run that they begin from; `effect` and `freeze` those of
    `interp.engine.run`.
    """

    def __init__(
        self, replay: Replay, group: Group, kinds: Collection[str], *, effect: str, freeze: str
    ) -> None:
        self.replay, self.effect = replay, effect
        frozen = None
        if freeze == "patterns":
            frozen = patterns_of(replay, group.tokens)
            kinds = {*kinds, "v"}
        self.run = replay.clean(group.tokens, kinds)
        self.train = Train(replay, self.run, frozen)

    @staticmethod
    def kinds(replay: Replay, jobs: Sequence[Job], *, effect: str) -> set[str]:
        """The parts of the clean run from which these jobs begin."""
        return direct.needs(jobs) if effect == "direct" else needs(jobs, replay)

    @property
    def end(self) -> Float[Tensor, "prompts d_model"]:
        """The last column when nothing is changed."""
        return self.run.stream[-1][:, -1]

    def schedule(self, jobs: Sequence[Job], tokens: int | None = None) -> list[list[Job]]:
        """The jobs in the order and company in which they are best run, as memory allows.

        `tokens` is how many ride at once where that was settled before.
        """
        prompts, length = self.run.tokens.shape
        tokens = tokens or train_tokens(self.replay)
        return trains(jobs, self.replay, prompts=prompts, length=length, tokens=tokens)

    def ends(self, jobs: Sequence[Job]) -> Float[Tensor, "jobs prompts d_model"]:
        """The last column under each of these jobs, which one `schedule` put together."""
        if self.effect == "direct":
            return halving(lambda some: direct.direct_stream(self.train, some), jobs)
        if self.replay.works:
            return halving(self.train.ride, jobs)
        return torch.stack([self._whole(job) for job in jobs])

    def _whole(self, job: Job) -> Float[Tensor, "prompts d_model"]:
        """By a forward pass of the whole model, where blocks cannot be run on their own."""
        with edited(self.replay.body, job, self.replay.model.geometry.n_kv_heads):
            return self.replay.clean(self.run.tokens).stream[-1][:, -1]
