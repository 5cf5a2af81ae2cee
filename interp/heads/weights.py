"""What the weights of a head do on their own, without running the model on text.

    x W_V  ->  z  ->  z W_O  ->  the residual stream  ->  final norm, W_U  ->  logits

The maps are read off the model's own modules, so any architecture has them, and a query head of a
grouped-query model gets the values of its group. All are float32, or float64 in a float64 model.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from interp.engine.anatomy import Part
from interp.engine.replay import replay_of
from interp.errors import UnsupportedModel
from interp.models import Model
from interp.models.placement import held
from interp.models.quantised import is_matrix, require_plain


class _Stop(Exception):
    """Ends a run of the model: what was wanted has been seen."""


class Weights:
    """The linear maps of every head, and what stands before and behind them.

    Raises UnsupportedModel, when asked, for what an architecture does not have.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.body = replay_of(model).body
        self.dtype = torch.float64 if model.dtype == torch.float64 else torch.float32

    @torch.no_grad()
    def embed(self, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "tokens d_model"]:
        """What each token alone puts into the stream; learned positions are taken out."""
        entered = self._seen(tokens, self.body.blocks[0].parts["resid_pre"])
        return entered - self._position()

    @torch.no_grad()
    def first_mlp(
        self, stream: Float[Tensor, "tokens d_model"], *, norm: bool = True
    ) -> Float[Tensor, "tokens d_model"]:
        """What the MLP of block 0 makes of a stream that no head has written to.

        `norm`: whether the stream goes through the MLP's own norm first.
        """
        block = self.body.blocks[0]
        if "mlp_out" not in block.parts:
            raise UnsupportedModel(f"{self.model.id} has no MLP in its first block.")
        hooks: list[tuple[Part, Callable[[Tensor], Tensor | None]]] = [
            (block.parts["resid_pre"], lambda x: stream[:, None].to(x)),
            (block.parts["attn_out"], torch.zeros_like),
        ]
        if not norm and block.mlp_norm is not None:
            hooks.append((Part(block.mlp_norm, "out"), lambda x: stream[:, None].to(x)))
        tokens = torch.zeros(len(stream), dtype=torch.long)
        return self._seen(tokens, block.parts["mlp_out"], hooks)

    def w_q(self, layer: int) -> Float[Tensor, "head d_model d_head"]:
        """Queries of each head from the normed stream."""
        return self._projection(layer, "q")[0]

    def w_k(self, layer: int) -> Float[Tensor, "head d_model d_head"]:
        """Keys that each query head reads; heads of one group share them."""
        return self._projection(layer, "k")[0]

    def w_v(self, layer: int) -> Float[Tensor, "head d_model d_head"]:
        """Values that each query head reads; heads of one group share them."""
        return self._projection(layer, "v")[0]

    def b_q(self, layer: int) -> Float[Tensor, "head d_head"]:
        """Biases of the queries; zeros if there are none."""
        return self._projection(layer, "q")[1]

    def b_k(self, layer: int) -> Float[Tensor, "head d_head"]:
        """Biases of the keys; zeros if there are none."""
        return self._projection(layer, "k")[1]

    def b_v(self, layer: int) -> Float[Tensor, "head d_head"]:
        """Biases of the values; zeros if there are none."""
        return self._projection(layer, "v")[1]

    def w_o(self, layer: int) -> Float[Tensor, "head d_head d_model"]:
        """From the output z of each head to what it adds to the stream (without the bias)."""
        weight, _ = _affine(self.body.blocks[layer].after_heads[0], self.model)
        return weight.unflatten(0, (self.model.geometry.n_heads, -1)).to(self.dtype)

    def attn_norm(
        self, layer: int, stream: Float[Tensor, "*n d_model"]
    ) -> Float[Tensor, "*n d_model"]:
        """The stream as the heads of a layer read it; itself where there is no norm."""
        return self._normed(self.body.blocks[layer].attn_norm, stream)

    def final_norm(self, stream: Float[Tensor, "*n d_model"]) -> Float[Tensor, "*n d_model"]:
        """The stream as the unembedding reads it."""
        return self._normed(self.body.final_norm, stream)

    def w_u(self, tokens: Int[Tensor, " tokens"] | None = None) -> Float[Tensor, "d_model tokens"]:
        """The unembedding, of some tokens or of all; logits are `final_norm(stream) @ w_u()`."""
        unembed: Any = self.body.unembed
        if isinstance(unembed, nn.Linear):
            rows = _held(unembed, "weight", self.model)
            assert rows is not None
            rows = rows if tokens is None else rows[tokens.to(rows.device)]
            return rows.detach().to(self.dtype).T
        weight, _ = _affine(unembed, self.model)
        weight = weight.to(self.dtype)
        return weight if tokens is None else weight[:, tokens.to(weight.device)]

    def _projection(
        self, layer: int, kind: str
    ) -> tuple[Float[Tensor, "head d_model d_head"], Float[Tensor, "head d_head"]]:
        parts = self.body.blocks[layer].parts
        if kind not in parts:
            raise UnsupportedModel(
                f"{self.model.id} has no separate {kind} in its attention, so its heads cannot be "
                "read by their weights alone."
            )
        part, shape = parts[kind], self.model.geometry
        weight, bias = _affine(part.module, self.model)
        if part.columns is not None:
            columns = part.columns.to(weight.device)
            weight, bias = weight[:, columns], bias[columns]
        group = shape.n_heads // part.heads
        heads = weight.to(self.dtype).unflatten(-1, (part.heads, -1)).permute(1, 0, 2)
        biases = bias.to(self.dtype).unflatten(-1, (part.heads, -1))
        return heads.repeat_interleave(group, 0), biases.repeat_interleave(group, 0)

    @torch.no_grad()
    def _normed(self, norm: nn.Module | None, stream: Tensor) -> Tensor:
        if norm is None:
            return stream
        return norm(stream.to(self.model.dtype)).to(stream.device, self.dtype)

    @torch.no_grad()
    def _position(self) -> Float[Tensor, " d_model"] | float:
        """What learned positions add to a token at position 0."""
        bridge: Any = self.model.bridge
        mapping = bridge.adapter.component_mapping
        if "pos_embed" not in mapping:
            return 0.0
        table = self.body.module.get_submodule(mapping["pos_embed"].name)
        seen = self._seen(torch.zeros(1, dtype=torch.long), Part(table, "out"))
        return seen[0]

    def _seen(
        self,
        tokens: Int[Tensor, " tokens"],
        part: Part,
        hooks: list[tuple[Part, Callable[[Tensor], Tensor | None]]] | None = None,
    ) -> Float[Tensor, "tokens features"]:
        """What a part holds when the model reads each token on its own; the rest is not run."""
        found: list[Tensor] = []

        def keep(activation: Tensor) -> None:
            found.append(activation.detach().clone())
            raise _Stop

        with ExitStack() as stack, suppress(_Stop):
            for where, function in hooks or []:
                stack.enter_context(where.hook(function))
            stack.enter_context(part.hook(keep))
            self.body.module(input_ids=tokens.to(self.model.device)[:, None])
        rows = found[0].reshape(-1, found[0].shape[-1])
        return rows.to(self.model.device, self.dtype)


@torch.no_grad()
def _affine(
    module: nn.Module, model: Model
) -> tuple[Float[Tensor, "features_in features_out"], Float[Tensor, " features_out"]]:
    """Weight and bias of a linear module, where the model begins."""
    if not isinstance(module, nn.Linear | Conv1D):
        raise UnsupportedModel(
            f"{model.id} has a {type(module).__name__} where a linear map stands in other models, "
            "so its heads cannot be read by their weights alone."
        )
    weight, bias = _held(module, "weight", model), _held(module, "bias", model)
    assert weight is not None
    weight = weight.T if isinstance(module, nn.Linear) else weight
    return weight, weight.new_zeros(weight.shape[1]) if bias is None else bias


def _held(module: nn.Module, name: str, model: Model) -> Tensor | None:
    """A parameter of a module, where the model begins.

    Raises ModelError for one that is quantised.
    """
    if not is_matrix(module):
        require_plain(model, "Reading heads by themselves takes")
    tensor = held(module, name)
    return None if tensor is None else tensor.to(model.device)
