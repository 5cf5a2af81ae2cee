"""A model goes to another process and is the same there, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import interp
from interp.errors import ClusterError, ModelError
from interp.models import Model
from interp.workers.devices import copies
from interp.workers.model_source import Source, Weights
from tests.families import FAMILIES, tiny, tiny_tokenizer

cloudpickle = pytest.importorskip("ray.cloudpickle")
TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])


def sent(model: Model) -> Model:
    """What arrives."""
    source = cloudpickle.loads(cloudpickle.dumps(Source.of(model)))
    weights = cloudpickle.loads(cloudpickle.dumps(Weights.of(model)))
    return source.from_weights(weights, "cpu")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_module_arrives_as_it_was_sent(family: str) -> None:
    model = Model(tiny(family), tiny_tokenizer(), id=family)
    arrived = sent(model)
    assert torch.equal(arrived.logits(TOKENS), model.logits(TOKENS))
    assert arrived.tokenizer("w1 w2")["input_ids"] == model.tokenizer("w1 w2")["input_ids"]
    assert (arrived.id, arrived.hf.training) == (family, False)
    assert not {id(each) for each in arrived.hf.parameters()} & {
        id(each) for each in model.hf.parameters()
    }


def test_precision_and_ties_are_kept() -> None:
    module = tiny("llama").bfloat16()
    model = Model(module, tiny_tokenizer(), id="llama")
    arrived = sent(model)
    assert [each.dtype for each in arrived.hf.buffers()] == [
        each.dtype for each in module.buffers()
    ]
    tied = sent(Model(tiny("gpt2"), tiny_tokenizer(), id="gpt2")).hf
    assert tied.lm_head.weight is tied.transformer.wte.weight


def test_a_model_is_found_by_name_only_if_it_is_the_same(tmp_path: Path) -> None:
    model = interp.load("polymath", check=False)
    found = Source.of(model).by_name("cpu")
    assert found is not None
    assert (found.weights_hash, found.id) == (model.weights_hash, "polymath")
    with torch.no_grad():
        next(model.hf.parameters())[0] += 1
    assert Source.of(model).by_name("cpu") is None


def test_a_directory_is_found_wherever_it_was_named_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny("gpt2").save_pretrained(tmp_path / "own")  # type: ignore[operator]
    tiny_tokenizer().save_pretrained(tmp_path / "own")
    monkeypatch.chdir(tmp_path)
    model = interp.load("own", check=False)
    source = Source.of(model)
    monkeypatch.chdir("/")
    found = source.by_name("cpu")
    assert found is not None
    assert found.id == "own"


@pytest.mark.parametrize("name", ["tiny", "a model of mine", "/nowhere/at/all"])
def test_a_name_that_is_none_is_no_error(name: str) -> None:
    source = Source.of(Model(tiny("gpt2"), tiny_tokenizer(), id=name))
    assert source.by_name("cpu") is None


def test_other_weights_than_were_sent_are_refused() -> None:
    model = Model(tiny("gpt2"), tiny_tokenizer(), id="gpt2")
    other = Model(tiny("gpt2", seed=1), tiny_tokenizer(), id="gpt2")
    with pytest.raises(ClusterError, match="arrived at a worker with other weights"):
        Source.of(model).from_weights(Weights.of(other), "cpu")


def test_a_quantised_model_must_be_found_by_name() -> None:
    model = Model(tiny("gpt2"), tiny_tokenizer(), id="gpt2")
    model.hf.config.quantization_config = {"quant_method": "torchao"}
    with pytest.raises(ClusterError, match=r"gpt2 is quantised \(torchao\), so a worker must find"):
        Weights.of(model)


def test_a_model_that_is_spread_is_refused() -> None:
    from accelerate import dispatch_model

    module = dispatch_model(tiny("gpt2"), {"": "cpu"}, force_hooks=True)
    model = Model(module, tiny_tokenizer(), id="gpt2")
    for refuse in (Source.of, lambda model: copies(model, [torch.device("cpu")])):
        with pytest.raises(ModelError, match="needs a model on one device, and this one is spread"):
            refuse(model)
