"""Models on several devices, and models whose weights are on disk, give what they give on one.

Blocks lie on pretend devices (`tests/pretend.py`), between which nothing passes unless it is moved.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interp import load
from interp.engine import (
    Add,
    Intervention,
    Mean,
    Patch,
    Zero,
    ablate,
    attribute,
    everywhere,
    patch_edges,
    patch_paths,
    run,
)
from interp.engine.graph import graph_edges
from interp.engine.naive import naive
from interp.engine.replay import Replay, replay_of
from interp.engine.subgraph import run_subgraphs
from interp.errors import ModelError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, Attn, Head, K, Q, heads, resid
from tests.families import tiny, tiny_tokenizer
from tests.pretend import Mixed, pretend_devices, spread

FAMILIES = ["gpt2", "llama", "gpt-neox", "gemma2", "falcon", "mixtral"]
TWO = ("pretend:0", "pretend:1")
QUIET: dict[str, Any] = {"progress": False}


def pairs() -> PromptSet:
    clean = torch.randint(90, (3, 7), generator=torch.Generator().manual_seed(0))
    corrupt = clean.clone()
    corrupt[:, 2] = (corrupt[:, 2] + 5) % 90
    return PromptSet.from_tokens(clean, corrupt=corrupt, answer=[1, 2, 3], wrong=[4, 5, 6])


def double(family: str) -> Any:
    module = tiny(family).double()
    if family == "mixtral":
        module.set_experts_implementation("eager")  # grouped products of experts refuse float64
    return module


def whole(family: str) -> Model:
    return load(double(family), tiny_tokenizer(), check=False)


def apart(family: str, devices: tuple[str, ...] = TWO) -> Model:
    return load(spread(double(family), devices), tiny_tokenizer(), check=False)


def roads(replay: Replay) -> tuple[bool, ...]:
    return replay.works, replay.cached, replay.splits


def swept(model: Model) -> Tensor:
    """Sweeps with changes of many parts, from means, pairs and vectors; and direct effects."""
    ones = torch.ones(32, dtype=torch.float64)
    every = [
        *everywhere(heads(model), Zero()),
        *everywhere([Attn(0), MLP(1)], Mean()),
        *everywhere([*resid(model, "pre"), *resid(model, "post"), K(1, 0), Q(1, 1)], Patch()),
        *[Intervention.at(site, Add(ones), position=3) for site in resid(model, "post")],
    ]
    total = run(model, pairs(), every, **QUIET)
    direct = run(model, pairs(), every[2:12:3], effect="direct", **QUIET)
    return torch.cat([total.values, direct.values]).cpu()


@pytest.mark.parametrize("family", FAMILIES)
def test_sweeps_over_two_devices_give_what_they_give_on_one(family: str) -> None:
    model = whole(family)
    expected = swept(model)
    with pretend_devices():
        sharded = apart(family)
        assert [str(each) for each in replay_of(sharded).devices] == list(TWO)
        assert roads(replay_of(sharded)) == roads(replay_of(model))
        torch.testing.assert_close(swept(sharded), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("devices", [TWO, ("cpu", "pretend:0")])
def test_frozen_patterns_edges_paths_and_circuits(devices: tuple[str, ...]) -> None:
    def found(model: Model) -> list[Tensor]:
        prompts, count = pairs(), len(graph_edges(model))
        circuits = torch.rand(3, count, generator=torch.Generator().manual_seed(1)) < 0.6
        some = everywhere([Head(0, 1), Head(1, 2)], Patch())
        return [
            run(model, prompts, some, freeze="patterns", **QUIET).values,
            naive(model, prompts, some).cpu(),
            patch_edges(model, prompts, ["input->1.0.k", "0.1->m1", "m0->logits"], **QUIET).values,
            patch_paths(model, prompts, ["0.1", "m0"], ["1.0.q", "m1"], **QUIET).values,
            run_subgraphs(model, prompts, circuits, Patch(), **QUIET).values,
        ]

    expected = found(whole("gpt2"))
    with pretend_devices():
        for one, other in zip(found(apart("gpt2", devices)), expected, strict=True):
            torch.testing.assert_close(one.cpu(), other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_gradients_through_two_devices(family: str) -> None:
    def found(model: Model) -> Tensor:
        nodes = attribute(model, pairs(), heads(model), method="atp", **QUIET).values
        return torch.cat([nodes, attribute(model, pairs(), steps=1, **QUIET).values])

    expected = found(whole(family))
    with pretend_devices():
        model = apart(family, ("pretend:0", "cpu"))
        torch.testing.assert_close(found(model), expected, rtol=0, atol=1e-12)


def test_a_tensor_that_is_not_moved_is_an_error() -> None:
    with pretend_devices():
        here, there = (torch.ones(2, 2, device=device) for device in TWO)
        with pytest.raises(Mixed, match="pretend:0 and pretend:1"):
            here + there
        with pytest.raises(Mixed):
            here[there[0].long()]
        assert (here.to("pretend:1") * there).sum().item() == 4


def test_a_replay_without_moves_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_devices():
        model = apart("gpt2")
        replay = replay_of(model)
        run_clean = replay.clean(pairs().clean)
        block = replay.body.blocks[1].module
        monkeypatch.setitem(block.__dict__, "forward", type(block).forward.__get__(block))
        with pytest.raises(Mixed):
            block(run_clean.stream[1])
    assert run_clean.near(1, "resid_pre").device == torch.device("pretend:1")


def test_each_block_has_its_arguments_on_its_own_device() -> None:
    with pretend_devices():
        replay = replay_of(apart("llama"))
        clean = replay.clean(pairs().clean)
        replay.block(clean, 1, clean.stream[1], 0)
        tables = [named["position_embeddings"][0] for _, named in clean.frames[1, 0]]
    assert [str(each.device) for each in tables] == list(TWO)


def on_disk(family: str, folder: Path) -> tuple[Model, Model]:
    """A model as it is, and one of the same weights whose blocks are read from disk each time."""
    tiny(family).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    plain = load(folder, dtype="float64", device="cpu", check=False)
    blocks = replay_of(plain).body.blocks
    names = {part: name for name, part in plain.hf.named_modules()}
    kinds = {type(block.module) for block in blocks}
    places = {
        name: "disk" if type(part) in kinds else "cpu"
        for part, name in names.items()
        if type(part) in kinds or not list(part.children())
    }
    inside = [name for name, place in places.items() if place == "disk"]
    places = {
        name: place
        for name, place in places.items()
        if place == "disk" or not any(name.startswith(f"{block}.") for block in inside)
    }
    kept = load(
        folder, dtype="float64", device_map=places, offload_folder=folder / "kept", check=False
    )
    return plain, kept


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "falcon"])
def test_weights_that_lie_on_disk(family: str, tmp_path: Path) -> None:
    plain, kept = on_disk(family, tmp_path)
    assert {"meta", "cpu"} == {each.device.type for each in kept.hf.parameters()}
    assert kept.weights_hash == plain.weights_hash
    assert roads(replay_of(kept)) == roads(replay_of(plain))
    torch.testing.assert_close(swept(kept), swept(plain), rtol=0, atol=1e-12)
    assert {"meta", "cpu"} == {each.device.type for each in kept.hf.parameters()}


def test_edges_circuits_and_gradients_with_weights_on_disk(tmp_path: Path) -> None:
    plain, kept = on_disk("llama", tmp_path)
    prompts, count = pairs(), len(graph_edges(plain))
    circuits = torch.rand(2, count, generator=torch.Generator().manual_seed(1)) < 0.6
    ways: list[Callable[[Model], Tensor]] = [
        lambda model: patch_edges(model, prompts, ["input->1.0.k", "0.1->m1"], **QUIET).values,
        lambda model: run_subgraphs(model, prompts, circuits, Patch(), **QUIET).values,
        lambda model: attribute(model, prompts, **QUIET).values,
    ]
    for way in ways:
        torch.testing.assert_close(way(kept), way(plain), rtol=0, atol=1e-12)


def test_another_precision_of_a_spread_model_is_refused() -> None:
    with pretend_devices():
        model = apart("gpt2")
        with pytest.raises(ModelError, match="spread by device_map over pretend:0, pretend:1"):
            ablate(model, pairs(), dtype="bfloat16", **QUIET)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
@pytest.mark.parametrize("family", FAMILIES)
def test_sweeps_over_two_gpus(family: str) -> None:
    expected = swept(whole(family))
    model = apart(family, ("cuda:0", "cuda:1"))
    torch.testing.assert_close(swept(model), expected, rtol=0, atol=1e-9)
