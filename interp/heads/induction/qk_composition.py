"""QK composition: does a head look for what previous-token heads have written, by its weights?

    QK trace of head h  =  trace of  sum over heads e of earlier layers of
                               s(e)  W_E  W_QK(h)  W_OV(e)^T  W_E^T

with s(e) the previous-token score of e, and row vectors: entry (t, u) of the matrix is how much a
query at token t wants a key whose previous token is u, so that the trace is large for a head that
looks for the token after an earlier copy of its own. No matrix of tokens x tokens is made, since
with G = W_E^T W_E (d_model x d_model) each term of the sum is

    trace of  (W_K^T W_O(e)^T) (W_V(e)^T G W_Q),    a product of d_head x d_head matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import UnsupportedModel
from interp.heads.attention import longest_copy, patterns_by_layer, repeated_tokens
from interp.heads.induction.copying import linear_part, to_stream
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import PromptSet, ordinary_tokens
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci

TOKENS = 4096
"""Embeddings that are held at once."""


@dataclass(frozen=True, eq=False)
class QKComposition(Saved, Displayed):
    """The QK trace of every head; NaN in the first layer, where there are no earlier heads.

    Attributes:
        values: The trace, with the previous-token scores of one prompt after another.
        control: The trace when the scores (means over prompts) are dealt out anew among the earlier
            heads, so that others than previous-token heads are looked for.
        pairs: The trace of each single earlier head with a score of 1; 0 for heads not earlier.
        provenance: Model, weights hash, prompts, seed and versions.
    """

    values: Float[Tensor, "layer head prompts"]
    control: Float[Tensor, "layer head deals"]
    pairs: Float[Tensor, "layer head layer head"]
    provenance: dict[str, Any]

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """Mean trace over prompts."""
        return self.values.mean(dim=-1)

    @property
    def relative(self) -> Float[Tensor, "layer head"]:
        """How many standard deviations of the control the trace lies above its mean."""
        return (self.grid - self.control.mean(dim=-1)) / self.control.std(dim=-1)

    def ci(
        self, *, level: float = 0.95
    ) -> tuple[Float[Tensor, "layer head"], Float[Tensor, "layer head"]]:
        """Bootstrap confidence interval of the trace over prompts: its low and high ends."""
        return bootstrap_ci(self.values, level=level)

    def to_frame(self) -> pd.DataFrame:
        """One row a head.

        Columns: head, trace, ci_low, ci_high (95%), control and spread (mean and standard deviation
        of the control), relative, rank_p (share of the deals with at least this trace), n.
        """
        layers, heads, n = self.values.shape
        low, high = self.ci()
        above = (self.control >= self.grid[..., None]).double().mean(dim=-1)
        above = torch.where(self.grid.isnan(), torch.nan, above)
        columns = {
            "trace": self.grid,
            "ci_low": low,
            "ci_high": high,
            "control": self.control.mean(dim=-1),
            "spread": self.control.std(dim=-1),
            "relative": self.relative,
            "rank_p": above,
        }
        names = [str(Head(layer, head)) for layer in range(layers) for head in range(heads)]
        numbers = {name: grid.flatten().tolist() for name, grid in columns.items()}
        return pd.DataFrame({"head": names, **numbers, "n": n})

    def plot(self) -> go.Figure:
        """A layer x head heatmap of `relative`."""
        title = f"QK composition with previous-token heads in {self.provenance['model']}"
        unit = "standard deviations above random earlier heads"
        return head_heatmap(self.relative, title=title, colorbar=unit, diverging=True)

    def __repr__(self) -> str:
        best = self.to_frame().sort_values("trace", ascending=False).head(3)
        named = ", ".join(f"{row.head} {row.trace:.3g}" for row in best.itertuples())
        return f"QKComposition({named}; n = {self.values.shape[-1]} prompts)"


@torch.no_grad()
def qk_composition(
    model: Model,
    *,
    n: int = 10,
    seq_len: int | None = None,
    deals: int = 200,
    seed: int = 0,
    progress: bool = True,
) -> QKComposition:
    """The QK trace of every head.

    Args:
        model: What `interp.load` returns.
        n: Prompts of repeated random tokens on which previous-token scores are measured.
        seq_len: Random tokens in one copy; 50, or as many as a short context holds twice.
        deals: Random assignments of the scores to earlier heads, the control.
        seed: Of the tokens and of the deals.
        progress: Show a bar.

    Raises:
        PromptError: Prompts that the model's context or vocabulary does not allow.
        UnsupportedModel: A single layer, or no separate queries, keys and values.

    Olsson et al. 2022 write the formula for their own models. Here embeddings are those of ordinary
    tokens as they enter block 0, without positions. Norms count with their centring and gain, as in
    weights that they are folded into, and without the division by the size of the stream. What
    stands between projections and scores is left out: rotations, norms of queries and keys, biases.

    >>> import interp
    >>> qk_composition(interp.load("induction"), n=2).grid.shape
    torch.Size([2, 8])
    """
    shape, weights = model.geometry, Weights(model)
    if shape.n_layers == 1:
        raise UnsupportedModel(
            f"{model.id} has a single layer, so no head can look for what another has written; use "
            "a model of two layers or more."
        )
    length = min(50, longest_copy(model)) if seq_len is None else seq_len
    tokens = repeated_tokens(model, n=n, seq_len=length, seed=seed)
    scores = torch.empty(shape.n_layers, shape.n_heads, n, dtype=weights.dtype)
    for rows, layer, pattern in patterns_by_layer(model, tokens, progress=progress):
        scores[layer, :, rows] = pattern.diagonal(-1, -2, -1).mean(dim=-1).T
    pairs = _pairs(weights, progress=progress)
    values = torch.einsum("lhme,mep->lhp", pairs, scores)
    control = torch.empty(shape.n_layers, shape.n_heads, deals, dtype=weights.dtype)
    generator, mean = torch.Generator().manual_seed(seed), scores.mean(dim=-1)
    for layer in range(1, shape.n_layers):
        earlier = mean[:layer].flatten()
        dealt = [earlier[torch.randperm(len(earlier), generator=generator)] for _ in range(deals)]
        control[layer] = pairs[layer, :, :layer].flatten(1) @ torch.stack(dealt, dim=1)
    values[0] = control[0] = torch.nan
    prompts = PromptSet.from_tokens(tokens, answer=tokens[:, -1], task="repeated random tokens")
    how = {"seq_len": length, "deals": deals, "seed": seed}
    return QKComposition(values, control, pairs, provenance(model, prompts, **how))


def _pairs(weights: Weights, *, progress: bool) -> Float[Tensor, "layer head layer head"]:
    """The trace of every head with every head of an earlier layer."""
    shape = weights.model.geometry
    moment = _moment(weights, ordinary_tokens(weights.model))
    layers, heads = shape.n_layers, shape.n_heads
    values: list[Tensor] = []  # and outputs: of earlier layers, by head
    outputs: list[Tensor] = []
    found = torch.zeros(layers, heads, layers, heads, dtype=weights.dtype)
    for layer in track(range(layers), f"QK of {weights.model.id}", shown=progress):
        norm = linear_part(weights, weights.body.blocks[layer].attn_norm)
        queries, keys = moment @ (norm @ weights.w_q(layer)), norm @ weights.w_k(layer)
        for earlier, (value, output) in enumerate(zip(values, outputs, strict=True)):
            # [head, d_head, earlier head, d_head of it]
            by_key = torch.einsum("hdk,ewd->hkew", keys, output)
            by_query = torch.einsum("hdk,edw->hkew", queries, value)
            found[layer, :, earlier] = (by_key * by_query).sum(dim=(1, 3)).cpu()
        values.append(norm @ weights.w_v(layer))
        outputs.append(to_stream(weights, layer))
    return found


def _moment(weights: Weights, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "d_model d_model"]:
    """W_E^T W_E over these tokens."""
    parts = [weights.embed(some) for some in tokens.split(TOKENS)]
    return torch.stack([part.T @ part for part in parts]).sum(dim=0)
