"""A cluster of two nodes, one of which is lost, and what such a cluster cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from interp.errors import ClusterError
from interp.models import Model
from interp.workers import Ray, model_source
from interp.workers.versions import versions
from tests.workers.conftest import here, same
from tests.workers.works import Logits, prompts


@pytest.fixture(scope="module")
def nodes() -> Iterator[Any]:
    """Two nodes with a CPU each."""
    from ray.cluster_utils import Cluster

    one = {"num_cpus": 1, "object_store_memory": 100 * 2**20}
    made = Cluster(initialize_head=True, head_node_args={**one, "include_dashboard": False})
    made.second = made.add_node(**one)
    yield made
    made.shutdown()


@pytest.mark.slow
def test_a_node_that_is_lost_takes_nothing_with_it(
    nodes: Any, model: Model, capfd: pytest.CaptureFixture[str]
) -> None:
    items = prompts(200)
    with Ray(nodes.address, workers=2, cpus=0.5) as engine:
        assert engine.ask(model, lambda model: model.id) == model.id
        computing = engine.compute(model, Logits(0.03), items)
        found = dict(next(computing) for _ in range(20))
        nodes.remove_node(nodes.second, allow_graceful=False)
        with pytest.warns(UserWarning, match="A worker was lost"):
            found |= dict(computing)
    assert capfd.readouterr().out == ""
    assert same(found, here(model, Logits(), items))


def test_workers_with_other_versions_are_refused(
    nodes: Any, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_source, "versions", lambda: {**versions(), "torch": "1.0"})
    told = r"A worker has other versions: torch is 1\.0 in the driver and .*; install the same"
    with Ray(nodes.address, workers=1) as engine, pytest.raises(ClusterError, match=told):
        engine.ask(model, lambda model: model.id)


def test_more_than_the_cluster_has_is_told_after_a_while(nodes: Any, model: Model) -> None:
    told = r"For 2 seconds no worker has started: the cluster has .* CPUs free, .* ask for fewer"
    with Ray(nodes.address, cpus=64, patience=2) as engine, pytest.raises(ClusterError, match=told):
        engine.ask(model, lambda model: model.id)
