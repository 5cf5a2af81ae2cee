"""Quantised models run; what reads their weights or needs gradients says that it cannot.

`Rounded` stands in for the layers of bitsandbytes and torchao, which are tried where they are
installed.
"""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from interp.engine import Zero, ablate, attribute, everywhere, patch_edges, run
from interp.engine.graph import graph_edges
from interp.engine.interventions import Patch
from interp.engine.naive import naive
from interp.engine.replay import replay_of
from interp.engine.subgraph import run_subgraphs
from interp.errors import ModelError, UnsupportedModel
from interp.heads.weights import Weights
from interp.models import Model, load, quantised
from interp.models.quantised import quantisation
from interp.prompts import PromptSet
from interp.sites import heads
from tests.families import tiny, tiny_tokenizer
from tests.models.test_load import TOKENS, saved

QUIET: dict[str, Any] = {"progress": False}


class Rounded(nn.Linear):
    """A linear layer whose weight is held in 8 bits."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features, bias=linear.bias is not None)
        scale = linear.weight.abs().amax(dim=1, keepdim=True) / 127
        rounded = (linear.weight / scale).round().to(torch.int8)
        self.weight = nn.Parameter(rounded, requires_grad=False)
        self.bias = linear.bias
        self.register_buffer("scale", scale.detach())

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.weight * self.scale, self.bias)


def rounded() -> Model:
    module: Any = tiny("llama")
    for layer in module.model.layers:
        for part in (layer.self_attn, layer.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(part, name, Rounded(child))
    return load(module.eval(), tiny_tokenizer())


def pairs() -> PromptSet:
    clean = torch.randint(90, (3, 7), generator=torch.Generator().manual_seed(0))
    corrupt = clean.clone()
    corrupt[:, 2] = (corrupt[:, 2] + 5) % 90
    return PromptSet.from_tokens(clean, corrupt=corrupt, answer=[1, 2, 3], wrong=[4, 5, 6])


def runs_and_refuses(model: Model) -> None:
    """What a quantised model gives and what it refuses, whatever quantised it."""
    prompts, replay = pairs(), replay_of(model)
    assert (replay.works, replay.cached, replay.splits) == (True, True, True)
    every = everywhere(heads(model), Zero())
    found = run(model, prompts, every, **QUIET).values
    torch.testing.assert_close(found, naive(model, prompts, every), rtol=0, atol=1e-4)
    assert patch_edges(model, prompts, ["input->1.0.k"], **QUIET).values.isfinite().all()
    assert len(model.weights_hash) == 16
    circuits = torch.ones(1, len(graph_edges(model)), dtype=torch.bool)
    for refused, says in (
        (lambda: attribute(model, prompts, **QUIET), "takes gradients"),
        (lambda: ablate(model, prompts, heads(model), method="optimal", **QUIET), "gradients"),
        (lambda: run_subgraphs(model, prompts, circuits, Patch(), **QUIET), "as matrices"),
        (lambda: Weights(model).w_o(0), "as matrices"),
        (lambda: ablate(model, prompts, dtype="float64", **QUIET), "dtype='float64' needs"),
        (lambda: model.own_copy("Fine-tuning"), "can be changed"),
    ):
        with pytest.raises(ModelError, match=says) as raised:
            refused()
        assert f"quantised ({quantisation(model.hf)})" in str(raised.value)


def test_weights_of_eight_bits_run_and_are_not_read() -> None:
    model = rounded()
    assert quantisation(model.hf) == "int8"
    assert model.dtype == torch.float32
    runs_and_refuses(model)


def test_plain_models_are_not_taken_for_quantised() -> None:
    assert quantisation(tiny("gpt2")) is None
    assert quantisation(tiny("mixtral").bfloat16()) is None
    assert quantisation(tiny("native")) is None


def test_a_control_has_plain_weights() -> None:
    model = rounded()
    model.hf.config.quantization_config = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    assert quantisation(model.hf) == "bitsandbytes"
    assert quantisation(model.untrained().hf) is None


@pytest.mark.parametrize("method", ["bitsandbytes", "torchao"])
def test_a_missing_library_is_named(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved("llama", tmp_path) / "config.json"
    config = json.loads(path.read_text()) | {"quantization_config": {"quant_method": method}}
    path.write_text(json.dumps(config))
    monkeypatch.setattr(quantised, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=f"`pip install {method}`"):
        load(tmp_path)


LIBRARIES = {"bnb-8": "bitsandbytes", "bnb-4": "bitsandbytes", "torchao": "torchao"}


def config_of(kind: str) -> Any:
    import transformers

    if find_spec(LIBRARIES[kind]) is None:
        pytest.skip(f"{LIBRARIES[kind]} is not installed")
    if kind == "bnb-8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    if kind == "bnb-4":
        return transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_compute_dtype=torch.float32
        )
    from torchao.quantization import Int8WeightOnlyConfig

    return transformers.TorchAoConfig(Int8WeightOnlyConfig())


def checkpoint(kind: str, folder: Path) -> Path:
    """A small Llama (64 wide, as their blocks ask for), quantised and saved."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = config_of(kind)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = LlamaForCausalLM(
            LlamaConfig(vocab_size=100, num_attention_heads=4, max_position_embeddings=64, **sizes)
        )
    plain.save_pretrained(folder / "plain")
    module = LlamaForCausalLM.from_pretrained(
        folder / "plain", quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    module.save_pretrained(folder / "small")
    tiny_tokenizer().save_pretrained(folder / "small")
    return folder / "small"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", LIBRARIES)
def test_a_quantised_checkpoint_runs_and_is_not_read(kind: str, tmp_path: Path) -> None:
    folder = checkpoint(kind, tmp_path)
    model = load(folder, device="cpu")
    untouched = load(folder, device="cpu", check=False)  # none of its layers has run
    assert untouched.weights_hash == model.weights_hash
    assert quantisation(model.hf) == LIBRARIES[kind]
    logits = model.logits(TOKENS)
    runs_and_refuses(model)
    assert torch.equal(model.logits(TOKENS), logits)  # no copy has taken anything from it


@pytest.mark.filterwarnings("ignore")
def test_a_quantised_projection_that_would_be_split_is_refused(tmp_path: Path) -> None:
    config = config_of("bnb-8")
    module: Any = tiny("gpt-neox")
    module.save_pretrained(tmp_path)
    module = type(module).from_pretrained(
        tmp_path, quantization_config=config, dtype=torch.float32, device_map="cpu"
    )
    with pytest.raises(UnsupportedModel, match=r"quantised \(bitsandbytes\), perhaps in one"):
        load(module, tiny_tokenizer())
