"""Tiny random models of many architectures, with weights wide enough to show any error.

>>> module = tiny("gpt2")
>>> tokenizer = tiny_tokenizer()
>>> tokenizer("w1 w2")["input_ids"]
[1, 2]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import nn
from transformers import PreTrainedTokenizerFast

VOCAB = 100
SPECIAL = ("<bos>", "<eos>", "<pad>", "<unk>")
_COMMON: dict[str, Any] = {
    "vocab_size": VOCAB,
    "bos_token_id": 90,
    "eos_token_id": 91,
    "pad_token_id": 92,
}
# Sizes as most configs call them: 2 layers, 4 heads of 8, MLP of 48, 64 positions.
_SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
_GPT2_SIZES: dict[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer made in memory: w0..w89 are ids 0..89, then bos, eos, pad, unk."""
    vocab = {f"w{i}": i for i in range(90)} | {token: 90 + i for i, token in enumerate(SPECIAL)}
    words = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    bos, eos, pad, unk = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=words, bos_token=bos, eos_token=eos, pad_token=pad, unk_token=unk
    )


def tiny(family: str, *, seed: int = 0) -> nn.Module:
    """A random model of a family in FAMILIES, in eval mode; one seed, one set of weights."""
    return FAMILIES[family](seed=seed)


def _transformers(model: str, config: str, **sizes: Any) -> Callable[..., nn.Module]:
    def build(*, seed: int = 0) -> nn.Module:
        options = {**_COMMON, **sizes}
        with _seeded(seed):
            module = getattr(transformers, model)(getattr(transformers, config)(**options))
            return _widen(module)

    return build


def _native(**sizes: Any) -> Callable[..., nn.Module]:
    def build(*, seed: int = 0) -> nn.Module:
        from transformer_lens.config import TransformerBridgeConfig
        from transformer_lens.model_bridge.sources.native import NativeModel

        config = TransformerBridgeConfig(
            d_model=32, n_heads=4, n_layers=2, n_ctx=64, d_vocab=VOCAB, device="cpu", **sizes
        )
        with _seeded(seed):
            return _widen(NativeModel(config))

    return build


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _widen(module: nn.Module) -> nn.Module:
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
            else:  # norms and biases, around what they were
                parameter.add_(0.2 * torch.randn(parameter.shape))
    return module.eval()


FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "gpt2": _transformers("GPT2LMHeadModel", "GPT2Config", **_GPT2_SIZES),
    "gpt-neo": _transformers(
        "GPTNeoForCausalLM",
        "GPTNeoConfig",
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        attention_types=[[["global", "local"], 1]],
        window_size=4,
        max_position_embeddings=64,
    ),
    "gpt-j": _transformers("GPTJForCausalLM", "GPTJConfig", **_GPT2_SIZES, rotary_dim=4),
    "gpt-neox": _transformers("GPTNeoXForCausalLM", "GPTNeoXConfig", **_SIZES),
    "opt": _transformers(
        "OPTForCausalLM", "OPTConfig", **_SIZES, ffn_dim=48, word_embed_proj_dim=32
    ),
    "bloom": _transformers("BloomForCausalLM", "BloomConfig", hidden_size=32, n_layer=2, n_head=4),
    "falcon": _transformers("FalconForCausalLM", "FalconConfig", **_SIZES, multi_query=True),
    "llama": _transformers("LlamaForCausalLM", "LlamaConfig", **_SIZES, num_key_value_heads=2),
    "mistral": _transformers(
        "MistralForCausalLM", "MistralConfig", **_SIZES, num_key_value_heads=2, sliding_window=4
    ),
    "qwen2": _transformers("Qwen2ForCausalLM", "Qwen2Config", **_SIZES, num_key_value_heads=2),
    "qwen3": _transformers(
        "Qwen3ForCausalLM", "Qwen3Config", **_SIZES, num_key_value_heads=2, head_dim=16
    ),
    "gemma2": _transformers(
        "Gemma2ForCausalLM",
        "Gemma2Config",
        **_SIZES,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=4,
        query_pre_attn_scalar=16,
    ),
    "gemma3": _transformers(
        "Gemma3ForCausalLM",
        "Gemma3TextConfig",
        **_SIZES,
        num_key_value_heads=2,
        head_dim=16,
        sliding_window=4,
        query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "phi": _transformers("PhiForCausalLM", "PhiConfig", **_SIZES),
    "olmo2": _transformers("Olmo2ForCausalLM", "Olmo2Config", **_SIZES, num_key_value_heads=2),
    "mixtral": _transformers(
        "MixtralForCausalLM",
        "MixtralConfig",
        **_SIZES,
        num_key_value_heads=2,
        num_local_experts=4,
        num_experts_per_tok=2,
    ),
    "native": _native(d_head=8, attn_only=True),
    "native-gqa": _native(
        d_head=8, d_mlp=48, n_key_value_heads=2, positional_embedding_type="rotary"
    ),
}
