"""Direct logit attribution: what every component adds to the logits by itself, at END.

The stream that the unembedding reads is a sum, and a norm whose scale is held at its clean value is
linear, so the logit difference is a sum too, without remainder:

    embedding + heads + biases of attention layers + MLPs + constant = logit(answer) - logit(wrong)

Where attention has a norm behind its output projection (Gemma 2, OLMo 2), that norm's scale is held
as well. What is summed are logits as the unembedding gives them: before a soft cap, or a factor on
all logits, where a model has one. (Elhage et al. 2021; Wang et al. 2022, section 3.1.)
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine.groups import Group, groups
from interp.engine.memory import largest_group
from interp.engine.replay import close, replay_of
from interp.errors import MetricError, UnsupportedModel
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.stats import bootstrap_ci

CHUNK = 2**13
"""Rows of the unembedding that are read at once."""


@dataclass(frozen=True, eq=False)
class LogitAttribution(Saved, Displayed):
    """The logit difference of each prompt as a sum over the model's components.

    Attributes:
        heads: What each head adds.
        mlps: What each MLP adds; zero in layers without one.
        biases: What each attention layer adds whatever its heads say: the bias of its output
            projection, and of a norm behind it. (Biases of values belong to the heads.)
        embedding: What the stream held before the first block: token and position.
        constant: What the biases of the final norm and of the unembedding add.
        total: The logit difference, before a soft cap: the sum of all the others.
        provenance: Model, weights hash, prompts, dtype, versions.
    """

    heads: Float[Tensor, "layer head prompts"]
    mlps: Float[Tensor, "layer prompts"]
    biases: Float[Tensor, "layer prompts"]
    embedding: Float[Tensor, " prompts"]
    constant: Float[Tensor, " prompts"]
    total: Float[Tensor, " prompts"]
    provenance: dict[str, Any]

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """What each head adds on average."""
        return self.heads.mean(dim=-1)

    def to_frame(self) -> pd.DataFrame:
        """One row a component, in the order of the model; the means add up to that of `total`.

        Columns: component, kind, layer (missing for embedding and constant), effect (mean, in
        logits), ci_low and ci_high (95%, over prompts), n.
        """
        rows: list[tuple[str, str, int | None, Tensor]] = [
            ("embedding", "embedding", None, self.embedding)
        ]
        for layer, (heads, bias, mlp) in enumerate(
            zip(self.heads, self.biases, self.mlps, strict=True)
        ):
            rows += [(str(Head(layer, i)), "head", layer, each) for i, each in enumerate(heads)]
            rows += [(f"bias {layer}", "bias", layer, bias), (f"mlp {layer}", "mlp", layer, mlp)]
        rows.append(("constant", "constant", None, self.constant))
        names, kinds, layers, effects = zip(*rows, strict=True)
        values = torch.stack(effects)
        low, high = bootstrap_ci(values)
        return pd.DataFrame(
            {
                "component": names,
                "kind": kinds,
                "layer": pd.array(layers, dtype="Int64"),
                "effect": values.mean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "n": values.shape[-1],
            }
        )

    def top(self, k: int = 10) -> pd.DataFrame:
        """The `k` rows of `to_frame` with the largest effects, in size."""
        return self.to_frame().sort_values("effect", key=abs, ascending=False, kind="stable")[:k]

    def plot(self) -> go.Figure:
        """Heatmap of what each head adds on average."""
        return head_heatmap(
            self.grid,
            title=f"Direct logit attribution of {self.provenance['model']}",
            colorbar="logits",
            diverging=True,
        )

    def __repr__(self) -> str:
        best = ", ".join(f"{row.component} {row.effect:+.2f}" for row in self.top(3).itertuples())
        return (
            f"LogitAttribution({self.total.mean():.2f} logits = {best}, ...; n = {len(self.total)})"
        )


@torch.no_grad()
def logit_attribution(
    model: Model, prompts: PromptSet, *, progress: bool = True
) -> LogitAttribution:
    """Split each prompt's logit difference, answer minus wrong answer, over the components.

    With several answers their logits are averaged, and those of wrong answers too: the metric
    `logit_diff` takes a logsumexp, which is no sum. With one of each the two are the same.

    Raises:
        MetricError: Prompts without wrong answers.
        PromptError: Prompts that the model cannot read.
        UnsupportedModel: The stream is not the sum of what the layers add.
    """
    if prompts.wrong is None:
        raise MetricError(
            "Logit attribution splits the difference between answers and wrong answers, and these "
            "prompts have no wrong ones; make them with wrong=."
        )
    weights, n_layers = Weights(model), model.geometry.n_layers
    layers = range(n_layers)
    heads = torch.empty(n_layers, model.geometry.n_heads, len(prompts), dtype=weights.dtype)
    others = torch.empty(2 * n_layers + 3, len(prompts), dtype=weights.dtype)
    for ends in ends_of(weights, prompts, progress=progress):
        rows = ends.group.rows
        answer, wrong = prompts.answer.cpu()[rows], prompts.wrong.cpu()[rows]
        read = mean_column(weights, answer) - mean_column(weights, wrong)
        level = _mean_bias(weights, answer) - _mean_bias(weights, wrong)
        for layer in layers:
            heads[layer][:, rows] = torch.einsum("phd,pd->hp", ends.heads(layer), read).cpu()
        parts = [*map(ends.mlp, layers), *map(ends.bias, layers), ends.embedding]
        sums = [(part * read).sum(dim=-1) for part in parts]
        total = (weights.final_norm(ends.stream) * read).sum(dim=-1)
        others[:, rows] = torch.stack([*sums, read @ ends.norm.bias + level, total + level]).cpu()
    mlps, biases, (embedding, constant, total) = others.split([n_layers, n_layers, 3])
    source = provenance(model, prompts, method="direct logit attribution")
    return LogitAttribution(heads, mlps, biases, embedding, constant, total, source)


@torch.no_grad()
def effects_on_answers(
    model: Model, prompts: PromptSet, *, progress: bool = True
) -> Float[Tensor, "layer head prompts"]:
    """What each head adds at END to the answer's logit, over what it adds to the mean logit.

    The mean is over the vocabulary. Several answers are averaged, and no wrong ones are needed.
    Raises PromptError and UnsupportedModel as `logit_attribution`.
    """
    weights, shape = Weights(model), model.geometry
    effects = torch.empty(shape.n_layers, shape.n_heads, len(prompts), dtype=weights.dtype)
    mean = mean_unembedding(weights)
    for ends in ends_of(weights, prompts, progress=progress):
        rows = ends.group.rows
        read = mean_column(weights, prompts.answer.cpu()[rows]) - mean
        for layer in range(shape.n_layers):
            effects[layer][:, rows] = torch.einsum("phd,pd->hp", ends.heads(layer), read).cpu()
    return effects


def ends_of(weights: Weights, prompts: PromptSet, *, progress: bool) -> Iterator[Ends]:
    """What components add at END of the prompts, some after others, as many as fit in memory."""
    require_fit(weights.model, prompts)
    parts = groups(prompts, largest_group(replay_of(weights.model), prompts))
    for group in track(parts, "Attributing logits", shown=progress):
        yield Ends(weights, group)


class Ends:
    """What each component adds, at END of prompts of one length, to what the unembedding reads.

    The scales of the final norm, and of norms behind attention, are those of the clean run.

    Attributes:
        group: The prompts.
        run: The clean run.
        stream: What leaves the last block.
        norm: The final norm.
        embedding: What the stream held before the first block, behind the final norm.

    Raises UnsupportedModel if the stream is not the sum of what the layers add.
    """

    def __init__(self, weights: Weights, group: Group) -> None:
        self.weights, self.group, self.replay = weights, group, replay_of(weights.model)
        kinds = [kind for kind in ("z", "attn_out", "mlp_out") if self.replay.has(kind)]
        self.run = self.replay.clean(group.tokens, kinds)
        self.stream = self.run.stream[-1][:, -1].to(weights.dtype)
        self.norm = frozen(self.replay.body.final_norm, self.stream, weights)
        self.embedding = self.norm(self._end("resid_pre", 0))
        layers = range(self.replay.n_layers)
        self._behind = [self._norms_behind(layer) for layer in layers]
        added = [self.heads(layer).sum(dim=1) + self.bias(layer) for layer in layers]
        total = torch.stack([self.embedding, *added, *map(self.mlp, layers)]).sum(dim=0)
        dtype = weights.model.dtype
        if not close(total.to(dtype), self.norm(self.stream).to(dtype)):
            raise UnsupportedModel(
                f"In {weights.model.id} the stream is not the sum of what heads and MLPs add, so "
                "logits cannot be attributed to them; patch or ablate the heads instead."
            )

    def heads(self, layer: int) -> Float[Tensor, "prompts head d_model"]:
        """What each head adds, without the layer's bias."""
        z = self._end("z", layer).unflatten(-1, (self.weights.model.geometry.n_heads, -1))
        added = torch.einsum("phe,hed->phd", z, self.weights.w_o(layer))
        for norm in self._behind[layer]:
            added = norm(added)
        return self.norm(added)

    def bias(self, layer: int) -> Float[Tensor, "prompts d_model"]:
        """What an attention layer adds whatever its heads say."""
        added = self._projected(layer, torch.zeros_like(self._end("z", layer)))
        for norm in self._behind[layer]:
            added = norm(added) + norm.bias
        return self.norm(added)

    def mlp(self, layer: int) -> Float[Tensor, "prompts d_model"]:
        """What the MLP adds; zero if there is none."""
        if "mlp_out" not in self.run.parts:
            return torch.zeros_like(self.stream)
        return self.norm(self._end("mlp_out", layer))

    def _end(self, kind: str, layer: int) -> Float[Tensor, "prompts features"]:
        return self.run.at(layer, kind)[:, -1].to(self.weights.dtype)

    def _projected(
        self, layer: int, z: Float[Tensor, "prompts features"]
    ) -> Float[Tensor, "prompts d_model"]:
        projection = self.replay.body.blocks[layer].after_heads[0]
        return projection(z.to(self.weights.model.dtype)).to(self.weights.dtype)

    def _norms_behind(self, layer: int) -> list[Frozen]:
        """The norms between the output projection of an attention layer and the stream."""
        added, norms = self._projected(layer, self._end("z", layer)), []
        for module in self.replay.body.blocks[layer].after_heads[1:]:
            norms.append(frozen(module, added, self.weights))
            added = norms[-1](added) + norms[-1].bias
        return norms


