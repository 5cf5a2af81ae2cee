"""What a head says of each token that it reads, by its weights alone.

    logits = MLP0(norm(W_E[t])) W_V W_O W_U                        (Gould et al. 2023)

The first MLP stands in for the early layers, which turn a token into what later heads read of it;
its output is taken without the stream beside it. No head, no position, no norm of the attention,
no bias of values or outputs and no final norm is in the product (as in MAPS, Elhelo & Geva 2024),
nor a norm that some models put behind their attention; the gains of norms are not folded into the
weights. Heads of layer 0 stand before the first MLP and read W_E[t] itself, as do all heads of a
model that has no MLP in its first block.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import PromptError, SiteError
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import head_heatmap
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head, parse, validate

LABELS = 40  # words that fit on an axis


@dataclass(frozen=True, eq=False)
class EffectiveOV(Saved, Displayed):
    """The effective OV matrix of a head, over some words.

    Attributes:
        head: Whose it is.
        sources: What the head reads.
        targets: What it says.
        logits: What reading a source adds to the logit of a target, before any final norm.
        provenance: Model, weights hash, dtype, whether the first MLP's own norm was applied.
    """

    head: Head
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    logits: Float[Tensor, "sources targets"]
    provenance: dict[str, Any]

    @property
    def said(self) -> tuple[str, ...]:
        """The target with the largest logit, for each source."""
        return tuple(self.targets[at] for at in self.logits.argmax(dim=-1).tolist())

    def to_frame(self) -> pd.DataFrame:
        """One row a source, one column a target; the numbers are logits."""
        return pd.DataFrame(
            self.logits.numpy(),
            index=pd.Index(self.sources, name="source"),
            columns=pd.Index(self.targets, name="target"),
        )

    def plot(self) -> go.Figure:
        """Heatmap: one row a source, one column a target."""
        figure = head_heatmap(
            self.logits,
            title=f"Effective OV matrix of {self.head} in {self.provenance['model']}",
            colorbar="logit",
            diverging=True,
            hover=[
                [
                    f"{source!r} says {target!r}: {logit:+.3f}"
                    for target, logit in zip(self.targets, row, strict=True)
                ]
                for source, row in zip(self.sources, self.logits.tolist(), strict=True)
            ],
            across="target",
        )
        figure.update_xaxes(_ticks(self.targets))
        figure.update_yaxes(_ticks(self.sources), title_text="source")
        return figure

    def __repr__(self) -> str:
        return (
            f"EffectiveOV({self.head} of {self.provenance['model']}, {len(self.sources)} sources x "
            f"{len(self.targets)} targets)"
        )


def effective_ov(
    model: Model,
    head: Head | str,
    words: Sequence[str],
    *,
    targets: Sequence[str] | None = None,
    norm: bool = True,
) -> EffectiveOV:
    """What a head says, by its weights alone, of each of some words (Gould et al. 2023).

    >>> import interp
    >>> from interp.heads.succession.effective_ov import effective_ov
    >>> model = interp.load("polymath")
    >>> effective_ov(model, "3.5", [" Monday", " Tuesday", " Wednesday"]).logits.shape
    torch.Size([3, 3])

    Args:
        model: Any whose heads have values of their own.
        head: Such as "3.5".
        words: What the head reads; each is one token, with the space before it if there is one.
        targets: What it may say; the same words by default.
        norm: Whether the token goes through the norm before the first MLP.

    Raises:
        SiteError: No such head.
        PromptError: No words, or a word that is not one token.
        UnsupportedModel: Values or outputs of its heads cannot be told apart.
    """
    site = parse(head) if isinstance(head, str) else head
    if not isinstance(site, Head):
        raise SiteError(f"{head} is not a head; name one, such as '3.5'.")
    validate(site, model.geometry)
    targets = words if targets is None else targets
    weights = Weights(model)
    early, later = streams(weights, _tokens(model, words), norm=norm)
    stream = later if site.layer else early
    logits = ov_logits(weights, site.layer, stream, _tokens(model, targets))[site.head]
    return EffectiveOV(
        head=site,
        sources=tuple(words),
        targets=tuple(targets),
        logits=logits.cpu(),
        provenance=provenance(model, norm=norm),
    )


def streams(
    weights: Weights, tokens: Int[Tensor, " tokens"], *, norm: bool = True
) -> tuple[Float[Tensor, "tokens d_model"], Float[Tensor, "tokens d_model"]]:
    """What heads of layer 0 read of each token alone, and what heads of later layers read."""
    embedded = weights.embed(tokens)
    if not has_first_mlp(weights):
        return embedded, embedded
    return embedded, weights.first_mlp(embedded, norm=norm)


def has_first_mlp(weights: Weights) -> bool:
    """Whether block 0 has an MLP; models of attention alone have none."""
    return "mlp_out" in weights.body.blocks[0].parts


@torch.no_grad()
def ov_logits(
    weights: Weights,
    layer: int,
    stream: Float[Tensor, "sources d_model"],
    targets: Int[Tensor, " targets"],
) -> Float[Tensor, "head sources targets"]:
    """What each head of a layer adds to the logits of `targets` when it reads `stream`."""
    z = torch.einsum("sd,hde->hse", stream, weights.w_v(layer))
    said = torch.einsum("hed,dt->het", weights.w_o(layer), weights.w_u(targets))
    return z @ said


def _tokens(model: Model, words: Sequence[str]) -> Int[Tensor, " words"]:
    if not words:
        raise PromptError("An effective OV matrix needs words, and got none; pass at least one.")
    tokens = []
    for word in words:
        token = model.single_token(word)
        if token is None:
            raise PromptError(
                f"{word!r} is not one token for {model.id}; use words that are, with the space "
                "that stands before them."
            )
        tokens.append(token)
    return torch.tensor(tokens)


def _ticks(words: Sequence[str]) -> dict[str, Any]:
    """Words along an axis, every one or every few."""
    step = -(-len(words) // LABELS)
    return {
        "tickmode": "array",
        "tickvals": list(range(0, len(words), step)),
        "ticktext": [word.strip() for word in words[::step]],
    }
