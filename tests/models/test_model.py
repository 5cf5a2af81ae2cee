"""Model: logits, positions, tokens, hash and control."""

from __future__ import annotations

import pytest
import torch

from interp.models import Model, load
from tests.families import FAMILIES, tiny, tiny_tokenizer

TOKENS = torch.randint(90, (2, 7), generator=torch.Generator().manual_seed(1))


def tiny_model(family: str = "gpt2") -> Model:
    return load(tiny(family), tiny_tokenizer(), check=False)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(family: str, side: str) -> None:
    model = tiny_model(family)
    lengths = torch.tensor([7, 4])
    mask = torch.arange(9).expand(2, 9) < lengths[:, None]
    mask = mask.flip(1) if side == "left" else mask
    padded = torch.full((2, 9), model.pad_id)
    for row, length in enumerate(lengths):
        padded[row, mask[row]] = TOKENS[row, :length]
    logits = model.logits(padded, mask=mask)
    for row, length in enumerate(lengths):
        alone = model.logits(TOKENS[row : row + 1, :length])[0]
        torch.testing.assert_close(logits[row, mask[row]], alone, rtol=0, atol=2e-5)


def test_position_ids_count_real_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]).bool()
    assert tiny_model().position_ids(mask).tolist() == [[0, 0, 0, 1], [0, 1, 2, 2]]


def test_logits_have_no_gradient_but_the_weights_may() -> None:
    model = tiny_model()
    assert not model.logits(TOKENS).requires_grad
    assert all(weight.requires_grad for weight in model.hf.parameters())


def test_tokens() -> None:
    model = tiny_model()
    assert model.encode("w1 w22") == [1, 22]
    assert model.single_token("w5") == model.single_token(" w5") == 5
    assert model.single_token("w5 w6") is None
    assert model.single_token("elephant") is None
    assert model.single_token("") is None


def test_special_ids_fall_back() -> None:
    model = tiny_model()
    assert (model.bos_id, model.pad_id) == (90, 92)
    model.tokenizer.bos_token = model.tokenizer.pad_token = None
    assert (model.bos_id, model.pad_id) == (91, 91)
    model.tokenizer.eos_token = None
    assert (model.bos_id, model.pad_id) == (None, 0)


def test_weights_hash() -> None:
    model = tiny_model()
    assert model.weights_hash == tiny_model().weights_hash
    assert len(model.weights_hash) == 16
    assert set(model.weights_hash) <= set("0123456789abcdef")
    changed = tiny("gpt2")
    with torch.no_grad():
        changed.transformer.wpe.weight[3, 3] += 1e-3
    assert load(changed, tiny_tokenizer(), check=False).weights_hash != model.weights_hash


@pytest.mark.parametrize("family", ["gpt2", "llama", "native"])
def test_untrained_is_the_same_shape_with_other_weights(family: str) -> None:
    model = tiny_model(family)
    state = torch.get_rng_state()
    control = model.untrained(seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert control.geometry == model.geometry
    assert not control.hf.training
    assert control.weights_hash == model.untrained(seed=3).weights_hash
    assert control.weights_hash not in (model.weights_hash, model.untrained(seed=4).weights_hash)
    assert "untrained" in control.id
    control.check()


def test_repr_names_the_shape() -> None:
    shown = repr(tiny_model("qwen3"))
    assert shown == (
        "Model('Qwen3ForCausalLM', Qwen3ForCausalLM, 2 layers x 4 heads, d_model 32, "
        "torch.float32, cpu)"
    )


def test_the_hash_of_weights_follows_a_change_in_place() -> None:
    model = load("polymath", check=False).untrained()
    before = model.weights_hash
    assert model.weights_hash == before
    with torch.no_grad():
        next(model.hf.parameters())[0, 0] += 1
    changed = model.weights_hash
    assert changed != before
    with torch.no_grad():
        next(model.hf.parameters())[0, 0] -= 1
    assert model.weights_hash != changed
