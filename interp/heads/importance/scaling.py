"""Which heads say what the text says, and which what was learned? One head's output is scaled.

After Yu, Merullo and Pavlick 2023, "Characterizing mechanisms for factual recall".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import Intervention, Scale, run
from interp.engine.groups import groups
from interp.engine.memory import largest_group
from interp.engine.replay import replay_of
from interp.errors import InterventionError, PromptError, did_you_mean
from interp.heads.tables import columns
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import DIVERGING
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import Head
from interp.sites import heads as all_heads
from interp.stats import bootstrap_ci

ALPHAS = (-4.0, -2.0, -1.0, 0.0, 0.5, 2.0, 3.0, 5.0, 8.0)
"""What the output of a head is multiplied by; 1 leaves it as it is."""
GOALS = ("context", "memory")


@dataclass(frozen=True, eq=False)
class Scaling(Saved, Displayed):
    """What the model answers when the output of one head is scaled.

    All accuracies are of the test prompts, which took no part in choosing head and factor.

    Attributes:
        head, alpha: The head and the factor that did best on the tuning prompts.
        goal: Which answers were wanted, "context" or "memory".
        alphas: The factors that were tried.
        context: Whether the model gives the answer of the text, for each factor on each prompt.
        memory: Whether it gives the learned answer.
        clean_context, clean_memory: The same of the model left as it is.
        controls: Random other heads.
        control_context, control_memory: The same as `context` and `memory` for these.
        attribution: `attribution_to_context` of every head on the tuning prompts.
        provenance: Where it comes from.
    """

    head: Head
    alpha: float
    goal: str
    alphas: tuple[float, ...]
    context: Float[Tensor, "alphas prompts"]
    memory: Float[Tensor, "alphas prompts"]
    clean_context: Float[Tensor, " prompts"]
    clean_memory: Float[Tensor, " prompts"]
    controls: tuple[Head, ...]
    control_context: Float[Tensor, "controls alphas prompts"]
    control_memory: Float[Tensor, "controls alphas prompts"]
    attribution: Float[Tensor, "layer head tuning"]
    provenance: dict[str, Any]

    def heads(self) -> pd.DataFrame:
        """One row a head, by its attribution on the tuning prompts, highest first.

        Columns: head, attribution, ci_low, ci_high (95%, over prompts), label ("context" where the
        interval is above zero, "memory" where it is below, else ""), n.
        """
        layers, width, n = self.attribution.shape
        low, high = (end.flatten() for end in bootstrap_ci(self.attribution))
        frame = pd.DataFrame(
            {
                "head": [str(Head(*divmod(i, width))) for i in range(layers * width)],
                **columns("attribution", self.attribution, ("ci_low", "ci_high")),
                "label": [
                    "context" if bottom > 0 else "memory" if top < 0 else ""
                    for bottom, top in zip(low, high, strict=True)
                ],
                "n": n,
            }
        )
        return frame.sort_values("attribution", ascending=False, ignore_index=True)

    def to_frame(self) -> pd.DataFrame:
        """One row a factor, in rising order, with 1 among them.

        Columns: alpha, context with context_low and context_high (95%, over prompts), memory with
        memory_low and memory_high, control_context and control_memory with _low and _high (95%,
        over the random heads), chosen, n.
        """
        shape = self.control_context[:, :1].shape
        rows: dict[str, list[float]] = {"alpha": [*self.alphas, 1.0]}
        for name, values, clean, control in (
            ("context", self.context, self.clean_context, self.control_context),
            ("memory", self.memory, self.clean_memory, self.control_memory),
        ):
            rows |= columns(name, torch.cat([values, clean[None]]), _ends(name))
            every = torch.cat([control, clean.expand(shape)], dim=1).mean(dim=-1).T
            rows |= columns(f"control_{name}", every, _ends(f"control_{name}"))
        frame = pd.DataFrame({**rows, "n": self.context.shape[-1]})
        frame.insert(len(frame.columns) - 1, "chosen", frame["alpha"] == self.alpha)
        return frame.sort_values("alpha", ignore_index=True)

    def plot(self) -> go.Figure:
        """Accuracy of both kinds of answers against the factor, with the control dotted."""
        frame = self.to_frame()
        figure = go.Figure()
        for name, color in (("context", DIVERGING[-2]), ("memory", DIVERGING[1])):
            for column, dash in ((name, "solid"), (f"control_{name}", "dot")):
                low, high = (frame[end] for end in _ends(column))
                figure.add_scatter(
                    x=frame["alpha"],
                    y=frame[column],
                    error_y={
                        "type": "data",
                        "array": high - frame[column],
                        "arrayminus": frame[column] - low,
                        "thickness": 1,
                    },
                    line={"color": color, "dash": dash},
                    name=name if column == name else f"{name}, random heads",
                )
        figure.add_vline(x=self.alpha, line_dash="dash", annotation_text="chosen")
        title = f"Scaling head {self.head} of {self.provenance['model']}"
        figure.update_layout(title=title, template="plotly_white", yaxis_title="share of answers")
        figure.update_xaxes(title_text="factor (1: as it is)")
        return figure

    def __repr__(self) -> str:
        row = self.alphas.index(self.alpha)
        after, before = self.context[row].mean(), self.clean_context.mean()
        forgot, knew = self.memory[row].mean(), self.clean_memory.mean()
        return (
            f"Scaling({self.head} by {self.alpha:g} for {self.goal}: answers of the context "
            f"{before:.2f} -> {after:.2f}, of memory {knew:.2f} -> {forgot:.2f}; "
            f"n = {len(self.clean_context)} test prompts)"
        )


@torch.no_grad()
def attribution_to_context(model: Model, prompts: PromptSet) -> Float[Tensor, "layer head prompts"]:
    """What each head writes at the last token towards the answer and away from the wrong answer.

    The head's output, its slice of W_O applied to its z, through the unembedding: logit of the
    answer minus logit of the wrong answer. It is the direct path alone, without any norm between
    the head and the unembedding, and without the biases: its sign and order say something, its
    size does not add up to logits.

    Raises:
        PromptError: Prompts without wrong answers, or with several answers.
        UnsupportedModel: An output projection that is not a plain matrix.
    """
    wrong = prompts.wrong
    if wrong is None or prompts.answer.shape[1] > 1 or wrong.shape[1] > 1 or (wrong < 0).any():
        raise PromptError(
            "Facts against context need one answer and one wrong answer a prompt: what the text "
            "says and what was learned; sample the task facts_vs_context, or pass both."
        )
    weights, replay = Weights(model), replay_of(model)
    shape = model.geometry
    found = torch.empty(shape.n_layers, shape.n_heads, len(prompts), dtype=weights.dtype)
    towards = weights.w_u(prompts.answer[:, 0]) - weights.w_u(wrong[:, 0])
    for group in groups(prompts, largest_group(replay, prompts)):
        rows = group.rows.to(towards.device)
        for layer, z in enumerate(replay.clean(group.tokens, ["z"]).parts["z"]):
            last = z[:, -1].to(weights.dtype).unflatten(-1, (shape.n_heads, -1))
            logits = torch.einsum("phe,hed,dp->hp", last, weights.w_o(layer), towards[:, rows])
            found[layer][:, group.rows] = logits.cpu()
    return found


def scale_heads(
    model: Model,
    prompts: PromptSet,
    *,
    goal: str = "context",
    alphas: Sequence[float] = ALPHAS,
    candidates: int = 4,
    tune: float = 0.25,
    controls: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Scaling:
    """Find the head and the factor that make the model answer by the text, or by memory.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("facts_vs_context").sample(model, n=16, seed=0)
    >>> found = scale_heads(model, prompts, alphas=(0.0, 3.0), candidates=1, controls=2)
    >>> found.context.shape
    torch.Size([2, 12])

    On the tuning prompts the heads with the highest and the lowest `attribution_to_context` are
    scaled by every factor, and the pair with the most wanted answers is chosen; of equals the one
    nearest to 1. On the other prompts that head, and random heads, are scaled by every factor. The
    output of a head is scaled at all positions, which is to scale its value vectors; in a
    grouped-query model it is that of one query head, not of its group. An answer is what is most
    likely of the whole vocabulary.

    Args:
        model: In eval mode.
        prompts: Whose answer is what the text says and whose wrong answer is what was learned, such
            as those of the task facts_vs_context.
        goal: "context" for the answers of the text, "memory" for the learned ones.
        alphas: Factors other than 1.
        candidates: Heads to try from each end of the attribution.
        tune: Share of the prompts that head and factor are chosen on.
        controls: Random heads to scale for comparison, any but the chosen one; as many as there
            are, if these are fewer.
        seed: Of the split and of the random heads.
        progress: Show bars.

    Raises:
        PromptError: Prompts with other than one answer and one wrong answer, or fewer than two
            prompts on a side of the split.
        InterventionError: An unknown goal, a factor of 1 or given twice, no factor, no candidate or
            fewer than two controls.
        UnsupportedModel, ModelError: What their names say.
    """
    _require_options(goal, alphas, candidates, controls)
    generator = torch.Generator().manual_seed(seed)
    tuning, test = _split(prompts, tune, generator)
    attribution = attribution_to_context(model, tuning)
    every = all_heads(model)
    order = attribution.mean(dim=-1).flatten().argsort(descending=True, stable=True).tolist()
    tried = [every[i] for i in dict.fromkeys(order[:candidates] + order[-candidates:])]
    head, alpha = _best(model, tuning, tried, alphas, goal, progress)
    others = [each for each in every if each != head]
    drawn = torch.randperm(len(others), generator=generator)[:controls].tolist()
    random = tuple(others[i] for i in drawn)
    context, clean_context, source = _accuracy(model, test, (head, *random), alphas, progress)
    memory, clean_memory, _ = _accuracy(model, _swapped(test), (head, *random), alphas, progress)
    return Scaling(
        head=head,
        alpha=alpha,
        goal=goal,
        alphas=tuple(alphas),
        context=context[0],
        memory=memory[0],
        clean_context=clean_context,
        clean_memory=clean_memory,
        controls=random,
        control_context=context[1:],
        control_memory=memory[1:],
        attribution=attribution,
        provenance={
            **source,
            "goal": goal,
            "tried": [str(each) for each in tried],
            "tune": tune,
            "n_tuning": len(tuning),
            "split_seed": seed,
        },
    )


def _accuracy(
    model: Model, prompts: PromptSet, heads: Sequence[Head], alphas: Sequence[float], progress: bool
) -> tuple[Float[Tensor, "heads alphas prompts"], Float[Tensor, " prompts"], dict[str, Any]]:
    """Whether the answer is given under each scaling, and in the model left as it is."""
    scaled = [Intervention.at(head, Scale(alpha)) for head in heads for alpha in alphas]
    found = run(model, prompts, scaled, metric="accuracy", method="scale", progress=progress)
    return found.values.unflatten(0, (len(heads), len(alphas))), found.clean, found.provenance


def _best(
    model: Model,
    prompts: PromptSet,
    heads: Sequence[Head],
    alphas: Sequence[float],
    goal: str,
    progress: bool,
) -> tuple[Head, float]:
    """The head and the factor with the most wanted answers; of equals the one nearest to 1."""
    wanted = prompts if goal == "context" else _swapped(prompts)
    share = _accuracy(model, wanted, heads, alphas, progress)[0].mean(dim=-1).tolist()
    pairs = [(i, k) for i in range(len(heads)) for k in range(len(alphas))]
    row, column = max(pairs, key=lambda at: (share[at[0]][at[1]], -abs(alphas[at[1]] - 1)))
    return heads[row], alphas[column]


def _split(
    prompts: PromptSet, tune: float, generator: torch.Generator
) -> tuple[PromptSet, PromptSet]:
    count = round(tune * len(prompts))
    if not 2 <= count <= len(prompts) - 2:
        raise PromptError(
            f"tune={tune} of {len(prompts)} prompts leaves {count} to choose on and "
            f"{len(prompts) - count} to test on, and either side needs two; give more prompts, or "
            "another share."
        )
    order = torch.randperm(len(prompts), generator=generator)
    return prompts[order[:count]], prompts[order[count:]]


def _swapped(prompts: PromptSet) -> PromptSet:
    """The same prompts, with what was learned as the right answer."""
    assert prompts.wrong is not None
    return replace(prompts, answer=prompts.wrong, wrong=prompts.answer)


def _ends(name: str) -> tuple[str, str]:
    return f"{name}_low", f"{name}_high"


def _require_options(goal: str, alphas: Sequence[float], candidates: int, controls: int) -> None:
    if goal not in GOALS:
        raise InterventionError(f"goal is {goal!r}: {did_you_mean(goal, GOALS)}")
    if not alphas or len(set(alphas)) < len(alphas):
        raise InterventionError(f"alphas is {list(alphas)}; give one or more, each once.")
    if candidates < 1 or controls < 2:
        raise InterventionError(
            f"candidates is {candidates} and controls is {controls}; try at least 1 head of each "
            "end, beside at least 2 random ones."
        )
