"""Does a model recognise a task that it knows, or learn one from its demonstrations?

The labels of the demonstrations are changed (Pan et al. 2023):

    setting     labels shown                             right answer   measures
    gold        the right ones                           the label      both together
    random      drawn anew for each demonstration        the label      task recognition
    abstract    symbols, one for each label of a prompt  the symbol     task learning
    scrambled   symbols, drawn anew for each             the symbol     nothing: the control

How this differs: the mapping of labels to symbols is drawn anew for each prompt, so that a liking
for one symbol averages out; and answers are scored among the labels (or symbols), as in the paper,
and among the whole vocabulary, where naming a label is part of recognising the task.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.engine.end_logits import end_logits
from interp.errors import TaskError
from interp.models import Model
from interp.plots.colors import MISSING
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import QA, Template, prompts_of
from interp.vectors.in_context.curves import add_curve, probability_axes
from interp.vectors.in_context.labels import (
    draw,
    labels_of,
    naming_commonest,
    rare_words,
    require_symbols,
)
from interp.vectors.in_context.shared_inputs import Source
from interp.vectors.relation import Relation, relation

SETTINGS = {"gold": "#232f78", "random": "#2a7db6", "abstract": "#b2182b", "scrambled": "#f4a582"}
"""And the color of each."""
SHOTS = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True, eq=False)
class Recognition(Saved, Displayed):
    """Answers under changed labels.

    Attributes:
        task: The relation.
        labels: Its outputs.
        symbols: What takes their place, in no order.
        shots: Numbers of demonstrations.
        log_probs: Log of the probability of each label, or symbol, after each query, in nats.
        target: Which of them is right.
        best: Whether the right one is the most probable of the whole vocabulary.
        commonest: Chance of being right by naming the label shown most often, ties at random.
        mappings: For each prompt the symbol (a place in `symbols`) of each label.
        queries: The input that each prompt of each seed asks of.
        provenance: Where it comes from.
    """

    task: str
    labels: tuple[str, ...]
    symbols: tuple[str, ...]
    shots: tuple[int, ...]
    log_probs: Float[Tensor, "settings shots seeds prompts labels"]
    target: Int[Tensor, "settings seeds prompts"]
    best: Bool[Tensor, "settings shots seeds prompts"]
    commonest: Float[Tensor, "settings shots seeds prompts"]
    mappings: Int[Tensor, "seeds prompts labels"]
    queries: tuple[str, ...] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    @property
    def chance(self) -> float:
        """Of a guess among the labels."""
        return 1 / len(self.labels)

    @property
    def correct(self) -> Float[Tensor, "settings shots seeds prompts"]:
        """1 where the right one is the most probable of the labels (or symbols), else 0."""
        said = self.log_probs.argmax(dim=-1)
        return (said == self.target[:, None]).to(self.log_probs.dtype)

    @property
    def prob(self) -> Float[Tensor, "settings shots seeds prompts"]:
        """Probability of the right one among the whole vocabulary."""
        places = self.target[:, None, ..., None].expand(*self.best.shape, 1)
        return self.log_probs.gather(-1, places)[..., 0].exp()

    def to_frame(self) -> pd.DataFrame:
        """One row a setting and number of demonstrations.

        Columns: setting, shots, accuracy (among the labels) with ci_low and ci_high (95% over
        queries), seeds_low and seeds_high (of single seeds), chance, commonest
        (accuracy of naming the label shown most often), best (share where the right one is the most
        probable of the vocabulary), prob (its mean probability), queries, n
        (prompts of all seeds).
        """
        correct, prob = self.correct, self.prob
        low, high = bootstrap_ci(by_query(correct.flatten(2), self.queries))
        rows = []
        for s, setting in enumerate(SETTINGS):
            for k, shots in enumerate(self.shots):
                each = correct[s, k].mean(dim=-1)
                rows.append(
                    {
                        "setting": setting,
                        "shots": shots,
                        "accuracy": correct[s, k].mean().item(),
                        "ci_low": low[s, k].item(),
                        "ci_high": high[s, k].item(),
                        "seeds_low": each.min().item(),
                        "seeds_high": each.max().item(),
                        "chance": self.chance,
                        "commonest": self.commonest[s, k].mean().item(),
                        "best": self.best[s, k].double().mean().item(),
                        "prob": prob[s, k].mean().item(),
                        "queries": len(set(self.queries)),
                        "n": len(self.queries),
                    }
                )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Accuracy against demonstrations, a line a setting; dotted is chance."""
        frame, title = self.to_frame(), f"Labels of {self.task}, {self.provenance['model']}"
        return _curves(frame, "shots", "demonstrations", title)

    def __repr__(self) -> str:
        last = self.correct[:, -1].mean(dim=(1, 2)).tolist()
        told = ", ".join(f"{name} {value:.2f}" for name, value in zip(SETTINGS, last, strict=True))
        return (
            f"Recognition({self.task}, {self.shots[-1]} shots: {told}; chance {self.chance:.2f}; "
            f"n = {self.target[0].numel()})"
        )


