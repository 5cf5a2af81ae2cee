"""Do heads do in the model what MAPS reads off their weights? (Elhelo & Geva 2024)

- *Correlative*: the same test on what a head really adds at the last position of prompts about the
  source. "With context" is its output there; "without context" is what it adds if all its attention
  lies on the source: the value at the source, which earlier layers have made.
- *Causal*: the output of the heads that score highest is set to zero at the last position, one more
  head at a time, on prompts that ask for the relation; random heads of the same layers are the
  control.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp import engine
from interp.display import Displayed
from interp.engine import Intervention, Zero
from interp.engine.replay import replay_of
from interp.errors import MetricError, TaskError
from interp.heads.parameters.maps import Maps, RelationScore, chunks, ranks_of
from interp.heads.parameters.relations import few_shot, known_tokens
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import site_bars
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head, Joint, Site
from interp.stats import bootstrap_ci

TEMPLATES = (
    "This is a text about <X>",
    "Please tell me more about <X>",
    "The page on <X> says that",
    "She thought of <X> when she heard",
)
"""Prompts about a source, which stands in the place of <X>."""
RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Correlative(Saved, Displayed):
    """How scores from the weights go with scores from the model's activations, over heads.

    Attributes:
        static: The score of each head by its weights, for each relation.
        without: The score of the value at the source, mean over pairs and templates.
        within: The score of the output at the last position, mean over pairs and templates.
        pairs: How many pairs each relation has.
        provenance: Model, weights hash, templates.
    """

    static: dict[str, Float[Tensor, "layer head"]]
    without: dict[str, Float[Tensor, "layer head"]]
    within: dict[str, Float[Tensor, "layer head"]]
    pairs: dict[str, int]
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a relation and kind of context, and last all relations together.

        Columns: relation, context ("without" or "with"), r (Pearson, over heads), ci_low, ci_high
        (95%, bootstrap over heads), shuffled (r to expect if heads changed places within their
        layers), heads, pairs. NaN where all heads have one score.
        """
        rows = []
        for relation in [*self.static, "all"]:
            names = list(self.static) if relation == "all" else [relation]
            static = torch.stack([self.static[name] for name in names])
            for context, scores in (("without", self.without), ("with", self.within)):
                seen = torch.stack([scores[name] for name in names])
                heads, pairs = static[0].numel(), sum(self.pairs[name] for name in names)
                rows.append((relation, context, *pearson(static, seen), heads, pairs))
        columns = ["relation", "context", "r", "ci_low", "ci_high", "shuffled", "heads", "pairs"]
        return pd.DataFrame(rows, columns=columns)

    def plot(self) -> go.Figure:
        """Bars of r, with and without context, for each relation."""
        frame = self.to_frame()
        return site_bars(
            frame["r"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=[f"{row.relation}, {row.context} context" for row in frame.itertuples()],
            title=f"Weights against activations, over the heads of {self.provenance['model']}",
            across="Pearson r",
            hover=[
                f"r = {row.r:.3f}<br>95% interval {row.ci_low:.3f} to {row.ci_high:.3f}"
                f"<br>{row.shuffled:.3f} by layers alone, {row.heads} heads, {row.pairs} pairs"
                for row in frame.itertuples()
            ],
        )

    def __repr__(self) -> str:
        without, within = self.to_frame()["r"].tolist()[-2:]
        return (
            f"Correlative({self.provenance['model']}: r = {without:.2f} without and {within:.2f} "
            f"with context, over {len(self.static)} relations)"
        )


@torch.no_grad()
def correlative_check(
    model: Model,
    found: Maps,
    *,
    templates: Sequence[str] = TEMPLATES,
    progress: bool = True,
) -> Correlative:
    """Compare what `maps` reads off the weights with what heads add on prompts about the sources.

    Args:
        model: The one that `found` was measured on.
        found: Result of `maps`; its k and its suppression hold here too.
        templates: Prompts with <X> in the place of the source; a space before it is the source's.
        progress: Show a bar.

    Raises:
        TaskError: A template without <X>, or with words that the tokenizer does not know.
        MetricError: Maps of another model.
    """
    _require_same(model, found)
    framed = [_frame(model, template, found) for template in templates]
    if not framed:
        raise TaskError("There are no templates; give at least one, such as 'A text about <X>'.")
    without, within = {}, {}
    for name, score in track(list(found.relations.items()), "Checking relations", shown=progress):
        hits = torch.stack([_hits(model, score, frame, found.suppression) for frame in framed])
        without[name], within[name] = hits.mean(dim=0)
    return Correlative(
        static={name: score.grid for name, score in found.relations.items()},
        without=without,
        within=within,
        pairs={name: score.n for name, score in found.relations.items()},
        provenance=provenance(model, templates=list(templates), maps=found.provenance),
    )


def _hits(
    model: Model, score: RelationScore, frame: tuple[list[int], list[int]], suppression: bool
) -> Float[Tensor, "2 layer head"]:
    """Fraction of pairs for which a head has the target among its k: without and with context."""
    weights, replay, shape = Weights(model), replay_of(model), model.geometry
    before, after = frame
    hits = torch.zeros(2, shape.n_layers, shape.n_heads, dtype=weights.dtype)
    sign = -1 if suppression else 1
    for pairs, sources, at in chunks(score.relation.sources, shape.n_heads):
        fixed = [torch.tensor(part).expand(len(sources), -1) for part in (before, after)]
        prompts = torch.cat([fixed[0], sources[:, None], fixed[1]], dim=1).long()
        run = replay.clean(prompts, ["v", "z"])
        for layer in range(shape.n_layers):
            value = run.at(layer, "v")[:, len(before)].unflatten(-1, (shape.n_kv_heads, -1))
            value = value.repeat_interleave(shape.n_heads // shape.n_kv_heads, dim=1)
            z = run.at(layer, "z")[:, -1].unflatten(-1, (shape.n_heads, -1))
            for context, part in enumerate((value, z)):
                said = sign * part.transpose(0, 1).to(weights.dtype) @ weights.w_o(layer)
                ranks = ranks_of(weights, said, at, score.relation.targets[pairs])
                hits[context, layer] += (ranks < score.k).sum(dim=-1)
    return hits / score.n


def pearson(
    x: Float[Tensor, "relations layer head"], y: Float[Tensor, "relations layer head"]
) -> tuple[float, float, float, float]:
    """r over heads and relations, its 95% interval, and r with heads shuffled within layers.

    A resample draws heads, each with all its relations. Shuffling is taken in expectation.
    """
    x, y = x.double(), y.double()
    moments = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y]).sum(dim=1)
    by_layers = moments.clone()
    by_layers[-1] = (x.mean(dim=-1, keepdim=True) * y.mean(dim=-1, keepdim=True)).sum(dim=0)
    generator = torch.Generator().manual_seed(0)
    heads = x[0].numel()
    drawn = torch.randint(heads, (RESAMPLES, heads), generator=generator)
    counts = torch.zeros(RESAMPLES, heads, dtype=torch.float64)
    counts.scatter_add_(1, drawn, torch.ones_like(counts))
    spread = _r(counts @ moments.flatten(1).T)
    low, high = spread.nanquantile(torch.tensor([0.025, 0.975]).double()).tolist()
    r = _r(moments.sum(dim=(1, 2))).item()
    return r, low, high, _r(by_layers.sum(dim=(1, 2))).item()


