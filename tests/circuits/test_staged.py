"""Path patching in stages: the scores by hand, and circuits that are known."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from interp import load, tasks
from interp.circuits import Stages, stages
from interp.engine import patch_paths
from interp.errors import CircuitError
from interp.sites import K, Q, V
from interp.stats import bootstrap_ci
from interp.zoo import handmade
from tests.parity.compare import model, pairs


@cache
def run(name: str) -> Stages:
    """Two of the sixteen heads of the name finder from each set of receivers."""
    some = handmade.ALL[name]().model
    return stages(some, tasks.get("ioi").sample(some, n=2, seed=0), share=0.13, progress=False)


@pytest.mark.parametrize("name", ["names", "names_gqa"])
def test_it_finds_the_name_finder_from_its_end_to_its_beginning(name: str) -> None:
    """Copy suppression and name mover; then inhibition; then the duplicate-token head.

    0.0 tells where a gift stands, which is the same in prompt and counterfactual: no patch of it
    can change anything.
    """
    found = run(name)
    told = [(stage.number, stage.reads, list(map(str, stage.kept))) for stage in found.stages]
    assert [each for each in told if each[2]] == [
        (1, "logits", ["2.1", "3.2"]),
        (2, "q", ["1.3", "2.1"]),
        (3, "k", ["0.2"]),
    ]
    assert [str(head) for head in found.heads] == ["0.2", "1.3", "2.1", "3.2"]


def test_receivers_of_grouped_heads_are_the_groups() -> None:
    found = run("names_gqa")
    second = {stage.reads: stage.receivers for stage in found.stages if stage.number == 2}
    assert second["q"] == (Q(2, 1), Q(3, 2))
    assert second["k"] == (K(2, 0), K(3, 1))
    assert second["v"] == (V(2, 0), V(3, 1))


@pytest.mark.parametrize("family", ["gpt2", "native-gqa"])
def test_scores_are_the_share_of_the_way_from_clean_to_corrupt(family: str) -> None:
    some, prompts = model(family), pairs()
    found = stages(some, prompts, share=0.7, depth=2, metric="kl", progress=False)
    assert {stage.number for stage in found.stages} == {1, 2}
    for stage in found.stages:
        sweep = patch_paths(
            some, prompts, stage.sweep.sites, stage.receivers or None, metric="kl", progress=False
        )
        assert sweep.corrupt is not None
        gap = sweep.corrupt.mean() - sweep.clean.mean()
        expected = (sweep.values.mean(dim=1) - sweep.clean.mean()) / gap
        assert torch.allclose(stage.scores, expected)
        ends = torch.stack(bootstrap_ci((sweep.values - sweep.clean) / gap)).sort(dim=0).values
        assert torch.allclose(torch.stack(stage.ci()), ends)
        assert all(head.layer < stage.receivers[-1].layer for head in stage.kept if stage.receivers)


def test_each_set_of_receivers_gives_its_share_of_heads_at_most() -> None:
    found = stages(model("gpt2"), pairs(), share=0.25, depth=3, metric="kl", progress=False)
    for stage in found.stages:
        assert len(stage.kept) <= 0.25 * 8
        scores = dict(zip(stage.sweep.sites, stage.scores.abs().tolist(), strict=True))
        low, high = stage.ci()
        sure = [s for s, a, b in zip(scores, low, high, strict=True) if a * b > 0]
        best = sorted(scores, key=lambda head: -scores[head])[:2]
        assert set(stage.kept) == set(best) & set(sure)


def test_on_polymath_it_gives_a_circuit_a_table_and_a_figure() -> None:
    some = load("polymath")
    prompts = tasks.get("ioi").sample(some, n=4, seed=0)
    found = stages(some, prompts, share=0.05, depth=2, progress=False)
    circuit = found.circuit()
    assert circuit.heads == found.heads
    assert len(circuit.mlps) == 6
    assert circuit.provenance["prompts_hash"] == prompts.hash
    assert circuit.node_scores.isnan().sum() == len(circuit.mlps) + 2
    frame = found.to_frame()
    assert set(frame.loc[frame["kept"], "sender"]) == set(map(str, found.heads))
    assert (frame["ci_low"] <= frame["ci_high"]).all()
    first = frame[frame["stage"] == 1]
    assert len(first) == 48
    assert first["score"].abs().is_monotonic_decreasing
    best = found.stages[0].scores[found.stages[0].scores.abs().argmax()]
    assert first["score"].iloc[0] == pytest.approx(float(best))
    assert len(found.plot().data) == len(found.stages)
    assert repr(found).startswith(f"Stages({len(found.heads)} heads: stage 1: logits from ")
    assert f"Stages({len(found.heads)} heads: stage 1" in found._repr_html_()


def test_a_circuit_scores_a_head_by_its_largest_effect() -> None:
    found = stages(model("gpt2"), pairs(), share=0.5, depth=2, progress=False)
    circuit = found.circuit()
    for node, row in circuit.shape.node_index.items():
        mine = [
            score
            for stage in found.stages
            for sender, score in zip(stage.sweep.sites, stage.scores.tolist(), strict=True)
            if sender == node
        ]
        if mine:
            assert float(circuit.node_scores[row]) == pytest.approx(max(mine, key=abs))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"share": 0.0}, "The size is 0.0"),
        ({"share": 1.5}, "The size is 1.5"),
        ({"depth": 0}, "depth is 0"),
    ],
)
def test_shares_and_depths_that_are_none_are_refused(options: dict, said: str) -> None:
    with pytest.raises(CircuitError, match=said):
        stages(model("gpt2"), pairs(), **options)


def test_a_single_prompt_is_refused() -> None:
    with pytest.raises(CircuitError, match="give two or more prompts"):
        stages(model("gpt2"), pairs()[:1])
