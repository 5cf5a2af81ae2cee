from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import interp
from interp.engine import Intervention, edges, run
from interp.engine import Patch as PatchFrom
from interp.engine.anatomy import Anatomy, anatomy
from interp.engine.edges import heads_apart, patch_edges
from interp.engine.metrics import resolve
from interp.engine.replay import replay_of
from interp.engine.result import SweepResult
from interp.errors import InterventionError, PromptError, SiteError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, Edge, Head, Input, Logits, Q, Site
from interp.sites import edges as every_edge
from tests.activations.samples import hooks_on, model, prompts
from tests.families import FAMILIES, tiny, tiny_tokenizer

DOWNCAST = "llama mistral qwen2 qwen3 gemma2 gemma3 olmo2"  # their norms compute in float32
NO_DOUBLE = "mixtral"  # torch has no grouped matrix product in float64
CLEAN = [[1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]]
CORRUPT = [[1, 2, 30, 4, 5, 61], [7, 80, 39, 10, 11, 12]]

Hook = tuple[nn.Module, str, Callable[[Tensor], Tensor | None]]


@cache
def double(family: str) -> Model:
    """A tiny model in float64, where it can be."""
    module = tiny(family)
    return Model(module if family in NO_DOUBLE else module.double(), tiny_tokenizer(), id=family)


def pairs(clean: list[list[int]] = CLEAN, corrupt: list[list[int]] = CORRUPT) -> PromptSet:
    answer = [[20, 21] if row == 0 else [22 + row] for row in range(len(clean))]
    return PromptSet.from_tokens(
        clean, corrupt, answer=answer, wrong=[40 + row for row in range(len(clean))]
    )


def contrasted(side: str) -> PromptSet:
    """The shared padded prompts, with counterfactuals that differ in the role S and at END."""
    some = prompts(side)
    corrupt = some.clean.clone()
    for row, (start, end) in enumerate(zip(some.roles["S"][:, 0], some.end, strict=True)):
        corrupt[row, start + 1], corrupt[row, end] = 60 + row, 70 + row
    return replace(some, corrupt=corrupt)


def tolerance(family: str) -> dict[str, float]:
    if family in NO_DOUBLE:
        return {"rtol": 1e-3, "atol": 2e-4}
    return {"rtol": 1e-7, "atol": 1e-7} if family in DOWNCAST else {"rtol": 1e-9, "atol": 1e-11}


@contextmanager
def hooked(hooks: list[Hook]) -> Iterator[None]:
    """Plain hooks of torch on the first input or the first output of modules."""
    with ExitStack() as stack:
        for module, side, function in hooks:
            if side == "in":
                handle = module.register_forward_pre_hook(_on_input(function), with_kwargs=True)
            else:
                handle = module.register_forward_hook(_on_output(function))
            stack.callback(handle.remove)
        yield


def _on_input(function: Callable[[Tensor], Tensor | None]):
    def hook(module, args, kwargs):
        if args:
            new = function(args[0])
            return None if new is None else ((new, *args[1:]), kwargs)
        new = function(kwargs["hidden_states"])
        return None if new is None else (args, {**kwargs, "hidden_states": new})

    return hook


def _on_output(function: Callable[[Tensor], Tensor | None]):
    def hook(module, args, output):
        if isinstance(output, Tensor):
            return function(output)
        new = function(output[0])
        return None if new is None else (new, *output[1:])

    return hook


def end_logits(hf: nn.Module, tokens: Tensor, hooks: list[Hook]) -> Tensor:
    with torch.no_grad(), hooked(hooks):
        output = hf(input_ids=tokens)
    return (output if isinstance(output, Tensor) else output.logits)[:, -1]


def into(kept: dict, name: object) -> Callable[[Tensor], None]:
    return lambda x: kept.__setitem__(name, x.clone())


def with_span(span: slice, value: Tensor) -> Callable[[Tensor], Tensor]:
    def put(x: Tensor) -> Tensor:
        new = x.clone()
        new[..., span] = value
        return new

    return put


def scored(logits: Tensor, some: PromptSet, clean: Tensor) -> Tensor:
    return resolve("logit_diff")(logits, some, clean=clean)


# By hand: where the weights of five families are, and what each reader makes of a stream.


