"""Are a task's vectors the same when it is told and when it is shown?

Each block's output at the final delimiter is averaged over prompts with n examples, and over
prompts with a one-line instruction. Every vector then enters every kind of prompt:

    prompt \\ vector   examples    instruction   average   the other task's
    zero-shot          shown        told          both      control
    examples           -            across        -         conflict
    instruction        across       -             -         conflict

The conflict is between what the prompt says and the vector of another task on the same inputs; all
are scored under the answers of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.errors import PromptError, VectorError, did_you_mean
from interp.models import Model
from interp.plots.colors import SEQUENTIAL
from interp.progress import track
from interp.prompts import PromptSet
from interp.prompts.align import tokenize
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.tasks.words import read
from interp.vectors.demonstrations import QA, Template, prompts_of, show
from interp.vectors.end_states import mean_end_states
from interp.vectors.in_context.curves import probability_axes
from interp.vectors.in_context.interpolation import answers_after, require_how, zero_shot_prompts
from interp.vectors.in_context.shared_inputs import Source, answer_log_probs, shared_inputs
from interp.vectors.relation import Relation

PROMPTS = ("zero-shot", "examples", "instruction")
KINDS = ("examples", "instruction", "average")
VECTORS = ("none", *KINDS, "other examples", "other instruction")
Instructions = Mapping[str, str | Sequence[str]]


def instruction(model: Model, task: Relation, instructions: Instructions | None = None) -> str:
    """The first wording of a task's instruction of which the tokenizer knows every word.

    Args:
        model: Whose tokenizer is used.
        task: Its inputs take the place of `{x}`.
        instructions: One wording or several for each task; by default `data/instructions.json`.

    Raises:
        VectorError: No instruction for the task, or none that the tokenizer can say.

    >>> import interp
    >>> from interp.vectors.relation import relation
    >>> model = interp.load("polymath")
    >>> instruction(model, relation(model, "capital"))
    'The answer is the capital of {x}.'
    """
    known: Instructions = read("instructions") if instructions is None else instructions
    if task.name not in known:
        raise VectorError(
            f"There is no instruction for {task.name!r}: {did_you_mean(task.name, known)} Pass "
            f"instructions={{{task.name!r}: 'a line with {{x}}'}}."
        )
    wordings = known[task.name]
    wordings = [wordings] if isinstance(wordings, str) else list(wordings)
    refused = ""
    for wording in wordings:
        try:
            for x, _ in task.pairs:
                tokenize(model, wording.format(x=x))
        except PromptError as error:
            refused = str(error)
        except (KeyError, IndexError, ValueError) as error:
            raise VectorError(
                f"The instruction {wording!r} for {task.name!r} has other braces than {{x}} "
                f"({error!r}); leave them out."
            ) from error
        else:
            return wording
    raise VectorError(
        f"{model.id} cannot be told {task.name!r} in any of {wordings}: {refused} Pass "
        f"instructions={{{task.name!r}: ...}}."
    )


@dataclass(frozen=True, eq=False)
class Specification(Saved, Displayed):
    """What a task's vectors do in its prompts, and the other task's.

    Attributes:
        tasks: Two tasks on the same inputs; each is in turn the own one.
        instructions: How each was told.
        how: How vectors enter: "set" or "shift".
        layers: For each vector of KINDS, the block at which it enters for each task.
        cosine: Between each task's vectors from examples and from the instruction, at each block.
        log_probs: Log of the probability of the own answer and of the other's, in nats, for each
            own task, kind of prompt (PROMPTS) and vector (VECTORS).
        provenance: Where it comes from.
    """

    tasks: tuple[str, str]
    instructions: tuple[str, str]
    how: str
    layers: dict[str, tuple[int, ...]]
    cosine: Float[Tensor, "tasks layer"]
    log_probs: Float[Tensor, "tasks kinds vectors answers prompts"]
    provenance: dict[str, Any] = field(repr=False)

    def probs(self, task: str, prompt: str, vector: str) -> Float[Tensor, "answers prompts"]:
        """Probability of the own answer and of the other task's in one cell.

        Raises VectorError for a task, prompt or vector that there is none of.
        """
        at = []
        for what, name, names in (
            ("task", task, self.tasks),
            ("prompt", prompt, PROMPTS),
            ("vector", vector, VECTORS),
        ):
            if name not in names:
                raise VectorError(f"There is no {what} {name!r}: {did_you_mean(name, names)}")
            at.append(names.index(name))
        return self.log_probs[tuple(at)].exp()

    def to_frame(self) -> pd.DataFrame:
        """One row an own task, kind of prompt and vector.

        Columns: task, prompt, vector, own (mean probability of the task's answer) with own_low and
        own_high (95% over prompts), other (of the other task's) with other_low and other_high, n.
        """
        probs = self.log_probs.exp()
        low, high = bootstrap_ci(probs)
        rows = []
        for t, task in enumerate(self.tasks):
            for p, prompt in enumerate(PROMPTS):
                for v, vector in enumerate(VECTORS):
                    row: dict[str, Any] = {"task": task, "prompt": prompt, "vector": vector}
                    for a, answer in enumerate(("own", "other")):
                        row[answer] = probs[t, p, v, a].mean().item()
                        row[f"{answer}_low"] = low[t, p, v, a].item()
                        row[f"{answer}_high"] = high[t, p, v, a].item()
                    rows.append(row | {"n": probs.shape[-1]})
        return pd.DataFrame(rows)

    def plot(self, task: str | None = None) -> go.Figure:
        """The probability of a task's answer, for each vector in each kind of prompt.

        Raises VectorError for a task that was not measured.
        """
        task = self.tasks[0] if task is None else task
        self.probs(task, PROMPTS[0], VECTORS[0])
        frame, figure = self.to_frame(), go.Figure()
        for prompt, color in zip(PROMPTS, SEQUENTIAL[2::3], strict=False):
            some = frame[(frame["task"] == task) & (frame["prompt"] == prompt)]
            figure.add_bar(
                x=some["vector"],
                y=some["own"],
                name=f"{prompt} prompt",
                marker_color=color,
                error_y={
                    "type": "data",
                    "array": some["own_high"] - some["own"],
                    "arrayminus": some["own"] - some["own_low"],
                    "thickness": 1,
                },
            )
        title = f"{task}, shown and told, {self.provenance['model']} ({self.how})"
        probability_axes(figure, title, "vector")
        return figure

    def __repr__(self) -> str:
        frame = self.to_frame()
        zero = frame[frame["prompt"] == "zero-shot"].set_index(["task", "vector"])["own"]
        told = "; ".join(
            f"{task}: none {zero[task, 'none']:.2f}, examples {zero[task, 'examples']:.2f}, "
            f"instruction {zero[task, 'instruction']:.2f}"
            for task in self.tasks
        )
        return f"Specification({told}; n = {self.log_probs.shape[-1]})"


def specification(
    model: Model,
    first: Source,
    second: Source,
    *,
    instructions: Instructions | None = None,
    how: str = "set",
    shots: int = 5,
    n_mean: int = 50,
    seed: int = 0,
    template: Template = QA,
    progress: bool = True,
) -> Specification:
    """Compare the vectors of tasks that are shown by examples and told by an instruction.

    A prompt with an instruction is the line, then the query as in a prompt without examples, so
    that all end in the same delimiter. Each vector enters at the block where it makes its task's
    answer most probable on dev queries without examples. Each test query is asked once.

    Args:
        model: Of any architecture.
        first: A relation.
        second: One that shares its inputs: the control, and the other side of the conflict.
        instructions: As `instruction` takes them.
        how: "set" or "shift"; see `interp.vectors.in_context.interpolation.HOW`.
        shots: Examples.
        n_mean: Prompts that vectors are taken from.
        seed: Of the prompts.
        template: How examples and queries are written.
        progress: Show a bar.

    Raises:
        TaskError: Tasks that share too few inputs.
        VectorError: An instruction that the tokenizer cannot say, or another `how`.
    """
    require_how(how)
    relations = shared_inputs(model, (first, second), seed=seed)
    lines = [instruction(model, each, instructions) for each in relations]
    told = [replace(template, query=f"{line}\n{template.query}") for line in lines]
    vectors, cosines = [], []
    for task, line in zip(relations, told, strict=True):
        found = _vectors(model, task, n_mean, shots, seed, (template, line), how)
        vectors.append(found)
        cosines.append(torch.cosine_similarity(found[0].double(), found[1].double(), dim=-1))
    chosen = []
    for task, own in zip(relations, vectors, strict=True):
        dev = zero_shot_prompts(model, task, "dev", template)
        chosen.append([_best(model, dev, kind, how) for kind in own])
    cells = []
    for t in track(range(2), "Telling and showing", shown=progress):
        task, other = relations[t], relations[1 - t]
        entering = [*chosen[t], *chosen[1 - t][:2]]
        for prompts in _prompts(model, task, other, shots, seed, (template, told[t])):
            none = answer_log_probs(model, prompts)
            cells.append(torch.cat([none[None], answers_after(model, prompts, entering, how)]))
    names = relations[0].name, relations[1].name
    return Specification(
        tasks=names,
        instructions=(lines[0], lines[1]),
        how=how,
        layers={kind: tuple(each[k][0] for each in chosen) for k, kind in enumerate(KINDS)},
        cosine=torch.stack(cosines),
        log_probs=torch.stack(cells).unflatten(0, (2, len(PROMPTS))),
        provenance=provenance(
            model,
            prompts[0],
            method="instruction against examples",
            tasks=names,
            instructions=lines,
            how=how,
            shots=shots,
            n_mean=n_mean,
            sampling_seed=seed,
        ),
    )


def _vectors(
    model: Model,
    task: Relation,
    n: int,
    shots: int,
    seed: int,
    templates: tuple[Template, Template],
    how: str,
) -> Float[Tensor, "kinds layer d_model"]:
    """For every block the vectors of KINDS, from training pairs alone."""
    shown = show(task, n, shots=shots, split="train", seed=seed)
    alone = [each.alone for each in shown]
    plain, told = templates
    examples = mean_end_states(model, prompts_of(model, shown, template=plain))
    instructed = mean_end_states(model, prompts_of(model, alone, template=told))
    if how == "shift":
        before = mean_end_states(model, prompts_of(model, alone, template=plain))
        examples, instructed = examples - before, instructed - before
    return torch.stack([examples, instructed, (examples + instructed) / 2])


def _best(
    model: Model, dev: PromptSet, vectors: Float[Tensor, "layer d_model"], how: str
) -> tuple[int, Float[Tensor, " d_model"]]:
    """The block at which its vector makes the answers most probable, and the vector."""
    found = answers_after(model, [dev], list(enumerate(vectors)), how).exp()
    layer = int(found.mean(dim=(1, 2)).argmax())
    return layer, vectors[layer]


def _prompts(
    model: Model,
    task: Relation,
    other: Relation,
    shots: int,
    seed: int,
    templates: tuple[Template, Template],
) -> list[list[PromptSet]]:
    """For each of PROMPTS the same test queries, with the task's own answers and the other's."""
    plain, told = templates
    shown = show(task, len(task.test), shots=shots, split="test", seed=seed)
    answers = dict(other.pairs)
    found = []
    for examples, template in ((False, plain), (True, plain), (False, told)):
        own = [each if examples else each.alone for each in shown]
        asked = [each.asking((each.query[0], answers[each.query[0]])) for each in own]
        found.append([prompts_of(model, some, template=template) for some in (own, asked)])
    return found
