"""Does a model do several tasks at once when its demonstrations mix them?

The demonstrations of a prompt are of K tasks that share their inputs, in random order. Followed is
the probability of each task's own answer to the query, as the mixture changes. A model that gives
both answers the same probability whatever is demonstrated has a small KL at one mixture too: only
the curve over mixtures, and the mixtures without a task, tell the two apart.

After Xiong et al. 2024, "Everything Everywhere All at Once". The answers here are single tokens.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import TaskError
from interp.models import Model
from interp.plots.colors import MISSING, SEQUENTIAL
from interp.progress import track
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import QA, Shown, Template, prompts_of
from interp.vectors.in_context.curves import add_curve, probability_axes
from interp.vectors.in_context.shared_inputs import Source, answer_log_probs, shared_inputs
from interp.vectors.relation import Relation


def mixtures(shots: int = 12, steps: int = 6) -> tuple[tuple[int, int], ...]:
    """Numbers of demonstrations of two tasks, from none of the first to none of the second.

    >>> mixtures(4, 2)
    ((0, 4), (2, 2), (4, 0))
    """
    first = [round(shots * step / steps) for step in range(steps + 1)]
    return tuple((count, shots - count) for count in dict.fromkeys(first))


def balanced(tasks: int, shots: int = 12) -> tuple[tuple[int, ...], ...]:
    """As many demonstrations of each task; and the controls, each without one of the tasks.

    >>> balanced(3)
    ((4, 4, 4), (0, 6, 6), (6, 0, 6), (6, 6, 0))
    """
    found = [_even(tasks, shots)]
    for absent in range(tasks):
        rest = _even(tasks - 1, shots)
        found.append((*rest[:absent], 0, *rest[absent:]))
    return tuple(found)


def _even(tasks: int, shots: int) -> tuple[int, ...]:
    least, more = divmod(shots, tasks)
    return tuple(least + (task < more) for task in range(tasks))


@dataclass(frozen=True, eq=False)
class Superposition(Saved, Displayed):
    """The probability of each task's answer, for each mixture of demonstrations.

    Attributes:
        tasks: Their names.
        counts: Demonstrations of each task in each mixture.
        log_probs: Log of the probability of each task's answer to the query, in nats.
        untrained: The same of the model with random weights, the control; None if not asked for.
        last: The task of the last demonstration of each prompt.
        queries: The input that each prompt asks of.
        provenance: Where it comes from.
    """

    tasks: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    log_probs: Float[Tensor, "mixtures tasks prompts"]
    untrained: Float[Tensor, "mixtures tasks prompts"] | None
    last: Int[Tensor, "mixtures prompts"]
    queries: tuple[str, ...] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    @property
    def probs(self) -> Float[Tensor, "mixtures tasks prompts"]:
        """Probability of each task's answer."""
        return self.log_probs.exp()

    @property
    def other(self) -> Float[Tensor, "mixtures prompts"]:
        """Probability of everything else."""
        return 1 - self.probs.sum(dim=1)

    @property
    def shares(self) -> Float[Tensor, "mixtures tasks"]:
        """Each task's share of the demonstrations."""
        counts = torch.tensor(self.counts, dtype=torch.float64)
        return counts / counts.sum(dim=1, keepdim=True)

    def kl(self) -> Float[Tensor, "mixtures prompts"]:
        """KL(mixture || P) of each prompt in nats, over the tasks' answers and all else."""
        return kl_to_mixture(self.shares, self.log_probs)

    def to_frame(self) -> pd.DataFrame:
        """One row a mixture and task, and one for everything else ("other").

        Columns: mixture, task, share, prob with ci_low and ci_high (95% over queries), after (mean
        probability where the last demonstration is the task's own), before (where it is another's),
        absent (mean probability in the mixtures with no demonstration of the task, the control),
        untrained (the other control), queries, n (prompts).
        """
        low, high = bootstrap_ci(by_query(self.probs, self.queries))
        other_low, other_high = bootstrap_ci(by_query(self.other, self.queries))
        size = {"queries": len(set(self.queries)), "n": len(self.queries)}
        counts, rows = torch.tensor(self.counts), []
        for m, mixture in enumerate(self.counts):
            told: dict[str, Any] = {"mixture": ":".join(map(str, mixture))}
            for t, task in enumerate(self.tasks):
                probs, own = self.probs[m, t], self.last[m] == t
                row = told | {"task": task, "share": self.shares[m, t].item()}
                row |= {"prob": probs.mean().item()}
                row |= {"ci_low": low[m, t].item(), "ci_high": high[m, t].item()}
                row |= {"after": probs[own].mean().item(), "before": probs[~own].mean().item()}
                row["absent"] = self.probs[counts[:, t] == 0, t].mean().item()
                if self.untrained is not None:
                    row["untrained"] = self.untrained[m, t].exp().mean().item()
                rows.append(row | size)
            row = told | {"task": "other", "share": 0.0, "prob": self.other[m].mean().item()}
            row |= {"ci_low": other_low[m].item(), "ci_high": other_high[m].item()}
            if self.untrained is not None:
                row["untrained"] = 1 - self.untrained[m].exp().sum(dim=0).mean().item()
            rows.append(row | size)
        return pd.DataFrame(rows)

    def kl_frame(self) -> pd.DataFrame:
        """One row a mixture.

        Columns: mixture, kl (mean of KL(mixture || P) over prompts, in nats) with ci_low and
        ci_high (95% over queries), of_mean (KL of the mean P; where it is small and `kl` is not,
        prompts take turns: each does one task), untrained (mean, the control), n.
        """
        kl, mean = self.kl(), self.probs.mean(dim=-1, keepdim=True).log()
        low, high = bootstrap_ci(by_query(kl, self.queries))
        frame = pd.DataFrame(
            {
                "mixture": [":".join(map(str, mixture)) for mixture in self.counts],
                "kl": kl.mean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "of_mean": kl_to_mixture(self.shares, mean)[:, 0].tolist(),
                "n": kl.shape[1],
            }
        )
        if self.untrained is not None:
            chance = kl_to_mixture(self.shares, self.untrained).mean(dim=-1)
            frame.insert(5, "untrained", chance.tolist())
        return frame

    def plot(self) -> go.Figure:
        """Mean probability of each task's answer against its share of the demonstrations.

        On the dotted line both are equal; dashed is the untrained model.
        """
        frame = self.to_frame()
        figure = go.Figure()
        figure.add_scatter(
            x=[0, 1], y=[0, 1], name="share", line={"color": MISSING, "dash": "dot"}, mode="lines"
        )
        for task, color in zip(self.tasks, SEQUENTIAL[3:] * len(self.tasks), strict=False):
            some = frame[frame["task"] == task].sort_values("share")
            add_curve(figure, some, "share", "prob", name=task, color=color)
            if self.untrained is not None:
                figure.add_scatter(
                    x=some["share"],
                    y=some["untrained"],
                    name=f"{task}, untrained",
                    line={"color": color, "dash": "dash"},
                )
        probability_axes(
            figure, f"Mixed demonstrations, {self.provenance['model']}", "share of the task"
        )
        return figure

    def __repr__(self) -> str:
        m = max(range(len(self.counts)), key=lambda row: min(self.counts[row]))
        means = self.probs[m].mean(dim=-1).tolist()
        told = [f"{task} {mean:.2f}" for task, mean in zip(self.tasks, means, strict=True)]
        return (
            f"Superposition({len(self.counts)} mixtures; at {':'.join(map(str, self.counts[m]))} "
            f"{', '.join(told)}, other {self.other[m].mean():.2f}; n = {self.last.shape[1]})"
        )