class ByHand:
    """One edge of one family: `q = W_q norm(x + moved)` from the weights, in a whole forward."""

    def __init__(self, model: Model) -> None:
        self.hf, self.family, self.shape = model.hf, model.id, model.geometry
        hf = model.hf
        if self.family in ("gpt2", "gpt-j"):
            self.blocks = hf.transformer.h
        elif self.family == "gpt-neox":
            self.blocks = hf.gpt_neox.layers
        elif self.family == "llama":
            self.blocks = hf.model.layers
        else:
            self.blocks = hf.layers

    def attention(self, layer: int) -> nn.Module:
        block = self.blocks[layer]
        for name in ("attn", "self_attn", "attention"):
            if hasattr(block, name):
                return getattr(block, name)
        raise AssertionError(block)

    def projection(self, layer: int) -> nn.Module:
        attn = self.attention(layer)
        for name in ("c_proj", "out_proj", "dense", "o_proj", "o"):
            if hasattr(attn, name):
                return getattr(attn, name)
        raise AssertionError(attn)

    def norm(self, layer: int) -> nn.Module | None:
        names = ("ln_1", "input_layernorm", "ln1")
        found = [getattr(self.blocks[layer], name, None) for name in names]
        return next((each for each in found if each is not None), None)

    def reader(self, layer: int, kind: str, unit: int) -> tuple[nn.Module, slice]:
        """The module and the features of its output in which a head's query lies."""
        attn, size, wide = self.attention(layer), self.shape.d_head, self.shape.d_model
        if self.family == "gpt2":
            first = "qkv".index(kind) * wide + unit * size
            return attn.c_attn, slice(first, first + size)
        if self.family == "gpt-neox":  # heads side by side, each with its query, key and value
            first = unit * 3 * size + "qkv".index(kind) * size
            return attn.query_key_value, slice(first, first + size)
        name = kind if self.family == "native" else f"{kind}_proj"
        return getattr(attn, name), slice(unit * size, (unit + 1) * size)

    def mlp(self, layer: int) -> nn.Module:
        return self.blocks[layer].mlp

    def output_rows(self, layer: int, head: int) -> Tensor:
        """W_O of one head, `[d_head, d_model]`."""
        size = self.shape.d_head
        weight = self.projection(layer).weight
        rows = weight if self.family == "gpt2" else weight.T
        return rows[head * size : (head + 1) * size]

    def seen(self, tokens: Tensor) -> dict:
        """The stream that enters each block, z, and what attention and MLP give."""
        kept: dict = {}
        hooks: list[Hook] = []
        for layer, block in enumerate(self.blocks):
            hooks.append((block, "in", into(kept, ("x", layer))))
            hooks.append((self.projection(layer), "in", into(kept, ("z", layer))))
            hooks.append((self.projection(layer), "out", into(kept, ("attn", layer))))
            if hasattr(block, "mlp"):
                hooks.append((block.mlp, "out", into(kept, ("mlp", layer))))
        hooks.append((self.blocks[-1], "out", into(kept, ("x", len(self.blocks)))))
        end_logits(self.hf, tokens, hooks)
        return kept

    @torch.no_grad()
    def value(self, edge: Edge, some: PromptSet) -> Tensor:
        before, after = self.seen(some.clean), self.seen(some.corrupt)
        clean = end_logits(self.hf, some.clean, [])
        hook = self.hook(edge.dst, before, self.moved(edge.src, before, after))
        return scored(end_logits(self.hf, some.clean, [hook]), some, clean)

    def moved(self, src: Site, before: dict, after: dict) -> Tensor:
        if isinstance(src, Input):
            return after["x", 0] - before["x", 0]
        if isinstance(src, MLP):
            return after["mlp", src.layer] - before["mlp", src.layer]
        size = self.shape.d_head
        span = slice(src.head * size, (src.head + 1) * size)
        z = after["z", src.layer] - before["z", src.layer]
        return z[..., span] @ self.output_rows(src.layer, src.head)

    def hook(self, dst: Site, kept: dict, moved: Tensor) -> Hook:
        if isinstance(dst, Logits):
            return self.blocks[-1], "out", lambda x: x + moved
        layer = dst.layer
        if isinstance(dst, MLP):
            return self.mlp(layer), "out", lambda _: self.read_by_mlp(layer, kept, moved)
        unit = dst.head if isinstance(dst, Q) else dst.group
        module, span = self.reader(layer, str(dst)[-1], unit)
        norm = self.norm(layer)
        read = kept["x", layer] + moved
        normed = read if norm is None else norm(read)
        weight = module.weight if self.family == "gpt2" else module.weight.T
        value = normed @ weight[:, span]
        if module.bias is not None:
            value = value + module.bias[span]
        return module, "out", with_span(span, value)

    def read_by_mlp(self, layer: int, kept: dict, moved: Tensor) -> Tensor:
        block = self.blocks[layer]
        x = kept["x", layer] + moved
        if self.family == "gpt-j":
            return block.mlp.forward(block.ln_1(x))
        if self.family == "gpt-neox":
            return block.mlp.forward(block.post_attention_layernorm(x))
        norm = block.ln_2 if self.family == "gpt2" else block.post_attention_layernorm
        return block.mlp.forward(norm(x + kept["attn", layer]))


