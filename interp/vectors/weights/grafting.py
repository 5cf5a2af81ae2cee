"""Where in the weights does a skill sit? The fewest fine-tuned parameters that carry it.

    theta = theta_base + gamma * tau        gamma: 0 or 1 for each parameter

Panigrahi et al. 2023, "Task-Specific Skill Localization in Fine-tuned Language Models". Their mask
starts from the parameters that moved most (gamma_0) and is learned through

    gamma = gamma_0 (1 - sigmoid(S)) + (1 - gamma_0) sigmoid(S)

with the loss of the task alone; S starts low, so that gamma starts at gamma_0. We differ in two
things. The paper takes plain gradient steps on S and rounds gamma; rounding changes how many are
kept, so we keep the parameters with the largest gamma, as many as asked for, and curves compare
masks of equal size. And S is trained by Adam. Random masks of equal size are the control. How few
suffice hangs on the fine-tuning too: AdamW moves all parameters about equally far, and then no
small part of them need carry the skill.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.display import Displayed
from interp.engine.anatomy import Part, anatomy
from interp.errors import VectorError
from interp.models import Model
from interp.plots.colors import DIVERGING, MISSING
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci
from interp.vectors.weights.fine_tune import answer_loss, correct
from interp.vectors.weights.weight_vector import WeightVector, blocks_of

SHARES = (0.0001, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
START = -3.0
"""Where S starts: every parameter is then 5% on the other side of gamma_0."""

Mask = Mapping[str, Bool[Tensor, "*shape"]]


@dataclass(frozen=True, eq=False)
class SkillMap(Saved, Displayed):
    """How much of a skill is carried by how many parameters, and which.

    Attributes:
        shares: Shares of all parameters that were grafted.
        masks: By (method, share): "largest" (moved most) or "learned".
        right: 0 or 1 of each test prompt, by (method, share, draw); methods are those of the masks,
            and the control "random" with several draws.
        base, tuned: The same for the base and for the fine-tuned model.
        provenance: Model, prompts, vector, options.
    """

    shares: tuple[float, ...]
    masks: Mapping[tuple[str, float], Mask] = field(repr=False)
    right: Mapping[tuple[str, float, int], Float[Tensor, " prompts"]] = field(repr=False)
    base: Float[Tensor, " prompts"] = field(repr=False)
    tuned: Float[Tensor, " prompts"] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    def recovered(self, accuracy: float) -> float:
        """An accuracy as a share of the way from the base to the fine-tuned model."""
        start, end = self.base.mean().item(), self.tuned.mean().item()
        return (accuracy - start) / (end - start)

    def smallest(self, method: str = "learned", *, recovered: float = 0.95) -> float:
        """The smallest share that recovers this much of the skill; NaN if none does."""
        frame = self.to_frame()
        enough = frame[(frame["method"] == method) & (frame["recovered"] >= recovered)]
        return float(enough["share"].min())

    def to_frame(self) -> pd.DataFrame:
        """One row a method and share.

        Columns: method, share, parameters, accuracy, ci_low and ci_high (95% over prompts, each the
        mean over draws), recovered (0 is the base, 1 the fine-tuned model), draws, n.
        """
        total, rows = self.provenance["parameters"], []
        for method, share in dict.fromkeys((m, s) for m, s, _ in self.right):
            draws = [v for (m, s, _), v in self.right.items() if (m, s) == (method, share)]
            each = torch.stack(draws).mean(dim=0)
            low, high = bootstrap_ci(each)
            rows.append(
                {
                    "method": method,
                    "share": share,
                    "parameters": _count(share, total),
                    "accuracy": each.mean().item(),
                    "ci_low": low.item(),
                    "ci_high": high.item(),
                    "recovered": self.recovered(each.mean().item()),
                    "draws": len(draws),
                    "n": len(each),
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Accuracy against the share of parameters; lines are the base and the fine-tuned model."""
        figure, frame = go.Figure(), self.to_frame()
        colors = {"learned": DIVERGING[-2], "largest": DIVERGING[1], "random": MISSING}
        for method, some in frame.groupby("method", sort=False):
            figure.add_scatter(
                x=some["share"],
                y=some["accuracy"],
                error_y={
                    "type": "data",
                    "array": some["ci_high"] - some["accuracy"],
                    "arrayminus": some["accuracy"] - some["ci_low"],
                    "thickness": 1,
                },
                name=method,
                marker_color=colors[method],
            )
        for name, right in (("base", self.base), ("fine-tuned", self.tuned)):
            figure.add_hline(y=right.mean().item(), line_dash="dot", annotation_text=name)
        figure.update_layout(title=repr(self), template="plotly_white")
        figure.update_xaxes(title_text="share of parameters", type="log")
        figure.update_yaxes(title_text="accuracy", range=[0, 1.02])
        return figure

    def __repr__(self) -> str:
        told = ", ".join(
            f"{method} {self.smallest(method):.2%}"
            for method in dict.fromkeys(m for m, _ in self.masks)
        )
        return (
            f"SkillMap({self.provenance['vector']}: accuracy {self.base.mean():.2f} to "
            f"{self.tuned.mean():.2f}; 95% of it in {told} of the parameters; "
            f"n = {len(self.base)} prompts)"
        )


