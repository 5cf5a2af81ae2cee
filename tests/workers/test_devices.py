"""Several devices of one machine: the bits of one, in whatever order."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import interp
from interp.errors import InterventionError, MetricError, ModelError
from interp.models import Model
from interp.workers import Devices, Here, kept_and_computed
from interp.workers.devices import copies
from interp.workers.work import Compute, Item
from tests.activations.samples import model as sample
from tests.activations.samples import prompts as samples
from tests.workers.conftest import here, same
from tests.workers.works import Faulty, Logits, prompts


@dataclass(frozen=True)
class Threads:
    """Which thread computes an item, with how many of torch's."""

    def open(self, model: Model) -> Compute:
        def compute(item: Any) -> dict[str, torch.Tensor]:
            time.sleep(0.01)
            own = threading.get_ident() % 2**31
            return {
                "threads": torch.tensor(torch.get_num_threads()),
                "own": torch.tensor(own),
                "gradients": torch.tensor(torch.is_grad_enabled()),
            }

        return compute


@pytest.mark.parametrize("devices", [["cpu"], ["cpu", "cpu"], ["cpu"] * 3])
def test_the_chunks_are_those_of_one_device(devices: list[str], model: Model) -> None:
    items = prompts(40)
    found = dict(Devices(devices).compute(model, Logits(), items))
    assert same(found, here(model, Logits(), items))


def test_every_device_computes_with_the_threads_of_the_process(model: Model) -> None:
    torch.set_num_threads(2)
    engine = Devices(["cpu", "cpu"])
    found = [chunk for _, chunk in engine.compute(model, Threads(), prompts(30))]
    assert {int(chunk["threads"]) for chunk in found} == {2} == {engine.threads}
    assert len({int(chunk["own"]) for chunk in found}) == 2
    assert not any(chunk["gradients"] for chunk in found)


def test_an_error_of_one_device_stops_all_and_is_raised(model: Model) -> None:
    taken: list[int] = []

    def items() -> Iterator[Item]:
        for item in prompts(5000):
            taken.append(item[0])
            yield item

    with pytest.raises(InterventionError, match="item 7 cannot run"):
        list(Devices(["cpu", "cpu"]).compute(model, Faulty(), items()))
    assert len(taken) < 5000


def test_stopped_early_it_gives_what_came_and_can_be_used_again(model: Model) -> None:
    engine = Devices(["cpu", "cpu"])
    computing = engine.compute(model, Logits(0.01), prompts(5000))
    found = dict(next(computing) for _ in range(5))
    computing.close()
    every = here(model, Logits(), prompts(60))
    assert same(found, {number: every[number] for number in found})
    assert same(dict(engine.compute(model, Logits(), prompts(60))), every)


def test_an_error_that_is_kept_holds_no_thread(model: Model) -> None:
    """As notebooks keep the last one."""
    some = kept_and_computed(Devices(["cpu", "cpu"]), model, Logits(0.01), prompts(5000), None)
    before = set(threading.enumerate())
    kept = []
    try:
        with closing(some) as chunks:
            for _ in chunks:
                raise InterventionError("something; do otherwise.")
    except InterventionError as error:
        kept.append(error)
    for _ in range(100):
        if before >= set(threading.enumerate()):
            break
        time.sleep(0.05)
    assert before >= set(threading.enumerate())
    assert kept


def test_a_sweep_after_an_error_that_is_kept_is_right() -> None:
    tiny, some = sample("gpt2"), samples()
    plain = interp.ablate(tiny, some, progress=False)
    broken = Model(copy.deepcopy(tiny.hf), tiny.tokenizer, id="gpt2")
    with torch.no_grad():
        broken.hf.transformer.h[1].attn.c_proj.weight[0, 0] = torch.nan
    kept = []
    for _ in range(3):
        try:
            interp.ablate(broken, some, devices=["cpu"] * 3, progress=False)
        except MetricError as error:
            kept.append(error)
        found = interp.ablate(tiny, some, devices=["cpu"] * 3, progress=False)
        assert torch.equal(found.values, plain.values)
    assert len(kept) == 3


def test_weights_are_held_once_on_a_device(model: Model) -> None:
    first, second = copies(model, [torch.device("cpu")] * 2)
    own = [tensor.data_ptr() for tensor in model.hf.parameters()]
    for made in (first, second):
        assert [tensor.data_ptr() for tensor in made.hf.parameters()] == own
        assert made.hf is not model.hf
    assert copies(model, [torch.device("cpu")] * 2)[0] is first


def test_what_is_asked_is_answered_by_a_copy(model: Model) -> None:
    assert Devices(["cpu", "cpu"]).ask(model, lambda each: each.hf is not model.hf)
    assert Here().ask(model, lambda each: each.hf is model.hf)


def test_no_device_and_a_device_that_is_not_there_are_refused() -> None:
    with pytest.raises(ModelError, match="devices is an empty list"):
        Devices([])
    with pytest.raises(ModelError, match=r"devices is 'cpu'; give a list, such as \['cpu'\]"):
        Devices("cpu")
    with pytest.raises(ModelError, match="device 'cuda:99' cannot be used here"):
        Devices(["cuda:99"])