BY_HAND = ("gpt2", "gpt-j", "gpt-neox", "llama", "native")


@pytest.mark.parametrize("family", BY_HAND)
def test_every_edge_is_what_it_is_by_hand(family: str):
    tiny_model, some = double(family), pairs()
    sweep = patch_edges(tiny_model, some)
    by_hand = ByHand(tiny_model)
    expected = torch.stack([by_hand.value(edge, some) for edge in sweep.sites])
    torch.testing.assert_close(sweep.values, expected, **tolerance(family))
    assert (sweep.effects.abs().amax(dim=-1) > 1e-4).float().mean() > 0.9


@pytest.mark.parametrize(("family", "other"), [("gpt2", "1.1.q"), ("llama", "1.1.k")])
def test_another_reader_is_told_apart(family: str, other: str):
    """The comparison above fails if a head, or a group, is taken for its neighbour."""
    tiny_model, some = double(family), pairs()
    sweep = patch_edges(tiny_model, some, [f"input->{other.replace('.1.', '.0.')}"])
    wrong = ByHand(tiny_model).value(interp.sites.parse(f"input->{other}"), some)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(sweep.values[0], wrong, **tolerance(family))


# For any architecture: from the places of the parts alone.


def of_parts(body: Anatomy, tokens: Tensor, hooks: list[tuple] = ()) -> tuple[Tensor, dict]:
    """Logits at END, and all parts, of a whole forward with hooks on some parts."""
    kept: dict = {}
    with torch.no_grad(), ExitStack() as stack:
        for part, function in hooks:
            stack.enter_context(part.hook(function))
        for layer, block in enumerate(body.blocks):
            for kind in {"z", "q", "k", "v", "attn_out", "mlp_out", "resid_pre"} & {*block.parts}:
                stack.enter_context(block.parts[kind].hook(into(kept, (kind, layer))))
        logits = end_logits(body.module, tokens, [])
    return logits, kept


def by_parts(body: Anatomy, edge: Edge, some: PromptSet, after_heads: Callable) -> Tensor:
    """One edge in three whole forwards: what is moved, what the reader makes of it, what follows.

    A reader gives what it gives when all that stands before its block is moved.
    """
    logits, before = of_parts(body, some.clean)
    _, after = of_parts(body, some.corrupt)
    src, dst = edge.src, edge.dst
    if isinstance(src, Input):
        moved = after["resid_pre", 0] - before["resid_pre", 0]
    elif isinstance(src, MLP):
        moved = after["mlp_out", src.layer] - before["mlp_out", src.layer]
        moved = moved.view_as(before["resid_pre", 0])
    else:
        z, size = before["z", src.layer].clone(), before["z", 0].shape[-1] // 4
        span = slice(src.head * size, (src.head + 1) * size)
        z[..., span] = after["z", src.layer][..., span]
        with torch.no_grad():
            moved = after_heads(body, src.layer, z) - before["attn_out", src.layer]
    if isinstance(dst, Logits):
        move = (body.blocks[-1].parts["resid_post"], lambda x: x + moved)
        return scored(of_parts(body, some.clean, [move])[0], some, logits)
    parts = body.blocks[dst.layer].parts
    behind = isinstance(dst, MLP) and not body.parallel
    move = (parts["attn_out" if behind else "resid_pre"], lambda x: x + moved)
    kind = "mlp_out" if isinstance(dst, MLP) else str(dst)[-1]
    read = of_parts(body, some.clean, [move])[1][kind, dst.layer]
    part, unit = parts[kind], getattr(dst, "head", getattr(dst, "group", 0))
    size = read.shape[-1] // max(1, part.heads)
    span = slice(unit * size, (unit + 1) * size)
    put = (part, with_span(span, read[..., span]))
    return scored(of_parts(body, some.clean, [put])[0], some, logits)


def after_all_heads(body: Anatomy, layer: int, z: Tensor) -> Tensor:
    for module in body.blocks[layer].after_heads:
        z = module.forward(z)
    return z


