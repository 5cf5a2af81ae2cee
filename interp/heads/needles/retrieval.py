"""Retrieval heads: which heads look at a needle in the moment when the model writes it down?

A model is asked for a needle in a long text and answers greedily. Let w be the token that it writes
at a step and j the position at which a head looks most in that step. The head *copies* if j lies in
the needle and holds w. With g the tokens that it copied in the run and k those of the needle,

    score of a run = |g ∩ k| / |k|

and the score of a head is the mean over the runs in which the model found the needle: ROUGE-1
recall of the needle in what it wrote above one half. (Wu et al. 2024, "Retrieval Head
Mechanistically Explains Long-Context Factuality"; g and k are sets as in their text. Their code
adds 1 / |k| at each copy instead, so that a token copied twice counts twice: `per_hit=True`.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp import tasks
from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.errors import MetricError, PromptError
from interp.heads.needles.last_row import ends_line, greedy, read
from interp.heads.needles.needle import needle_prompts, needles
from interp.heads.needles.rouge import recall
from interp.heads.score import Score
from interp.models import Model
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved

STEPS = 50
"""Most tokens of an answer."""
FOUND = 0.5
"""A run counts if the recall of the needle in the answer is above this."""
ROLES = ("needle", "VALUE")
"""Where the needle may stand in prompts, the first that they have."""


@dataclass(frozen=True, eq=False)
class RetrievalHeads(Saved, Displayed):
    """What `retrieval` finds.

    Attributes:
        score: The share of the needle that each head copied, for each run; NaN in runs that do not
            count. Its `chance` is the score of a head that looks at a random position.
        activation_frequency: Share of the runs that count in which a head copied anything.
        runs: One row a run: length, depth, needle, answer, rouge (recall, 0 to 1), counted.
        provenance: Model, prompts, options, versions.
    """

    score: Score
    activation_frequency: Float[Tensor, "layer head"]
    runs: pd.DataFrame
    provenance: dict[str, Any] = field(repr=False)

    @property
    def counted(self) -> int:
        """Runs in which the model found the needle."""
        return int(self.runs["counted"].sum())

    def to_frame(self) -> pd.DataFrame:
        """One row a head: the columns of `Score.to_frame`, and activation_frequency."""
        frequency = self.activation_frequency.flatten().tolist()
        return self.score.to_frame().assign(activation_frequency=frequency)

    def plot(self) -> go.Figure:
        """Layer x head heatmap of the score."""
        return head_heatmap(
            self.score.grid,
            title=f"Retrieval ({self.counted} of {len(self.runs)} runs count)",
            colorbar="share of the needle",
        )

    def __repr__(self) -> str:
        return f"RetrievalHeads({self.score!r}; {self.counted} of {len(self.runs)} runs count)"


def retrieval(
    model: Model,
    prompts: PromptSet | None = None,
    *,
    n: int = 60,
    seed: int = 0,
    steps: int = STEPS,
    per_hit: bool = False,
    progress: bool = True,
) -> RetrievalHeads:
    """Score every head by how much of a needle it copies while the model writes the needle down.

    Memory grows linearly with the length of the prompts: see `interp.heads.needles.last_row`.

    Args:
        model: What `interp.load` returns.
        prompts: They end where the answer begins, and have the role "needle" (or VALUE, as those
            of the task "retrieval" do) at the tokens to be found. By default `n` of
            `needle_prompts(model)`, whose lengths reach up to the model's context; where the
            tokenizer can write none of them, `n` prompts of the task "retrieval".
        n: Number of default prompts.
        seed: Of the default prompts.
        steps: Most tokens of an answer, which ends at a line break, the end-of-text token, or the
            end of the model's context.
        per_hit: Count each copy of a token, as the code of Wu et al. does.
        progress: Show a bar.

    Raises:
        MetricError: No run counts: the model found the needle in none.
        PromptError: Prompts without a needle, or too long for the model.
        TaskError: The tokenizer can write neither needles nor the prompts of the task.
    """
    if prompts is None:
        prompts = default_prompts(model, n=n, seed=seed)
    require_answers(model, prompts, steps)
    values, rows, chances = [], [], []
    for index, (tokens, span) in enumerate(
        track(needle_rows(prompts), "Retrieving needles", shown=progress)
    ):
        run = _run(model, tokens, span, steps, per_hit)
        needle = str(model.tokenizer.decode(tokens[slice(*span)]))
        answer = str(model.tokenizer.decode(run.written, skip_special_tokens=True))
        found = recall(answer, needle)
        values.append(run.copied if found > FOUND else torch.full_like(run.copied, math.nan))
        chances += [run.chance] if found > FOUND else []
        depth = prompts.notes["depth"][index] if "depth" in prompts.notes else span[0] / len(tokens)
        rows.append(
            {
                "length": len(tokens),
                "depth": depth,
                "needle": needle.strip(),
                "answer": answer.strip(),
                "rouge": found,
                "counted": found > FOUND,
            }
        )
    if not chances:
        raise MetricError(
            f"{model.id} found the needle in none of {len(rows)} runs, so that no head can be "
            "said to retrieve it; pass shorter prompts (needle_prompts with lengths=), or prompts "
            "of a task that the model can do."
        )
    score = Score(
        kind="retrieval",
        values=torch.stack(values, dim=-1),
        samples="runs",
        chance=sum(chances) / len(chances),
        notes={"counted": len(chances), "steps": steps, "per_hit": per_hit, "task": prompts.task},
    )
    counted = score.values[:, :, torch.tensor([row["counted"] for row in rows])]
    return RetrievalHeads(
        score=score,
        activation_frequency=(counted > 0).to(counted.dtype).mean(dim=-1),
        runs=pd.DataFrame(rows),
        provenance=provenance(
            model, prompts, method="retrieval heads", steps=steps, per_hit=per_hit
        ),
    )


def default_prompts(
    model: Model, *, n: int, seed: int, split: Literal["score", "test"] = "score"
) -> PromptSet:
    """Needles in haystacks where the tokenizer can write them, else the task "retrieval"."""
    if n < 1:
        raise PromptError(f"n is {n}, and a score needs at least one run; pass n=1 or more.")
    if known := needles(model, split):
        return needle_prompts(model, known, n=n, seed=seed)
    seeds = {"score": seed, "test": seed + 1_000_000}
    return tasks.get("retrieval").sample(model, n, seed=seeds[split])


def require_answers(model: Model, prompts: PromptSet, steps: int) -> None:
    """Raise PromptError for prompts that the model cannot read, and for answers without tokens."""
    require_fit(model, prompts)
    if steps < 1:
        raise PromptError(
            f"steps is {steps}, and an answer has at least one token; pass 1 or more."
        )


def needle_rows(prompts: PromptSet) -> list[tuple[Int[Tensor, " pos"], tuple[int, int]]]:
    """The tokens of each prompt, without padding, and the span of its needle.

    Raises:
        PromptError: A prompt without a needle.
    """
    role = next((role for role in ROLES if role in prompts.roles), None)
    if role is None:
        raise PromptError(
            f"The prompts have the roles {', '.join(prompts.roles)} and none is the needle; mark "
            'the tokens to be found by the role "needle".'
        )
    rows = []
    for index, (row, mask) in enumerate(zip(prompts.clean.cpu(), prompts.mask.cpu(), strict=True)):
        first = int(mask.int().argmax())
        start, stop = (column - first for column in prompts.roles[role][index].tolist())
        if start < 0:
            raise PromptError(f"Prompt {index} lacks the role {role!r}; leave it out.")
        rows.append((row[mask], (start, stop)))
    return rows


@dataclass(frozen=True, eq=False)
class _Run:
    """What the model wrote, the share of the needle that each head copied, and that by chance."""

    written: list[int]
    copied: Float[Tensor, "layer head"]
    chance: float


def _run(
    model: Model, tokens: Int[Tensor, " pos"], span: tuple[int, int], steps: int, per_hit: bool
) -> _Run:
    needle = tokens[slice(*span)]
    kinds = len(needle) if per_hit else len(needle.unique())
    room = model.geometry.n_ctx - len(tokens) + 1
    text = read(model, tokens[:-1])
    written: list[int] = []
    hits: dict[int, list[Tensor]] = {}
    chance = 0.0
    for token, looked in greedy(
        text, int(tokens[-1]), steps=min(steps, room), ends=ends_line(model)
    ):
        written.append(token)
        places = span[0] + (needle == token).nonzero()[:, 0]
        hits.setdefault(token, []).append(torch.isin(looked, places))
        chance += len(places) / text.length
    each = [torch.stack(some) for some in hits.values()]
    copies = [some.sum(dim=0) if per_hit else some.any(dim=0) for some in each]
    dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
    return _Run(written, torch.stack(copies).sum(dim=0).to(dtype) / kinds, chance / kinds)
