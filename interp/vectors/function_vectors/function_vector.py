"""Function vectors: what the heads that carry a function write, added up (Todd et al. 2024).

Each head's mean output z at END, over prompts that demonstrate a relation, is put into prompts with
corrupted demonstrations, one head at a time:

    causal indirect effect = P(answer | corrupt, head := mean) - P(answer | corrupt)

The vector is what the k heads with the largest mean effect, signed, add to the stream at their
means; the bias of the output projection is no head's, and is not in it:

    v = sum of W_O^h mean(z_h)
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed, as_html
from interp.engine.head_means import causal_indirect_effects, mean_head_outputs
from interp.engine.replay import close, replay_of
from interp.errors import MetricError, UnsupportedModel, VectorError
from interp.models import Model
from interp.plots import head_heatmap
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import QA, Shown, Template, prompts_of, show
from interp.vectors.function_vectors.contexts import asked, corrupted, varied
from interp.vectors.head_sums import head_outputs
from interp.vectors.relation import Relation, relation
from interp.vectors.vector import Vector

HEADS = 10
"""Heads of a vector, as the source has for GPT-J; a fifth of all heads where that is less."""


@dataclass(frozen=True, eq=False)
class FunctionVector(Saved, Displayed):
    """What each head brings back of a relation, and what the best of them write.

    Attributes:
        relation: Its pairs.
        effects: The causal indirect effect on each corrupted prompt, in probability.
        means: The mean output z of each head at END of clean prompts.
        heads: Those that were added up, the largest average effect first.
        direction: What they write together.
        clean: The answer's probability on each clean prompt.
        corrupt: The same with corrupted demonstrations.
        shown: The clean prompts of `effects`.
        template: How pairs are written.
        other: The relation that corrupted prompts demonstrate; None if outputs were shuffled.
        provenance: Model, weights hash, prompts, options, versions.
    """

    relation: Relation
    effects: Float[Tensor, "layer head prompts"]
    means: Float[Tensor, "layer head d_head"]
    heads: tuple[Head, ...]
    direction: Float[Tensor, " d_model"]
    clean: Float[Tensor, " prompts"]
    corrupt: Float[Tensor, " prompts"]
    shown: tuple[Shown, ...]
    template: Template
    other: Relation | None
    provenance: dict[str, Any]

    @property
    def aie(self) -> Float[Tensor, "layer head"]:
        """Average indirect effect: the mean over prompts."""
        return self.effects.mean(dim=-1)

    @property
    def gap(self) -> float:
        """What the corruption costs: the fall of the answer's mean probability."""
        return (self.clean - self.corrupt).mean().item()

    @property
    def corruption(self) -> str:
        """What was done to demonstrations: "shuffled", or "other: " and what they are of."""
        return _named(self.other)

    @property
    def shots(self) -> int:
        """Demonstrations of a prompt."""
        return len(self.shown[0].demos)

    @property
    def options(self) -> dict[str, Any]:
        """The options of `function_vector` that make it again."""
        return {
            "shots": self.shots,
            "n_mean": self.provenance.get("n_mean"),
            "n_effect": len(self.clean),
            "k": len(self.heads),
            "other": None if self.other is None else self.other.name,
            "seed": self.provenance.get("vector_seed"),
        }

    def vector(self, layer: int) -> Vector:
        """It as a vector that is added at END to what leaves a block.

        Raises VectorError for a block that the model does not have.
        """
        if not 0 <= layer < len(self.means):
            raise VectorError(
                f"Layer {layer} is not one of the {len(self.means)} layers of "
                f"{self.provenance['model']}; give one from 0 to {len(self.means) - 1}."
            )
        return Vector({layer: self.direction}, "add", "function", self.provenance)

    def to_frame(self) -> pd.DataFrame:
        """One row a head, the largest average effect first.

        Columns: head, effect (in probability), ci_low and ci_high (95%, over queries), share (of
        the gap), used (whether it is in the vector), n (prompts), queries.
        """
        each = by_query(self.effects.flatten(0, 1), asked(self.shown))
        low, high = bootstrap_ci(each)
        order = ranked(self.aie)
        rows = torch.tensor([head.layer * self.aie.shape[1] + head.head for head in order])
        effect = self.aie.flatten()[rows]
        return pd.DataFrame(
            {
                "head": [str(head) for head in order],
                "effect": effect.tolist(),
                "ci_low": low[rows].tolist(),
                "ci_high": high[rows].tolist(),
                "share": (effect / self.gap).tolist(),
                "used": [head in self.heads for head in order],
                "n": self.effects.shape[-1],
                "queries": each.shape[-1],
            }
        )

    def plot(self) -> go.Figure:
        """Heatmap of the average indirect effects."""
        return head_heatmap(
            self.aie,
            title=f"Average indirect effect on {self.relation.name} of {self.provenance['model']}",
            colorbar="probability",
            diverging=True,
        )

    def __repr__(self) -> str:
        best = [(head, self.aie[head.layer, head.head]) for head in self.heads[:3]]
        told = ", ".join(f"{head} {effect:+.3f}" for head, effect in best)
        return (
            f"FunctionVector({self.relation.name}: {len(self.heads)} heads, {told}"
            f"{', ...' if len(self.heads) > 3 else ''}; answer {self.clean.mean():.3f} clean, "
            f"{self.corrupt.mean():.3f} {self.corruption}; n = {len(self.clean)} prompts)"
        )

    def _repr_html_(self) -> str:
        return as_html(self, self.to_frame()[:HEADS])


