"""A real Ray cluster on this machine: the bits of one process, whoever dies meanwhile."""

from __future__ import annotations

import os
import signal
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp.errors import ClusterError, InterventionError
from interp.models import Model
from interp.workers import Ray, crew, engine_or_here, on_ray
from interp.workers.cluster import join, require_room
from tests.families import tiny, tiny_tokenizer
from tests.workers.conftest import here, same
from tests.workers.works import Deadly, Faulty, Logits, SlowToArrive, prompts


def test_the_chunks_are_those_of_one_process(cluster: Ray, model: Model) -> None:
    items = prompts(40)
    assert same(dict(cluster.compute(model, Logits(), items)), here(model, Logits(), items))
    assert cluster.threads == cluster.ask(model, lambda _: torch.get_num_threads()) == 1


def test_a_cluster_of_our_own_asks_for_a_token(cluster: Ray, model: Model) -> None:
    assert cluster.ask(model, lambda _: os.environ["RAY_AUTH_MODE"]) == "token"
    assert cluster.ask(model, lambda _: os.environ.get("RAY_USAGE_STATS_ENABLED")) == "0"


def test_a_model_is_found_by_its_name(cluster: Ray) -> None:
    model = interp.load("polymath", check=False)
    items = prompts(10)
    assert same(dict(cluster.compute(model, Logits(), items)), here(model, Logits(), items))
    twin = model.untrained()
    assert same(dict(cluster.compute(twin, Logits(), items)), here(twin, Logits(), items))


def test_a_model_is_let_go_for_another_before_all_workers_had_it(
    cluster: Ray, model: Model, tmp_path: Path
) -> None:
    models = [
        model,
        *(Model(tiny("llama", seed=seed), tiny_tokenizer(), id="tiny") for seed in (1, 2)),
    ]
    items = prompts(12)
    for each in models * 2:
        assert cluster.ask(each, lambda at_worker: at_worker.weights_hash) == each.weights_hash
    for each in models:
        assert same(dict(cluster.compute(each, Logits(), items)), here(each, Logits(), items))


def test_weights_that_change_in_place_are_given_to_the_workers_again(cluster: Ray) -> None:
    some, items = Model(tiny("gpt2", seed=5), tiny_tokenizer(), id="tiny"), prompts(6)
    before = dict(cluster.compute(some, Logits(), items))
    with torch.no_grad():
        next(some.hf.parameters()).mul_(2)
    after = dict(cluster.compute(some, Logits(), items))
    assert same(after, here(some, Logits(), items))
    assert not same(after, before)


def test_a_model_that_takes_long_to_load_is_waited_for(
    cluster: Ray, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.ask(model, lambda _: None)
    monkeypatch.setattr(on_ray._held.crew, "_patience", 0.5)  # type: ignore[union-attr]
    slow = Model(tiny("gpt2", seed=6), tiny_tokenizer(), id="tiny")
    slow.hf.slow = SlowToArrive(2.0)
    items = prompts(3)
    assert same(dict(cluster.compute(slow, Logits(), items)), here(slow, Logits(), items))


def test_a_worker_that_is_killed_is_replaced(cluster: Ray, model: Model, tmp_path: Path) -> None:
    items = prompts(60)
    computing = cluster.compute(model, Logits(0.03, str(tmp_path)), items)
    found = dict([next(computing)])
    victim = int(next(tmp_path.iterdir()).name)
    os.kill(victim, signal.SIGKILL)
    with pytest.warns(UserWarning, match="A worker was lost .* computed again"):
        found |= dict(computing)
    assert same(found, here(model, Logits(), items))


def test_an_item_that_kills_a_worker_is_computed_by_another(
    cluster: Ray, model: Model, tmp_path: Path
) -> None:
    items = prompts(20)
    with pytest.warns(UserWarning, match="A worker was lost"):
        found = dict(cluster.compute(model, Deadly(str(tmp_path), times=1), items))
    assert len(list(tmp_path.iterdir())) == 1
    assert same(found, here(model, Logits(), items))


def test_an_item_that_kills_every_worker_ends_it(
    cluster: Ray, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crew, "DEATHS", 2)
    with (
        pytest.warns(UserWarning, match="A worker was lost"),
        pytest.raises(ClusterError, match=r"Item 7 killed 2 workers, the last so: .*more memory"),
    ):
        dict(cluster.compute(model, Deadly(str(tmp_path), times=99), prompts(20)))
    assert len(list(tmp_path.iterdir())) == 2


def test_what_a_worker_raises_is_raised_here(cluster: Ray, model: Model) -> None:
    with pytest.raises(InterventionError) as raised:
        dict(cluster.compute(model, Faulty(), prompts(20)))
    assert str(raised.value) == "item 7 cannot run; leave it out."
    assert "In a worker on " in raised.value.__notes__[0]
    items = prompts(5)
    assert same(dict(cluster.compute(model, Logits(), items)), here(model, Logits(), items))


def test_items_without_end_are_taken_as_they_are_needed(cluster: Ray, model: Model) -> None:
    taken = []

    def endless():
        for number in count():
            taken.append(number)
            yield number, [number % 90]

    computing = cluster.compute(model, Logits(0.02), endless())
    assert len(list(islice(computing, 20))) == 20
    computing.close()
    assert len(taken) < 20 + 3 * 2 * 0.5 / 0.02


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"address": 5}, "address is 5; give HOST:PORT"),
        ({"workers": "2"}, "workers is '2'; give a whole number above 0"),
        ({"workers": 0}, "workers is 0; give a whole number above 0"),
        ({"cpus": -1}, "cpus is -1; give a number above 0"),
        ({"gpus": -1}, "gpus is -1; give a part of one GPU, or whole ones"),
        ({"gpus": 1.5}, r"gpus is 1\.5; give a part of one GPU, or whole ones"),
        ({"patience": None}, "patience is None; give seconds"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ClusterError, match=told):
        Ray(**options)


def test_a_cluster_of_our_own_without_room_for_a_worker_is_told_at_once(cluster: Ray) -> None:
    cluster.ask(Model(tiny("gpt2"), tiny_tokenizer(), id="tiny"), lambda _: None)
    require_room(0.5, 0.0)
    with pytest.raises(ClusterError, match=r"asks for 0\.5 CPUs and 99 GPUs, and this machine has"):
        require_room(0.5, 99.0)


@pytest.mark.usefixtures("types_unchecked")
def test_the_name_of_an_engine_is_no_engine() -> None:
    with pytest.raises(ClusterError, match=r"engine is 'ray', a name; give an engine, such as"):
        engine_or_here("ray")  # type: ignore[arg-type]


def test_no_items_need_no_cluster(model: Model) -> None:
    assert list(Ray(address="nowhere").compute(model, Logits(), [])) == []


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:9", r"Nothing answers at 127\.0\.0\.1:9 \(Connection refused\)"),
        ("nowhere", "'nowhere' is no address of a Ray cluster; give HOST:PORT"),
        ("127.0.0.1:port", "is no address of a Ray cluster"),
    ],
)
def test_an_address_of_nothing_is_told_at_once(address: str, told: str) -> None:
    with pytest.raises(ClusterError, match=told):
        join(address)
