"""Does a model still find its needle when the retrieval heads are masked?

The prompt is read as it is; heads are masked at the steps alone in which the answer is written
(Wu et al. 2024), from the one that reads the last token of the prompt on.

- "uniform": their scores before the softmax become 0, biases of positions included, so that they
  attend equally to every token that they may see. This is what the paper's code does.
- "zero": their output becomes 0.

The control masks as many random heads, none of them among those that were masked as the best.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine.replay import replay_of
from interp.engine.sources import require_patterns
from interp.errors import InterventionError
from interp.heads.needles.last_row import CachedText, Text, ends_line, greedy, read
from interp.heads.needles.retrieval import (
    FOUND,
    STEPS,
    default_prompts,
    needle_rows,
    require_answers,
)
from interp.heads.needles.rouge import recall
from interp.heads.score import Score
from interp.models import Model
from interp.plots import site_bars
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci

How = Literal["uniform", "zero"]

KS = (2, 5, 10, 15, 20, 30, 50, 100)
"""Numbers of heads that are masked: of these, up to a quarter of the heads of the model."""


@dataclass(frozen=True, eq=False)
class RetrievalMasking(Saved, Displayed):
    """How well a model finds needles without some of its heads.

    Attributes:
        runs: One row for each prompt, set of masked heads and draw: masked ("none", "top" or
            "random"), k, draw, run, answer, rouge (recall, 0 to 1), found.
        heads: The heads of each set, by (masked, k, draw).
        how: "uniform" or "zero".
        provenance: Model, prompts, options, versions.
    """

    runs: pd.DataFrame
    heads: dict[tuple[str, int, int], tuple[Head, ...]] = field(repr=False)
    how: str
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row for each number of masked heads.

        Columns: masked, k, found (share of runs), its ci_low and ci_high (95% over runs, of which
        each is the mean over draws), rouge (mean recall), n (runs), draws.
        """
        rows = []
        for (masked, k), some in self.runs.groupby(["masked", "k"], sort=False):
            each = torch.tensor(some.groupby("run")["found"].mean().to_list())
            low, high = bootstrap_ci(each)
            rows.append(
                {
                    "masked": masked,
                    "k": k,
                    "found": each.mean().item(),
                    "ci_low": low.item(),
                    "ci_high": high.item(),
                    "rouge": some["rouge"].mean(),
                    "n": len(each),
                    "draws": some["draw"].nunique(),
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """The share of needles found, for each number of masked heads, with its interval."""
        frame = self.to_frame()
        names = [
            "no head" if masked == "none" else f"{masked} {k}"
            for masked, k in zip(frame["masked"], frame["k"], strict=True)
        ]
        return site_bars(
            frame["found"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=names,
            title=f"Needles found with heads masked ({self.how})",
            across="share of runs",
            hover=[
                f"{name}: {share:.2f}" for name, share in zip(names, frame["found"], strict=True)
            ],
        )

    def __repr__(self) -> str:
        frame = self.to_frame()
        most = frame[frame["k"] == frame["k"].max()].set_index("masked")["found"]
        return (
            f"RetrievalMasking({self.how}; found {frame['found'][0]:.2f} with all heads, "
            f"{most['top']:.2f} without the top {frame['k'].max()}, {most['random']:.2f} without "
            f"as many random ones; n = {frame['n'][0]} runs)"
        )


def retrieval_masking(
    model: Model,
    score: Score,
    prompts: PromptSet | None = None,
    *,
    ks: Sequence[int] | None = None,
    how: How = "uniform",
    draws: int = 5,
    n: int = 20,
    seed: int = 0,
    steps: int = STEPS,
    progress: bool = True,
) -> RetrievalMasking:
    """Ask for needles while the heads with the highest score, or random others, are masked.

    Args:
        model: What `interp.load` returns.
        score: Ranks the heads: `retrieval(model).score`, or any other.
        prompts: As `retrieval` takes them; by default `n` with other needles than its own.
        ks: Numbers of heads to mask; `KS` up to a quarter of the model's heads by default.
        how: "uniform" attention or "zero" output.
        draws: Random sets of each size.
        n: Number of default prompts.
        seed: Of the default prompts and the random heads.
        steps: Most tokens of an answer.
        progress: Show a bar.

    Raises:
        InterventionError: Numbers of heads that leave too few for the control, no draws, another
            `how`, a score of another model, or a model that cannot continue a text from a cache of
            keys and values.
        SiteError: Heads whose output is not their pattern times the values.
        PromptError: Prompts without a needle, or too long for the model.
    """
    if how not in get_args(How):
        raise InterventionError(f'how is {how!r}, and heads are masked "uniform" or "zero".')
    shape = (model.geometry.n_layers, model.geometry.n_heads)
    if score.values.shape[:2] != shape:
        raise InterventionError(
            f"The score is of {list(score.values.shape[:2])} layers and heads, and {model.id} has "
            f"{list(shape)}; pass a score of this model."
        )
    sets = head_sets(score, ks, draws, seed)
    if prompts is None:
        prompts = default_prompts(model, n=n, seed=seed, split="test")
    require_answers(model, prompts, steps)
    rows = []
    for run, (tokens, span) in enumerate(
        track(needle_rows(prompts), "Masking heads", shown=progress)
    ):
        text = read(model, tokens[:-1])
        needle = str(model.tokenizer.decode(tokens[slice(*span)]))
        room = min(steps, model.geometry.n_ctx - text.length)
        for (masked, k, draw), heads in sets.items():
            with masking(text, heads, how):
                last = int(tokens[-1])
                answer = greedy(text, last, steps=room, ends=ends_line(model))
                written = [token for token, _ in answer]
            text.cut(len(tokens) - 1)
            said = str(model.tokenizer.decode(written, skip_special_tokens=True))
            rouge = recall(said, needle)
            rows.append(
                {
                    "masked": masked,
                    "k": k,
                    "draw": draw,
                    "run": run,
                    "answer": said.strip(),
                    "rouge": rouge,
                    "found": rouge > FOUND,
                }
            )
    return RetrievalMasking(
        runs=pd.DataFrame(rows),
        heads=sets,
        how=how,
        provenance=provenance(
            model, prompts, method="masked heads", how=how, score=score.kind, draws=draws
        ),
    )


def head_sets(
    score: Score, ks: Sequence[int] | None, draws: int, seed: int
) -> dict[tuple[str, int, int], tuple[Head, ...]]:
    """The sets of heads to mask, by (masked, k, draw): none, the best k, and random others.

    The random ones exclude the largest set of the best, whatever k.
    """
    order = score.order()
    if ks is None:
        ks = [k for k in KS if k <= len(order) / 4] or [1]
    if not ks or min(ks) < 1 or 2 * max(ks) > len(order):
        raise InterventionError(
            f"ks is {list(ks)}, and of {len(order)} heads between 1 and {len(order) // 2} can be "
            "masked so that the control has as many others; choose such numbers."
        )
    if draws < 1:
        raise InterventionError(f"draws is {draws}; the control needs at least one.")
    sets: dict[tuple[str, int, int], tuple[Head, ...]] = {("none", 0, 0): ()}
    others, rng = order[max(ks) :], random.Random(f"masked {seed}")
    for k in ks:
        sets["top", k, 0] = tuple(order[:k])
        sets |= {("random", k, draw): tuple(rng.sample(others, k)) for draw in range(draws)}
    return sets


@contextmanager
def masking(text: Text, heads: Sequence[Head], how: How) -> Iterator[None]:
    """Mask heads in every step of one token that the text takes meanwhile."""
    if not isinstance(text, CachedText):
        raise InterventionError(
            f"{text.model.id} cannot continue a text from a cache of keys and values, so nothing "
            "can be masked at its steps alone; interp.ablate masks heads in all columns."
        )
    require_patterns(replay_of(text.model))
    with ExitStack() as hooks:
        for layer in sorted({head.layer for head in heads}):
            some = [head.head for head in heads if head.layer == layer]
            hook = text.body.blocks[layer].attn.register_forward_hook(
                _masked(text, layer, some, how)
            )
            hooks.callback(hook.remove)
        yield


def _masked(text: CachedText, layer: int, heads: list[int], how: How) -> Callable[..., Any]:
    """A hook on attention: z is the pattern times the values, and what it adds is linear in z."""
    project = text.body.blocks[layer].after_heads[0]
    group = text.model.geometry.n_heads // text.model.geometry.n_kv_heads

    def hook(module: Any, arguments: Any, output: Any) -> Any:
        pattern = output[1][:, heads]
        wanted = uniform(output[1])[:, None] if how == "uniform" else torch.zeros_like(pattern)
        values = text.values(layer)[:, [head // group for head in heads]]
        change = torch.zeros(1, pattern.shape[2], text.model.geometry.n_heads, values.shape[-1])
        change = change.to(values)
        change[:, :, heads] = ((wanted - pattern) @ values).transpose(1, 2)
        added = project(change.flatten(2)) - project(torch.zeros_like(change).flatten(2))
        return (output[0] + added, *output[1:])

    return hook


def uniform(pattern: Float[Tensor, "1 head new pos"]) -> Float[Tensor, "1 new pos"]:
    """Equal attention to all that the newest token may see: from the first key any head looks at.

    Before it lies what a sliding window hides.
    """
    visible = (pattern > 0).any(dim=1).cumsum(dim=-1) > 0
    return visible.to(pattern.dtype) / visible.sum(dim=-1, keepdim=True)