def localize(
    model: Model,
    vector: WeightVector,
    *,
    train: PromptSet,
    test: PromptSet,
    shares: Sequence[float | int] = SHARES,
    steps: int = 100,
    rows: int = 16,
    learning_rate: float = 0.3,
    draws: int = 3,
    seed: int = 0,
    progress: bool = True,
) -> SkillMap:
    """Graft ever more fine-tuned parameters into the base: the largest, learned and random ones.

    Args:
        model: The base.
        vector: From it to the fine-tuned model.
        train: On which masks are learned.
        test: On which accuracy is reported.
        shares: Of all parameters, each between 0 and 1.
        steps, rows, learning_rate: Of Adam on S, for each share.
        draws: Random masks of each share, the control.
        seed: Of batches and random masks.
        progress: Show a bar.

    Raises:
        VectorError: Another base, shares that are none, no draws, or a fine-tuned model that is no
            better than the base on the test prompts: there is no skill to find.
        PromptError: Prompts that the model cannot read.
    """
    if not shares or not all(0 < share <= 1 for share in shares) or draws < 1 or steps < 1:
        raise VectorError(
            f"shares={list(shares)}, steps={steps}, draws={draws}: give shares above 0 and up to "
            "1, such as 0.01, and at least one step and one draw."
        )
    base, tuned = correct(model, test), correct(model, test, vector.weights(model))
    if tuned.mean() <= base.mean():
        raise VectorError(
            f"With {vector.name!r} {model.id} answers {tuned.mean():.2f} of the test prompts and "
            f"{base.mean():.2f} without; there is no skill to localise, so use other prompts."
        )
    masks: dict[tuple[str, float], Mask] = {}
    right: dict[tuple[str, float, int], Tensor] = {}
    for share in track(list(shares), "Grafting", shown=progress):
        start = largest(vector, share)
        masks["largest", share] = start
        masks["learned", share] = learned(
            model,
            vector,
            train,
            start,
            steps=steps,
            rows=rows,
            learning_rate=learning_rate,
            seed=seed,
        )
        grafts = [("largest", 0, start), ("learned", 0, masks["learned", share])]
        grafts += [("random", i, random_mask(vector, share, seed=seed + i)) for i in range(draws)]
        for method, draw, mask in grafts:
            right[method, share, draw] = correct(model, test, vector.masked(mask).weights(model))
    told = provenance(
        model,
        test,
        method="grafting",
        vector=vector.name,
        parameters=vector.size,
        train_hash=train.hash,
        steps=steps,
        rows=rows,
        learning_rate=learning_rate,
        mask_seed=seed,
    )
    return SkillMap(tuple(shares), masks, right, base, tuned, told)


def graft(model: Model, vector: WeightVector, mask: Mask) -> Model:
    """A new model: the base with the fine-tuned values wherever the mask is true.

    Raises VectorError for another base, and for a mask of other parameters.
    """
    return vector.masked(mask).apply(model)


def largest(vector: WeightVector, share: float) -> dict[str, Tensor]:
    """The parameters that moved most, this share of all of them."""
    return _top({name: delta.abs() for name, delta in vector.deltas.items()}, share)


def random_mask(vector: WeightVector, share: float, *, seed: int = 0) -> dict[str, Tensor]:
    """As many parameters, drawn at random."""
    draws = torch.Generator().manual_seed(seed)
    return _top(
        {
            n: torch.rand(d.shape, generator=draws, dtype=torch.float64)
            for n, d in vector.deltas.items()
        },
        share,
    )


