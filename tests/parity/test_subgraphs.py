"""The model with some of its edges: against single edges, joint ablations, and mathematics."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from interp.engine import Mean, Operation, Patch, Zero, ablate, patch_edges
from interp.engine.graph import graph_edges, graph_nodes
from interp.engine.subgraph import run_subgraphs
from interp.errors import InterventionError, PromptError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, Edge, Head, Input, Joint, K, Logits, Q, Site, V
from tests.families import FAMILIES
from tests.parity.compare import assert_close, model, pairs

NORMED_SUMS = ("gemma2", "gemma3", "olmo2")
"""Here a norm stands behind the sum of all heads, so that no head adds to the stream by itself."""


def random_circuits(some: Model, count: int, share: float = 0.6) -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.rand(count, len(graph_edges(some)), generator=random) < share


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in NORMED_SUMS])
def test_without_one_edge_it_is_the_patched_edge(family: str) -> None:
    some, prompts = model(family), pairs("left")
    edges = graph_edges(some)
    without = ~torch.eye(len(edges), dtype=torch.bool)[::3]
    found = run_subgraphs(some, prompts, without, Patch(), progress=False)
    expected = patch_edges(some, prompts, edges[::3], progress=False)
    assert_close(found.values, expected.values)
    assert_close(found.clean, expected.clean)
    assert expected.corrupt is not None
    assert_close(found.empty, expected.corrupt)


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "llama", "native-gqa"])
@pytest.mark.parametrize(
    ("operation", "how"),
    [
        (Zero(), {"method": "zero"}),
        (Mean("template"), {"method": "mean", "over": "template"}),
        (Patch(), {"method": "counterfactual"}),
    ],
    ids=lambda value: str(value) if isinstance(value, Operation) else "",
)
def test_without_a_node_it_is_the_ablated_node(
    family: str, operation: Operation, how: dict[str, str]
) -> None:
    some, prompts = model(family), pairs()
    out = [node for node in graph_nodes(some) if not isinstance(node, Input)][::2]
    circuit = torch.tensor([[edge.src not in out for edge in graph_edges(some)]])
    found = run_subgraphs(some, prompts, circuit, operation, progress=False)
    expected = ablate(some, prompts, [Joint(tuple(out))], progress=False, **how)  # type: ignore[arg-type]
    assert_close(found.values, expected.values)


def test_random_circuits_are_those_of_plain_mathematics() -> None:
    """One circuit after another, one reader after another, with no batch and no cache."""
    some, prompts = model("gpt2"), pairs()
    circuits = random_circuits(some, 4)
    found = run_subgraphs(some, prompts, circuits, Patch(), progress=False)
    for circuit, values in zip(circuits, found.values, strict=True):
        kept = {edge for edge, stays in zip(graph_edges(some), circuit, strict=True) if stays}
        for row in range(len(prompts)):
            real = prompts.mask[row]
            assert prompts.corrupt is not None
            logits = by_hand(some, prompts.clean[row][real], prompts.corrupt[row][real], kept)
            assert prompts.wrong is not None
            right, wrong = (
                logits[each[row][each[row] >= 0]].logsumexp(0)
                for each in (prompts.answer, prompts.wrong)
            )
            assert float(right - wrong) == pytest.approx(float(values[row]), abs=1e-9)


@torch.no_grad()
def by_hand(some: Model, clean: Tensor, corrupt: Tensor, kept: set[Edge]) -> Tensor:
    """Logits at END of a GPT-2 in which all edges but the kept carry the corrupt run's value."""
    other = added(some, corrupt, set(graph_edges(some)), {})
    now = added(some, clean, kept, other)
    body = some.hf.transformer
    stream = read(now, other, Logits(), kept) + now["bias"][some.geometry.n_layers]
    return some.hf.lm_head(body.ln_f(stream))[-1]


def read(
    now: dict[Site, Tensor], other: dict[Site, Tensor], reader: Site, kept: set[Edge]
) -> Tensor:
    return sum(
        value if Edge(source, reader) in kept else other[source]
        for source, value in now.items()
        if isinstance(source, Site) and source < reader
    )