@dataclass(frozen=True, eq=False)
class Frozen:
    """A norm whose scale is held: a linear map for each prompt; `bias` is left for the caller."""

    scale: Float[Tensor, "prompts 1"]
    gain: Float[Tensor, " d_model"]
    bias: Float[Tensor, " d_model"]
    centred: bool

    def __call__(
        self, stream: Float[Tensor, "prompts *parts d_model"]
    ) -> Float[Tensor, "prompts *parts d_model"]:
        """The linear map, of any parts of the stream."""
        scale = self.scale.view(-1, *[1] * (stream.ndim - 1))
        return _centred(stream, self.centred) * self.gain * scale


def frozen(
    norm: nn.Module | None, stream: Float[Tensor, "prompts d_model"], weights: Weights
) -> Frozen:
    """A norm of any class, held at the scale that it has on a stream; None is no norm.

    Its bias is what it makes of zeros; it subtracts the mean if it makes the same of ones; its gain
    shows on a vector of +1 and -1, and the scale by comparison.

    Raises UnsupportedModel if that does not explain what it makes of the stream.
    """
    module = nn.Identity() if norm is None else copy.deepcopy(norm).to(weights.dtype)
    ones = torch.ones_like(stream[0])
    signs = 1 - 2 * (torch.arange(len(ones), device=ones.device) % 2).to(ones)
    bias = module(torch.zeros_like(ones))
    centred = not (module(ones) - bias).any()
    gain = (module(signs) - bias) / _centred(signs, centred)
    found, plain = module(stream) - bias, _centred(stream, centred) * gain
    scale = (found * plain).sum(dim=-1, keepdim=True) / plain.square().sum(dim=-1, keepdim=True)
    if not close(plain * scale, found):
        raise UnsupportedModel(
            f"{weights.model.id} has a {type(norm).__name__} that does more than scale, shift and "
            "centre, so logits cannot be attributed through it; patch or ablate the heads instead."
        )
    return Frozen(scale, gain, bias, centred)


