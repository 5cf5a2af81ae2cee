"""Repeated loss: which heads does a model need to say random text a second time?"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import SweepResult, ablate
from interp.errors import PromptError
from interp.heads.attention import longest_copy, repeated_tokens
from interp.models import Model
from interp.plots import head_grids
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.stats import bootstrap_ci

CUTS = 4
"""Places in the second copy at which prompts end."""


@dataclass(frozen=True, eq=False)
class RepeatedLoss(Saved, Displayed):
    """Loss on the second copy of random text when one head after another is taken out.

    Attributes:
        preserving: With all attention patterns kept as they were: what the head's output itself
            says to the logits and to later values.
        full: Without: also what later heads make of it when they choose where to look.
    """

    preserving: SweepResult
    full: SweepResult

    def to_frame(self) -> pd.DataFrame:
        """One row a head: by how many nats the loss rises, in both modes.

        Columns: head, then for each mode ("preserving", "full") its mean effect, its 95% interval
        (_low, _high) and the control (_control): the effect expected of a random other head of the
        same layer. Last n (prompts).
        """
        columns: dict[str, list[float]] = {}
        for name, sweep in (("preserving", self.preserving), ("full", self.full)):
            low, high = sweep.ci()
            columns[name] = sweep.effects.mean(dim=-1).tolist()
            columns[f"{name}_low"], columns[f"{name}_high"] = low.tolist(), high.tolist()
            columns[f"{name}_control"] = _others(_grid(sweep)).flatten().tolist()
        heads = [str(site) for site in self.full.sites]
        return pd.DataFrame({"head": heads, **columns, "n": self.full.values.shape[1]})

    def plot(self) -> go.Figure:
        """Both modes as layer x head heatmaps on one scale."""
        return head_grids(
            {"patterns preserved": _grid(self.preserving), "full": _grid(self.full)},
            title=f"Loss on repeated random text of {self.full.provenance['model']}",
            colorbar="rise of the loss in nats",
            diverging=True,
        )

    def __repr__(self) -> str:
        clean = self.full.clean
        low, high = (end.item() for end in bootstrap_ci(clean))
        worst = self.to_frame().sort_values("full", ascending=False).head(3)
        named = ", ".join(f"{row.head} {row.full:+.2f}" for row in worst.itertuples())
        return (
            f"RepeatedLoss({clean.mean():.2f} [{low:.2f}, {high:.2f}] nats when clean; in full "
            f"{named}; n = {len(clean)} prompts)"
        )


def repeated_loss(
    model: Model,
    *,
    n: int = 32,
    seq_len: int | None = None,
    method: str = "zero",
    seed: int = 0,
    progress: bool = True,
) -> RepeatedLoss:
    """Ablate every head on repeated random text, with attention patterns kept and not.

    Each prompt is BOS, random tokens, and the first part of the same tokens again; the loss is that
    of the next one. The second copy is cut at four places, a quarter of the prompts at each: after
    1/8, 3/8, 5/8 and 7/8 of it.

    Args:
        model: What `interp.load` returns.
        n: Prompts, each of its own random tokens.
        seq_len: Random tokens of a copy; 25, or as many as a short context holds twice.
        method: What takes the place of a head's output, as in `interp.ablate`; zeros in the paper.
        seed: Of the random tokens, and of the method "resample".
        progress: Show a bar.

    Raises:
        PromptError: Prompts that the model's context or vocabulary does not allow.
        InterventionError: An unknown method, or blocks whose patterns cannot be kept.

    Olsson et al. 2022 ablate heads so on their training text ("pattern-preserving" and "full"), and
    report the change of the in-context-learning score; here it is the loss of repeated random text,
    which needs no data. The control of a head are the other heads of its layer.

    >>> import interp
    >>> repeated_loss(interp.load("induction"), n=4).full.values.shape
    torch.Size([16, 4])
    """
    length = min(25, longest_copy(model)) if seq_len is None else seq_len
    if length < 2 * CUTS:
        raise PromptError(
            f"seq_len is {length}, and the second copy is cut at {CUTS} places; pass seq_len="
            f"{2 * CUTS} or more, or use a model of a longer context."
        )
    tokens = repeated_tokens(model, n=n, seq_len=length, seed=seed).tolist()
    ends = [1 + length + (2 * (row % CUTS) + 1) * length // (2 * CUTS) for row in range(n)]
    prompts = PromptSet.from_tokens(
        [row[:end] for row, end in zip(tokens, ends, strict=True)],
        answer=[row[end] for row, end in zip(tokens, ends, strict=True)],
        task="repeated random tokens",
        notes={"seed": seed, "seq_len": length},
    )
    preserving, full = (
        ablate(
            model,
            prompts,
            method=method,
            metric="loss",
            freeze=freeze,
            seed=seed,
            progress=progress,
        )
        for freeze in ("patterns", "none")
    )
    return RepeatedLoss(preserving, full)


def _grid(sweep: SweepResult) -> Float[Tensor, "layer head"]:
    """Mean effect of every head; those of a layer stand side by side."""
    return sweep.effects.mean(dim=-1).unflatten(0, (sweep.provenance["geometry"]["n_layers"], -1))


def _others(grid: Float[Tensor, "layer head"]) -> Float[Tensor, "layer head"]:
    """Mean over the other heads of the layer; NaN where there are none."""
    return (grid.sum(dim=-1, keepdim=True) - grid) / (grid.shape[-1] - 1)