def added(
    some: Model,
    tokens: Tensor,
    kept: set[Edge],
    other: dict[Site, Tensor],
) -> dict[Site, Tensor]:
    """What every source adds when readers see kept edges alone; and the biases that all see."""
    body, shape = some.hf.transformer, some.geometry
    size, d = shape.d_head, shape.d_model
    now: dict = {Input(): body.wte(tokens) + body.wpe(torch.arange(len(tokens)))}
    now["bias"] = [0.0]
    for layer, block in enumerate(body.h):
        projections = block.attn.c_attn
        for head in range(shape.n_heads):
            seen = []
            for place, reader in enumerate((Q(layer, head), K(layer, head), V(layer, head))):
                at = slice(place * d + head * size, place * d + (head + 1) * size)
                stream = block.ln_1(read(now, other, reader, kept) + now["bias"][layer])
                seen.append(stream @ projections.weight[:, at] + projections.bias[at])
            query, key, value = (each[None, None] for each in seen)
            z = functional.scaled_dot_product_attention(query, key, value, is_causal=True)[0, 0]
            weight = block.attn.c_proj.weight[head * size : (head + 1) * size]
            now[Head(layer, head)] = z @ weight
        behind = now["bias"][layer] + block.attn.c_proj.bias
        stream = read(now, other, MLP(layer), kept) + behind
        now[MLP(layer)] = block.mlp(block.ln_2(stream))
        now["bias"].append(behind)
    return now


def test_sources_can_be_kept_at_some_positions() -> None:
    """A head that is kept at END alone is one ablated everywhere else."""
    some, prompts = model("gpt2"), pairs("left")
    nodes, head = graph_nodes(some), Head(0, 1)
    circuit = torch.ones(1, len(graph_edges(some)), dtype=torch.bool)
    places = torch.ones(1, len(nodes), *prompts.clean.shape, dtype=torch.bool)
    at_end = torch.arange(prompts.clean.shape[1]) == prompts.end[:, None]
    places[0, nodes.index(head)] = at_end
    found = run_subgraphs(some, prompts, circuit, Zero(), places=places, progress=False)
    whole, end = (
        ablate(some, prompts, [head], method="zero", positions=at, progress=False).values
        for at in (None, "END")
    )
    assert not torch.allclose(found.values, whole)
    assert not torch.allclose(found.values, end)
    lengths = prompts.mask.sum(dim=1)
    for row in range(len(prompts)):
        before = [f"{head}@{place}" for place in range(int(lengths[row]) - 1)]
        one = ablate(
            some, prompts[row : row + 1], ["+".join(before)], method="zero", progress=False
        )
        assert_close(found.values[:, row], one.values[:, 0])


def test_many_circuits_are_what_each_is_alone() -> None:
    some, prompts = model("llama"), pairs()
    circuits = random_circuits(some, 5)
    together = run_subgraphs(some, prompts, circuits, Mean("position"), progress=False)
    for circuit, values in zip(circuits, together.values, strict=True):
        alone = run_subgraphs(some, prompts, circuit[None], Mean("position"), progress=False)
        assert_close(alone.values[0], values)


def test_a_metric_of_the_users_sees_all_prompts() -> None:
    some, prompts = model("gpt2"), pairs()
    circuits = random_circuits(some, 2)
    ours = run_subgraphs(some, prompts, circuits, Zero(), metric="prob", progress=False)

    def prob(logits: Tensor) -> Tensor:
        assert len(logits) == len(prompts)
        right = logits.softmax(-1).gather(1, prompts.answer.clamp(min=0))
        return (right * (prompts.answer >= 0)).sum(dim=1)

    theirs = run_subgraphs(some, prompts, circuits, Zero(), metric=prob, progress=False)
    assert_close(theirs.values, ours.values)


@pytest.mark.parametrize("family", NORMED_SUMS)
def test_heads_behind_a_common_norm_are_refused(family: str) -> None:
    some = model(family)
    with pytest.raises(InterventionError, match="a norm stands behind the heads"):
        run_subgraphs(some, pairs(), random_circuits(some, 1), Zero(), progress=False)


def test_masks_of_another_model_and_lonely_prompts_are_refused() -> None:
    some, prompts = model("gpt2"), pairs()
    with pytest.raises(InterventionError, match=r"A circuit has 3 edges and gpt2 has 110"):
        run_subgraphs(some, prompts, torch.ones(1, 3, dtype=torch.bool), Zero())
    single = PromptSet.from_tokens(prompts.clean, answer=prompts.answer, mask=prompts.mask)
    with pytest.raises(PromptError, match="needs a counterfactual"):
        run_subgraphs(some, single, random_circuits(some, 1), Patch())
    with pytest.raises(InterventionError, match="has no ablation"):
        run_subgraphs(some, prompts, random_circuits(some, 1), {Input(): Zero()})