@pytest.mark.parametrize("family", FAMILIES)
def test_every_edge_of_every_family(family: str):
    tiny_model, some = double(family), pairs()
    sweep = patch_edges(tiny_model, some)
    body = anatomy(tiny_model)
    chosen = range(0, len(sweep.sites), 1 if family == "gemma2" else 3)
    expected = [by_parts(body, sweep.sites[row], some, after_all_heads) for row in chosen]
    found = sweep.values[list(chosen)]
    torch.testing.assert_close(found, torch.stack(expected), **tolerance(family))


def test_norms_over_all_heads_are_found():
    """OLMo 2 alone joins the queries of all heads in one norm, and the keys."""
    joined = {
        (family, kind)
        for family in FAMILIES
        for kind in "qkv"
        if not heads_apart(replay_of(model(family)), kind)
    }
    assert joined == {("olmo2", "q"), ("olmo2", "k")}


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-j", "falcon", "native-gqa"])
def test_both_roads_into_the_attention_agree(family: str, monkeypatch: pytest.MonkeyPatch):
    """Heads are run from behind their attention, or with the block where norms join them."""
    fast = patch_edges(double(family), pairs())
    monkeypatch.setattr(edges, "heads_apart", lambda replay, kind: False)
    slow = patch_edges(double(family), pairs())
    torch.testing.assert_close(fast.values, slow.values, **tolerance(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_edges_into_the_logits_are_direct_effects(family: str):
    tiny_model, some = double(family), pairs()
    sites = [Head(0, 1), Head(1, 3)]
    sites += [MLP(0), MLP(1)] if family != "native" else []
    sweep = patch_edges(tiny_model, some, [Edge(site, Logits()) for site in sites])
    patches = [Intervention.at(site, PatchFrom()) for site in sites]
    direct = run(tiny_model, some, patches, effect="direct")
    torch.testing.assert_close(sweep.values, direct.values, **tolerance(family))


def test_an_edge_into_the_only_reader_is_the_whole_effect():
    """The MLP of the last block reaches the logits alone."""
    for family in ("gpt2", "llama", "gpt-neox"):
        edge = patch_edges(double(family), pairs(), ["m1->logits"])
        whole = run(double(family), pairs(), [Intervention.at(MLP(1), PatchFrom())])
        torch.testing.assert_close(edge.values, whole.values, **tolerance(family))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "native"])
def test_padding_and_groups_change_nothing(family: str, side: str):
    some = contrasted(side)
    sweep = patch_edges(model(family), some)
    for row in range(len(some)):
        alone = patch_edges(model(family), some[row : row + 1])
        torch.testing.assert_close(
            alone.values, sweep.values[:, row : row + 1], rtol=1e-5, atol=2e-5
        )


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "gpt-j", "native"])
def test_single_precision_agrees_with_double(family: str):
    found, exact = (patch_edges(which(family), pairs()) for which in (model, double))
    torch.testing.assert_close(found.values.double(), exact.values, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [1, 30, 100])
@pytest.mark.parametrize("family", ["gpt2", "gpt-neox", "olmo2"])
def test_less_memory_gives_the_same(family: str, tokens: int, monkeypatch: pytest.MonkeyPatch):
    whole = patch_edges(double(family), pairs())
    monkeypatch.setattr("interp.engine.stored.train_tokens", lambda replay: tokens)
    parts = patch_edges(double(family), pairs())
    torch.testing.assert_close(parts.values, whole.values, **tolerance(family))


@pytest.mark.parametrize("family", ["gpt2", "gpt-neox"])
def test_models_without_a_cache_give_the_same(family: str, monkeypatch: pytest.MonkeyPatch):
    cached = patch_edges(double(family), pairs())
    monkeypatch.setattr(replay_of(double(family)), "cached", False)
    whole = patch_edges(double(family), pairs())
    torch.testing.assert_close(whole.values, cached.values, **tolerance(family))


def test_some_edges_in_any_order_are_those_of_all():
    every = patch_edges(double("llama"), pairs())
    number = {edge: row for row, edge in enumerate(every.sites)}
    wanted = ["m0->1.1.k", "input->logits", "0.3->m0", "0.0->1.2.q", "input->0.1.v", "1.1->m1"]
    some = patch_edges(double("llama"), pairs(), wanted)
    rows = [number[site] for site in some.sites]
    assert [str(site) for site in some.sites] == wanted
    torch.testing.assert_close(some.values, every.values[rows])
    alone = patch_edges(double("llama"), pairs(), "m0->1.1.k")
    torch.testing.assert_close(alone.values, some.values[:1])


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "falcon", "native"])
def test_every_edge_is_there_once(family: str):
    body, tiny_model = anatomy(double(family)), double(family)
    has_mlp = body.blocks[0].mlp is not None
    sites = patch_edges(tiny_model, pairs()).sites
    assert sites == every_edge(tiny_model, parallel=body.parallel, has_mlp=has_mlp)


