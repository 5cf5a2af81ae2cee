"""A scan names the right heads, and its numbers are those of the model."""

from __future__ import annotations

import copy
from importlib import import_module

import pytest
import torch

from interp.errors import MetricError
from interp.heads import KINDS, repeated_tokens, scan
from interp.heads.attention import attention_score
from interp.models import Model, load
from interp.zoo import handmade
from tests.families import tiny, tiny_tokenizer


@pytest.fixture(scope="module", params=["gpt2", "llama", "gpt-neox", "gemma2"])
def model(request: pytest.FixtureRequest) -> Model:
    return load(tiny(request.param), tiny_tokenizer(), check=False)


@pytest.mark.parametrize("name", handmade.ALL)
def test_hand_compiled_heads_are_told_apart(name: str) -> None:
    made = handmade.ALL[name]()
    atlas = scan(made.model)
    for kind in KINDS:
        grid = atlas.grid(kind)
        right = torch.zeros_like(grid, dtype=torch.bool)
        for head in made.truth[kind]:
            right[head.layer, head.head] = True
        assert (grid[right] >= 0.99).all(), kind
        assert (grid[~right] <= 0.1).all(), kind
        assert set(atlas.named()[kind]) == set(made.truth[kind])


def test_scores_are_those_of_the_module_itself(model: Model) -> None:
    """Patterns from transformers' eager attention, without any hook."""
    atlas = scan(model, n=3, seq_len=20)
    module = copy.deepcopy(model.hf)
    module.set_attn_implementation("eager")
    with torch.no_grad():
        tokens = repeated_tokens(model, n=3, seq_len=20)
        patterns = module(tokens, output_attentions=True).attentions
    for kind in KINDS:
        expected = torch.stack([attention_score(kind, pattern).T for pattern in patterns])
        torch.testing.assert_close(atlas.values[KINDS.index(kind)], expected)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
def test_batches_change_nothing(model: Model, batch_size: int) -> None:
    whole, parts = (scan(model, n=7, seq_len=20, batch_size=b) for b in (None, batch_size))
    torch.testing.assert_close(whole.values, parts.values)


def test_big_models_run_a_few_prompts_at_a_time(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = scan(model, n=3, seq_len=20)
    monkeypatch.setattr(import_module("interp.heads.scan"), "PATTERN_BYTES", 1)
    torch.testing.assert_close(scan(model, n=3, seq_len=20).values, whole.values)


def test_some_kinds_have_the_scores_that_they_have_among_all(model: Model) -> None:
    atlas = scan(model, n=2, seq_len=20)
    some = scan(model, ["induction", "first-token"], n=2, seq_len=20)
    assert some.kinds == ("induction", "first-token")
    for kind in some.kinds:
        torch.testing.assert_close(some.grid(kind), atlas.grid(kind))
    assert scan(model, "induction", n=2, seq_len=20).kinds == ("induction",)


def test_the_model_is_left_as_it_was(model: Model) -> None:
    tokens = repeated_tokens(model, n=2, seq_len=20)
    before = model.logits(tokens)
    scan(model, n=2, seq_len=20)
    assert model.logits(tokens).equal(before)


def test_an_untrained_gpt2_is_near_chance() -> None:
    model = load(tiny("gpt2"), tiny_tokenizer(), check=False)
    twin = scan(model.untrained(), seq_len=20)
    assert ((twin.scores - twin.chance[:, None, None]).abs() < 0.03).all()


def test_provenance_tells_how(model: Model) -> None:
    told = scan(model, "induction", n=2, seq_len=20, seed=3).provenance
    assert told["model"] == model.id
    assert told["weights_hash"] == model.weights_hash
    assert (told["n"], told["seq_len"], told["seed"]) == (2, 20, 3)
    assert told["command"] == ("interp.heads.scan(model, ['induction'], n=2, seq_len=20, seed=3)")


def test_the_command_tells_another_precision(model: Model) -> None:
    half = Model(copy.deepcopy(model.hf).bfloat16(), model.tokenizer, id="half")
    told = scan(half, "induction", n=1, seq_len=20).provenance["command"]
    assert told.startswith("interp scan half --kinds induction --dtype bfloat16 --n 1")


def test_a_model_with_a_name_is_scanned_again_from_the_shell(model: Model) -> None:
    named = Model(model.hf, model.tokenizer, id="my model")
    told = scan(named, n=2, seq_len=20).provenance["command"]
    assert told == "interp scan 'my model' --n 2 --seq-len 20 --seed 0"
    assert scan(named.untrained(), n=2, seq_len=20).provenance["command"] == told


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ("inducton", "'inducton' is not a kind of head: did you mean induction"),
        (["induction", "x"], "'x' is not a kind of head: known: current-token, "),
        ([], "No kind of head was asked for; pass some of previous-token, "),
    ],
)
def test_unknown_kinds_say_what_is_known(
    model: Model, kinds: str | list[str], message: str
) -> None:
    with pytest.raises(MetricError, match=message):
        scan(model, kinds)