@dataclass(frozen=True, eq=False)
class RecognitionOverTraining(Saved, Displayed):
    """The same for every checkpoint of a training run.

    Attributes:
        steps: Training steps, ascending.
        results: What was measured at each.
    """

    steps: tuple[int, ...]
    results: tuple[Recognition, ...]

    def to_frame(self) -> pd.DataFrame:
        """The rows of every checkpoint's `to_frame`, after a column step."""
        frames = [each.to_frame() for each in self.results]
        for step, frame in zip(self.steps, frames, strict=True):
            frame.insert(0, "step", step)
        return pd.concat(frames, ignore_index=True)

    def opposed(self) -> float:
        """In what share of the stretches between checkpoints does one of recognition and learning
        rise and the other fall, with the most demonstrations? NaN where none moves both.

        Two curves of noise do so in half of them.
        """
        ends = [each.correct[:, -1].mean(dim=(1, 2)) for each in self.results]
        moves = [(after - before)[1] * (after - before)[2] for before, after in pairwise(ends)]
        moved = torch.tensor([move.item() for move in moves if move != 0])
        return (moved < 0).double().mean().item()

    def plot(self) -> go.Figure:
        """Accuracy with the most demonstrations against training steps, a line a setting."""
        frame, first = self.to_frame(), self.results[0]
        frame = frame[frame["shots"] == first.shots[-1]]
        title = f"Labels of {first.task} over training, {first.shots[-1]} demonstrations"
        return _curves(frame, "step", "training step", title)

    def __repr__(self) -> str:
        return (
            f"RecognitionOverTraining({len(self.steps)} steps; first {self.results[0]!r}, last "
            f"{self.results[-1]!r})"
        )


