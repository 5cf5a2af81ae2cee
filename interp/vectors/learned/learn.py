"""Learned task vectors: a weight for every head, trained through the model (Saglam et al. 2025).

demonstrations, query        ──► a[l, h]: what each head writes at END, mean over prompts
shuffled demonstrations, query ──► block l ──► + sum over h of Phi[l, h] a[l, h] at END ──► answer

Phi is learned by Adam against the cross-entropy of the answer's first token; the model is frozen.
Demonstrations, and the queries that are learned from, are training pairs; the weights of the step
with the least loss on the development queries are kept; test queries are seen by `evaluate` alone.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine.clean import CleanRun
from interp.engine.groups import Group, groups
from interp.engine.head_means import mean_head_outputs
from interp.engine.memory import largest_group
from interp.engine.replay import replay_of
from interp.errors import UnsupportedModel, VectorError
from interp.models import Model
from interp.plots import head_heatmap
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved, register
from interp.vectors.demonstrations import QA, Template, prompts_of, show
from interp.vectors.head_sums import Fit, add_at_end, fit, head_outputs, head_sums, require_steps
from interp.vectors.relation import Relation, relation
from interp.vectors.vector import Vector

if TYPE_CHECKING:
    from interp.vectors.learned.learned_evaluation import LearnedEvaluation

STEPS, LEARNING_RATE = 300, 0.01
"""The paper takes 2,000 steps of 5e-5, from other weights and in larger models; from zero, such
steps end before the weights of a small model are of any size."""
PROMPTS = 100
"""Prompts that head outputs are averaged over."""
POOL, DEV_PROMPTS = 256, 64
"""Prompts that are learned from, batch after batch, and those by which a step is chosen."""
LEARN_ON = ("shuffled", "zero-shot")


@register
@dataclass(frozen=True)
class Recipe:
    """How a vector is learned.

    Attributes:
        shots: Demonstrations of a prompt.
        steps: Steps of Adam.
        learning_rate: Its step size.
        batch: Prompts of a step.
        learn_on: Where the vector is added: behind "shuffled" demonstrations, or to the query
            alone, "zero-shot".
        template: How pairs are written.
        seed: Of demonstrations, and of the order of queries.
    """

    shots: int
    steps: int
    learning_rate: float
    batch: int
    learn_on: str
    template: Template
    seed: int


@dataclass(frozen=True, eq=False)
class LearnedVector(Saved, Displayed):
    """The weights of all heads, and the vectors that they make.

    Attributes:
        relation: Its pairs.
        vector: What is added at END to the output of every block.
        weights: Phi.
        outputs: What each head writes on average at END of clean prompts.
        fit: The way there.
        recipe: How it was learned.
        provenance: Model, weights hash, prompts, options, versions.
    """

    relation: Relation
    vector: Vector
    weights: Float[Tensor, "layer head"]
    outputs: Float[Tensor, "layer head d_model"] = field(repr=False)
    fit: Fit = field(repr=False)
    recipe: Recipe
    provenance: dict[str, Any] = field(repr=False)

    def evaluate(
        self, model: Model, *, n: int = 100, permutations: int = 5, progress: bool = True
    ) -> LearnedEvaluation:
        """Answer `n` prompts with test queries with the vector and with its controls.

        One of them is a second vector, learned in as many steps from shuffled answers.

        Raises VectorError for another model, TaskError for too few pairs.
        """
        from interp.vectors.learned.learned_evaluation import evaluate

        return evaluate(model, self, n=n, permutations=permutations, progress=progress)

    def to_frame(self) -> pd.DataFrame:
        """The losses on the way. Columns: step, train_loss (mean since the row before), dev_loss.

        Losses are cross-entropies of the answer, in nats, on prompts with shuffled demonstrations.
        """
        steps = self.fit.dev_steps
        between = [
            self.fit.train_loss[before:step].mean().item() for before, step in pairwise(steps)
        ]
        return pd.DataFrame(
            {
                "step": steps,
                "train_loss": [self.fit.train_loss[0].item(), *between],
                "dev_loss": self.fit.dev_loss.tolist(),
            }
        )

    def plot(self) -> go.Figure:
        """Heatmap of the weights."""
        return head_heatmap(
            self.weights,
            title=f"Learned weights for {self.relation.name} of {self.provenance['model']}",
            colorbar="weight",
            diverging=True,
        )

    def __repr__(self) -> str:
        first, best = self.fit.dev_loss[0], self.fit.dev_loss.min()
        return (
            f"LearnedVector({self.relation.name}, {self.provenance['model']}, "
            f"{self.recipe.learn_on}: dev loss {first:.3f} "
            f"-> {best:.3f} nats at step {self.fit.step} of {self.recipe.steps})"
        )


def learn_vector(
    model: Model,
    source: str | Relation,
    *,
    shots: int = 5,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    batch: int = 32,
    learn_on: str = "shuffled",
    template: Template = QA,
    seed: int = 0,
    progress: bool = True,
) -> LearnedVector:
    """Learn how much of each head's mean output to add at the separator of a relation.

    Weights start at zero, that is at the model as it is. A head's output is what its slice of the
    output projection writes; where a norm or a factor stands behind it (Gemma 2, OLMo 2), that is
    left out, as its scale is the weights' to find.

    Args:
        model: Of any architecture whose blocks can be run on their own.
        source: A relation, or its name.
        shots: Demonstrations of a prompt.
        steps: Steps of Adam. The paper: 2,000.
        learning_rate: Its step size. The paper: 5e-5.
        batch: Prompts of a step.
        learn_on: Where the vector is added: behind "shuffled" demonstrations, as in the paper, or
            to the query alone, "zero-shot".
        template: How pairs are written.
        seed: Of demonstrations, and of the order of queries.
        progress: Show a bar.

    Raises:
        TaskError: Too few pairs for so many demonstrations.
        VectorError: Options that learn nothing.
        UnsupportedModel: The blocks of the model cannot be run on their own.
    """
    require_steps(steps, learning_rate)
    if batch < 1:
        raise VectorError(f"batch={batch} learns from no prompt; use 1 or more.")
    if learn_on not in LEARN_ON:
        raise VectorError(f"learn_on={learn_on!r} is neither 'shuffled' nor 'zero-shot'.")
    if shots < 2:
        raise VectorError(
            f"shots={shots}, and the outputs of one cannot be shuffled; use 2 or more."
        )
    if not replay_of(model).works:
        raise UnsupportedModel(
            f"Vectors are learned through replayed blocks, and those of {model.id} cannot be run "
            "on their own; use a task vector."
        )
    wanted = relation(model, source)
    recipe = Recipe(shots, steps, learning_rate, batch, learn_on, template, seed)
    clean = prompts_of(
        model, show(wanted, PROMPTS, shots=shots, split="train", seed=seed), template=template
    )
    outputs = mean_outputs(model, clean)
    learned = learn(model, wanted, outputs, recipe, progress=progress)
    source_of = provenance(
        model,
        clean,
        method="learned task vector",
        relation=wanted.name,
        step=learned.step,
        **asdict(recipe),
    )
    return LearnedVector(
        relation=wanted,
        vector=vector_of(learned.weights, outputs, source_of),
        weights=learned.weights,
        outputs=outputs,
        fit=learned,
        recipe=recipe,
        provenance=source_of,
    )


def mean_outputs(model: Model, prompts: PromptSet) -> Float[Tensor, "layer head d_model"]:
    """What each head writes at END, mean over prompts; see `head_sums.head_outputs`."""
    means, blocks = mean_head_outputs(model, prompts), replay_of(model).body.blocks
    each = zip(blocks, means, strict=True)
    return torch.stack([head_outputs(block.after_heads[0], z) for block, z in each])


def vector_of(
    weights: Float[Tensor, "layer head"],
    outputs: Float[Tensor, "layer head d_model"],
    source: dict[str, Any],
) -> Vector:
    """What these weights add to every block; blocks to which they add nothing are left out.

    Raises VectorError if that is all of them.
    """
    sums = head_sums(weights, outputs)
    layers = {layer: each for layer, each in enumerate(sums) if each.any()}
    return Vector(layers, "add", "learned", source)


def learn(
    model: Model,
    pairs: Relation,
    outputs: Float[Tensor, "layer head d_model"],
    recipe: Recipe,
    *,
    progress: bool = True,
) -> Fit:
    """Learn weights for the answers of training queries, and choose by those of dev queries."""
    many = max(POOL, recipe.batch)
    pool = prompts_to_learn_on(model, pairs, many, "train", recipe)
    held_out = prompts_to_learn_on(model, pairs, DEV_PROMPTS, "dev", recipe)
    train = AnswerLoss(model, pool, outputs, recipe.batch)
    dev = AnswerLoss(model, held_out, outputs, DEV_PROMPTS)
    return fit(
        lambda weights, step: train(weights, (step - 1) % len(train.batches)),
        lambda weights: dev.mean(weights).item(),
        outputs.new_zeros(outputs.shape[:2]).to(model.device),
        steps=recipe.steps,
        learning_rate=recipe.learning_rate,
        progress=progress,
    )


def prompts_to_learn_on(
    model: Model, pairs: Relation, n: int, split: str, recipe: Recipe
) -> PromptSet:
    """Queries of a split, alone or behind shuffled demonstrations."""
    rng = random.Random(f"{pairs.name} {split} shuffled {recipe.seed}")
    shown = show(pairs, n, shots=recipe.shots, split=split, seed=recipe.seed + 1)
    if recipe.learn_on == "zero-shot":
        return prompts_of(model, [each.alone for each in shown], template=recipe.template)
    return prompts_of(model, [each.shuffled(rng) for each in shown], template=recipe.template)


class AnswerLoss:
    """Mean cross-entropy of the answers, in nats, with sums of head outputs added at END.

    Prompts are run once, batch by batch, and what the blocks need of that run is kept: nothing
    changes in the columns before END, so where a model takes their keys and values back, END is run
    alone.
    """

    def __init__(
        self,
        model: Model,
        prompts: PromptSet,
        outputs: Float[Tensor, "layer head d_model"],
        batch: int,
    ) -> None:
        require_fit(model, prompts)
        self.replay, self.outputs, self.n = replay_of(model), outputs.to(model.device), len(prompts)
        largest = largest_group(self.replay, prompts)
        self.batches = [
            [
                (self._clean(group), group.prompts.answer[group.rows, 0].to(model.device))
                for group in some
            ]
            for some in (
                groups(prompts, largest, rows) for rows in torch.arange(self.n).split(batch)
            )
        ]

    def __call__(self, weights: Float[Tensor, "layer head"], batch: int) -> Float[Tensor, ""]:
        """Of one batch under these weights; gradients go back to the weights."""
        return self._sum(weights, batch) / sum(len(answers) for _, answers in self.batches[batch])

    @torch.no_grad()
    def mean(self, weights: Float[Tensor, "layer head"]) -> Float[Tensor, ""]:
        """Of all prompts."""
        sums = [self._sum(weights, batch) for batch in range(len(self.batches))]
        return torch.stack(sums).sum() / self.n

    def _sum(self, weights: Float[Tensor, "layer head"], batch: int) -> Float[Tensor, ""]:
        vectors = head_sums(weights, self.outputs)
        losses = []
        for run, answers in self.batches[batch]:
            logits = self.replay.logits(self._ends(run, vectors))
            losses.append(F.cross_entropy(logits.to(vectors.dtype), answers, reduction="sum"))
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _clean(self, group: Group) -> CleanRun:
        run = self.replay.clean(group.tokens)
        del run.stream[1:]  # what later blocks are given is made anew
        return run

    def _ends(
        self, run: CleanRun, vectors: Float[Tensor, "layer d_model"]
    ) -> Float[Tensor, "prompts d_model"]:
        """What leaves the last block at END."""
        start = run.length - 1 if self.replay.cached else 0
        hidden = run.stream[0][:, start:]
        for layer, vector in enumerate(vectors):
            hidden = add_at_end(self.replay.block(run, layer, hidden, start), vector)
        return hidden[:, -1]
