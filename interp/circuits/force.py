"""Does a circuit work again once some of its heads are made to do their part?

Merullo et al. (2024) force the attention of GPT-2 medium's inhibition heads onto the wrong colours
of coloured-objects prompts, and find that the rest of the circuit for indirect objects then answers
many more of them. Here any heads are made to attend from one role to another, or to give another
output, and accuracy and logit difference are measured before and after, with the same done to other
heads of the same layers as control.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.controls import other_heads
from interp.circuits.response import Response, inside, response_of
from interp.display import Displayed, as_html
from interp.engine import Edit, Intervention, Operation, Set, run
from interp.engine.metrics import resolve as resolve_metric
from interp.errors import CircuitError, PromptError
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head, Pattern, Site
from interp.sites import resolve as resolve_sites
from interp.stats import bootstrap_ci

METRICS = ("accuracy", "logit_diff")


@dataclass(frozen=True, eq=False)
class Forced(Saved, Displayed):
    """What becomes of a task when some heads are forced; `force` makes one.

    Attributes:
        heads: The heads that are forced.
        what: What they are forced to do.
        metrics: Names of what was measured.
        before: Each metric on each prompt.
        after: The same with the heads forced.
        random: With other heads of the same layers forced instead.
        response: How named heads downstream respond; None if none were named.
        provenance: Model, weights hash, prompts, seed, versions.
    """

    heads: tuple[Head, ...]
    what: str
    metrics: tuple[str, ...]
    before: Float[Tensor, "metrics prompts"]
    after: Float[Tensor, "metrics prompts"]
    random: Float[Tensor, "metrics sets prompts"]
    response: Response | None
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a metric.

        Columns: metric, before, after, change, ci_low, ci_high (of the change), random_change (mean
        of the random sets), beyond_low, beyond_high (by how much the change exceeds theirs), p
        (share of sets, the heads themselves among them, that change as much to the same side), n.
        """
        change, random = self.after - self.before, self.random - self.before[:, None]
        low, high = bootstrap_ci(change)
        beyond_low, beyond_high = bootstrap_ci(change - random.mean(dim=1))
        mean, each = change.mean(dim=-1), random.mean(dim=-1)
        as_large = (each * mean[:, None].sign() >= mean.abs()[:, None]).sum(dim=-1)
        return pd.DataFrame(
            {
                "metric": list(self.metrics),
                "before": self.before.mean(dim=-1).tolist(),
                "after": self.after.mean(dim=-1).tolist(),
                "change": mean.tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "random_change": each.mean(dim=-1).tolist(),
                "beyond_low": beyond_low.tolist(),
                "beyond_high": beyond_high.tolist(),
                "p": ((1 + as_large) / (1 + each.shape[1])).tolist(),
                "n": self.before.shape[1],
            }
        )

    def response_frame(self) -> pd.DataFrame:
        """How heads downstream respond; see `Response.to_frame`.

        Raises CircuitError if none were named.
        """
        if self.response is None:
            raise CircuitError("No heads downstream were named; force again with downstream=.")
        return self.response.to_frame()

    def plot(self) -> go.Figure:
        """Bars of each metric before, after, and after forcing random heads."""
        figure = go.Figure()
        for name, values, color in (
            ("before", self.before, "#c9c9c9"),
            ("after", self.after, "#28559f"),
            ("random heads", self.random.mean(dim=1), "#a8dbc9"),
        ):
            low, high = bootstrap_ci(values)
            mean = values.mean(dim=-1)
            figure.add_bar(
                x=list(self.metrics),
                y=mean.tolist(),
                name=name,
                marker_color=color,
                error_y={
                    "type": "data",
                    "array": (high - mean).tolist(),
                    "arrayminus": (mean - low).tolist(),
                    "thickness": 1,
                },
            )
        title = f"{self.provenance['model']}: {self.what}"
        return figure.update_layout(title=title, template="plotly_white", barmode="group")

    def __repr__(self) -> str:
        told = ", ".join(
            f"{row.metric} {row.before:.2f} -> {row.after:.2f} (random heads "
            f"{row.before + row.random_change:.2f})"
            for row in self.to_frame().itertuples()
        )
        return f"Forced({self.what}: {told}; n = {self.before.shape[1]})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        if self.response is None:
            return as_html(self, frame)
        return as_html(self, frame, "Downstream:", self.response_frame())


