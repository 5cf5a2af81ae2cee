"""Which heads carry false labels on? False induction heads (Halawi et al. 2023).

... Q: dog\\nA: fruit ... Q: axe\\nA: tool ... Q: cow\\nA:  ->  fruit
               └ same label: + ┘      └ other: - ┘        └ from here
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.consistency.attention_mass import attention_rows
from interp.consistency.false_demonstrations import (
    DEMO,
    PARTS,
    SHOTS,
    Pairs,
    demonstrations,
)
from interp.consistency.overthinking import calibrated_hits, label_thresholds, label_words
from interp.display import Displayed
from interp.engine.end_logits import edited_end_logits, end_logits
from interp.engine.interventions import Edit, Intervention, Zero
from interp.errors import InterventionError, MetricError
from interp.models import Model
from interp.plots import head_heatmap, site_bars
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci

TOP = 5
DRAWS = 20
RESAMPLES = 1000
KEPT_LOGITS = 2**26
"""Logits that are held at once."""


@dataclass(frozen=True, eq=False)
class FalseInduction(Saved, Displayed):
    """The prefix-matching (PM) score of every head under some demonstrations.

    Attributes:
        values: Attention to earlier labels that are the coming one, minus that to the others over
            the number of other labels; NaN where the coming label does not stand before.
        provenance: Model, prompts, versions.
    """

    values: Float[Tensor, "layer head prompts"]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """Mean over prompts."""
        return self.values.nanmean(dim=-1)

    def top(self, k: int = TOP) -> tuple[Head, ...]:
        """The `k` heads with the highest score, best first.

        Raises MetricError for a number of heads that the model does not have.
        """
        heads = self.grid.numel()
        if not 1 <= k <= heads:
            raise MetricError(f"k is {k}, and there are {heads} heads; give 1 to {heads}.")
        order = self.grid.flatten().argsort(descending=True, stable=True)[:k]
        return tuple(Head(*divmod(int(i), self.grid.shape[1])) for i in order)

    def to_frame(self) -> pd.DataFrame:
        """One row a head, best first: head, score, ci_low, ci_high (95%, over prompts), n."""
        low, high = bootstrap_ci(self.values)
        counts = (~self.values.isnan()).sum(dim=-1)
        return pd.DataFrame(
            {
                "head": str(head),
                "score": float(self.grid[head.layer, head.head]),
                "ci_low": float(low[head.layer, head.head]),
                "ci_high": float(high[head.layer, head.head]),
                "n": int(counts[head.layer, head.head]),
            }
            for head in self.top(self.grid.numel())
        )

    def plot(self) -> go.Figure:
        """The score of every head, as a grid of layers and heads."""
        title = f"False induction heads of {self.provenance['model']}"
        return head_heatmap(self.grid, title=title, colorbar="PM score", diverging=True)

    def __repr__(self) -> str:
        best = ", ".join(
            f"{head} {self.grid[head.layer, head.head]:.2f}"
            for head in self.top(min(TOP, self.grid.numel()))
        )
        return f"FalseInduction({best}; n = {self.values.shape[-1]} prompts)"


def false_induction(model: Model, prompts: PromptSet, *, progress: bool = False) -> FalseInduction:
    """Score every head: does it look at earlier uses of the label that comes next?

    At the token before the last demonstration's label: the attention to earlier labels equal to it,
    minus the attention to the other labels over their number. A head that looks at all labels alike
    scores 0 where they are equally frequent.

    Args:
        model: What `interp.load` returns.
        prompts: `demonstrations(model, kind="false")`, or prompts with the roles `label_0`, ... of
            one token each and `ask`, the token before the last of them.
        progress: Show a bar.

    Raises:
        PromptError: Prompts without these roles, or that the model cannot read.
        MetricError: Fewer than two different labels, or none that occurs twice.
    """
    roles = sorted(
        (role for role in prompts.roles if role.startswith("label_")),
        key=lambda role: int(role.removeprefix("label_")),
    )
    ask = prompts.span("ask")
    if len(roles) < 2:
        raise MetricError(
            f"The prompts have {len(roles)} roles of labels; name label_0, label_1 and so on."
        )
    columns = torch.stack([prompts.span(role)[:, 0] for role in roles], dim=-1).cpu()
    if (columns[:, -1] != ask[:, 0].cpu() + 1).any():
        raise MetricError(
            "The role 'ask' is not the token before the last label in every prompt; set it there."
        )
    shown = prompts.clean.cpu().gather(1, columns)
    others = len(shown.unique()) - 1
    same = (shown[:, :-1] == shown[:, -1:]).double()
    if others < 1 or not same.any():
        raise MetricError("No two labels differ, or no last label stands before; show other ones.")
    weights = same - (1 - same) / others
    shape = (model.geometry.n_layers, model.geometry.n_heads, len(prompts))
    values = torch.empty(shape, dtype=torch.float64)
    for rows, pattern in attention_rows(model, prompts, "ask", progress=progress):
        keys = columns[rows, :-1][None, :, None].expand(*pattern.shape[:3], -1)
        looked = pattern.double().gather(-1, keys)
        values[..., rows] = torch.einsum("lphk,pk->lhp", looked, weights[rows])
    return FalseInduction(
        values=values.masked_fill(~same.any(dim=-1), torch.nan),
        provenance=provenance(model, prompts, method="false induction"),
    )


@dataclass(frozen=True, eq=False)
class GapReduction(Saved, Displayed):
    """How far the gap of true and false demonstrations closes when heads are zeroed at the end.

    Attributes:
        true, false: Calibrated accuracy of the whole model on each prompt.
        true_ablated, false_ablated: The same without the heads; first the set in question, then
            random ones.
        heads: The sets, in this order.
        provenance: Model, prompts, options, versions.
    """

    true: Float[Tensor, " prompts"]
    false: Float[Tensor, " prompts"]
    true_ablated: Float[Tensor, "sets prompts"]
    false_ablated: Float[Tensor, "sets prompts"]
    heads: tuple[tuple[Head, ...], ...]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def gap(self) -> tuple[float, float, float]:
        """T - F, and the ends of its 95% interval over prompts."""
        low, high = bootstrap_ci(self.true - self.false)
        return float((self.true - self.false).mean()), float(low), float(high)

    @property
    def reductions(self) -> Float[Tensor, " sets"]:
        """1 - (T - F_ablated) / (T - F) of each set.

        NaN where the interval of T - F does not lie above 0: there is no gap to reduce.
        """
        return self._reductions(torch.ones(1, len(self.true), dtype=torch.float64))[0]

    def _reductions(
        self, times: Float[Tensor, "resamples prompts"]
    ) -> Float[Tensor, "resamples sets"]:
        """Of prompts that count some times."""
        gap = times @ (self.true - self.false)
        left = times @ (self.true - self.false_ablated).T
        return 1 - left / gap[:, None] if self.gap[1] > 0 else torch.full_like(left, torch.nan)

    def to_frame(self) -> pd.DataFrame:
        """One row for the heads in question, and one for the random sets together.

        Columns: heads, reduction, ci_low and ci_high (95%, over prompts), least and most (of the
        sets), as_good (share of the sets that reduce the gap at least as much as the heads do),
        true, false (accuracy without the heads), sets, n (prompts).
        """
        generator = torch.Generator().manual_seed(0)
        picks = torch.randint(len(self.true), (RESAMPLES, len(self.true)), generator=generator)
        times = torch.zeros(picks.shape, dtype=torch.float64)
        times.scatter_add_(1, picks, torch.ones_like(times))
        resampled, found = self._reductions(times), self.reductions
        as_good = (found >= found[0]).double().masked_fill(found.isnan(), torch.nan)
        tails = torch.tensor([0.025, 0.975], dtype=torch.float64)
        rows = []
        for name, sets in (("false induction", slice(0, 1)), ("random", slice(1, None))):
            low, high = resampled[:, sets].mean(dim=-1).quantile(tails).tolist()
            rows.append(
                {
                    "heads": name,
                    "reduction": float(found[sets].mean()),
                    "ci_low": low,
                    "ci_high": high,
                    "least": float(found[sets].min()),
                    "most": float(found[sets].max()),
                    "as_good": float(as_good[sets].mean()),
                    "true": float(self.true_ablated[sets].mean()),
                    "false": float(self.false_ablated[sets].mean()),
                    "sets": len(found[sets]),
                    "n": len(self.true),
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """The reduction of either row, with its interval."""
        frame = self.to_frame()
        return site_bars(
            frame["reduction"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=frame["heads"].tolist(),
            title=f"Gap of {self.provenance['model']} closed by zeroing heads",
            across="share of the gap",
            hover=[f"{share:.2f}" for share in frame["reduction"]],
        )

    def __repr__(self) -> str:
        gap, low, high = self.gap
        if not low > 0:
            return (
                f"GapReduction(no gap to reduce: {gap:.2f} [{low:.2f}, {high:.2f}]; "
                f"n = {len(self.true)} prompts)"
            )
        first, control = self.to_frame().to_dict("records")
        return (
            f"GapReduction({' '.join(map(str, self.heads[0]))}: {first['reduction']:.2f} "
            f"[{first['ci_low']:.2f}, {first['ci_high']:.2f}], random {control['reduction']:.2f} "
            f"[{control['ci_low']:.2f}, {control['ci_high']:.2f}]; gap {gap:.2f}; "
            f"n = {len(self.true)} prompts)"
        )


def gap_reduction(
    model: Model,
    source: str | Pairs = "category",
    *,
    heads: Sequence[Head] | None = None,
    k: int = TOP,
    n: int = 120,
    calibration: int = 120,
    shots: int = SHOTS,
    demo: str = DEMO,
    draws: int = DRAWS,
    seed: int = 0,
    progress: bool = False,
) -> GapReduction:
    """Zero heads at the last token, and see how much of the gap of the last layer is gone.

    The heads are those with the highest score on the calibration prompts, and the gap is measured
    on others. The controls are random sets without these heads, with as many in each layer (in any
    layer, where too few are left). Thresholds are set anew under each ablation. Halawi et al.
    close 39% of the gap of GPT-J with five heads, and 4% with random ones.

    Args:
        model: In eval mode.
        source, n, shots, demo: As of `demonstrations`.
        heads: Given ones in place of the best.
        k: How many of the best.
        calibration: Prompts that choose the heads and set the thresholds.
        draws: Random sets.
        seed: Of the prompts and the random sets.
        progress: Show a bar.

    Raises:
        InterventionError: No heads, no draws, or more heads than leave as many for the control.
        TaskError, PromptError, MetricError: As of `overthinking` and `false_induction`.
    """
    sets = {
        (kind, part): demonstrations(
            model, source, n=count, kind=kind, shots=shots, part=part, demo=demo, seed=seed
        )
        for kind in ("true", "false")
        for part, count in zip(PARTS, (calibration, n), strict=True)
    }
    if heads is None:
        heads = false_induction(model, sets["false", "calibration"], progress=progress).top(k)
    chosen = (tuple(heads), *random_sets(model, heads, draws=draws, seed=seed))
    hits = {
        kind: _hits(model, sets[kind, "calibration"], sets[kind, "test"], chosen)
        for kind in ("true", "false")
    }
    return GapReduction(
        true=hits["true"][0],
        false=hits["false"][0],
        true_ablated=hits["true"][1:],
        false_ablated=hits["false"][1:],
        heads=chosen,
        provenance=provenance(
            model,
            sets["false", "test"],
            method="gap reduction",
            heads=[str(head) for head in heads],
            calibration=calibration,
            draws=draws,
        ),
    )


def random_sets(
    model: Model, heads: Sequence[Head], *, draws: int = DRAWS, seed: int = 0
) -> tuple[tuple[Head, ...], ...]:
    """Random sets of as many heads, none of these among them, with as many in each layer.

    Where a layer has too few others, heads of other layers fill the set.
    """
    shape, taken = model.geometry, set(heads)
    everyone = [
        Head(layer, head) for layer in range(shape.n_layers) for head in range(shape.n_heads)
    ]
    others = [head for head in everyone if head not in taken]
    if not taken or len(taken) != len(heads) or len(others) < len(taken) or draws < 1:
        raise InterventionError(
            f"{len(heads)} heads of {len(everyone)} with {draws} random sets make no comparison; "
            "give different heads, at most half of all, and at least one draw."
        )
    rng, found = random.Random(f"random heads {seed}"), []
    for _ in range(draws):
        mixed = rng.sample(others, len(others))
        picked = []
        for layer in sorted({head.layer for head in taken}):
            wanted = sum(head.layer == layer for head in taken)
            picked += [head for head in mixed if head.layer == layer][:wanted]
        spare = [head for head in mixed if head not in picked]
        found.append(tuple(sorted(picked + spare[: len(taken) - len(picked)])))
    return tuple(found)


def _hits(
    model: Model, calibration: PromptSet, prompts: PromptSet, sets: Sequence[Sequence[Head]]
) -> Float[Tensor, "runs prompts"]:
    """Calibrated accuracy at the last layer: of the whole model, then without each set of heads."""
    words = label_words(prompts)
    fitted, read = (
        _label_probabilities(model, each, words, sets) for each in (calibration, prompts)
    )
    truth = torch.tensor(prompts.notes["truth"])
    return calibrated_hits(read, label_thresholds(fitted), truth)


def _label_probabilities(
    model: Model, prompts: PromptSet, words: Tensor, sets: Sequence[Sequence[Head]]
) -> Float[Tensor, "prompts runs labels"]:
    """Of the whole model, then without each set of heads at the last token."""
    zeroed = [Intervention(tuple(Edit(head, Zero(), "END") for head in some)) for some in sets]
    found = [end_logits(model, prompts)[None, :, words.to(model.device)]]
    size = max(1, KEPT_LOGITS // (len(prompts) * model.geometry.d_vocab))
    for start in range(0, len(zeroed), size):
        logits = edited_end_logits(model, prompts, zeroed[start : start + size])
        found.append(logits[..., words.to(model.device)])
    return torch.cat(found).double().softmax(dim=-1).cpu().transpose(0, 1)
