"""From heads written as mathematics to the weights of a GPT-2 or Llama model.

A head is a score, a sum of `strength * <query read, key read>`, and what it moves: a read of the
attended position, written into one block of the stream. The norms are the identity (see `Stream`),
all biases but the lookup's are zero, and so is an MLP that is not given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from interp.zoo.handmade.stream import Stream
from interp.zoo.handmade.vocabulary import BOS, PAD, SPECIAL

M = TypeVar("M", bound=nn.Module)

N_CTX = 128
HARD = 20.0  # a lead of 20 nats leaves less than 128 * exp(-20) < 3e-7 to all other keys together
LOGIT = 20.0  # the logit of the answer; every other logit is 0


@dataclass(frozen=True)
class Term:
    """One summand of an attention score: strength * <query @ x_i, key @ x_j>."""

    strength: float
    query: Float[Tensor, "n d_model"]
    key: Float[Tensor, "n d_model"]


@dataclass(frozen=True)
class AttentionHead:
    """score: terms, summed. value: what is read where it attends; writes: the block it goes to."""

    score: tuple[Term, ...]
    value: Float[Tensor, "n d_model"] | None = None
    writes: str | None = None


@dataclass(frozen=True)
class Lookup:
    """An MLP with one hidden unit for each thing that `value` tells apart, copied to a block."""

    value: Float[Tensor, "n d_model"]
    writes: str


@dataclass(frozen=True)
class Layer:
    """Heads side by side, then the MLP."""

    heads: tuple[AttentionHead, ...]
    mlp: Lookup | None = None


def resting(stream: Stream, strength: float = HARD) -> Term:
    """The written-down key of <bos>, which a head with nothing else to attend to falls back on."""
    return Term(strength, query=stream.one, key=stream.read("token")[[BOS]])


@torch.no_grad()
def gpt2(
    stream: Stream, layers: Sequence[Layer], tokenizer: PreTrainedTokenizerFast
) -> GPT2LMHeadModel:
    """A GPT-2 whose embeddings write "token" and "position" and whose logits read "output"."""
    heads = [head for layer in layers for head in layer.heads]
    n_heads = len(layers[0].heads)
    wanted = [sum(len(term.query) for term in head.score) for head in heads]
    wanted += [len(head.value) for head in heads if head.value is not None]
    wanted += [math.ceil(stream.width / n_heads)]
    d_head = 8 * math.ceil(max(wanted) / 8)
    lookups = [len(layer.mlp.value) for layer in layers if layer.mlp]
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=N_CTX,
        n_embd=n_heads * d_head,
        n_layer=len(layers),
        n_head=n_heads,
        n_inner=max([8, *lookups]),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=BOS,
        eos_token_id=BOS,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    model = _blank(GPT2LMHeadModel(config))
    body: Any = model.transformer
    _put(body.wte.weight, stream.constant + stream.write("token").T)
    _put(body.wpe.weight, stream.write("position").T)
    _put(model.lm_head.weight, _unembedding(stream))

    norm = _Norm(stream, config.n_embd, config.layer_norm_epsilon, ("token", "position"))
    for layer, block in zip(layers, body.h, strict=True):
        norm.undo(block.ln_1)
        # Conv1D keeps [in, out], with queries, keys and values side by side.
        query, key, value = block.attn.c_attn.weight.view(-1, 3, n_heads, d_head).unbind(1)
        output = block.attn.c_proj.weight.view(n_heads, d_head, -1)
        for i, head in enumerate(layer.heads):
            scale = math.sqrt(d_head)  # undone by the attention's own 1 / sqrt(d_head)
            _put(query[:, i], torch.cat([scale * t.strength * t.query for t in head.score]).T)
            _put(key[:, i], torch.cat([t.key for t in head.score]).T)
            if head.value is not None and head.writes is not None:
                _put(value[:, i], head.value.T)
                _put(output[i], stream.write(head.writes).T)
                norm.add(head.writes)
        norm.undo(block.ln_2)
        if layer.mlp:
            # A unit is at +10 for its own thing and at -10 otherwise: GELU gives exactly 10 or 0.
            _put(block.mlp.c_fc.weight, 20 * layer.mlp.value.T)
            block.mlp.c_fc.bias.fill_(-10)
            _put(block.mlp.c_proj.weight, stream.write(layer.mlp.writes).T / 10)
            norm.add(layer.mlp.writes)
    norm.undo(body.ln_f)
    return model.eval()


@dataclass(frozen=True)
class KeyValue:
    """The keys and values that a group of query heads shares."""

    key: Float[Tensor, "d_head d_model"]
    value: Float[Tensor, "n d_model"]


@dataclass(frozen=True)
class Query:
    """A query head; with `writes`, the values that it attends to go to that block."""

    query: Float[Tensor, "d_head d_model"]
    writes: str | None = None


@dataclass(frozen=True)
class GroupedLayer:
    """Query heads and the key/value heads that they share, in consecutive groups of one size."""

    key_values: tuple[KeyValue, ...]
    queries: tuple[Query, ...]


@torch.no_grad()
def llama(
    stream: Stream,
    layers: Sequence[GroupedLayer],
    tokenizer: PreTrainedTokenizerFast,
    *,
    d_head: int,
    rope_theta: float,
) -> LlamaForCausalLM:
    """A Llama whose embedding writes "token" and whose logits read "output"."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=N_CTX,
        hidden_size=8 * math.ceil(stream.width / 8),
        intermediate_size=8,
        num_hidden_layers=len(layers),
        num_attention_heads=len(layers[0].queries),
        num_key_value_heads=len(layers[0].key_values),
        head_dim=d_head,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
        bos_token_id=BOS,
        eos_token_id=BOS,
        pad_token_id=PAD,
        tie_word_embeddings=False,
    )
    model = _blank(LlamaForCausalLM(config))
    _put(model.model.embed_tokens.weight, stream.constant + stream.write("token").T)
    _put(model.lm_head.weight, _unembedding(stream))

    norm = _Norm(stream, config.hidden_size, config.rms_norm_eps, ("token",))
    blocks: Any = model.model.layers
    for layer, block in zip(layers, blocks, strict=True):
        norm.undo(block.input_layernorm)
        attention = block.self_attn
        for i, shared in enumerate(layer.key_values):
            _put(attention.k_proj.weight.view(-1, d_head, config.hidden_size)[i], shared.key)
            _put(attention.v_proj.weight.view(-1, d_head, config.hidden_size)[i], shared.value)
        output = attention.o_proj.weight.view(config.hidden_size, -1, d_head)
        for i, head in enumerate(layer.queries):
            query = attention.q_proj.weight.view(-1, d_head, config.hidden_size)[i]
            _put(query, math.sqrt(d_head) * head.query)
            if head.writes is not None:
                _put(output[:, i], stream.write(head.writes))
                norm.add(head.writes)
        norm.undo(block.post_attention_layernorm)
    norm.undo(model.model.norm)
    return model.eval()


class _Norm:
    """Follows the squared norm of the stream through the layers."""

    def __init__(self, stream: Stream, d_model: int, eps: float, blocks: Sequence[str]) -> None:
        self.stream, self.d_model, self.eps = stream, d_model, eps
        self.squared = float(stream.constant.square().sum())
        for block in blocks:
            self.add(block)

    def add(self, block: str) -> None:
        self.squared += self.stream.squared_norm(block)

    def undo(self, norm: Any) -> None:
        """Give a norm the weight that makes it the identity on this stream."""
        norm.weight.fill_(math.sqrt(self.squared / self.d_model + self.eps))


def _unembedding(stream: Stream) -> Float[Tensor, "d_vocab d_model"]:
    """LOGIT for the token in "output"; <bos> there means that nothing is to be said."""
    rows = LOGIT * stream.read("output")
    rows[: len(SPECIAL)] = 0
    return rows


def _blank(model: M) -> M:
    for parameter in model.parameters():
        parameter.zero_()
    return model


def _put(target: Tensor, source: Tensor) -> None:
    """Write into the first rows and columns; the rest stays zero."""
    target[tuple(slice(n) for n in source.shape)] = source
