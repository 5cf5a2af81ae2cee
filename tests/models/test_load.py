"""Every kind of source gives the same model."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp.errors import UnknownModel, UnsupportedModel
from interp.models import embedded, load, native, revisions
from tests.families import FAMILIES, tiny, tiny_tokenizer

TOKENS = torch.randint(90, (2, 7), generator=torch.Generator().manual_seed(1))


def saved(family: str, folder: Path) -> Path:
    module = tiny(family)
    if family.startswith("native"):
        return native.save(module, tiny_tokenizer(), folder)
    module.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_directory(family: str, tmp_path: Path) -> None:
    model = load(saved(family, tmp_path), device="cpu", check=False)
    expected = load(tiny(family), tiny_tokenizer(), check=False)
    assert model.id == str(tmp_path)
    assert model.geometry == expected.geometry
    assert model.weights_hash == expected.weights_hash
    assert not model.hf.training
    assert torch.equal(model.logits(TOKENS), expected.logits(TOKENS))
    assert model.encode("w1 w2") == [1, 2]


def test_path_string_and_check(tmp_path: Path) -> None:
    assert load(str(saved("llama", tmp_path))).dtype == torch.float32


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
@pytest.mark.parametrize("family", ["gpt2", "native"])
def test_dtype(family: str, dtype: str | torch.dtype, tmp_path: Path) -> None:
    model = load(saved(family, tmp_path), dtype=dtype, device="cpu")
    assert model.dtype == torch.bfloat16
    assert model.bridge.cfg.dtype == torch.bfloat16


def test_float32_is_the_default_whatever_the_file_holds(tmp_path: Path) -> None:
    tiny("llama").bfloat16().save_pretrained(tmp_path)
    assert load(tmp_path, tiny_tokenizer(), check=False).dtype == torch.float32


def test_an_object_keeps_its_own_dtype() -> None:
    assert load(tiny("llama").bfloat16(), tiny_tokenizer()).dtype == torch.bfloat16


def test_shards(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path, max_shard_size="30KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    expected = load(tiny("llama"), tiny_tokenizer(), check=False)
    assert load(tmp_path, tiny_tokenizer(), check=False).weights_hash == expected.weights_hash


def test_a_given_tokenizer_wins_over_the_files(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    assert load(saved("gpt2", tmp_path), tokenizer, check=False).tokenizer is tokenizer


def test_a_loaded_model_is_returned() -> None:
    model = load(tiny("gpt2"), tiny_tokenizer(), check=False)
    assert load(model) is model


def test_an_object_in_training_mode_is_put_in_eval_mode() -> None:
    assert not load(tiny("gpt2").train(), tiny_tokenizer(), check=False).hf.training


def test_loading_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    saved("gpt2", tmp_path)
    saved("native", tmp_path / "native")
    state = torch.get_rng_state()
    load(tmp_path)
    load(tmp_path / "native")
    assert torch.equal(torch.get_rng_state(), state)


def test_native_bridge_and_its_inside() -> None:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        d_model=32, d_head=8, n_layers=2, n_ctx=64, n_heads=4, d_vocab=100, attn_only=True, seed=0
    )
    bridge = TransformerBridge.boot_native(config)
    expected = bridge(TOKENS)
    for source in (bridge, bridge.original_model):
        model = load(source, tiny_tokenizer())
        torch.testing.assert_close(model.logits(TOKENS), expected, rtol=0, atol=1e-5)
        weight = bridge.original_model.tok_embed._original_component.weight
        assert model.hf.tok_embed.weight is weight
    torch.testing.assert_close(bridge(TOKENS), expected, rtol=0, atol=0)


def test_a_bridge_with_processed_weights_is_refused() -> None:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge import TransformerBridge

    config = TransformerBridgeConfig(
        d_model=32, d_head=8, n_layers=2, n_ctx=64, n_heads=4, d_vocab=100, attn_only=True, seed=0
    )
    bridge = TransformerBridge.boot_native(config)
    bridge._weights_processed = True  # what enable_compatibility_mode leaves behind
    with pytest.raises(UnsupportedModel, match="weights of this bridge have been processed"):
        load(bridge, tiny_tokenizer())


def test_native_keeps_every_field_of_its_config(tmp_path: Path) -> None:
    module = tiny("native-gqa")
    model = load(native.save(module, tiny_tokenizer(), tmp_path), check=False)
    ours, theirs = vars(copy.copy(model.hf.cfg)), vars(copy.copy(module.cfg))
    assert ours == theirs


# Embedded models and their checkpoints.


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, family in (("small", "gpt2"), ("heads", "native")):
        folder = saved(family, tmp_path / "models" / name)
        (folder / "checkpoints").mkdir()
        for step in (0, 200, 10000):
            weights = {k: v + step for k, v in tiny(family).state_dict().items()}
            weights.pop("lm_head.weight", None)  # tied
            save_file(weights, folder / "checkpoints" / f"step-{step:06d}.safetensors")
    monkeypatch.setattr(embedded, "data_dir", lambda: tmp_path)
    return tmp_path


def test_embedded_names_and_revisions(data: Path) -> None:
    (data / "models" / "half-made").mkdir()
    assert embedded.embedded_names() == ["heads", "small"]
    assert revisions("small") == ["step-000000", "step-000200", "step-010000"]
    assert load("small", check=False).id == "small"


def test_no_embedded_models_yet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(embedded, "data_dir", lambda: tmp_path)
    assert embedded.embedded_names() == []


@pytest.mark.parametrize("name", ["small", "heads"])
def test_a_revision_has_its_own_weights(name: str, data: Path) -> None:
    last, first = load(name, check=False), load(name, revision="step-000000", check=False)
    later = load(name, revision="step-000200", check=False)
    assert first.weights_hash == last.weights_hash != later.weights_hash
    shift = later.hf.state_dict()
    for key, weight in first.hf.state_dict().items():
        torch.testing.assert_close(shift[key], weight + 200)


def test_an_embedded_name_wins_over_a_directory(
    data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small").mkdir()
    assert load("small", check=False).geometry.n_layers == 2


def test_import_does_not_wait_for_transformer_lens() -> None:
    code = "import sys, interp.models; print('transformer_lens' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_garbage_is_collected_again_after_a_model_is_loaded() -> None:
    load("polymath", check=False)
    assert gc.isenabled()
    with pytest.raises(UnknownModel):
        load("polymat")
    assert gc.isenabled()
    gc.disable()
    try:
        load("polymath", check=False)
        assert not gc.isenabled()
    finally:
        gc.enable()
