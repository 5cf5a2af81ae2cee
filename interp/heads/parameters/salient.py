"""Salient operations of a head: the tokens that it writes most of, and what it makes of them.

    strength(t) = |x_t W_V W_O| / |x_t|,   x_t = E'[t] as in `maps.py`      (Elhelo & Geva 2024)

Reading needs no relation: what a head says of its most salient tokens, the largest entries of their
rows of M, may suggest one. It describes and tests nothing; `maps.py` and `maps_checks.py` test.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import MetricError
from interp.heads.parameters.maps import ROWS, TOKENS
from interp.heads.succession.effective_ov import streams
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import ordinary_tokens
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head


@dataclass(frozen=True, eq=False)
class Salient(Saved, Displayed):
    """The most salient tokens of every head; make one with `salient`.

    Attributes:
        tokens: Those of each head, the strongest first.
        strength: How much longer or shorter each leaves the head than it came.
        typical: Mean strength over all tokens of the vocabulary that are not special.
        said: The tokens with the largest logits in what the head makes of each, the largest first.
        words: Every token named here, decoded.
        n: Tokens that `typical` is the mean of.
        provenance: Model, weights hash, dtype.
    """

    tokens: Int[Tensor, "layer head top"]
    strength: Float[Tensor, "layer head top"]
    typical: Float[Tensor, "layer head"]
    said: Int[Tensor, "layer head top said"]
    words: dict[int, str]
    n: int
    provenance: dict[str, Any]

    def to_frame(self, head: Head | None = None) -> pd.DataFrame:
        """One row a salient token, of one head or of all.

        Columns: head, token, strength, typical (mean strength over the vocabulary), says.
        """
        layers, heads, _ = self.tokens.shape
        every = [Head(layer, i) for layer in range(layers) for i in range(heads)]
        rows = []
        for each in every if head is None else [head]:
            at = each.layer, each.head
            typical = self.typical[at].item()
            listed = (self.tokens[at], self.strength[at], self.said[at])
            for token, strength, said in zip(*(one.tolist() for one in listed), strict=True):
                says = [self.words[one] for one in said]
                rows.append((str(each), self.words[token], strength, typical, says))
        return pd.DataFrame(rows, columns=["head", "token", "strength", "typical", "says"])

    def plot(self) -> go.Figure:
        """A layer x head heatmap of the strength of the most salient token, with its word."""
        hover = [
            [f"{layer}.{head}: {html.escape(self.words[token])}" for head, token in enumerate(row)]
            for layer, row in enumerate(self.tokens[..., 0].tolist())
        ]
        title = f"Most salient token of each head of {self.provenance['model']}"
        return head_heatmap(self.strength[..., 0], title=title, colorbar="strength", hover=hover)

    def __repr__(self) -> str:
        layers, heads, top = self.tokens.shape
        return (
            f"Salient({self.provenance['model']}: the {top} strongest of {self.n} tokens in each "
            f"of {layers} x {heads} heads)"
        )


@torch.no_grad()
def salient(model: Model, *, top: int = 10, says: int = 5, progress: bool = True) -> Salient:
    """The tokens that each head writes most of, and the tokens that it maps them to.

    >>> import interp
    >>> from interp.heads.parameters.salient import salient
    >>> salient(interp.load("polymath"), top=3).tokens.shape
    torch.Size([6, 8, 3])

    Args:
        model: Any whose heads have values of their own.
        top: Salient tokens of a head. Special tokens are not read, but may be said.
        says: Tokens that each is mapped to.
        progress: Show a bar.

    Raises:
        MetricError: More tokens than there are, or none.
        UnsupportedModel: Values or outputs of its heads cannot be told apart.
    """
    ordinary = ordinary_tokens(model)
    if not 1 <= top <= len(ordinary) or not 1 <= says <= model.geometry.d_vocab:
        raise MetricError(
            f"top is {top} and says {says}; {model.id} has {len(ordinary)} tokens that are not "
            "special, so give numbers from 1 to that."
        )
    weights = Weights(model)
    tokens, strength, typical = _strongest(weights, ordinary, top, progress)
    said = torch.stack([_said(weights, layer, some, says) for layer, some in enumerate(tokens)])
    named = torch.cat([tokens.flatten(), said.flatten()]).unique().tolist()
    return Salient(
        tokens=tokens,
        strength=strength,
        typical=typical,
        said=said,
        words={token: str(model.tokenizer.decode([token])) for token in named},
        n=len(ordinary),
        provenance=provenance(model, top=top, says=says),
    )


def _strongest(
    weights: Weights, tokens: Int[Tensor, " tokens"], top: int, progress: bool
) -> tuple[
    Int[Tensor, "layer head top"], Float[Tensor, "layer head top"], Float[Tensor, "layer head"]
]:
    """The strongest tokens of each head, their strengths, and the mean over all tokens."""
    shape = weights.model.geometry
    size = shape.n_layers, shape.n_heads
    best = torch.full((*size, top), -torch.inf, dtype=weights.dtype)
    which = torch.zeros(*size, top, dtype=torch.long)
    total = torch.zeros(size, dtype=torch.float64)
    for some in track(tokens.split(max(1, ROWS // shape.n_heads)), "Reading", shown=progress):
        early, later = streams(weights, some)
        for layer in range(shape.n_layers):
            read = later if layer else early
            read = torch.nn.functional.normalize(read, dim=-1)
            written = torch.einsum("td,hde->hte", read, weights.w_v(layer)) @ weights.w_o(layer)
            strength = written.norm(dim=-1).cpu()
            total[layer] += strength.double().sum(dim=-1)
            known = torch.cat([which[layer], some.expand(shape.n_heads, -1)], dim=-1)
            best[layer], at = torch.cat([best[layer], strength], dim=-1).topk(top)
            which[layer] = known.gather(-1, at)
    return which, best, (total / len(tokens)).to(weights.dtype)


def _said(
    weights: Weights, layer: int, tokens: Int[Tensor, "head top"], says: int
) -> Int[Tensor, "head top said"]:
    """The tokens with the largest logits in what each head of a layer makes of its tokens."""
    early, later = streams(weights, tokens.flatten())
    read = (later if layer else early).unflatten(0, tokens.shape)
    written = read @ weights.w_v(layer) @ weights.w_o(layer)
    best = written.new_full((*tokens.shape, says), -torch.inf)
    which = torch.zeros_like(best, dtype=torch.long)
    for some in torch.arange(weights.model.geometry.d_vocab, device=best.device).split(TOKENS):
        logits = torch.cat([best, written @ weights.w_u(some)], dim=-1)
        known = torch.cat([which, some.expand(*tokens.shape, -1)], dim=-1)
        best, at = logits.topk(says)
        which = known.gather(-1, at)
    return which.cpu()
