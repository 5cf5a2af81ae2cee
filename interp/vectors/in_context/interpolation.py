"""Between two task vectors: both tasks' answers as alpha * first + (1 - alpha) * second enters.

After Xiong et al. 2024, "Everything Everywhere All at Once", who replace the activation at END.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import Add, Intervention, Set, run
from interp.errors import VectorError, did_you_mean
from interp.models import Model
from interp.plots.colors import SEQUENTIAL
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Resid
from interp.stats import bootstrap_ci
from interp.vectors.demonstrations import QA, Shown, Template, prompts_of, show
from interp.vectors.end_states import mean_end_states
from interp.vectors.in_context.curves import add_curve, probability_axes
from interp.vectors.in_context.shared_inputs import Source, answer_log_probs, shared_inputs
from interp.vectors.relation import Relation

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
HOW = {"set": Set, "shift": Add}
"""How a vector enters at END. "set": it replaces the activation. "shift": what the demonstrations
change, the vector less the mean of the same queries without demonstrations, is added."""


@dataclass(frozen=True, eq=False)
class Interpolation(Saved, Displayed):
    """Both tasks' answers after a weighted mean of their vectors.

    Attributes:
        tasks: Their names.
        alphas: The weight of the first task's vector; the second's is 1 - alpha.
        layer: The block at whose output the vector enters.
        how: "set" or "shift".
        log_probs: Log of the probability of each task's answer, in nats.
        random: Mean probability with random directions of the same norm, the control.
        zero_shot: Log of the probability without demonstrations or vector.
        dev: Mean probability, over both tasks, of its answer with its own vector at each block, on
            the dev queries: what the layer was chosen by.
        vectors: The two that were mixed.
        provenance: Where it comes from.
    """

    tasks: tuple[str, ...]
    alphas: Float[Tensor, " alphas"]
    layer: int
    how: str
    log_probs: Float[Tensor, "alphas tasks prompts"]
    random: Float[Tensor, "alphas tasks prompts"]
    zero_shot: Float[Tensor, "tasks prompts"]
    dev: Float[Tensor, " layer"]
    vectors: Float[Tensor, "tasks d_model"]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def probs(self) -> Float[Tensor, "alphas tasks prompts"]:
        """Probability of each task's answer."""
        return self.log_probs.exp()

    def to_frame(self) -> pd.DataFrame:
        """One row a weight and task.

        Columns: alpha, task, prob with ci_low and ci_high (95% over prompts), random (mean with
        random directions of the same norm), zero_shot (mean without vector), n.
        """
        low, high = bootstrap_ci(self.probs)
        return pd.DataFrame(
            {
                "alpha": [alpha for alpha in self.alphas.tolist() for _ in self.tasks],
                "task": list(self.tasks) * len(self.alphas),
                "prob": self.probs.mean(dim=-1).flatten().tolist(),
                "ci_low": low.flatten().tolist(),
                "ci_high": high.flatten().tolist(),
                "random": self.random.mean(dim=-1).flatten().tolist(),
                "zero_shot": self.zero_shot.exp().mean(dim=-1).tolist() * len(self.alphas),
                "n": self.probs.shape[-1],
            }
        )

    def plot(self) -> go.Figure:
        """Mean probability of each task's answer against alpha; dashed are random directions."""
        frame = self.to_frame()
        figure = go.Figure()
        for task, color in zip(self.tasks, (SEQUENTIAL[4], SEQUENTIAL[-1]), strict=True):
            some = frame[frame["task"] == task]
            add_curve(figure, some, "alpha", "prob", name=task, color=color)
            figure.add_scatter(
                x=some["alpha"],
                y=some["random"],
                name=f"{task}, random direction",
                line={"color": color, "dash": "dash"},
            )
        title = f"Two task vectors in layer {self.layer} of {self.provenance['model']} ({self.how})"
        probability_axes(figure, title, f"weight of the vector of {self.tasks[0]}")
        return figure

    def __repr__(self) -> str:
        means = self.probs.mean(dim=-1)
        told = ", ".join(
            f"{task} {means[0, t]:.2f} to {means[-1, t]:.2f}" for t, task in enumerate(self.tasks)
        )
        return (
            f"Interpolation({self.how} in layer {self.layer}; alpha {self.alphas[0]:g} to "
            f"{self.alphas[-1]:g}: {told}; n = {self.probs.shape[-1]})"
        )


