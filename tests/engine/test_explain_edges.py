"""Edges are counted without being listed, and their operations are those that torch counts."""

from __future__ import annotations

from collections import Counter

import pytest

import interp
from interp.engine import attribute, patch_edges
from interp.engine.edges import READS
from interp.engine.explain_edges import explain_attribution, explain_edges, readers
from interp.engine.precision import in_dtype
from interp.engine.replay import replay_of
from interp.errors import PromptError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import edges
from tests.activations.samples import model, prompts
from tests.engine.operations import Counted


@pytest.fixture(scope="module")
def small() -> tuple[Model, PromptSet]:
    # in float64, where every product is one that torch counts
    made = in_dtype(interp.load("polymath-llama", check=False), "float64")
    return made, interp.tasks.get("ioi").sample(made, n=2, seed=0)


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "native"])
def test_every_edge_is_counted_where_it_is_read(family: str) -> None:
    replay = replay_of(model(family))
    parallel, has_mlp = replay.body.parallel, replay.body.blocks[0].mlp is not None
    listed = edges(replay.model, parallel=parallel, has_mlp=has_mlp)
    layers = replay.n_layers
    expected = Counter((min(edge.dst.layer, layers), READS[type(edge.dst)]) for edge in listed)
    assert {(some.layer, some.kind): some.edges for some in readers(replay)} == expected


def test_the_operations_of_exact_patching_are_those_that_torch_counts(
    small: tuple[Model, PromptSet],
) -> None:
    full, some = small
    patch_edges(full, some[:1], ["input->1.0.k"], progress=False)  # its replay is made before
    with Counted() as counted:
        patch_edges(full, some[:1], progress=False)
    plan = explain_edges(full, some[:1])
    assert plan.flops == pytest.approx(counted.flops, rel=0.03)
    assert plan.naive_flops > plan.flops > plan.floor_flops > plan.clean_flops > 0
    assert plan.interventions == len(edges(full))


@pytest.mark.parametrize(("method", "steps"), [("eap", 1), ("eap-ig-inputs", 5)])
def test_the_operations_of_attribution_are_those_that_torch_counts(
    small: tuple[Model, PromptSet], method: str, steps: int
) -> None:
    full, some = small
    attribute(full, some[:1], ["input->logits"], progress=False)
    with Counted() as counted:
        attribute(full, some, method=method, steps=steps, progress=False)
    plan = explain_attribution(full, some, steps=steps)
    assert plan.edges == len(edges(full))
    # a run on one prompt, which asks whether there are edges at all, is not in the plan
    assert plan.flops + plan.products == pytest.approx(
        counted.flops, rel=0.03 if steps > 1 else 0.1
    )


def test_edges_need_counterfactuals() -> None:
    with pytest.raises(PromptError, match="these have none; make them with corrupt="):
        explain_edges(model("llama"), prompts())
