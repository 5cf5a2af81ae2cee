"""A model without weights is planned as one that has them."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

import interp
from interp.engine import Intervention, Mean, Patch, Zero, everywhere, explain
from interp.engine.explain_edges import explain_attribution, explain_edges
from interp.errors import ModelError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import heads, mlps, resid
from tests.activations.samples import model, prompts

AT_ONCE = {"prompts_at_once": 8, "tokens_at_once": 256}


def bare(full: Model) -> Model:
    """The same model without its weights."""
    with torch.device("meta"):
        module = type(full.hf)(copy.deepcopy(full.hf.config))
    return Model(module.to(full.dtype).eval(), full.tokenizer, id=full.id)


def pairs() -> PromptSet:
    some = prompts(rows=[[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12], [13, 14, 15, 16]])
    corrupt = some.clean.clone()
    corrupt[:, 2:] = (corrupt[:, 2:] + 30).where(some.mask[:, 2:], corrupt[:, 2:])
    return replace(some, corrupt=corrupt)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "olmo2", "opt", "gpt-j"])
def test_the_plan_without_weights_is_the_plan_with_them(family: str) -> None:
    full, some = model(family), pairs()
    empty = bare(full)
    sites = [*heads(full), *mlps(full), *resid(full)]
    for operation in (Zero(), Mean(), Mean("position"), Patch()):
        made: list[Intervention] = everywhere(sites, operation)
        expected = explain(full, some, made, **AT_ONCE)
        assert explain(empty, some, made, like=full, **AT_ONCE) == expected


def test_the_plans_of_edges_without_weights_are_those_with_them() -> None:
    full, some = model("llama"), pairs()
    empty = bare(full)
    expected = explain_edges(full, some, **AT_ONCE)
    assert explain_edges(empty, some, like=full, **AT_ONCE) == expected
    assert explain_attribution(empty, some, like=full) == explain_attribution(full, some)


def test_a_model_larger_than_the_memory_is_planned_after_a_small_one() -> None:
    import transformers

    config = transformers.LlamaConfig(hidden_size=8192, num_hidden_layers=80, vocab_size=1000)
    with torch.device("meta"):
        module = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    small = model("llama")
    large = interp.load(module, small.tokenizer, check=False)
    plan = explain(large, prompts(), everywhere(heads(large)[::100], Mean()), like=small)
    assert plan.replayed
    assert plan.cached
    assert plan.splits
    assert plan.interventions == 80 * 32 // 100 + 1


def test_what_cannot_be_planned_is_refused() -> None:
    llama, some = model("llama"), prompts()
    made = everywhere(heads(llama), Zero())
    with pytest.raises(ModelError, match=r"llama has no weights .* pass like="):
        explain(bare(llama), some, made)
    with pytest.raises(ModelError, match="llama is a LlamaForCausalLM; pass one that has weights"):
        explain(bare(llama), some, made, like=model("qwen2"))
    with pytest.raises(ModelError, match="pass one that has weights"):
        explain(bare(llama), some, made, like=bare(llama))
    with pytest.raises(ModelError, match="llama has weights and is tried itself; leave like= out"):
        explain(llama, some, made, like=llama)
    with pytest.raises(ModelError, match="gpt2 has one projection for queries, keys and values"):
        explain(bare(model("gpt2")), some, made, like=model("gpt2"))
