"""What makes a run this run: everything that decides a number, and nothing that does not."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp import runs
from interp.circuits import Circuit, evaluate
from interp.errors import MetricError, RunError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import Head
from tests.activations.samples import model, prompts
from tests.families import tiny
from tests.parity.compare import pairs


def ablate(some: Model, on: PromptSet, folder: Path, **options: Any) -> interp.engine.SweepResult:
    return interp.ablate(some, on, ["0.1", "m1"], run=folder, progress=False, **options)


def test_other_templates_are_other_means(tmp_path: Path) -> None:
    one, two = (replace(prompts(), notes={"template": list(names)}) for names in ("aabb", "abab"))
    ablate(model("gpt2"), one, tmp_path, over="template")
    with pytest.raises(RunError, match=r"prompts_hash was '(\w+) \w+' and is '\1 \w+'; resume"):
        ablate(model("gpt2"), two, tmp_path, over="template")
    assert one.hash == two.hash


def with_heads(count: int) -> Model:
    """The weights of the tiny GPT-2, taken for so many heads."""
    other = copy.deepcopy(tiny("gpt2").config)
    other.n_head = count
    module = type(tiny("gpt2"))(other)
    module.load_state_dict(tiny("gpt2").state_dict())
    return Model(module.eval(), model("gpt2").tokenizer, id="gpt2")


def test_the_same_weights_used_otherwise_are_another_model(tmp_path: Path) -> None:
    ablate(four := with_heads(4), prompts(), tmp_path)
    assert four.weights_hash == with_heads(2).weights_hash
    with pytest.raises(RunError, match=r"settings\.n_head was 4 and is 2; resume"):
        ablate(with_heads(2), prompts(), tmp_path)
    four.hf.set_attn_implementation("eager")
    with pytest.raises(RunError, match=r"settings\.attention was 'sdpa' and is 'eager'; resume"):
        ablate(four, prompts(), tmp_path)


def test_hooks_and_checks_change_no_setting() -> None:
    some = Model(tiny("llama"), model("llama").tokenizer, id="llama")
    before = some.settings
    some.check()
    ablated = interp.ablate(some, prompts(), ["0.1"], progress=False)
    assert some.settings == before
    assert ablated.provenance["weights_hash"] == some.weights_hash


@pytest.fixture
def precision() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    yield
    torch.set_float32_matmul_precision(before)


@pytest.mark.usefixtures("precision")
def test_products_of_another_precision_are_refused(tmp_path: Path) -> None:
    ablate(model("gpt2"), prompts(), tmp_path)
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(RunError, match="products was 'highest' and is 'medium'; resume"):
        ablate(model("gpt2"), prompts(), tmp_path)


def token(logits: torch.Tensor, which: int) -> torch.Tensor:
    return logits[:, which]


def squared(logits: torch.Tensor, which: int) -> torch.Tensor:
    return logits[:, which] ** 2


def test_a_metric_with_other_arguments_is_another(tmp_path: Path) -> None:
    plain = ablate(model("gpt2"), prompts(), tmp_path, metric=partial(token, which=3))
    again = ablate(model("gpt2"), prompts(), tmp_path, metric=partial(token, which=3))
    assert torch.equal(plain.values, again.values)
    for other in (partial(token, which=4), partial(squared, which=3)):
        with pytest.raises(RunError, match=r"metric was '.*token, source \w+ with which=3' and is"):
            ablate(model("gpt2"), prompts(), tmp_path, metric=other)


def test_circuits_in_another_order_are_refused(tmp_path: Path) -> None:
    some = model("gpt2")
    two = {name: Circuit.from_nodes(some, [Head(0, at)]) for at, name in enumerate("ab")}
    ask = partial(evaluate, some, pairs(), random=0, run=tmp_path, progress=False)
    ask(two)
    with pytest.raises(RunError, match=r"order was \['a', 'b'\] and is \['b', 'a'\]; resume"):
        ask(dict(reversed(two.items())))


def test_a_call_that_computed_nothing_may_be_mended_in_its_folder(tmp_path: Path) -> None:
    some, without = model("gpt2"), replace(prompts(), wrong=None)
    with pytest.raises(MetricError, match="use the metric log_prob"):
        ablate(some, without, tmp_path)
    assert runs.info(tmp_path).done == 0
    found = ablate(some, without, tmp_path, metric="log_prob")
    assert runs.info(tmp_path).state == "done"
    plain = interp.ablate(some, without, ["0.1", "m1"], metric="log_prob", progress=False)
    assert torch.equal(found.values, plain.values)


@pytest.mark.parametrize("direction", ["noise", "denoise"])
def test_a_counterfactual_that_is_no_number_is_told(tmp_path: Path, direction: str) -> None:
    base = prompts()
    corrupt = torch.where(base.mask, base.clean + 40, base.clean)
    module = tiny("gpt2")
    with torch.no_grad():
        module.transformer.wte.weight[41] = torch.nan  # type: ignore[union-attr,index]
        module.lm_head.weight = torch.nn.Parameter(tiny("gpt2").lm_head.weight)  # type: ignore
    broken = Model(module, model("gpt2").tokenizer, id="gpt2")
    with pytest.raises(MetricError, match="is NaN for prompt 0"):
        interp.patch(
            broken,
            replace(base, corrupt=corrupt),
            ["0.1"],
            direction=direction,
            run=tmp_path,
            progress=False,
        )
    assert runs.info(tmp_path).state == "stopped"
