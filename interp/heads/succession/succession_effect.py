"""Which heads write the successor into the logits, on text? (Gould et al. 2023)

Each head is replaced by its mean, along the residual stream alone: all that is behind it keeps what
it added, and only its direct effect on the logit of the right answer is lost. On each prompt the
head whose loss costs that logit most wins. A head that is a successor head by its weights
(`successor.py`) should win here.

The final norm is computed anew. By default the mean of a head is taken over the last tokens of all
prompts (the role END), the only column that a direct effect comes from: what a head adds at the end
of every list, whatever the series, is kept.

The control of a head is a random other head of its layer: the expected effect of that is the mean
over those heads. If all heads were alike, each would win one prompt in as many as there are heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.engine import SweepResult, ablate
from interp.models import Model
from interp.plots import head_heatmap
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import heads
from interp.stats import bootstrap_ci
from interp.tasks import get


@dataclass(frozen=True, eq=False)
class SuccessionEffect(Saved, Displayed):
    """What each head adds directly to the logit of the right answer.

    Attributes:
        sweep: The logit of the right answer on each prompt, with one head after another replaced by
            its mean.
        templates: Series of each prompt; "" for prompts that do not say.
        solved: 1 where the model gives the right answer, else 0.
    """

    sweep: SweepResult
    templates: tuple[str, ...]
    solved: Float[Tensor, " prompts"]

    @property
    def effects(self) -> Float[Tensor, "layer head prompts"]:
        """Change of the logit when a head is lost; below zero where the head helped."""
        geometry = self.sweep.provenance["geometry"]
        return self.sweep.effects.unflatten(0, (geometry["n_layers"], geometry["n_heads"]))

    @property
    def random(self) -> Float[Tensor, "layer head prompts"]:
        """The control: mean effect of the other heads of the layer; NaN if there are none."""
        effects = self.effects
        others = effects.shape[1] - 1
        if others == 0:
            return torch.full_like(effects, math.nan)
        return (effects.sum(dim=1, keepdim=True) - effects) / others

    @property
    def winners(self) -> Int[Tensor, " prompts"]:
        """The head whose loss costs most, counted layer by layer; -1 where none costs anything."""
        cost, winner = self.sweep.effects.min(dim=0)
        return torch.where(cost < 0, winner, -1)

    @property
    def wins(self) -> Float[Tensor, "layer head prompts"]:
        """1 where a head wins, else 0; its mean over prompts is the head's share."""
        every = torch.arange(len(self.sweep.sites))
        won = (self.winners == every[:, None]).to(self.sweep.values)
        return won.unflatten(0, self.effects.shape[:2])

    def to_frame(self) -> pd.DataFrame:
        """One row a head.

        Columns: head; effect, ci_low, ci_high (95%); random (its control); difference (of effect
        and control), difference_low, difference_high; wins (share of prompts), wins_low, wins_high,
        chance (1 / heads); n (prompts).
        """
        columns: dict[str, object] = {"head": [str(site) for site in self.sweep.sites]}
        for name, ends, values in (
            ("effect", "ci", self.effects),
            ("difference", "difference", self.effects - self.random),
            ("wins", "wins", self.wins),
        ):
            low, high = bootstrap_ci(values)
            columns[name] = values.mean(dim=-1).flatten().tolist()
            columns[f"{ends}_low"] = low.flatten().tolist()
            columns[f"{ends}_high"] = high.flatten().tolist()
        columns["random"] = self.random.mean(dim=-1).flatten().tolist()
        columns["chance"] = 1 / len(self.sweep.sites)
        columns["n"] = len(self.templates)
        return pd.DataFrame(columns)

    def by_series(self) -> pd.DataFrame:
        """One row a series: series, n, solved (share), winner (head that wins most), wins, effect.

        `wins` and `effect` are those of the winner on the prompts of the series; the winner is ""
        where no head's loss costs anything.
        """
        rows = []
        for series in sorted(set(self.templates)):
            here = torch.tensor([template == series for template in self.templates])
            wins = self.wins[..., here].mean(dim=-1).flatten()
            best = int(wins.argmax())
            rows.append(
                {
                    "series": series,
                    "n": int(here.sum()),
                    "solved": self.solved[here].mean().item(),
                    "winner": str(self.sweep.sites[best]) if wins[best] > 0 else "",
                    "wins": wins[best].item(),
                    "effect": self.sweep.effects[best, here].mean().item(),
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Heatmap of the share of prompts that each head wins."""
        return head_heatmap(
            self.wins.mean(dim=-1),
            title=f"Whose loss costs the successor most in {self.sweep.provenance['model']}",
            colorbar="share of prompts",
        )

    def __repr__(self) -> str:
        shares = self.wins.mean(dim=-1).flatten()
        best = shares.argsort(descending=True, stable=True)[:3].tolist()
        named = ", ".join(f"{self.sweep.sites[at]} {shares[at]:.0%}" for at in best)
        return (
            f"SuccessionEffect({self.sweep.provenance['model']}: wins {named}, chance "
            f"{1 / len(shares):.0%}; n = {len(self.templates)} prompts, "
            f"{self.solved.mean():.0%} solved)"
        )


def succession_effect(
    model: Model,
    prompts: PromptSet | None = None,
    *,
    n: int = 64,
    seed: int = 0,
    over: str = "role",
    progress: bool = True,
) -> SuccessionEffect:
    """What each head adds directly to the logit of the right answer, by mean ablation.

    >>> import interp
    >>> from interp.heads.succession.succession_effect import succession_effect
    >>> succession_effect(interp.load("polymath"), n=8).effects.shape
    torch.Size([6, 8, 8])

    Args:
        model: In eval mode.
        prompts: By default `n` prompts of the task "succession", drawn with `seed`.
        n, seed: Of the task's prompts.
        over: Which tokens a mean is taken over, as in `interp.ablate`.
        progress: Show a bar.

    Raises:
        TaskError: The tokenizer keeps too few words of the series.
        InterventionError, SiteError: What `interp.ablate` raises.
    """
    prompts = get("succession").sample(model, n=n, seed=seed) if prompts is None else prompts
    answers = prompts.answer

    def answer_logit(logits: Float[Tensor, "prompts vocab"]) -> Float[Tensor, " prompts"]:
        found = answers.to(logits.device)
        chosen = logits.gather(-1, found.clamp(min=0)).masked_fill(found < 0, -torch.inf)
        return chosen.logsumexp(dim=-1)

    every = heads(model.geometry)
    sweep = ablate(
        model,
        prompts,
        every,
        method="mean",
        over=over,
        metric=answer_logit,
        effect="direct",
        progress=progress,
    )
    # Of this sweep only the clean run is wanted.
    solved = ablate(model, prompts, every[:1], metric="accuracy", effect="direct", progress=False)
    templates = prompts.notes.get("template", [""] * len(prompts))
    return SuccessionEffect(sweep=sweep, templates=tuple(map(str, templates)), solved=solved.clean)
