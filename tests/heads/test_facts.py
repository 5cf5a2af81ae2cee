"""Facts are measured as they say, and hold or not."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from interp import load
from interp.errors import ModelError, TaskError
from interp.heads import Score
from interp.heads import gpt2_facts as gpt2
from interp.heads.facts import Fact, FactSheet, Verification, verify
from interp.models import Model
from interp.sites import Head
from interp.tasks import get
from tests.families import tiny, tiny_tokenizer
from tests.tokenizers import piece_model

FEW = 30  # prompts, for the sake of time


@cache
def random_gpt2() -> Model:
    """The shape of GPT-2 small in heads, with random weights and a tokenizer of names."""
    tokenizer = piece_model().tokenizer
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=48, n_layer=12, n_head=12, n_positions=256, **ends
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return load(GPT2LMHeadModel(config), tokenizer, check=False)


@cache
def found() -> Verification:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpt2, "PROMPTS", FEW)
        return verify(random_gpt2(), gpt2.GPT2_SMALL, progress=False)


def numbers(text: str) -> dict[str, float]:
    (verdict,) = [each for each in found().verdicts if each.fact.text.startswith(text)]
    return verdict.measured


def test_nothing_holds_in_random_weights_and_all_is_measured() -> None:
    assert not found().held
    for verdict in found().verdicts:
        assert not verdict.held, verdict
        assert verdict.error == "", verdict
        assert all(math.isfinite(number) for number in verdict.measured.values()), verdict
    assert "0 of 14 facts hold" in repr(found())


def test_the_logit_difference_is_that_of_the_model() -> None:
    model = random_gpt2()
    prompts = get("ioi").sample(model, FEW, seed=0, split="all")
    differences, chances = [], []
    for row, mask, answer, wrong in zip(
        prompts.clean, prompts.mask, prompts.answer, prompts.wrong, strict=True
    ):
        logits = model.logits(row[mask][None])[0, -1].double()
        differences.append((logits[answer] - logits[wrong]).item())
        chances.append(logits.softmax(dim=-1)[answer].item())
    expected = sum(differences) / len(differences)
    assert numbers("logit difference")["mean"] == pytest.approx(expected, abs=1e-5)
    mean = sum(chances) / len(chances)
    assert numbers("probability")["mean"] == pytest.approx(mean, abs=1e-7)
    told = numbers("logit difference")
    assert told["from"] < told["mean"] < told["to"]


def test_random_heads_attend_alike_to_all_roles() -> None:
    for text in ("name movers attend", "S-inhibition"):
        told = numbers(text)
        assert told["mean"] == pytest.approx(told["average head"], abs=0.01)


def test_leading_heads_are_compared_with_the_next_one() -> None:
    values = torch.zeros(12, 12, 3)
    for rank, (layer, head) in enumerate([(6, 9), (1, 1), (5, 5), (2, 2)]):
        values[layer, head] = 0.9 - 0.1 * rank
    score = Score("induction", values)
    heads = (Head(5, 5), Head(6, 9))
    told, held = gpt2._leads(score, heads, within=3)
    assert held
    assert told == pytest.approx({"5.5": 0.7, "6.9": 0.9, "next 1.1": 0.8, "average head": 3 / 144})
    assert not gpt2._leads(score, heads, within=2)[1]


def test_names_must_be_copied_by_each_head_and_not_by_the_average() -> None:
    values = torch.full((12, 12, 3), 0.1)
    for head in gpt2.NAME_MOVERS:
        values[head.layer, head.head] = 0.97
    assert gpt2._copies(Score("name-copying", values), gpt2.NAME_MOVERS)[1]
    assert not gpt2._copies(Score("name-copying", values + 0.15), gpt2.NAME_MOVERS)[1]
    values[9, 6] = 0.8
    assert not gpt2._copies(Score("name-copying", values), gpt2.NAME_MOVERS)[1]


def test_numbers_hold_within_their_tolerance() -> None:
    values = torch.tensor([2.0, 3.0, 4.0])
    assert gpt2._near(values, 3.5, within=0.6)[1]
    assert not gpt2._near(values, 3.5, within=0.4)[1]


def test_what_cannot_be_measured_does_not_hold() -> None:
    def wordless(model: Model) -> tuple[dict[str, float], bool]:
        raise TaskError("no words.")

    def fine(model: Model) -> tuple[dict[str, float], bool]:
        return {"heads": float(model.geometry.n_heads)}, True

    facts = (Fact("a", "s", "e", "t", wordless), Fact("b", "s", "e", "t", fine))
    model = Model(tiny("llama"), tiny_tokenizer(), id="tiny")
    result = verify(model, FactSheet("any", (2, 4), facts), progress=False)
    assert not result.held
    frame = result.to_frame()
    assert list(frame["measured"]) == ["not measured: no words.", "heads 4.00"]
    assert list(frame["holds"]) == [False, True]
    assert verify(model, FactSheet("any", (2, 4), facts[1:]), progress=False).held


def test_a_model_of_another_shape_is_refused() -> None:
    model = Model(tiny("llama"), tiny_tokenizer(), id="tiny")
    with pytest.raises(ModelError, match=r"tiny has 2 layers of 4 heads and the facts are about G"):
        verify(model, gpt2.GPT2_SMALL)