def recognition(
    model: Model,
    source: Source,
    *,
    shots: Sequence[int] | None = None,
    seeds: int = 5,
    n: int = 50,
    symbols: Sequence[str] | None = None,
    template: Template = QA,
    progress: bool = True,
) -> Recognition:
    """Ask for labels after demonstrations with right, random and abstract labels.

    The query and the inputs that are demonstrated are the same in every setting, and those of few
    demonstrations are the first ones of many.

    Args:
        model: Of any architecture.
        source: A relation of 2 to 10 outputs, each of at least two inputs, such as "category" or
            "continent".
        shots: Numbers of demonstrations; by default those of 0, 1, 2, 4, 8 and 16 that fit into the
            model's context.
        seeds: Draws of queries, demonstrations and labels.
        n: Prompts of each seed; each input is asked in turn, behind other demonstrations.
        symbols: As many words, single tokens, as there are labels; by default `rare_words`.
        template: How demonstrations are written.
        progress: Show a bar.

    Raises:
        TaskError: A relation whose outputs are no labels, symbols that cannot stand for them, or
            numbers of demonstrations that it does not have.
        PromptError: Prompts longer than the model's context.
    """
    task = relation(model, source)
    labels = labels_of(task)
    if symbols is None:
        words = {word for pair in task.pairs for word in pair}
        symbols = rare_words(model, len(labels), avoid=words, template=template)
    signs = tuple(symbols)
    require_symbols(task, labels, signs)
    if shots is None:
        shots = [k for k in SHOTS if _fits(model, task, k, template)]
    counts = tuple(sorted(set(shots)))
    if not counts or counts[0] < 0 or counts[-1] >= len(task.pairs) or seeds < 1 or n < 1:
        raise TaskError(
            f"{list(shots)} demonstrations, {seeds} seeds and n={n} cannot be: {task.name!r} has "
            f"{len(task.pairs)} pairs, of which one is the query; give 0 to {len(task.pairs) - 1} "
            "demonstrations, and at least one seed and prompt."
        )
    draws = [draw(task, labels, counts[-1], seed, i) for seed in range(seeds) for i in range(n)]
    logs, best, commonest, target = [], [], [], []
    for setting in track(tuple(SETTINGS), "Changing labels", shown=progress):
        names = labels if setting in ("gold", "random") else signs
        right = torch.tensor([each.target(setting) for each in draws])
        target.append(right)
        for count in counts:
            prompts = prompts_of(
                model, [each.shown(setting, count, names) for each in draws], template=template
            )
            found = end_logits(model, prompts).double().log_softmax(dim=-1).cpu()
            logs.append(found[:, _tokens(model, names, template)])
            best.append(found.argmax(dim=-1) == prompts.answer[:, 0])
            commonest.append(
                naming_commonest([each.said(setting)[:count] for each in draws], right)
            )
    settings, k = len(SETTINGS), len(labels)
    shape = (settings, len(counts), seeds, n)
    return Recognition(
        task=task.name,
        labels=labels,
        symbols=signs,
        shots=counts,
        log_probs=torch.stack(logs).view(*shape, k),
        target=torch.stack(target).view(settings, seeds, n),
        best=torch.stack(best).view(shape),
        commonest=torch.stack(commonest).view(shape),
        mappings=torch.tensor([each.mapping for each in draws]).view(seeds, n, k),
        queries=tuple(each.query for each in draws),
        provenance=provenance(
            model,
            prompts,
            method="recognition against learning",
            relation=task.name,
            labels=labels,
            symbols=signs,
            shots=counts,
            seeds=seeds,
        ),
    )


def recognition_over(
    checkpoints: Iterable[tuple[int, Model]], source: Source, **options: Any
) -> RecognitionOverTraining:
    """`recognition` at every checkpoint; each model is let go before the next is asked for.

    `options` are those of `recognition`; all checkpoints see the same prompts.

    Raises TaskError if there are no checkpoints, and what `recognition` raises.
    """
    found = {}
    for step, model in checkpoints:
        found[step] = recognition(model, source, **options)
        del model
    if not found:
        raise TaskError("There are no checkpoints; give pairs of a step and its model.")
    steps = tuple(sorted(found))
    return RecognitionOverTraining(steps, tuple(found[step] for step in steps))


def _fits(model: Model, task: Relation, shots: int, template: Template) -> bool:
    """Whether the longest demonstrations, with any query, fit into the context."""
    if shots >= len(task.pairs):
        return False
    some = sorted(
        (len(model.encode(template.demo.format(x=x, y=y))) for x, y in task.pairs), reverse=True
    )
    query = max(len(model.encode(template.query.format(x=x))) for x, _ in task.pairs)
    return 1 + sum(some[:shots]) + query <= model.geometry.n_ctx


def _tokens(model: Model, names: Sequence[str], template: Template) -> Int[Tensor, " labels"]:
    space = " " if template.space else ""
    asked = PromptSet.from_strings(model, list(names), answer=[(space + name,) for name in names])
    return asked.answer[:, 0]


def _curves(frame: pd.DataFrame, column: str, across: str, title: str) -> go.Figure:
    figure = go.Figure()
    for setting, color in SETTINGS.items():
        some = frame[frame["setting"] == setting]
        add_curve(figure, some, column, "accuracy", name=setting, color=color)
    chance = frame["chance"].iloc[0]
    figure.add_hline(y=chance, line={"color": MISSING, "dash": "dot"}, annotation_text="chance")
    probability_axes(figure, title, across, up="accuracy among the labels")
    return figure
