"""Nine ways in which circuits have gone wrong elsewhere, each against a computation by hand.

The hand computations are for a GPT-2 in float64, on one prompt at a time and without padding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import interp
from interp.circuits import Circuit
from interp.circuits.ablations import ablation_of, run_circuits
from interp.circuits.evaluate import evaluate
from interp.circuits.select import importance
from interp.engine import Patch, Set, ablate, attribute, patch, patch_edges
from interp.engine.graph import graph_edges, graph_nodes
from interp.engine.subgraph import run_subgraphs
from interp.errors import MetricError, PromptError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, Edge, Head, Input, K, Logits, Site, V
from interp.zoo import handmade
from tests.parity.compare import assert_close, model, pairs

QUIET = {"progress": False}


@torch.no_grad()
def activations(some: Model, tokens: Tensor) -> dict[Site, Tensor]:
    """What each node computes: the embeddings, z of heads, and outputs of MLPs, [pos, width]."""
    body, found, handles = some.hf.transformer, {}, []
    size = some.geometry.d_head

    def keep_heads(layer: int) -> Callable[..., None]:
        def hook(module: Any, args: Any) -> None:
            for head in range(some.geometry.n_heads):
                found[Head(layer, head)] = args[0][0, :, head * size : (head + 1) * size]

        return hook

    def keep_mlp(layer: int) -> Callable[..., None]:
        return lambda module, args, out: found.__setitem__(MLP(layer), out[0])

    for layer, block in enumerate(body.h):
        handles.append(block.attn.c_proj.register_forward_pre_hook(keep_heads(layer)))
        handles.append(block.mlp.register_forward_hook(keep_mlp(layer)))
    some.hf(tokens[None])
    for handle in handles:
        handle.remove()
    found[Input()] = body.wte(tokens) + body.wpe(torch.arange(len(tokens)))
    return found


def added(some: Model, node: Site, value: Tensor) -> Tensor:
    """What a node adds to the stream."""
    if not isinstance(node, Head):
        return value
    size = some.geometry.d_head
    weight = some.hf.transformer.h[node.layer].attn.c_proj.weight
    return value @ weight[node.head * size : (node.head + 1) * size]


def diff(some: Model, prompts: PromptSet, row: int, stream: Tensor) -> Tensor:
    """The logit difference of the last stream at END."""
    logits = some.hf.lm_head(some.hf.transformer.ln_f(stream))
    right, wrong = (
        logits[tokens[row][tokens[row] >= 0]].logsumexp(0)
        for tokens in (prompts.answer, prompts.wrong)
    )
    return right - wrong


def at_end(some: Model, values: dict[Site, Tensor]) -> Tensor:
    """The last stream at END when each node has its value."""
    biases = [block.attn.c_proj.bias for block in some.hf.transformer.h]
    return sum(added(some, node, value[-1]) for node, value in values.items()) + sum(biases)


def rows(prompts: PromptSet, tokens: Tensor) -> list[Tensor]:
    return [row[real] for row, real in zip(tokens, prompts.mask, strict=True)]


# 1. Means: no padding, grouped by template and position, one for each node.


def means_by_hand(some: Model, prompts: PromptSet, tokens: Tensor, over: str) -> dict[Site, Tensor]:
    """For each node its means, [prompts, pos, width], padding left at 0."""
    each = [activations(some, row) for row in rows(prompts, tokens)]
    columns = [real.nonzero()[:, 0].tolist() for real in prompts.mask]

    def key(row: int, place: int) -> Any:
        inside = [
            name
            for name, spans in prompts.roles.items()
            if spans[row, 0] <= columns[row][place] < spans[row, 1]
        ]
        return {
            "all": 0,
            "position": place,
            "role": tuple(inside),
            "template": (prompts.notes["template"][row], len(columns[row]), place),
        }[over]

    found: dict[Site, Tensor] = {}
    for node in graph_nodes(some):
        members: dict[Any, list[Tensor]] = {}
        for row, values in enumerate(each):
            for place, value in enumerate(values[node]):
                members.setdefault(key(row, place), []).append(value)
        found[node] = torch.zeros(*prompts.clean.shape, each[0][node].shape[1]).double()
        for row, real in enumerate(columns):
            for place, column in enumerate(real):
                found[node][row, column] = torch.stack(members[key(row, place)]).mean(dim=0)
    return found


def uneven(side: str) -> PromptSet:
    """Six prompts of lengths 7, 3, 7, 3, 7, 3 from two templates of which one has both lengths."""
    rows = [[r * 9 + i + 1 for i in range(7 if r % 2 == 0 else 3)] for r in range(6)]
    some = pairs(side, rows)
    return replace(some, notes={"template": ["a", "b", "a", "a", "a", "b"]})


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("over", ["all", "position", "role", "template"])
@pytest.mark.parametrize("ablation", ["mean", "counterfactual-mean"])
def test_1_means_are_those_of_brute_force(side: str, over: str, ablation: str) -> None:
    some, prompts = model("gpt2"), uneven(side)
    if (over, ablation) == ("template", "mean"):  # prompt 3 is alone in its template and length
        with pytest.raises(PromptError, match="Prompt 3 is averaged with no other"):
            ablation_of(some, prompts, ablation, over=over)
        prompts = replace(prompts, notes={"template": ["a", "b"] * 3})
    tokens = prompts.corrupt if ablation == "counterfactual-mean" else prompts.clean
    assert tokens is not None
    expected = means_by_hand(some, prompts, tokens, over)
    operation = ablation_of(some, prompts, ablation, over=over)
    circuits = (
        torch.rand(3, len(graph_edges(some)), generator=torch.Generator().manual_seed(0)) < 0.6
    )
    by_name = run_subgraphs(some, prompts, circuits, operation, **QUIET)
    by_hand: dict[Site, Any] = {node: Set(value) for node, value in expected.items()}
    given = run_subgraphs(some, prompts, circuits, by_hand, **QUIET)
    assert_close(by_name.values, given.values)
    for row, real in enumerate(prompts.mask):
        stream = at_end(some, {node: value[row][real] for node, value in expected.items()})
        assert diff(some, prompts, row, stream).item() == pytest.approx(
            float(by_name.empty[row]), abs=1e-9
        )


@pytest.mark.parametrize("wrong", ["padding", "one for all nodes", "no templates"])
def test_1_each_fault_in_the_means_would_show(wrong: str) -> None:
    some, prompts = model("gpt2"), uneven("right")
    tokens, none = prompts.corrupt, torch.zeros(1, len(graph_edges(some)), dtype=torch.bool)
    assert tokens is not None
    right = ablation_of(some, prompts, "counterfactual-mean", over="template")
    if wrong == "padding":
        means = means_by_hand(
            some, replace(prompts, mask=torch.ones_like(prompts.mask)), tokens, "all"
        )
        right = ablation_of(some, prompts, "counterfactual-mean", over="all")
    elif wrong == "one for all nodes":
        means = means_by_hand(some, prompts, tokens, "template")
        heads = [node for node in means if isinstance(node, Head)]
        mean = torch.stack([means[head] for head in heads]).mean(dim=0)
        means |= dict.fromkeys(heads, mean)
    else:
        means = means_by_hand(some, prompts, tokens, "position")
    operation: dict[Site, Any] = {node: Set(value) for node, value in means.items()}
    found, expected = (
        run_subgraphs(some, prompts, none, each, **QUIET).empty for each in (operation, right)
    )
    assert (found - expected).abs().max() > 0.01


# 2. Sign and base point.


def test_2_scores_are_corrupt_minus_clean_times_the_gradient_at_clean() -> None:
    some, prompts = model("gpt2"), pairs()
    edges = [edge for edge in graph_edges(some) if isinstance(edge.dst, Logits)]
    found = attribute(some, prompts, edges, method="eap", **QUIET).effects
    assert prompts.corrupt is not None
    both = zip(rows(prompts, prompts.clean), rows(prompts, prompts.corrupt), strict=True)
    for row, (clean, corrupt) in enumerate(both):
        here, there = activations(some, clean), activations(some, corrupt)
        stream = at_end(some, here).detach().requires_grad_()
        (gradient,) = torch.autograd.grad(diff(some, prompts, row, stream), stream)
        for index, edge in enumerate(edges):
            change = added(some, edge.src, there[edge.src][-1] - here[edge.src][-1])
            assert float(found[index, row]) == pytest.approx((change @ gradient).item(), abs=1e-9)


def test_2_an_edge_that_is_needed_has_a_negative_score_and_is_ranked_first() -> None:
    made, prompts, exact = names()
    gradient = attribute(made.model, prompts, exact.sites, method="eap-ig-inputs", **QUIET)
    mover, against = (exact.sites.index(Edge(Head(*h), Logits())) for h in ((2, 1), (3, 2)))
    for sweep in (exact, gradient):
        effect = sweep.effects.mean(dim=-1)
        assert effect[mover] < -1
        assert effect[against] > 1
        ranks = importance(effect, "signed").argsort(descending=True).tolist()
        assert ranks[0] == mover
        assert ranks[-1] == against


@cache
def names() -> tuple[handmade.Handmade, PromptSet, interp.SweepResult]:
    """A hand-made model, and the exact effects of its edges into the logits."""
    made = handmade.names()
    prompts = interp.tasks.get("ioi").sample(made.model, n=2, seed=0)
    edges = [edge for edge in graph_edges(made.model) if isinstance(edge.dst, Logits)]
    return made, prompts, patch_edges(made.model, prompts, edges, progress=False)


# 3. Pairs of unequal length.


def test_3_unaligned_pairs_are_refused() -> None:
    some, prompts = model("gpt2"), pairs()
    with pytest.raises(PromptError, match="Prompt 1 has 2 tokens and its counterfactual 3"):
        PromptSet.from_tokens([[1, 2, 3], [4, 5]], [[6, 7, 8], [9, 8, 7]], answer=[1, 2])
    others = replace(pairs(rows=[[1, 2, 3], [4, 5, 6], [7, 8, 9], [9, 8, 7]]), corrupt=None)
    whole = torch.ones(1, len(graph_edges(some)), dtype=torch.bool)
    with pytest.raises(PromptError, match="give as many, each as long as the prompt"):
        run_subgraphs(some, prompts, whole, Patch(others), **QUIET)


def test_3_pairs_of_other_lengths_beside_it_do_not_change_a_pair() -> None:
    some, prompts = model("gpt2"), pairs("left")
    circuit = Circuit.from_edges(some, graph_edges(some)[::2])
    together = run_circuits(some, prompts, [circuit], Patch(), **QUIET)
    for row in (0, 1):
        alone = run_circuits(some, prompts[row : row + 1], [circuit], Patch(), **QUIET)
        assert_close(alone.values[:, 0], together.values[:, row])


# 4. Positions that cancel.


def test_4_a_sum_over_positions_hides_what_each_of_them_shows() -> None:
    """A head of a trained model has effects at some positions, and little in sum."""
    some = interp.load("polymath")
    prompts = interp.tasks.get("ioi").sample(some, n=16, seed=0)
    prompts = prompts[prompts.mask.sum(dim=1) == 16]
    sites = interp.sites.heads(some)
    summed = attribute(some, prompts, sites, method="atp", **QUIET).effects
    each = attribute(some, prompts, sites, method="atp", positions="each", **QUIET).effects
    each = each.unflatten(0, (len(sites), -1))
    assert_close(each.sum(dim=1), summed, 1e-5)
    shown = each.mean(dim=-1).abs().amax(dim=1)
    hidden = summed.mean(dim=-1).abs() / shown
    assert ((hidden < 0.25) & (shown > 0.3)).any()


def test_4_a_role_keeps_a_node_where_it_matters_and_nowhere_else() -> None:
    made, prompts, _ = names()
    heads = ["0.2@S2", "1.3@END", "2.1@END", "3.2@END"]
    elsewhere = ["0.2@S1", "1.3@END", "2.1@END", "3.2@END"]
    both = {name: Circuit.from_nodes(made.model, some) for name, some in
            (("at S2", heads), ("at S1", elsewhere))}  # fmt: skip
    found = evaluate(made.model, prompts, both, random=0, **QUIET)
    assert found.faithfulness().tolist() == pytest.approx([1, 0], abs=1e-5)


# 5. LayerNorm.


def test_5_edges_read_before_the_norm_which_is_computed_again() -> None:
    some, prompts = model("gpt2"), pairs()
    two = [Edge(Head(1, 0), Logits()), Edge(MLP(0), Logits())]
    without = torch.tensor([[edge not in out for edge in graph_edges(some)] for out in
                            ([two[0]], [two[1]], two)])  # fmt: skip
    found = run_subgraphs(some, prompts, without, Patch(), **QUIET)
    effects = found.values - found.clean
    assert (effects[0] + effects[1] - effects[2]).abs().max() > 1e-3  # they do not add up
    assert prompts.corrupt is not None
    both = zip(rows(prompts, prompts.clean), rows(prompts, prompts.corrupt), strict=True)
    for row, (clean, corrupt) in enumerate(both):
        here, there = activations(some, clean), activations(some, corrupt)
        for index, out in enumerate(([two[0]], [two[1]], two)):
            patched = {**here, **{edge.src: there[edge.src] for edge in out}}
            expected = diff(some, prompts, row, at_end(some, patched))
            assert float(found.values[index, row]) == pytest.approx(expected.item(), abs=1e-9)


# 6. Grouped-query attention.


@pytest.mark.parametrize("family", ["native-gqa", "llama"])
def test_6_keys_and_values_have_one_reader_a_group(family: str) -> None:
    some, prompts = model(family), pairs()
    groups = some.geometry.n_kv_heads
    assert groups < some.geometry.n_heads
    edges = graph_edges(some)
    readers = [Edge(Input(), kind(0, group)) for kind in (K, V) for group in range(groups)]
    own = [edge for edge in edges if edge.src == Input() and edge.dst.layer == 0]
    assert [edge for edge in own if isinstance(edge.dst, K | V)] == readers
    without = torch.tensor([[edge != reader for edge in edges] for reader in readers])
    found = run_subgraphs(some, prompts, without, Patch(), **QUIET)
    keys_and_values = [reader.dst for reader in readers]
    whole = patch(some, prompts, keys_and_values, direction="noise", **QUIET)
    assert_close(found.values, whole.values)


# 7. The gradient of KL at the clean run; heads that work against the answer.


def test_7_kl_has_no_gradient_at_the_clean_run() -> None:
    some, prompts = model("gpt2"), pairs()
    with pytest.raises(MetricError, match="gradient of kl is zero at the clean run"):
        attribute(some, prompts, method="eap", metric="kl", **QUIET)
    found = attribute(some, prompts, method="eap-ig-inputs", metric="kl", steps=5, **QUIET)
    assert found.effects.abs().max() > 1e-3


def test_7_heads_that_work_against_the_answer_are_found_by_size() -> None:
    _, _, exact = names()
    effect, against = exact.effects.mean(dim=-1), exact.sites.index(Edge(Head(3, 2), Logits()))
    by_sign, by_size = (
        importance(effect, rank).argsort(descending=True).tolist() for rank in ("signed", "abs")
    )
    assert by_size.index(against) == 1
    assert by_sign.index(against) == len(exact.sites) - 1


# 8. Self-repair.


def test_8_joint_effects_are_not_sums_of_single_effects() -> None:
    """What lowers the answer has nothing to lower when the name mover is out."""
    made, prompts, _ = names()
    mover, against = Head(2, 1), Head(3, 2)
    found = ablate(
        made.model,
        prompts,
        [mover, against, f"{mover}+{against}"],
        method="counterfactual",
        progress=False,
    ).effects.mean(dim=-1)
    assert found[0] < -5
    assert found[1] > 5
    assert found[2] == pytest.approx(float(found[0]), abs=1e-4)
    assert abs(found[2] - (found[0] + found[1])) > 5
    circuit = Circuit.from_nodes(made.model, interp.sites.heads(made.model))
    without = Circuit.from_nodes(
        made.model, [head for head in circuit.heads if head not in (mover, against)]
    )
    same = evaluate(made.model, prompts, without, random=0, **QUIET)
    assert float((same.values - same.clean).mean()) == pytest.approx(float(found[2]), abs=1e-4)


# 9. Ratios.


def test_9_both_ratios_are_given_and_named_and_one_prompt_can_decide_the_mean_of_ratios() -> None:
    some, prompts = model("gpt2"), pairs()
    circuit = Circuit.from_edges(some, graph_edges(some)[::2])
    found = evaluate(some, prompts, circuit, random=0, **QUIET)
    row = found.to_frame().iloc[0]
    gaps, gains = found.clean - found.empty, found.values[0] - found.empty
    assert row["f"] == pytest.approx(float(gains.mean() / gaps.mean()))
    assert row["f_mean_of_ratios"] == pytest.approx(float((gains / gaps).mean()))
    small = replace(
        found, empty=found.empty.index_copy(0, torch.tensor([1]), found.clean[1:2] - 1e-6)
    )
    assert abs(small.faithfulness("f_mean_of_ratios")) > 1e3
    assert abs(small.faithfulness("f")) < 1e3
