from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interp.engine import naive_ablate
from interp.engine.metrics import resolve
from interp.errors import InterventionError, MetricError, SiteError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import Head, heads
from tests.activations.samples import ROWS, hooks_on, model, prompts
from tests.families import FAMILIES

PROJECTION: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    "gpt2": lambda hf, layer: hf.transformer.h[layer].attn.c_proj,
    "llama": lambda hf, layer: hf.model.layers[layer].self_attn.o_proj,
    "qwen3": lambda hf, layer: hf.model.layers[layer].self_attn.o_proj,
}
MLP: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    "gpt2": lambda hf, layer: hf.transformer.h[layer].mlp,
    "llama": lambda hf, layer: hf.model.layers[layer].mlp,
}


@contextmanager
def head_replaced(model: Model, head: Head, value: Tensor | float) -> Iterator[None]:
    """A hook of torch on the module as it was given: another road to the same numbers."""
    size = model.geometry.d_head
    span = slice(head.head * size, (head.head + 1) * size)

    def replace(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        z = inputs[0].clone()
        z[..., span] = value
        return (z, *inputs[1:])

    projection = PROJECTION[model.id](model.hf, head.layer)
    handle = projection.register_forward_pre_hook(replace)
    try:
        yield
    finally:
        handle.remove()


def end_logits(model: Model, some: PromptSet) -> Tensor:
    return model.logits(some.clean, mask=some.mask)[torch.arange(len(some)), some.end]


def mean_z(model: Model, rows: list[list[int]], head: Head) -> Tensor:
    """Mean of a head over the tokens of unpadded prompts, one prompt at a time."""
    seen: list[Tensor] = []
    size = model.geometry.d_head
    handle = PROJECTION[model.id](model.hf, head.layer).register_forward_pre_hook(
        lambda _, inputs: seen.append(inputs[0][0, :, head.head * size : (head.head + 1) * size])
    )
    for row in rows:
        model.logits(torch.tensor([row]))
    handle.remove()
    return torch.cat(seen).mean(dim=0)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("method", ["zero", "mean"])
@pytest.mark.parametrize("family", PROJECTION)
def test_heads_are_taken_out_as_by_hand(family: str, method: str, side: str):
    tiny, some = model(family), prompts(side)
    sweep = naive_ablate(tiny, some, method=method)
    metric = resolve("logit_diff")
    clean = end_logits(tiny, some)
    torch.testing.assert_close(sweep.clean, metric(clean, some, clean=clean), rtol=1e-4, atol=1e-4)
    for head, values in zip(sweep.sites, sweep.values, strict=True):
        with head_replaced(tiny, head, mean_z(tiny, ROWS, head) if method == "mean" else 0.0):
            by_hand = metric(end_logits(tiny, some), some, clean=clean)
        torch.testing.assert_close(values, by_hand, rtol=1e-4, atol=1e-4)
    assert (sweep.effects.abs() > 0.01).any(dim=1).all()  # so agreement is not that of nothing


def test_the_comparison_by_hand_sees_the_wrong_head():
    tiny, some = model("gpt2"), prompts()
    ours = naive_ablate(tiny, some, ["0.1"], metric="log_prob").values[0]
    with head_replaced(tiny, Head(0, 2), 0.0):
        logits = end_logits(tiny, some)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(ours, resolve("log_prob")(logits, some, clean=logits))


@pytest.mark.parametrize("family", MLP)
def test_mlps_and_streams_are_taken_out_as_by_hand(family: str):
    tiny, some = model(family), prompts()
    sweep = naive_ablate(tiny, some, ["m0", "m1", "r1.pre"], metric="log_prob")
    layers = tiny.hf.transformer.h if family == "gpt2" else tiny.hf.model.layers
    for layer in (0, 1):
        handle = MLP[family](tiny.hf, layer).register_forward_hook(lambda m, i, out: out * 0)
        expected = resolve("log_prob")(end_logits(tiny, some), some, clean=end_logits(tiny, some))
        handle.remove()
        torch.testing.assert_close(sweep.values[layer], expected, rtol=1e-4, atol=1e-4)
    handle = layers[1].register_forward_pre_hook(lambda m, i: (i[0] * 0, *i[1:]))
    expected = resolve("log_prob")(end_logits(tiny, some), some, clean=end_logits(tiny, some))
    handle.remove()
    torch.testing.assert_close(sweep.values[2], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_side_changes_nothing_in_any_family(family: str):
    tiny = model(family)
    right, left = (
        naive_ablate(tiny, prompts(side), ["0.1", "1.2"], method="mean")
        for side in ("right", "left")
    )
    torch.testing.assert_close(right.clean, left.clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(right.values, left.values, rtol=1e-4, atol=1e-4)
    assert (right.effects != 0).any(dim=1).all()


@settings(max_examples=8)
@given(st.permutations(range(len(ROWS))), st.sampled_from(["zero", "mean"]))
def test_the_order_of_prompts_does_not_matter(order: list[int], method: str):
    tiny, some = model("llama"), prompts()
    straight = naive_ablate(tiny, some, ["0.0", "1.3"], method=method)
    shuffled = naive_ablate(tiny, some[order], ["0.0", "1.3"], method=method)
    torch.testing.assert_close(shuffled.values, straight.values[:, order], rtol=1e-4, atol=1e-4)


def test_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    tiny, some = model("gpt2"), prompts()
    whole = naive_ablate(tiny, some, method="mean")
    monkeypatch.setattr("interp.activations.batches.BUDGET", 1)  # one prompt at a time
    single = naive_ablate(tiny, some, method="mean")
    torch.testing.assert_close(single.values, whole.values, rtol=1e-4, atol=1e-4)


def test_all_heads_are_swept_by_default():
    tiny = model("llama")
    sweep = naive_ablate(tiny, prompts(), progress=False)
    assert sweep.sites == heads(tiny)
    assert sweep.values.shape == (8, 4)
    assert sweep.provenance["method"] == "zero"
    assert sweep.provenance["metric"] == "logit_diff"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_as_it_was_also_after_an_exception(family: str):
    tiny, some = model(family), prompts()
    before = tiny.bridge(some.clean, attention_mask=some.mask.long())
    hooks = hooks_on(tiny)
    calls: list[int] = []

    def fails_later(logits: Tensor) -> Tensor:
        calls.append(1)
        return logits[:, 0] if len(calls) < 3 else logits

    with pytest.raises(MetricError, match="fails_later returned"):
        naive_ablate(tiny, some, metric=fails_later)
    assert hooks_on(tiny) == hooks
    assert torch.equal(tiny.bridge(some.clean, attention_mask=some.mask.long()), before)


def test_nothing_happens_to_a_head_whose_values_are_dead():
    tiny = Model(model("gpt2").hf, model("gpt2").tokenizer, id="dead")
    weight = tiny.hf.transformer.h[1].attn.c_proj.weight
    saved = weight.detach().clone()
    with torch.no_grad():
        weight[8:16] = 0
        try:
            sweep = naive_ablate(tiny, prompts(), ["1.1", "1.2"])
        finally:
            weight.copy_(saved)
    assert (sweep.effects[0] == 0).all()
    assert (sweep.effects[1] != 0).any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({"sites": ["2.0"]}, SiteError, r"2\.0 is outside the model: its layer is 2"),
        ({"sites": []}, SiteError, r"There are no sites to act on"),
        ({"sites": ["r1.mid"]}, SiteError, r"r1\.mid is read by the MLP, .*; use r1\.pre or r1\.p"),
        ({"method": "median"}, InterventionError, r"no method 'median': did you mean mean\?"),
        ({"metric": "f1"}, MetricError, r"There is no metric 'f1'"),
    ],
)
def test_bad_calls_are_refused_before_anything_runs(
    call: dict[str, object], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        naive_ablate(model("gpt2"), prompts(), **call)


def test_a_hook_that_the_model_lacks_is_refused():
    with pytest.raises(SiteError, match=r"'blocks\.0\.hook_mlp_out' matches no hook"):
        naive_ablate(model("native"), prompts(), ["m0"])
