"""Sizes come from the config, whatever the family calls them."""

from __future__ import annotations

import pytest
import torch
from transformers import Gemma3Config, GPTBigCodeConfig, GPTBigCodeForCausalLM

from interp.models import Geometry, Model
from tests.families import FAMILIES, tiny, tiny_tokenizer

KV_HEADS = {
    "falcon": 1,
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "olmo2", "mixtral"), 2
    ),
    "native-gqa": 2,
}
WIDE_HEADS = {"qwen3": 16, "gemma2": 16, "gemma3": 16}
UNLIMITED = {"bloom": 2048}


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes(family: str) -> None:
    module = tiny(family)
    found = Model(module, tiny_tokenizer(), id=family).geometry
    native = family.startswith("native")
    assert found == Geometry(
        architecture="TransformerLensNative" if native else type(module).__name__,
        n_layers=2,
        n_heads=4,
        n_kv_heads=KV_HEADS.get(family, 4),
        d_head=WIDE_HEADS.get(family, 8),
        d_model=32,
        d_vocab=100,
        n_ctx=UNLIMITED.get(family, 64),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_sizes_are_those_of_the_activations(family: str) -> None:
    model = Model(tiny(family), tiny_tokenizer(), id=family)
    seen = {}
    hooks = [
        (f"blocks.0.attn.hook_{part}", lambda value, hook: seen.update({hook.name: value.shape}))
        for part in ("q", "k", "z")
    ]
    model.bridge.run_with_hooks(torch.tensor([[1, 2, 3]]), fwd_hooks=hooks)
    sizes = model.geometry
    queries, keys, results = seen.values()
    assert queries == results == (1, 3, sizes.n_heads, sizes.d_head)
    assert keys == (1, 3, sizes.n_kv_heads, sizes.d_head)


def test_multi_query_of_gpt_bigcode() -> None:
    for multi_query, kv_heads in ((True, 1), (False, 4)):
        config = GPTBigCodeConfig(n_embd=32, n_layer=2, n_head=4, multi_query=multi_query)
        found = Geometry.from_config(config, GPTBigCodeForCausalLM.__name__)
        assert found.n_kv_heads == kv_heads


def test_text_part_of_a_multimodal_config() -> None:
    config = Gemma3Config(text_config={"hidden_size": 48, "num_hidden_layers": 3, "head_dim": 20})
    found = Geometry.from_config(config, "Gemma3ForConditionalGeneration")
    assert (found.d_model, found.n_layers, found.d_head) == (48, 3, 20)