def learned(
    model: Model,
    vector: WeightVector,
    prompts: PromptSet,
    start: Mask,
    *,
    steps: int = 100,
    rows: int = 16,
    learning_rate: float = 0.3,
    seed: int = 0,
) -> dict[str, Tensor]:
    """The mask that a sigmoid mask learns from `start`, with as many parameters."""
    vector.require(model)
    held = {name: each.detach() for name, each in model.hf.named_parameters()}
    delta = {name: vector.deltas[name].to(each) for name, each in held.items()}
    gamma0 = {name: start[name].to(each) for name, each in held.items()}
    logits = {name: torch.full_like(each, START, requires_grad=True) for name, each in held.items()}
    optimizer = torch.optim.Adam(list(logits.values()), lr=learning_rate)
    rng, waiting = random.Random(f"graft {seed}"), list[int]()

    def gamma(name: str) -> Tensor:
        return gamma0[name] + (1 - 2 * gamma0[name]) * logits[name].sigmoid()

    for _ in range(steps):
        while len(waiting) < rows:
            waiting += rng.sample(range(len(prompts)), len(prompts))
        batch, waiting = prompts[waiting[:rows]], waiting[rows:]
        weights = {name: held[name] + gamma(name) * delta[name] for name in held}
        optimizer.zero_grad()
        answer_loss(model, batch, weights).backward()
        optimizer.step()
    with torch.no_grad():
        found = {name: gamma(name).double() for name in held}
    share = sum(int(each.sum()) for each in start.values()) / vector.size
    return _top(found, share)


def by_block(model: Model, mask: Mask) -> pd.DataFrame:
    """Where a mask lies.

    Columns: block (a number, or "embeddings"), parameters, masked, share (of the mask that lies
    here), chance (of all parameters that lie here).
    """
    frame = pd.DataFrame(
        {
            "block": blocks_of(model)[name],
            "parameters": each.numel(),
            "masked": int(each.sum()),
        }
        for name, each in mask.items()
    )
    frame = frame.groupby("block", sort=False).sum().reset_index()
    frame["share"] = frame["masked"] / max(1, frame["masked"].sum())
    frame["chance"] = frame["parameters"] / frame["parameters"].sum()
    return frame


def by_head(model: Model, mask: Mask) -> pd.DataFrame:
    """How much of each head's own queries, keys, values and outputs a mask takes.

    A group's keys and values count for each query head that reads them. Columns: head, parameters,
    masked, share (masked of the head's parameters), chance (masked of all parameters).
    """
    shape, found = model.geometry, []
    known = {id(each): name for name, each in model.hf.named_parameters()}
    chance = sum(int(each.sum()) for each in mask.values()) / sum(m.numel() for m in mask.values())
    for layer, block in enumerate(anatomy(model).blocks):
        masked, parameters = torch.zeros(2, shape.n_heads)
        for part in (block.parts[kind] for kind in ("q", "k", "v", "z") if kind in block.parts):
            taken = mask[known[id(part.module.weight)]].cpu()
            each = _features(part, taken)
            heads = each.unflatten(0, (part.heads, -1)).flatten(1).double()
            group = shape.n_heads // part.heads
            masked = masked + heads.sum(dim=1).repeat_interleave(group)
            parameters = parameters + heads.shape[1]
        for head in range(shape.n_heads):
            found.append((Head(layer, head), int(parameters[head]), int(masked[head])))
    frame = pd.DataFrame(found, columns=["head", "parameters", "masked"])
    frame["head"] = frame["head"].map(str)
    frame["share"], frame["chance"] = frame["masked"] / frame["parameters"], chance
    return frame


def _features(part: Part, weight: Bool[Tensor, "one two"]) -> Bool[Tensor, "features other"]:
    """A matrix with the features of a part as its rows."""
    transposed = type(part.module).__name__ == "Conv1D"  # which keeps [in, out]
    rows = weight if (part.side == "in") == transposed else weight.T
    return rows if part.columns is None else rows[part.columns.cpu()]


def _top(scores: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """True at the highest scores, this share of all of them."""
    flat = torch.cat([each.flatten().double() for each in scores.values()])
    kept = torch.zeros(len(flat), dtype=torch.bool)
    kept[flat.cpu().argsort(descending=True, stable=True)[: _count(share, len(flat))]] = True
    sizes = [each.numel() for each in scores.values()]
    pieces = zip(scores.items(), kept.split(sizes), strict=True)
    return {name: piece.view(each.shape).to(each.device) for (name, each), piece in pieces}


def _count(share: float, total: int) -> int:
    return max(1, math.floor(share * total + 0.5))