def force(
    model: Model,
    prompts: PromptSet,
    onto: Mapping[Head | str, str | Operation],
    *,
    query: str = "END",
    given: Intervention | None = None,
    downstream: Iterable[Head | str] = (),
    roles: Sequence[str] | None = None,
    metrics: Sequence[str] = METRICS,
    random: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Forced:
    """Force heads to look somewhere or to give another output; measure the task before and after.

    Args:
        model: In eval mode.
        prompts: Of the task, with these roles.
        onto: Head -> the role that it is made to look at: at each token of `query` its pattern
            becomes even over the tokens of that role, and 0 elsewhere. Or head -> what is done to
            its output z, such as `Set(vector)` or `Patch(other_prompts)`.
        query: Where the heads are forced; elsewhere they are left to the model.
        given: Edits that are made before and after, such as the ablation of a head whose work is
            to be taken over.
        downstream: Heads whose response is measured: where they look from `query`, and what they
            add to the metric directly.
        roles: Where these may look; all roles of the prompts by default.
        metrics: Names in METRICS of the engine; the last one is that of direct effects.
        random: Random sets of other heads of the same layers that are forced alike.
        seed: Of the random sets.
        progress: Show a bar.

    Raises:
        CircuitError: No heads, sites that are none, or heads that `given` changes too.
        PromptError: A role that a prompt lacks, or one that stands behind the query.
        SiteError: Heads that the model does not have, or whose patterns cannot be put in.
        InterventionError, MetricError: As `engine.run` does.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=8, seed=0)
    >>> force(model, prompts, {"3.5": "S1"}, random=2, progress=False)
    Forced(3.5 onto S1 at END: accuracy 1.00 -> ...
    """
    targets = _targets(model, onto, given)
    patterns = {
        role: Set(_pattern(prompts, query, role))
        for role in dict.fromkeys(targets.values())
        if isinstance(role, str)
    }

    def forced(some: Sequence[Site]) -> Intervention:
        """The same done to other heads, layer by layer."""
        edits = [] if given is None else [*given.edits]
        for head, target in zip(some, targets.values(), strict=True):
            assert isinstance(head, Head)
            if isinstance(target, str):
                edits.append(Edit(Pattern(head.layer, head.head), patterns[target], query))
            else:
                edits.append(Edit(head, target, query))
        return Intervention(tuple(edits))

    heads = tuple(targets)
    sets = other_heads(heads, model.geometry.n_heads, sets=random, seed=seed)
    interventions = [forced(some) for some in (heads, *sets)]
    first = [] if given is None else [given]
    sweeps = [
        run(model, prompts, [*first, *interventions], metric=metric, progress=progress)
        for metric in metrics
    ]
    values = torch.stack([sweep.values[len(first) :] for sweep in sweeps])
    named = [*downstream]
    response = None
    if named:
        response = response_of(
            model,
            prompts,
            _heads(model, named),
            given,
            interventions[0],
            roles=list(prompts.roles) if roles is None else roles,
            query=query,
            metric=resolve_metric(metrics[-1]),
        )
    told = ", ".join(
        f"{head} onto {target}" if isinstance(target, str) else f"{target.name} {head}"
        for head, target in targets.items()
    )
    return Forced(
        heads=heads,
        what=f"{told} at {query}" + (f", given {given}" if given else ""),
        metrics=tuple(metrics),
        before=torch.stack([sweep.values[0] if first else sweep.clean for sweep in sweeps]),
        after=values[:, 0],
        random=values[:, 1:],
        response=response,
        provenance=provenance(model, prompts, method="force", random=random, random_seed=seed),
    )


def _targets(
    model: Model, onto: Mapping[Head | str, str | Operation], given: Intervention | None
) -> dict[Head, str | Operation]:
    """What each head is forced to, in the order of computation."""
    both = zip(_heads(model, onto), onto.values(), strict=True)
    changed = {edit.site for edit in given.edits} if given else set()
    targets: dict[Head, str | Operation] = {}
    for head, target in sorted(both, key=lambda pair: pair[0]):
        if head in changed:
            raise CircuitError(
                f"{head} is forced and changed by `given` too, so that one would undo the other; "
                "leave it out of one of them."
            )
        targets[head] = target
    return targets


def _heads(model: Model, given: Iterable[Head | str]) -> list[Head]:
    heads = []
    for site in resolve_sites(given, model):
        if not isinstance(site, Head):
            raise CircuitError(f"{site} is no head; give heads such as 3.5.")
        heads.append(site)
    return heads


def _pattern(prompts: PromptSet, query: str, role: str) -> Float[Tensor, "prompts queries keys"]:
    """Even attention to the tokens of a role that are not behind the query, from every row.

    Raises PromptError for a prompt that has none.
    """
    columns = torch.arange(prompts.clean.shape[1])
    seen = inside(prompts, role)[:, None] & (columns <= columns[:, None])
    asked = inside(prompts, query)
    blind = asked & ~seen.any(dim=-1)
    if (lacking := blind.any(dim=-1) | ~asked.any(dim=-1)).any():
        raise PromptError(
            f"In prompt {int(lacking.int().argmax())} no token of {role!r} stands before one of "
            f"{query!r}, so that there is nothing to look at; leave such prompts out, or name "
            "other roles."
        )
    return seen / seen.sum(dim=-1, keepdim=True).clamp(min=1)
