"""Bridge and module: one set of weights, one function."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from interp.models import Model, load
from tests.families import FAMILIES, tiny, tiny_tokenizer

TOKENS = torch.randint(90, (3, 9), generator=torch.Generator().manual_seed(1))
# Adapters that split a fused query-key-value weight into copies; see interp/models/bridge.py.
COPIES_QKV = {"gpt-neox", "bloom", "falcon"}


def storages(module: nn.Module) -> set[int]:
    tensors = [*module.parameters(), *module.buffers()]
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@pytest.mark.parametrize("family", FAMILIES)
def test_bridge_and_module_are_one_function(family: str) -> None:
    model = load(tiny(family), tiny_tokenizer(), check=False)
    expected = model.logits(TOKENS)
    assert expected.std() > 0.3, "weights too narrow to show an error"
    with torch.no_grad():
        torch.testing.assert_close(model.bridge(TOKENS), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_second_copy_of_the_weights(family: str) -> None:
    model = load(tiny(family), tiny_tokenizer(), check=False)
    own = storages(model.hf)
    inner = model.bridge.original_model
    copied = [
        name
        for name, tensor in [*inner.named_parameters(), *inner.named_buffers()]
        if tensor.untyped_storage().data_ptr() not in own
    ]
    # TransformerLens adds a zero bias to an unembedding that has none.
    copied = [name for name in copied if not name.endswith("head._original_component.bias")]
    if family in COPIES_QKV:
        assert copied
        copied = [n for n in copied if not any(f".{part}._original" in n for part in "qkv")]
    assert copied == []


def test_an_edit_of_the_weights_reaches_the_bridge() -> None:
    model = load(tiny("gpt2"), tiny_tokenizer(), check=False)
    before = model.bridge(TOKENS).detach()
    with torch.no_grad():
        model.hf.transformer.h[0].attn.c_attn.weight.add_(0.5)  # split in the bridge, but views
    torch.testing.assert_close(model.bridge(TOKENS), model.logits(TOKENS), rtol=0, atol=2e-5)
    assert (model.bridge(TOKENS) - before).abs().max() > 0.1


@pytest.mark.parametrize("family", ["gpt2", "llama", "gemma3", "mixtral", "native"])
def test_the_module_is_untouched_by_bridge_and_check(family: str) -> None:
    module = tiny(family)
    attention = None if family == "native" else module.config._attn_implementation
    twin = copy.deepcopy(module)
    expected = module(TOKENS)
    model = load(module, tiny_tokenizer())
    model.bridge.run_with_cache(TOKENS)
    assert model.hf is module
    assert [type(part) for part in module.modules()] == [type(part) for part in twin.modules()]
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), twin.parameters(), strict=True)
    )
    if attention is not None:
        assert module.config._attn_implementation == attention
        torch.testing.assert_close(module(TOKENS).logits, expected.logits, rtol=0, atol=0)
    assert all(len(part._forward_hooks) == 0 for part in module.modules())


def test_fused_attention_is_kept() -> None:
    assert load(tiny("llama"), tiny_tokenizer()).hf.config._attn_implementation == "sdpa"


def test_bridge_is_built_at_first_use_and_kept() -> None:
    model = load(tiny("gpt2"), tiny_tokenizer(), check=False)
    assert "bridge" not in vars(model)
    assert model.bridge is model.bridge


def test_the_tokenizer_is_not_changed() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token = None
    model = load(tiny("gpt2"), tokenizer)
    assert model.bridge.tokenizer.pad_token is not None
    assert (tokenizer.pad_token, tokenizer.eos_token, len(tokenizer)) == (None, None, 94)


def test_bridge_prepends_bos_to_text() -> None:
    model = load(tiny("gpt2"), tiny_tokenizer())
    assert model.bridge.to_tokens("w1 w2").tolist() == [[90, 1, 2]]
    assert model.bridge.to_tokens("w1 w2", prepend_bos=False).tolist() == [[1, 2]]


def test_gradients_reach_the_shared_weights() -> None:
    model = Model(tiny("llama"), tiny_tokenizer(), id="llama")
    model.bridge(TOKENS).logsumexp(-1).sum().backward()
    assert all(weight.grad is not None for weight in model.hf.parameters())