def test_denoising_is_noising_of_the_swapped_prompts():
    noise = patch_edges(double("gpt2"), pairs(CORRUPT, CLEAN))
    denoise = patch_edges(double("gpt2"), pairs(), direction="denoise")
    torch.testing.assert_close(noise.values, denoise.values)
    torch.testing.assert_close(noise.effects, denoise.effects)
    torch.testing.assert_close(denoise.clean, noise.corrupt)
    assert denoise.provenance["direction"] == "denoise"


def test_a_metric_of_the_user_sees_all_prompts_at_once(monkeypatch: pytest.MonkeyPatch):
    some = contrasted("right")
    monkeypatch.setattr("interp.engine.sweep.KEPT_ENDS", 32 * len(some) * 50)  # 50 edges at once

    def difference(logits: Tensor) -> Tensor:
        assert len(logits) == len(some)
        return logits[:, 3] - logits[:, 5]

    sweep = patch_edges(double("gpt2"), some, metric=difference)
    for row in range(len(some)):
        alone = patch_edges(
            double("gpt2"), some[row : row + 1], metric=lambda logits: logits[:, 3] - logits[:, 5]
        )
        torch.testing.assert_close(alone.values, sweep.values[:, row : row + 1])
        torch.testing.assert_close(alone.corrupt, sweep.corrupt[row : row + 1])


def test_what_was_finished_survives_an_interrupt(monkeypatch: pytest.MonkeyPatch):
    whole = patch_edges(double("gpt2"), pairs())
    monkeypatch.setattr("interp.engine.stored.train_tokens", lambda replay: 20)
    ride, rides = edges.Train.ride, []

    def interrupted(self, jobs):
        rides.append(len(jobs))
        if len(rides) == 40:
            raise KeyboardInterrupt
        return ride(self, jobs)

    monkeypatch.setattr(edges.Train, "ride", interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        patch_edges(double("gpt2"), pairs())
    partial: SweepResult = caught.value.partial
    known = ~partial.values.isnan()
    assert 0 < known.sum() < known.numel()
    torch.testing.assert_close(partial.values[known], whole.values[known])


def test_the_result_says_what_was_done(tmp_path):
    sweep = patch_edges(double("gpt2"), pairs(), ["input->1.0.q", "m0->logits"])
    assert (sweep.method, sweep.metric, sweep.exact) == ("patch", "logit_diff", None)
    assert sweep.provenance["effect"] == "total"
    assert sweep.provenance["engine"] == "replay"
    again = SweepResult.load(sweep.save(tmp_path / "edges.safetensors"))
    assert again.sites == sweep.sites
    torch.testing.assert_close(again.values, sweep.values)


def test_the_model_is_left_as_it_was():
    before = hooks_on(double("gpt2"))
    patch_edges(double("gpt2"), pairs())
    assert hooks_on(double("gpt2")) == before


@pytest.mark.parametrize(
    ("family", "edge", "words"),
    [
        ("gpt2", "2.0->logits", r"its layer is 2"),
        ("gpt2", "m1->1.0.q", "runs backwards"),
        ("gpt-neox", "1.0->m1", "does not exist in this model"),
        ("native", "input->m0", "does not exist in this model"),
    ],
)
def test_an_edge_that_the_model_lacks_is_refused(family: str, edge: str, words: str):
    with pytest.raises(SiteError, match=words):
        patch_edges(model(family), pairs(), [edge])


def test_what_is_no_edge_is_refused():
    with pytest.raises(InterventionError, match=r"1\.0 is not an edge"):
        patch_edges(model("gpt2"), pairs(), ["1.0"])
    with pytest.raises(InterventionError, match="did you mean denoise"):
        patch_edges(model("gpt2"), pairs(), direction="denoize")
    with pytest.raises(PromptError, match="counterfactual"):
        patch_edges(model("gpt2"), prompts())


def test_blocks_that_are_no_sum_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(replay_of(model("gpt2")), "splits", False)
    with pytest.raises(InterventionError, match="patch its heads and MLPs whole"):
        patch_edges(model("gpt2"), pairs())
