"""Clean activations that outgrow a device are kept on the host, and nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from interp import load
from interp.engine import Intervention, Patch, Zero, clean, everywhere, patch_edges, replay, run
from interp.engine.clean import Layers, room
from interp.engine.memory import largest_group, train_tokens
from interp.engine.plan import CPU_TOKENS
from interp.engine.replay import replay_of
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, heads, resid
from tests.families import tiny, tiny_tokenizer
from tests.pretend import measured, pretend_devices, spread

QUIET: dict[str, Any] = {"progress": False}


def pairs(prompts: int = 3, length: int = 7) -> PromptSet:
    tokens = torch.randint(90, (prompts, length), generator=torch.Generator().manual_seed(0))
    corrupt = tokens.clone()
    corrupt[:, 2] = (corrupt[:, 2] + 5) % 90
    answer = list(range(1, prompts + 1))
    return PromptSet.from_tokens(tokens, corrupt=corrupt, answer=answer, wrong=[0] * prompts)


def device_model(family: str = "llama") -> Model:
    return load(spread(tiny(family), ("pretend:0",)), tiny_tokenizer(), check=False)


def swept(model: Model) -> Tensor:
    prompts = pairs()
    late = [Intervention.at(site, Patch(), position=-1) for site in resid(model, "pre")]
    every = [*everywhere(heads(model), Zero()), *everywhere([MLP(0)], Patch()), *late]
    found = [
        run(model, prompts, every, **QUIET).values,
        run(model, prompts, every[:3], effect="direct", **QUIET).values,
        patch_edges(model, prompts, ["input->1.0.k", "0.1->m1"], **QUIET).values,
    ]
    return torch.cat(found).cpu()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_bits_are_the_same(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_devices():
        on_device = swept(device_model(family))
        monkeypatch.setattr(replay, "outgrows", lambda devices, needed: True)
        model = device_model(family)
        kept = replay_of(model).clean(pairs().clean, ["z"])
        layers = [kept.stream, kept.keys, kept.values, kept.parts["z"]]
        assert {each.device.type for some in layers for each in some._kept} == {"cpu"}
        assert {each.device.type for some in layers for each in some} == {"pretend"}
        assert torch.equal(swept(model), on_device)


def test_what_has_no_room_goes_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_devices():
        model = device_model()
        made, tokens = replay_of(model), pairs().clean
        assert not made.clean(tokens).stream.on_host
        small = 150_000

        def free(device: torch.device) -> int:
            return small if device.type == "pretend" else 10**9

        monkeypatch.setattr(clean, "free_bytes", free)
        assert largest_group(made, pairs()) == 2
        kinds = ["z", "attn_out", "mlp_out", "neurons"]
        assert not made.clean(tokens[:1], kinds).stream.on_host
        long = pairs(1, 60)
        assert largest_group(made, long) == 1
        assert made.clean(long.clean, kinds).stream.on_host


def test_the_peak_falls_by_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = pairs(4, 60)

    def peak() -> tuple[int, int]:
        made = replay_of(device_model())
        with measured() as memory:
            run = made.clean(prompts.clean, ["z", "attn_out", "mlp_out"])
            kept = sum(x.nbytes for some in (run.stream, *run.parts.values()) for x in some._kept)
        return memory.peak, kept

    with pretend_devices():
        on_device, kept = peak()
        monkeypatch.setattr(replay, "outgrows", lambda devices, needed: True)
        on_host, _ = peak()
    assert on_host < on_device - 0.8 * kept


def test_a_cpu_keeps_its_own() -> None:
    model = load(tiny("gpt2"), tiny_tokenizer(), check=False)
    assert not clean.outgrows(replay_of(model).devices, 10**18)


def test_the_fullest_device_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"pretend:0": 900, "pretend:1": 100}
    monkeypatch.setattr(clean, "free_bytes", lambda device: free[str(device)])
    first, second = torch.device("pretend:0"), torch.device("pretend:1")
    assert room([first, first, first, second]) == 400  # a quarter of it lies on the second
    assert room([first, second, second, second]) == pytest.approx(100 / 0.75)
    assert clean.outgrows([first, first, first, second], 201)
    assert not clean.outgrows([first, first, first, second], 199)


def test_trains_are_as_long_as_the_fullest_device_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.engine import memory

    with pretend_devices():
        made = replay_of(load(spread(tiny("gpt2")), tiny_tokenizer(), check=False))
        free = {"pretend:0": 10**9, "pretend:1": 10**5}
        monkeypatch.setattr(memory, "free_bytes", lambda device: free[str(device)])
        few = train_tokens(made)
        free["pretend:1"] = 10**9
        assert few < train_tokens(made)


def test_a_group_is_no_larger_than_is_fast() -> None:
    made = replay_of(load(tiny("gpt2"), tiny_tokenizer(), check=False))
    assert largest_group(made, pairs(2, 10)) * 10 == pytest.approx(8 * CPU_TOKENS, rel=0.01)


def test_layers_are_a_sequence() -> None:
    layers = Layers(torch.device("cpu"))
    layers.extend(torch.full((1, 2, 3), float(number)) for number in range(4))
    assert len(layers) == 4
    assert [int(each[0, 0, 0]) for each in layers] == [0, 1, 2, 3]
    assert [int(each[0, 0, 0]) for each in layers[1:3]] == [1, 2]
    del layers[1:-1]
    assert [int(each[0, 0, 0]) for each in layers] == [0, 3]
    assert layers.near_from(1, torch.device("cpu"), 1).shape == (1, 1, 3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_bits_are_the_same_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def model() -> Model:
        return load(tiny("llama").cuda(), tiny_tokenizer(), check=False)

    on_device = swept(model())
    monkeypatch.setattr(replay, "outgrows", lambda devices, needed: True)
    other = model()
    assert all(each.is_pinned() for each in replay_of(other).clean(pairs().clean).stream._kept)
    assert torch.equal(swept(other), on_device)