def function_vector(
    model: Model,
    source: str | Relation,
    *,
    shots: int = 10,
    n_mean: int = 100,
    n_effect: int = 25,
    k: int | None = None,
    other: str | Relation | None = None,
    template: Template = QA,
    least_gap: float = 0.05,
    seed: int = 0,
) -> FunctionVector:
    """Find the heads that carry a relation, and add up what they write.

    Means are taken over training queries that are not among their own demonstrations, effects over
    dev queries; the test queries are never shown. The source permutes the outputs of the
    demonstrations. A model that tells a relation from the outputs alone loses nothing by that, and
    then no effect can be measured: `other` is our way out, demonstrations of another relation
    before the same query. Best are two relations of the same inputs, as capital and continent are.

    Args:
        model: Of any architecture that adds up its heads.
        source: A relation, or its name.
        shots: Demonstrations.
        n_mean: Prompts that means are taken over.
        n_effect: Prompts on which heads are put in.
        k: Heads to add up; by default `HEADS`, or a fifth of all if that is less.
        other: The relation that corrupted prompts demonstrate; by default outputs are shuffled.
        template: How pairs are written.
        least_gap: The least that the corruption must cost, in probability of the answer; -1.0 asks
            for nothing.
        seed: Of demonstrations, and of the order of queries.

    Raises:
        TaskError: Too few pairs for so many demonstrations, or nothing to corrupt.
        PromptError: More demonstrations than the model's context holds.
        MetricError: The corruption costs less than `least_gap`.
        VectorError: More heads than there are, or fewer than one.
        UnsupportedModel: What attention adds to the stream is no sum over heads.
    """
    require_sum(model)
    wanted, shape = relation(model, source), model.geometry
    count = max(1, min(HEADS, shape.n_layers * shape.n_heads // 5)) if k is None else k
    if not 1 <= count <= shape.n_layers * shape.n_heads:
        raise VectorError(
            f"k is {count}, and {model.id} has {shape.n_layers * shape.n_heads} heads; give a "
            "number from 1 to that."
        )
    instead = None if other is None else relation(model, other)
    rng = random.Random(f"corrupt {wanted.name} {seed}")
    clean = varied(wanted, n_effect, shots=shots, split="dev", seed=seed)
    corrupt = [corrupted(each, rng, instead) for each in clean]
    prompts = prompts_of(model, clean, corrupt=corrupt, template=template)
    shown = show(wanted, n_mean, shots=shots, split="train", seed=seed)
    means = mean_head_outputs(model, prompts_of(model, shown, template=template))
    sweep = causal_indirect_effects(model, prompts, means)
    assert sweep.corrupt is not None
    gap = (sweep.clean - sweep.corrupt).mean().item()
    if not gap >= least_gap:
        raise MetricError(
            f"Demonstrations of {wanted.name} that are corrupted ({_named(instead)}) cost "
            f"{model.id} {gap:.3f} of the answer's probability, less than least_gap={least_gap}, "
            "so there is nothing that a head could bring back; demonstrate another relation of the "
            "same inputs, with other=."
        )
    effects = sweep.effects.unflatten(0, means.shape[:2])
    heads = ranked(effects.mean(dim=-1))[:count]
    return FunctionVector(
        relation=wanted,
        effects=effects,
        means=means,
        heads=heads,
        direction=head_sum(written(model, means), heads).to(model.dtype),
        clean=sweep.clean,
        corrupt=sweep.corrupt,
        shown=tuple(clean),
        template=template,
        other=instead,
        provenance=provenance(
            model,
            prompts,
            method="function vector",
            relation=wanted.name,
            corruption=_named(instead),
            n_mean=n_mean,
            heads=[str(head) for head in heads],
            vector_seed=seed,
        ),
    )


def ranked(aie: Float[Tensor, "layer head"]) -> tuple[Head, ...]:
    """All heads, the largest average effect first."""
    order = aie.flatten().argsort(descending=True, stable=True).tolist()
    return tuple(Head(*divmod(i, aie.shape[1])) for i in order)


def written(
    model: Model, means: Float[Tensor, "layer head d_head"]
) -> Float[Tensor, "layer head d_model"]:
    """What each head writes to the stream at its mean, without the projection's bias; in float64.

    Raises UnsupportedModel if what attention adds to the stream is no sum over heads.
    """
    require_sum(model)
    projections = [block.after_heads[0] for block in replay_of(model).body.blocks]
    return torch.stack(
        [head_outputs(each, z.double()) for each, z in zip(projections, means, strict=True)]
    )


def head_sum(
    outputs: Float[Tensor, "layer head d_model"], heads: Sequence[Head]
) -> Float[Tensor, " d_model"]:
    """What some of the heads write together."""
    rows = torch.tensor([[head.layer, head.head] for head in heads])
    return outputs[rows[:, 0], rows[:, 1]].sum(dim=0)


@torch.no_grad()
def require_sum(model: Model) -> None:
    """Raise UnsupportedModel unless attention adds its output projection to the stream, unscaled.

    A norm behind the projection (Gemma 2, OLMo 2) makes what one head adds depend on the others,
    and a factor on it would have to be in the vector.
    """
    replay = replay_of(model)
    kinds = [kind for kind in ("attn_out", "mlp_out") if replay.has(kind)]
    run = replay.clean(replay.sample(), kinds)
    sums = all(
        close(before + sum(parts[layer] for parts in run.parts.values()), after)
        for layer, (before, after) in enumerate(zip(run.stream, run.stream[1:], strict=False))
    )
    if not sums or len(replay.body.blocks[0].after_heads) > 1:
        raise UnsupportedModel(
            f"In {model.id} what attention adds to the stream is normed or scaled after its output "
            "projection, so that heads do not add up to a function vector; use a task vector, "
            "which replaces the whole stream."
        )


def _named(other: Relation | None) -> str:
    return "shuffled" if other is None else f"other: {other.name}"