def mean_unembedding(weights: Weights) -> Float[Tensor, " d_model"]:
    """The mean over the vocabulary of the columns of the unembedding."""
    vocabulary = torch.arange(weights.model.geometry.d_vocab)
    sums = [weights.w_u(some).sum(dim=-1) for some in vocabulary.split(CHUNK)]
    return torch.stack(sums).sum(dim=0) / len(vocabulary)


def mean_column(
    weights: Weights, tokens: Int[Tensor, "prompts choices"]
) -> Float[Tensor, "prompts d_model"]:
    """The mean column of the unembedding over the tokens of each prompt; -1 is none."""
    columns = weights.w_u(tokens.clamp(min=0).flatten()).T.unflatten(0, tokens.shape)
    share = _share(tokens).to(columns)
    return (columns * share[..., None]).sum(dim=1)


def _mean_bias(
    weights: Weights, tokens: Int[Tensor, "prompts choices"]
) -> Float[Tensor, " prompts"]:
    """The mean of what the unembedding adds to the logits of the tokens of each prompt."""
    nothing = torch.zeros(1, weights.model.geometry.d_model, dtype=weights.model.dtype)
    bias = weights.body.unembed(nothing.to(weights.model.device))[0].to(weights.dtype)
    share = _share(tokens).to(bias)
    return (bias[tokens.clamp(min=0).to(bias.device)] * share).sum(dim=1)


def _share(tokens: Int[Tensor, "prompts choices"]) -> Float[Tensor, "prompts choices"]:
    """The weight of each token in the mean over those of its prompt."""
    real = (tokens >= 0).double()
    return real / real.sum(dim=-1, keepdim=True)


def _centred(stream: Tensor, centred: bool) -> Tensor:
    return stream - stream.mean(dim=-1, keepdim=True) if centred else stream