def superposition(
    model: Model,
    tasks: Sequence[Source],
    *,
    counts: Sequence[Sequence[int]] | None = None,
    n: int = 100,
    seed: int = 0,
    template: Template = QA,
    untrained: bool = True,
    progress: bool = True,
) -> Superposition:
    """Mix demonstrations of several tasks, and see how probable each task's answer is.

    The query, the inputs that are demonstrated and their order are the same in every mixture; a
    demonstration that turns from one task to another changes its output alone.

    Args:
        model: Of any architecture.
        tasks: Two or more relations that share their inputs.
        counts: For each mixture the number of demonstrations of each task, the same in total; by
            default `mixtures()` of two tasks, and `balanced` of more.
        n: Prompts; each input is asked in turn, behind other demonstrations.
        seed: Of the prompts.
        template: How demonstrations are written.
        untrained: Also ask the same model with random weights.
        progress: Show a bar.

    Raises:
        TaskError: Tasks that share too few inputs, or mixtures that cannot be made of them.
        PromptError: Prompts that the model cannot read.
    """
    relations = shared_inputs(model, tasks, seed=seed)
    if counts is None:
        counts = mixtures() if len(relations) == 2 else balanced(len(relations))
    asked = tuple(tuple(mixture) for mixture in counts)
    _require_counts(asked, relations)
    shown, last = mixed(relations, asked, n, seed)
    models = [model, model.untrained(seed=seed)] if untrained else [model]
    found: list[list[Tensor]] = [[] for _ in models]
    for mixture in track(shown, "Mixing demonstrations", shown=progress):
        prompts = [prompts_of(model, each, template=template) for each in mixture]
        for each, rows in zip(models, found, strict=True):
            rows.append(answer_log_probs(each, prompts))
    names = tuple(each.name for each in relations)
    return Superposition(
        tasks=names,
        counts=asked,
        log_probs=torch.stack(found[0]),
        untrained=torch.stack(found[1]) if untrained else None,
        last=last,
        queries=tuple(each.query[0] for each in shown[0][0]),
        provenance=provenance(
            model, prompts[0], method="superposition", tasks=names, counts=asked, sampling_seed=seed
        ),
    )


