from __future__ import annotations

import gc
import weakref

import pytest
import torch

from interp.engine.replay import Replay, replay_of
from interp.models import Model
from tests.activations.samples import model
from tests.families import FAMILIES, tiny, tiny_tokenizer

PARALLEL = {"gpt-j", "gpt-neox", "falcon", "phi"}
UNCACHED = {"native", "native-gqa"}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_replayed_by_the_fastest_road(family: str) -> None:
    replay = replay_of(model(family))
    assert replay.works
    assert replay.splits
    assert replay.cached == (family not in UNCACHED)
    assert replay.body.parallel == (family in PARALLEL)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clean_run_is_let_go_without_the_collector(family: str) -> None:
    replay = replay_of(model(family))
    run = replay.clean(replay.sample(), ["z"] if replay.has("z") else [])
    replay.block(run, 0, run.stream[0], 0)
    held = [weakref.ref(each) for each in (run, run.stream[0], *run.keys[:1], *run.values[:1])]
    gc.disable()
    try:
        del run
        assert [each() for each in held] == [None] * len(held)
    finally:
        gc.enable()


def test_a_replay_is_made_once_and_again_when_the_weights_move() -> None:
    module = Model(tiny("gpt2"), tiny_tokenizer(), id="moved")
    first = replay_of(module)
    assert replay_of(module) is first
    module.hf.to(torch.float64)
    assert replay_of(module) is not first


def test_fused_activations_are_in_the_copy_alone_and_not_in_float64() -> None:
    single, double = tiny("gpt2"), tiny("gpt2").double()
    kinds = []
    for module in (single, double):
        replay = Replay(Model(module, tiny_tokenizer(), id="fused"))
        kinds.append(type(replay.body.module.transformer.h[0].mlp.act).__name__)
        assert type(module.transformer.h[0].mlp.act).__name__ == "NewGELUActivation"
    assert kinds == ["GELU", "NewGELUActivation"]


def test_a_block_that_is_not_itself_on_its_own_is_not_replayed() -> None:
    module = tiny("gpt2")
    block, calls = module.transformer.h[1], []
    forward = block.forward

    def stateful(hidden, *args, **kwargs):
        calls.append(1)
        return forward(hidden * (1 + 0.1 * len(calls)), *args, **kwargs)

    block.forward = stateful
    assert not Replay(Model(module, tiny_tokenizer(), id="stateful")).works
