"""Optimal constants: what a site can be set to with the least harm (Li and Janson, 2024)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from interp.engine.groups import groups
from interp.engine.interventions import Edit, Intervention, Mean, Set
from interp.engine.jobs import Change, Job
from interp.engine.memory import largest_group, train_tokens
from interp.engine.metrics import kl
from interp.engine.plan import trains
from interp.engine.replay import Replay, replay_of
from interp.engine.sources import Opened, Sources
from interp.engine.train import Train, needs
from interp.errors import InterventionError
from interp.models import Model
from interp.models.quantised import require_gradients
from interp.progress import track
from interp.prompts import PromptSet
from interp.sites import Pattern, Site

STEPS = 50
RATE = 0.1
"""First step of Adam, as a share of the root mean square of the site's mean; it falls to 0."""


def optimal(
    model: Model,
    prompts: PromptSet,
    sites: Sequence[Site],
    *,
    steps: int = STEPS,
    progress: bool = True,
) -> list[Intervention]:
    """Set each site to the constant with the smallest mean KL(model || changed model) at END.

    Adam starts from the mean over all tokens, and the best constant that it meets is kept, so that
    none is worse than the mean on these prompts. It is fitted on them: to judge it fairly, run the
    interventions on others. (The paper fits by the loss on the task's inputs, with the same KL.)

    Raises InterventionError for attention patterns, and for a model that cannot be replayed.
    """
    require_gradients(model, "Learning constants takes")
    replay = replay_of(model)
    if not replay.works:
        raise InterventionError(
            f"Optimal constants are learned through replayed blocks, and those of {model.id} "
            "cannot be run on their own; use method='mean'."
        )
    if patterned := [site for site in sites if isinstance(site, Pattern)]:
        raise InterventionError(f"{patterned[0]} has no constant; use zero, or a patch.")
    means = [Intervention.at(site, Mean()) for site in sites]
    with torch.no_grad():
        fitter = _Fitter(replay, prompts, means)
    with torch.inference_mode(False), torch.enable_grad():
        for step in track(range(steps), "Learning constants", shown=progress):
            fitter.step(1 - step / steps)
    return fitter.result()


class _Fitter:
    """The constants as they are learned."""

    def __init__(
        self, replay: Replay, prompts: PromptSet, interventions: Sequence[Intervention]
    ) -> None:
        self.replay, self.interventions = replay, interventions
        some = groups(prompts, largest_group(replay, prompts))
        sources = Sources(replay, prompts, some, interventions)
        self.opened = [sources.open(group) for group in some]
        self.jobs = [each.jobs(interventions) for each in self.opened]
        self.constants = {
            # what stands in for an output always has a value
            (job.index, place, number): change.value().clone().requires_grad_()  # type: ignore[union-attr]
            for job in self.jobs[0]
            for place, changes in job.changes.items()
            for number, change in enumerate(changes)
        }
        self.jobs = [[self._learning(job) for job in those] for those in self.jobs]
        kinds = needs(self.jobs[0], replay)
        self.runs = [replay.clean(group.tokens, kinds) for group in some]
        self.clean = [replay.logits(run.stream[-1][:, -1]) for run in self.runs]
        self.rates = [
            RATE * each.square().mean().sqrt().item() + 1e-6 for each in self.constants.values()
        ]
        self.optimizer = torch.optim.Adam(
            [
                {"params": [each], "lr": rate}
                for each, rate in zip(self.constants.values(), self.rates, strict=True)
            ]
        )
        self.best = torch.full((len(interventions),), torch.inf)
        self.kept = {key: each.detach().clone() for key, each in self.constants.items()}

    def step(self, share: float) -> None:
        """One step on all prompts, at this share of the first rate."""
        loss = torch.zeros(len(self.interventions))
        for opened, jobs, run, clean in zip(
            self.opened, self.jobs, self.runs, self.clean, strict=True
        ):
            for train in self._trains(opened, jobs):
                ends = Train(self.replay, run).ride(train)
                logits = self.replay.logits(ends.flatten(0, 1))
                lost = kl(logits, clean.repeat(len(train), 1)).unflatten(0, (len(train), -1))
                lost.sum().backward(inputs=self._constants_of(train))
                loss[[job.index for job in train]] += lost.detach().sum(dim=-1).float().cpu()
        better = loss < self.best
        self.best = torch.where(better, loss, self.best)
        for key, each in self.constants.items():
            if better[key[0]]:
                self.kept[key] = each.detach().clone()
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        self.optimizer.step()
        self.optimizer.zero_grad()

    def result(self) -> list[Intervention]:
        """The interventions with the best constants."""
        made = []
        for index, intervention in enumerate(self.interventions):
            places: dict[tuple[int, str], int] = {}
            edits = []
            for edit in intervention.edits:
                place = self.opened[0].place(edit)
                number = places.get(place, 0)
                places[place] = number + 1
                constant = self.kept[index, place, number].cpu()
                edits.append(Edit(edit.site, Set(constant), edit.position))
            made.append(Intervention(tuple(edits)))
        return made

    def _learning(self, job: Job) -> Job:
        changes = {
            place: [
                Change(
                    each.layer,
                    each.kind,
                    each.span,
                    each.columns,
                    "set",
                    self._giver(job.index, place, number),
                )
                for number, each in enumerate(changes)
            ]
            for place, changes in job.changes.items()
        }
        return Job(job.index, changes, job.start, job.prompts)

    def _giver(self, index: int, place: tuple[int, str], number: int) -> Callable[[], Tensor]:
        return lambda: self.constants[index, place, number]

    def _trains(self, opened: Opened, jobs: list[Job]) -> list[list[Job]]:
        prompts, length = len(opened.group), opened.group.length
        tokens = train_tokens(self.replay) // 4  # the backward pass keeps every activation
        return trains(jobs, self.replay, prompts=prompts, length=length, tokens=tokens)

    def _constants_of(self, train: Sequence[Job]) -> list[Float[Tensor, " features"]]:
        inside = {job.index for job in train}
        return [each for key, each in self.constants.items() if key[0] in inside]