def interpolate(
    model: Model,
    first: Source,
    second: Source,
    *,
    alphas: Sequence[float] = ALPHAS,
    how: str = "set",
    shots: int = 5,
    n_mean: int = 50,
    draws: int = 5,
    seed: int = 0,
    template: Template = QA,
    progress: bool = True,
) -> Interpolation:
    """Let a mixture of two task vectors take the place of demonstrations.

    A task's vector is the mean output of a block at END over `n_mean` prompts with demonstrations
    of that task alone. The block is the one where each task's own vector makes its answer most
    probable, on average over both tasks, on dev queries. Each test query is asked once.

    Args:
        model: Of any architecture.
        first: A relation.
        second: One that shares its inputs.
        alphas: Weights of the first vector.
        how: "set" replaces the activation at END, as the source does, and with it what a small
            model may keep of the query there; "shift" adds what the demonstrations change (ours).
        shots: Demonstrations of the prompts that vectors are taken from.
        n_mean: Prompts that vectors are taken from.
        draws: Random directions of the control.
        seed: Of prompts and random directions.
        template: How demonstrations are written.
        progress: Show a bar.

    Raises:
        TaskError: Tasks that share too few inputs.
        VectorError: No weights, no random directions, or another `how`.
    """
    if not alphas or draws < 1:
        raise VectorError(
            f"There are {len(alphas)} weights and {draws} random directions; give at least one."
        )
    require_how(how)
    relations = shared_inputs(model, (first, second), seed=seed)
    means = torch.stack(
        [task_vectors(model, each, n_mean, shots, seed, template, how) for each in relations]
    )
    dev = [zero_shot_prompts(model, each, "dev", template) for each in relations]
    own = [
        answers_after(model, [some], list(enumerate(mean)), how)
        for some, mean in zip(dev, means, strict=True)
    ]
    by_layer = torch.stack(own).exp().mean(dim=(0, 2, 3))
    layer = int(by_layer.argmax())
    weights = torch.tensor(list(alphas), dtype=torch.float64)
    mixed = torch.stack([weights, 1 - weights], dim=1).to(means) @ means[:, layer]
    prompts = [zero_shot_prompts(model, each, "test", template) for each in relations]
    controls = []
    for draw in track(range(draws), "Random directions", shown=progress):
        away = random_directions(mixed, seed=draw + draws * seed)
        controls.append(answers_after(model, prompts, [(layer, one) for one in away], how).exp())
    found = answers_after(model, prompts, [(layer, vector) for vector in mixed], how)
    names = tuple(each.name for each in relations)
    return Interpolation(
        tasks=names,
        alphas=weights,
        layer=layer,
        how=how,
        log_probs=found,
        random=torch.stack(controls).mean(dim=0),
        zero_shot=answer_log_probs(model, prompts),
        dev=by_layer,
        vectors=means[:, layer],
        provenance=provenance(
            model,
            prompts[0],
            method="interpolated task vectors",
            tasks=names,
            how=how,
            shots=shots,
            n_mean=n_mean,
            draws=draws,
            sampling_seed=seed,
        ),
    )


def require_how(how: str) -> None:
    """Raise VectorError for a way to enter that does not exist."""
    if how not in HOW:
        raise VectorError(f"how={how!r} is no way for a vector to enter: {did_you_mean(how, HOW)}")


def task_vectors(
    model: Model,
    task: Relation,
    n: int,
    shots: int,
    seed: int,
    template: Template,
    how: str,
) -> Float[Tensor, "layer d_model"]:
    """For every block what enters for a task's demonstrations, from training pairs alone."""
    shown = show(task, n, shots=shots, split="train", seed=seed)
    vectors = mean_end_states(model, prompts_of(model, shown, template=template))
    if how == "set":
        return vectors
    alone = prompts_of(model, [each.alone for each in shown], template=template)
    return vectors - mean_end_states(model, alone)


def zero_shot_prompts(model: Model, task: Relation, split: str, template: Template) -> PromptSet:
    """Every query of a split once, without demonstrations."""
    return prompts_of(model, [Shown((), pair) for pair in getattr(task, split)], template=template)


def answers_after(
    model: Model,
    prompts: Sequence[PromptSet],
    vectors: Sequence[tuple[int, Float[Tensor, " d_model"]]],
    how: str,
) -> Float[Tensor, "vectors tasks prompts"]:
    """Log of the probability of each set's answers, with each vector in at END of its layer.

    The sets are the same prompts with the answers of several tasks. A shift of nothing, where
    demonstrations change nothing, leaves the model as it is.
    """
    found = answer_log_probs(model, prompts).repeat(len(vectors), 1, 1)
    moving = [row for row, (_, vector) in enumerate(vectors) if how == "set" or vector.any()]
    edits = [
        Intervention.at(Resid(layer, "post"), HOW[how](vector), position="END")
        for layer, vector in (vectors[row] for row in moving)
    ]
    if edits:
        each = [run(model, some, edits, metric="log_prob", progress=False) for some in prompts]
        found[moving] = torch.stack([sweep.values.double() for sweep in each], dim=1)
    return found


def random_directions(
    vectors: Float[Tensor, "vectors d_model"], *, seed: int = 0
) -> Float[Tensor, "vectors d_model"]:
    """One random direction, with the norm of each of the vectors."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(vectors.shape[-1], generator=generator, dtype=torch.float64)
    norms = vectors.double().norm(dim=-1, keepdim=True)
    return (norms * direction / direction.norm()).to(vectors)
