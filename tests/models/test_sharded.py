"""Models on several devices, in memory and on disk: where they are put, and what they still say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from accelerate import dispatch_model

from interp.errors import InterpError, ModelError
from interp.models import load
from interp.models.bridge import share_weights
from interp.models.placement import is_kept_elsewhere, is_spread, runs_on
from interp.models.pretrained import Spread
from tests.families import tiny, tiny_tokenizer
from tests.models.test_load import TOKENS, saved
from tests.pretend import pretend_devices, spread

PLACES = {
    "model.embed_tokens": "cpu",
    "model.rotary_emb": "cpu",
    "model.layers.0": "disk",
    "model.layers.1": "cpu",
    "model.norm": "cpu",
    "lm_head": "disk",
}


def refused(*says: str, **options: Any) -> None:
    with pytest.raises(InterpError) as raised:
        load(check=False, **options)
    assert type(raised.value) is ModelError
    for part in says:
        assert part in str(raised.value)
    assert len(re.findall(r"[.?](?:\s|$)", str(raised.value))) <= 2


def test_weights_on_disk(tmp_path: Path) -> None:
    model = load(saved("llama", tmp_path), device_map=PLACES)
    plain = load(tmp_path, device="cpu", check=False)
    assert is_spread(model.hf)
    assert is_kept_elsewhere(model.hf)
    assert model.hf.model.layers[0].mlp.up_proj.weight.is_meta
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)
    assert model.weights_hash == plain.weights_hash
    assert torch.equal(model.logits(TOKENS), plain.logits(TOKENS))


def test_experts_on_disk_are_written_into_the_offload_folder(tmp_path: Path) -> None:
    saved("mixtral", tmp_path)
    refused("offload_folder", source=tmp_path, device_map=PLACES)
    kept = tmp_path / "kept"
    model = load(tmp_path, device_map=PLACES, offload_folder=kept, check=False)
    assert list(kept.glob("*experts*"))
    assert torch.equal(model.logits(TOKENS), load(tmp_path, check=False).logits(TOKENS))


def test_automatic_maps_use_what_there_is(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    for way in ({"device_map": "auto"}, {"device": "auto"}, {"device_map": "sequential"}):
        model = load(tmp_path, check=False, **way)
        assert model.logits(TOKENS).shape == (2, 7, 100)


def test_max_memory_sends_the_rest_to_disk(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    options = {"device_map": "auto", "max_memory": {"cpu": "60KB"}}
    model = load(tmp_path, offload_folder=tmp_path / "kept", check=False, **options)
    assert "disk" in model.hf.hf_device_map.values()
    assert torch.equal(model.logits(TOKENS), load(tmp_path, check=False).logits(TOKENS))
    refused("0.0 GB on cpu", "pass offload_folder=", source=tmp_path, **options)


def test_the_memory_of_all_devices_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved("llama", tmp_path)
    memory = psutil.virtual_memory()._replace(available=1000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    refused("more than all of what is free", source=tmp_path, device_map="auto")
    assert load(tmp_path, device_map=PLACES, check=False).geometry.n_layers == 2  # disk has room


def test_options_at_odds(tmp_path: Path) -> None:
    saved("llama", tmp_path)
    refused("pass one of them", source=tmp_path, device="cpu", device_map="auto")
    refused("did you mean auto?", source=tmp_path, device_map="autos")
    refused("device_map='auto'", source=tmp_path, max_memory={"cpu": "1GB"})
    refused("device_map='auto'", source=tmp_path, offload_folder=tmp_path)
    refused("'cuda:7' cannot be used here", source=tmp_path, device_map={**PLACES, "lm_head": 7})
    refused("no device for lm_head.weight", source=tmp_path, device_map={"model": "cpu"})
    refused(
        "did you mean model.norm", source=tmp_path, device_map={"": "cpu", "model.norms": "cpu"}
    )
    refused("device_map= cannot be applied", source=tiny("gpt2"), device_map="auto")


def test_a_native_model_is_not_spread(tmp_path: Path) -> None:
    refused("TransformerLensNative", source=saved("native", tmp_path), device_map="auto")


def test_where_a_map_may_lead() -> None:
    assert [str(each) for each in Spread({"a": 1, "b": "cpu", "c": 0}, None, None).devices] == [
        "cpu",
        "cuda:0",
        "cuda:1",
    ]
    assert Spread({"a": "disk"}, None, None).reaches_disk
    assert Spread("auto", None, "folder").reaches_disk
    assert not Spread("auto", None, None).reaches_disk


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "falcon"])
def test_a_module_that_is_spread_passes_its_check(family: str) -> None:
    plain = load(tiny(family), tiny_tokenizer())
    with pretend_devices():
        model = load(spread(tiny(family)), tiny_tokenizer())  # its check runs here
        assert str(model.device) == "pretend:0"
        assert model.places == "pretend:0, pretend:1"
        assert model.weights_hash == plain.weights_hash
        assert model.check().to_frame()["status"].tolist() == [
            row.status for row in plain.check().rows
        ]


def test_a_structural_copy_shares_what_is_kept_elsewhere(tmp_path: Path) -> None:
    places = {**PLACES, "lm_head": "cpu"}
    module = dispatch_model(tiny("llama"), places, offload_dir=str(tmp_path))
    copied = share_weights(module)
    own, other = (each.model.layers[0].mlp.up_proj for each in (module, copied))
    assert own is not other
    assert other._hf_hook.weights_map is own._hf_hook.weights_map
    assert torch.equal(copied(TOKENS).logits, module(TOKENS).logits)
    assert "to" not in copied.__dict__  # that of the original would move the original
    assert runs_on(copied) == torch.device("cpu")


def test_a_control_is_spread_alike() -> None:
    with pretend_devices():
        model = load(spread(tiny("gpt2")), tiny_tokenizer(), check=False)
        control = model.untrained()
        assert control.hf.hf_device_map == model.hf.hf_device_map
        tokens = TOKENS.to(model.device)
        assert not torch.equal(control.logits(tokens).cpu(), model.logits(tokens).cpu())


def test_no_control_of_a_model_on_disk_and_no_copy(tmp_path: Path) -> None:
    model = load(saved("llama", tmp_path), device_map=PLACES, check=False)
    with pytest.raises(ModelError, match="fresh weights cannot take the places"):
        model.untrained()
    with pytest.raises(ModelError, match="spread by device_map over cpu, disk"):
        model.own_copy("A weight vector")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_balanced_over_gpus(tmp_path: Path) -> None:
    plain = load(saved("llama", tmp_path), device="cpu", check=False)
    model = load(tmp_path, device_map="balanced", max_memory={0: "60KB", 1: "1GB"})
    assert len({each.device for each in model.hf.parameters()}) == 2
    torch.testing.assert_close(model.logits(TOKENS).cpu(), plain.logits(TOKENS), rtol=0, atol=1e-4)