def kl_to_mixture(
    shares: Float[Tensor, "mixtures tasks"], log_probs: Float[Tensor, "mixtures tasks prompts"]
) -> Float[Tensor, "mixtures prompts"]:
    """KL(mixture || P) in nats, over the tasks' answers and all else, whose share is 0.

    >>> half = torch.tensor([[0.5, 0.5]])
    >>> kl_to_mixture(half, torch.tensor([[[0.5], [0.5]]]).log()).item()
    0.0
    """
    weights = shares[..., None].to(log_probs)
    return (torch.xlogy(weights, weights) - weights * log_probs).sum(dim=1)


def _require_counts(counts: tuple[tuple[int, ...], ...], relations: Sequence[Relation]) -> None:
    most = len(relations[0].pairs) - 1
    totals = {sum(mixture) for mixture in counts}
    for mixture in counts:
        if len(mixture) != len(relations) or min(mixture) < 0:
            raise TaskError(
                f"The mixture {mixture} is not one number of demonstrations, from 0, for each of "
                f"the {len(relations)} tasks."
            )
    if len(totals) != 1 or not 1 <= max(totals) <= most:
        raise TaskError(
            f"The mixtures have {sorted(totals)} demonstrations in total; give each the same "
            f"number, from 1 to {most}, the inputs that the tasks share less the query."
        )


def mixed(
    relations: Sequence[Relation], counts: tuple[tuple[int, ...], ...], n: int, seed: int
) -> tuple[list[list[list[Shown]]], Int[Tensor, "mixtures prompts"]]:
    """For each mixture and each task the prompts with that task's answer; and the last tasks."""
    rng = random.Random(f"{[each.name for each in relations]} {seed}")
    pairs, shots = [each.pairs for each in relations], sum(counts[0])
    turn = rng.sample(range(len(pairs[0])), len(pairs[0]))
    queries = [turn[p % len(turn)] for p in range(n)]
    inputs = [rng.sample([i for i in range(len(pairs[0])) if i != q], shots) for q in queries]
    orders = [rng.sample(range(shots), shots) for _ in range(n)]
    mixtures, last = [], torch.empty(len(counts), n, dtype=torch.long)
    for m, mixture in enumerate(counts):
        kinds = [task for task, count in enumerate(mixture) for _ in range(count)]
        shown: list[list[Shown]] = [[] for _ in relations]
        for p, (query, some, order) in enumerate(zip(queries, inputs, orders, strict=True)):
            mine = [kinds[place] for place in order]
            demos = tuple(pairs[task][i] for task, i in zip(mine, some, strict=True))
            last[m, p] = mine[-1]
            for task, rows in enumerate(shown):
                rows.append(Shown(demos, pairs[task][query]))
        mixtures.append(shown)
    return mixtures, last
