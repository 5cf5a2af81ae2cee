"""Do the heads of a kind matter for what they are said to do?

A score says that a head could do something. The claim that it does is tested by taking all heads of
the kind out together and comparing with random sets of as many heads: of the same layers as far as
these have enough.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import ablate
from interp.errors import InterventionError
from interp.heads.kinds import kind_of
from interp.heads.tables import together
from interp.models import Model
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import Head
from interp.sites import heads as all_heads
from interp.stats import bootstrap_ci

SETS = 20
"""Random sets of heads that a claim is compared with: the fewest that can show a share of .05."""


@dataclass(frozen=True, eq=False)
class Claim(Saved, Displayed):
    """What happens to a task without the heads of a kind, and without random ones.

    Attributes:
        kind: The kind of the heads.
        heads: Those that were taken out together.
        metric: Of the numbers below.
        clean: The metric on each prompt, with all heads.
        without: Without the heads.
        random: Without as many random heads, one row a set.
        provenance: Task, method, seed, and how many of the random sets are of the same layers.
    """

    kind: str
    heads: tuple[Head, ...]
    metric: str
    clean: Float[Tensor, " prompts"]
    without: Float[Tensor, " prompts"]
    random: Float[Tensor, "sets prompts"]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def effect(self) -> float:
        """Mean change of the metric without the heads; below 0 the task suffers."""
        return (self.without - self.clean).mean().item()

    @property
    def effect_ci(self) -> tuple[float, float]:
        """Its 95% bootstrap interval over prompts."""
        low, high = bootstrap_ci((self.without - self.clean)[None])
        return low.item(), high.item()

    @property
    def random_effects(self) -> Float[Tensor, " sets"]:
        """Mean change of the metric without each random set."""
        return (self.random - self.clean).mean(dim=1)

    @property
    def beyond_ci(self) -> tuple[float, float]:
        """By how much more the heads change the metric than random ones do: 95% interval.

        Counted in the direction that the kind is said to have, so that above 0 agrees with it.
        """
        more = self._sign * (self.random.mean(dim=0) - self.without)
        low, high = bootstrap_ci(more[None])
        return low.item(), high.item()

    @property
    def p_value(self) -> float:
        """Share of sets, the heads themselves among them, with at least as large an effect."""
        as_large = (-self._sign * self.random_effects >= -self._sign * self.effect).sum().item()
        return (1 + as_large) / (1 + len(self.random))

    @property
    def confirmed(self) -> bool:
        """Whether the heads matter more than random ones do.

        The interval over prompts lies above 0, and no more than one random set in 20 does as much.
        Where fewer sets than 20 exist, none may.
        """
        as_large = self.p_value * (1 + len(self.random)) - 1
        return self.beyond_ci[0] > 0 and as_large <= len(self.random) / 20

    @property
    def _sign(self) -> int:
        return 1 if kind_of(self.kind).helps else -1

    def __repr__(self) -> str:
        names = ", ".join(map(str, self.heads))
        verdict = "confirmed" if self.confirmed else "not confirmed"
        return (
            f"Claim({self.kind} {names}: {verdict}; {self.provenance.get('task', '')} "
            f"{self.metric} {self.clean.mean():.2f}, {self.effect:+.2f} without them, "
            f"{self.random_effects.mean():+.2f} without random heads; n = {len(self.clean)})"
        )


def check_claim(
    model: Model,
    kind: str,
    heads: Sequence[Head],
    prompts: PromptSet,
    *,
    method: str = "mean",
    sets: int = SETS,
    seed: int = 0,
    progress: bool = True,
) -> Claim:
    """Take the heads of a kind out together, and random heads of the same layers.

    Args:
        model: In eval mode.
        kind: What the heads are said to be.
        heads: Some heads.
        prompts: Of the task that they are said to serve.
        method: Of the ablation; see `interp.ablate`.
        sets: Random sets to compare with; see `random_sets`.
        seed: Of the random sets.
        progress: Show a bar.

    Raises:
        InterventionError: No heads, or none left in the model to compare with.
    """
    if not heads:
        raise InterventionError(f"No {kind} heads were given to take out; pass one or more.")
    controls = random_sets(model, heads, sets=sets, seed=seed)
    metric = "log_prob" if prompts.wrong is None else "logit_diff"
    sites = [together(each) for each in (heads, *controls)]
    sweep = ablate(model, prompts, sites, method=method, metric=metric, progress=progress)
    layers = sorted(head.layer for head in heads)
    same = sum(sorted(head.layer for head in each) == layers for each in controls)
    how = {"task": prompts.task, "method": method, "seed": seed, "prompts_hash": prompts.hash}
    how |= {"sets_of_the_same_layers": same}
    return Claim(
        kind, tuple(heads), metric, sweep.clean, sweep.values[0], sweep.values[1:], provenance=how
    )


def random_sets(
    model: Model, heads: Sequence[Head], *, sets: int = SETS, seed: int = 0
) -> list[tuple[Head, ...]]:
    """Different sets of as many other heads, at first with as many of each layer as `heads` has.

    Where fewer than `sets` exist, or a layer has too few other heads, the rest comes from all
    layers.

    Raises:
        InterventionError: The model has too few other heads for a single set.
    """
    shape, rng = model.geometry, random.Random(seed)
    others = [head for head in all_heads(model) if head not in set(heads)]
    if len(others) < len(heads):
        raise InterventionError(
            f"{len(heads)} of the {shape.n_layers * shape.n_heads} heads are to be taken out, and "
            f"the {len(others)} others are too few to compare with; raise the threshold."
        )
    found: dict[tuple[Head, ...], None] = {}
    for drawn in _same_layers(others, heads, rng, 50 * sets):
        if len(found) < sets:
            found[drawn] = None
    for _ in range(50 * sets):
        if len(found) < sets:
            found[tuple(sorted(rng.sample(others, len(heads))))] = None
    return list(found)


def _same_layers(
    others: Sequence[Head], heads: Sequence[Head], rng: random.Random, times: int
) -> Iterator[tuple[Head, ...]]:
    """Sets with as many heads of each layer as `heads` has, if there are any; some come twice."""
    wanted = Counter(head.layer for head in heads)
    choices = {layer: [head for head in others if head.layer == layer] for layer in wanted}
    if any(len(choices[layer]) < count for layer, count in wanted.items()):
        return
    for _ in range(times):
        drawn = [
            head for layer, count in wanted.items() for head in rng.sample(choices[layer], count)
        ]
        yield tuple(sorted(drawn))
