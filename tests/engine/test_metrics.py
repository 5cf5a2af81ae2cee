from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from interp.engine.metrics import METRICS, kl, resolve
from interp.errors import MetricError
from interp.prompts import PromptSet

ANSWERS, WRONGS = [[3], [4, 7], [5]], [[9], [8], [1, 2]]
PROMPTS = PromptSet.from_tokens([[1, 2], [3, 4], [5, 6]], answer=ANSWERS, wrong=WRONGS)


def logits(seed: int = 0, vocab: int = 10) -> Tensor:
    return 2 * torch.randn(3, vocab, generator=torch.Generator().manual_seed(seed))


def value(metric: object, some: Tensor, clean: Tensor | None = None) -> list[float]:
    return resolve(metric)(some, PROMPTS, clean=some if clean is None else clean).tolist()


def by_hand(name: str, row: list[float], answers: list[int], wrongs: list[int]) -> float:
    total = sum(map(math.exp, row))
    prob = sum(math.exp(row[t]) for t in answers) / total
    odds = prob / (sum(math.exp(row[t]) for t in wrongs) / total)
    best = max(range(len(row)), key=row.__getitem__)
    return {
        "logit_diff": math.log(odds),
        "prob": prob,
        "log_prob": math.log(prob),
        "loss": -math.log(prob),
        "accuracy": float(best in answers),
    }[name]


@given(st.sampled_from(sorted(set(METRICS) - {"kl"})), st.integers(0, 1000))
def test_metrics_are_their_definitions(name: str, seed: int):
    some = logits(seed)
    rows = zip(some.tolist(), ANSWERS, WRONGS, strict=True)
    # a difference of float32 logits near 3 is rounded to about 1e-6
    assert value(name, some) == pytest.approx(
        [by_hand(name, *row) for row in rows], rel=1e-4, abs=1e-5
    )


def test_one_answer_and_one_wrong_give_the_plain_difference():
    some = logits()
    assert value("logit_diff", some)[0] == pytest.approx((some[0, 3] - some[0, 9]).item())


def test_accuracy_counts_any_of_the_answers():
    some = torch.zeros(3, 10)
    some[0, 3] = some[1, 7] = some[2, 9] = 1  # 9 fills no row: the fillers of PROMPTS are -1
    assert value("accuracy", some) == [1, 1, 0]


def test_kl_is_its_definition_and_zero_for_the_clean_run():
    clean, edited = logits(0), logits(1)
    p, q = clean.softmax(-1), edited.softmax(-1)
    expected = (p * (p / q).log()).sum(-1).tolist()
    assert value("kl", edited, clean) == pytest.approx(expected, rel=1e-4)
    assert value("kl", clean) == [0, 0, 0]
    clean[:, 0] = -math.inf
    assert kl(clean, clean).tolist() == [0, 0, 0]


def test_a_function_of_the_user_sees_logits_of_all_prompts():
    labels = torch.tensor([3, 4, 5])

    def first_logit(some: Tensor) -> Tensor:
        return some[torch.arange(3), labels]

    assert resolve(first_logit).name == "first_logit"
    assert value(first_logit, logits()) == logits()[[0, 1, 2], labels].tolist()


def test_a_metric_may_be_given_as_its_function():
    assert value(METRICS["prob"], logits()) == value("prob", logits())


def test_half_precision_is_computed_in_float32():
    half = logits().bfloat16()
    values = resolve("log_prob")(half, PROMPTS, clean=half)
    assert values.dtype == torch.float32
    assert values.tolist() == value("log_prob", half.float())
    assert resolve("prob")(logits().double(), PROMPTS, clean=logits()).dtype == torch.float64


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (lambda some: some, r"returned \[3, 10\] for logits of shape \[3, 10\]; .* prompt, \[3\]"),
        (lambda some: some.mean(), r"returned \[\] for logits"),
        (lambda some: 1.0, r"returned float for logits"),
        (lambda some: some[:, 0].log() * math.nan, r"is NaN for prompt 0; look for infinite"),
        ("logit_dif", r"There is no metric 'logit_dif': did you mean logit_diff"),
    ],
)
def test_metrics_that_cannot_be_used_are_refused(metric: object, message: str):
    with pytest.raises(MetricError, match=message):
        value(metric, logits())


def test_logit_diff_needs_wrong_answers():
    some = PromptSet.from_tokens([[1, 2]], answer=[3])
    with pytest.raises(MetricError, match=r"have none; make them with wrong=, or use the metric"):
        resolve("logit_diff")(logits()[:1], some, clean=logits()[:1])


def test_answers_of_another_tokenizer_are_refused():
    some = PromptSet.from_tokens([[1, 2], [3, 4]], answer=[3, 10])
    with pytest.raises(MetricError, match=r"Prompt 1 is answered by token 10 and the model has 10"):
        resolve("prob")(logits()[:2], some, clean=logits()[:2])