def _r(moments: Float[Tensor, "*n 6"]) -> Float[Tensor, "*n"]:
    """Pearson's r from the sums of 1, x, y, x^2, y^2 and xy; NaN without variance."""
    n, x, y, xx, yy, xy = moments.unbind(dim=-1)
    spread = (n * xx - x * x) * (n * yy - y * y)
    return torch.where(spread > 1e-12, (n * xy - x * y) / spread.clamp(min=1e-12).sqrt(), torch.nan)


@dataclass(frozen=True, eq=False)
class Causal(Saved, Displayed):
    """The metric when the heads of a relation are set to zero, one more at a time.

    Attributes:
        relation: Its name.
        heads: Those that score highest, in the order in which they are taken away.
        random: Sets of random heads of the same layers, in such an order.
        values: The metric without the first 1, 2, ... of `heads`.
        control: The same without those of each random set.
        clean: The metric of the whole model.
        metric: Its name.
        provenance: That of the sweep, with the options.
    """

    relation: str
    heads: tuple[Head, ...]
    random: tuple[tuple[Head, ...], ...]
    values: Float[Tensor, "removed prompts"]
    control: Float[Tensor, "sets removed prompts"]
    clean: Float[Tensor, " prompts"]
    metric: str
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a number of heads.

        Columns: removed, head (the last one removed), score (the metric), effect (minus clean),
        effect_low, effect_high, control (the effect of random sets, mean), control_low,
        control_high, excess (effect minus control on the same prompts), excess_low, excess_high,
        n. Intervals are 95%, bootstrap over prompts.
        """
        effects = self.values - self.clean
        control = (self.control - self.clean).mean(dim=0)
        columns: dict[str, list[Any]] = {
            "removed": list(range(1, len(self.heads) + 1)),
            "head": [str(head) for head in self.heads],
            "score": self.values.mean(dim=-1).tolist(),
        }
        named = {"effect": effects, "control": control, "excess": effects - control}
        for name, numbers in named.items():
            low, high = bootstrap_ci(numbers)
            columns[name] = numbers.mean(dim=-1).tolist()
            columns[f"{name}_low"], columns[f"{name}_high"] = low.tolist(), high.tolist()
        return pd.DataFrame({**columns, "n": len(self.clean)})

    def plot(self) -> go.Figure:
        """Bars: the effect of each number of heads, and of as many random ones."""
        bars = []
        for row in self.to_frame().itertuples():
            heads = "+".join(map(str, self.heads[: row.removed]))
            bars.append((f"{row.removed} best", row.effect, row.effect_low, row.effect_high, heads))
            text = f"{len(self.random)} random sets of the same layers"
            bars.append(
                (f"{row.removed} random", row.control, row.control_low, row.control_high, text)
            )
        names, effects, low, high, hover = zip(*bars, strict=True)
        return site_bars(
            effects,
            low=low,
            high=high,
            names=names,
            title=f"{self.relation} without its heads in {self.provenance['model']}",
            across=f"change of {self.metric} (clean {self.clean.mean():.3f})",
            hover=hover,
        )

    def __repr__(self) -> str:
        last = self.to_frame().iloc[-1]
        return (
            f"Causal({self.relation}: {self.metric} {self.clean.mean():.2f}, without the "
            f"{len(self.heads)} best heads {last['effect']:+.2f}, without random ones "
            f"{last['control']:+.2f}; n = {len(self.clean)} prompts)"
        )


def causal_check(
    model: Model,
    found: Maps,
    relation: str,
    *,
    prompts: PromptSet | None = None,
    most: int = 5,
    sets: int = 5,
    metric: str | Callable[..., Any] = "accuracy",
    n: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Causal:
    """Take away the heads of a relation, best first, and see whether its prompts suffer.

    Args:
        model: The one that `found` was measured on.
        found: Result of `maps`.
        relation: One of its relations.
        prompts: Prompts that ask for the relation at their end; by default `few_shot` ones.
        most: Heads to take away at most; those that score 0 are never taken.
        sets: Random sets of as many heads, of the same layers where these have others left.
        metric: As in `interp.ablate`; the paper's is accuracy.
        n: Prompts, where they are made here.
        seed: Of the random heads, and of the prompts that are made here.
        progress: Show a bar.

    Raises:
        MetricError: No head scores above 0, the model answers no prompt, or maps of another model.
        TaskError: See `few_shot`.
    """
    _require_same(model, found)
    score = found[relation]
    heads = tuple(h for h in score.order() if score.grid[h.layer, h.head] > 0)[:most]
    if not heads or sets < 1:
        raise MetricError(
            f"{len(heads)} heads of {model.id} score above 0 for {relation!r} among the {most} "
            f"asked for, and there are {sets} random sets; both must be at least 1."
        )
    if prompts is None:
        space = found.provenance["leading_space"]
        prompts = few_shot(model, score.relation, space=space, n=n, seed=seed)
    rng = random.Random(seed)
    others = tuple(_random_heads(model, heads, rng) for _ in range(sets))
    asked = [each[:count] for each in (heads, *others) for count in range(1, len(heads) + 1)]
    sweep = engine.run(
        model,
        prompts,
        [Intervention.at(_together(some), Zero(), position="END") for some in asked],
        metric=metric,
        method="zero",
        progress=progress,
        relation=relation,
        sets=sets,
        control_seed=seed,
    )
    if sweep.metric == "accuracy" and not sweep.clean.any():
        raise MetricError(
            f"{model.id} answers none of the {len(prompts)} prompts of {relation!r}, so that "
            "nothing can get worse; use prompts that it answers, or metric='log_prob'."
        )
    values = sweep.values.unflatten(0, (1 + sets, len(heads)))
    return Causal(
        relation=relation,
        heads=heads,
        random=others,
        values=values[0],
        control=values[1:],
        clean=sweep.clean,
        metric=sweep.metric,
        provenance=sweep.provenance,
    )


def _random_heads(model: Model, heads: Sequence[Head], rng: random.Random) -> tuple[Head, ...]:
    """As many other heads, each of the layer of the one that it stands for if that has some left.

    Raises MetricError if the model has too few.
    """
    shape = model.geometry
    every = {Head(layer, i) for layer in range(shape.n_layers) for i in range(shape.n_heads)}
    left = sorted(every - set(heads))
    if len(left) < len(heads):
        raise MetricError(
            f"{model.id} has {len(left)} heads besides the {len(heads)} taken away, too few for a "
            f"control; use most={len(every) // 2} or less."
        )
    drawn = []
    for head in heads:
        near = [other for other in left if other.layer == head.layer]
        drawn.append(rng.choice(near or left))
        left.remove(drawn[-1])
    return tuple(drawn)


def _together(heads: Sequence[Head]) -> Site:
    return heads[0] if len(heads) == 1 else Joint(tuple(heads))


def _frame(model: Model, template: str, found: Maps) -> tuple[list[int], list[int]]:
    """The tokens before and after the source in a template."""
    if template.count("<X>") != 1:
        raise TaskError(f"The template {template!r} must have <X> in it once, for the source.")
    before, after = template.split("<X>")
    if found.provenance["leading_space"]:
        before = before.removesuffix(" ")
    bos = [] if model.bos_id is None else [model.bos_id]
    return bos + known_tokens(model, before), known_tokens(model, after)


def _require_same(model: Model, found: Maps) -> None:
    if found.provenance["weights_hash"] != model.weights_hash:
        raise MetricError(
            f"These maps are of {found.provenance['model']} with other weights than {model.id}; "
            "make them with maps(model)."
        )
