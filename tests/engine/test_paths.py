from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import interp
from interp.engine import Intervention, Patch, paths, run
from interp.engine.anatomy import anatomy
from interp.engine.paths import patch_paths
from interp.errors import InterventionError, PromptError, SiteError
from interp.prompts import PromptSet
from interp.sites import MLP, Head, Q, Site, heads, keys, mlps, parse, queries, values
from tests.activations.samples import hooks_on, model, prompts
from tests.engine.test_edges import (
    ByHand,
    Hook,
    contrasted,
    double,
    end_logits,
    into,
    of_parts,
    pairs,
    scored,
    tolerance,
    with_span,
)
from tests.families import FAMILIES

FEW = ("1.0.q", "1.1.q", "1.1.k", "1.0.v", "m1")
DEEP = ("gpt2", "llama", "gpt-neox")


def by_hand(
    hand: ByHand, sender: Site, receivers: Sequence[Site], some: PromptSet, through_mlps: bool
) -> Tensor:
    """Two whole forwards with plain hooks of torch."""
    before, after = hand.seen(some.clean), hand.seen(some.corrupt)
    kept: dict = {}
    hooks: list[Hook] = []
    for layer in range(len(hand.blocks)):
        z, size = before["z", layer].clone(), hand.shape.d_head
        if isinstance(sender, Head) and sender.layer == layer:
            span = slice(sender.head * size, (sender.head + 1) * size)
            z[..., span] = after["z", layer][..., span]
        hooks.append((hand.projection(layer), "in", lambda _, z=z: z))
        for receiver in receivers:
            if receiver.layer == layer:
                module, _ = place(hand, receiver)
                hooks.append((module, "out", into(kept, receiver)))
        if sender == MLP(layer):
            hooks.append((hand.mlp(layer), "out", lambda _, new=after["mlp", layer]: new))
        elif not through_mlps:
            hooks.append((hand.mlp(layer), "out", lambda _, old=before["mlp", layer]: old))
    clean = end_logits(hand.hf, some.clean, [])
    first = end_logits(hand.hf, some.clean, hooks)
    if not receivers:
        return scored(first, some, clean)
    hooks = []
    for receiver in receivers:
        module, span = place(hand, receiver)
        hooks.append((module, "out", with_span(span, kept[receiver][..., span])))
    return scored(end_logits(hand.hf, some.clean, hooks), some, clean)


def place(hand: ByHand, receiver: Site) -> tuple:
    if isinstance(receiver, MLP):
        return hand.mlp(receiver.layer), slice(None)
    unit = receiver.head if isinstance(receiver, Q) else receiver.group
    return hand.reader(receiver.layer, str(receiver)[-1], unit)


def reaching(family: str, receivers: Sequence[Site]) -> list[Site]:
    """Heads and MLPs from which a path leads to one of the receivers; to the logits, all."""
    found = [*heads(double(family)), *mlps(double(family))]
    if not receivers:
        return found
    beside = {MLP(site.layer) for site in receivers if isinstance(site, MLP)}
    parallel = anatomy(double(family)).parallel

    def leads(sender: Site, receiver: Site) -> bool:
        same = parallel and receiver in beside and sender.layer == receiver.layer
        return sender < receiver and not same

    return [each for each in found if any(leads(each, receiver) for receiver in receivers)]


@pytest.mark.parametrize("through_mlps", [True, False])
@pytest.mark.parametrize("receivers", [(), FEW, ("1.1.q",), ("m1",), ("0.1.v", "m0", "1.1.k")])
@pytest.mark.parametrize("family", DEEP)
def test_paths_are_what_they_are_by_hand(
    family: str, receivers: tuple[str, ...], through_mlps: bool
):
    some, ends = pairs(), [parse(each) for each in receivers]
    senders = reaching(family, ends)
    sweep = patch_paths(
        double(family), some, senders[::-1], ends or None, through_mlps=through_mlps
    )
    hand = ByHand(double(family))
    expected = torch.stack([by_hand(hand, each, ends, some, through_mlps) for each in sweep.sites])
    torch.testing.assert_close(sweep.values, expected, **tolerance(family))
    assert sweep.effects.abs().amax(dim=-1).min() > 1e-6


def test_another_receiver_and_another_sender_are_told_apart():
    some, hand = pairs(), ByHand(double("llama"))
    sweep = patch_paths(double("llama"), some, ["0.1"], ["1.1.k"])
    for sender, receiver in (("0.0", "1.1.k"), ("0.1", "1.0.k"), ("0.1", "1.1.v")):
        other = by_hand(hand, parse(sender), [parse(receiver)], some, True)
        with pytest.raises(AssertionError):
            torch.testing.assert_close(sweep.values[0], other, **tolerance("llama"))
    frozen = patch_paths(double("llama"), some, ["0.1"], ["1.1.k"], through_mlps=False)
    assert not torch.allclose(sweep.values, frozen.values)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_readers_of_a_layer_together_read_the_stream_of_a_direct_path(family: str):
    """With the MLPs kept, all readers of block 1 see the sender's move: as if the stream moved."""
    tiny_model, some = double(family), pairs()
    body = anatomy(tiny_model)
    ends = [*queries(tiny_model), *keys(tiny_model), *values(tiny_model)]
    ends = [each for each in ends if each.layer == 1]
    sweep = patch_paths(tiny_model, some, ["0.1"], ends, through_mlps=False)
    clean, before = of_parts(body, some.clean)
    _, after = of_parts(body, some.corrupt)
    z, size = before["z", 0].clone(), before["z", 0].shape[-1] // 4
    z[..., size : 2 * size] = after["z", 0][..., size : 2 * size]
    with torch.no_grad():
        for module in body.blocks[0].after_heads:
            z = module.forward(z)
    move = (body.blocks[1].parts["resid_pre"], lambda x: x + z - before["attn_out", 0])
    _, seen = of_parts(body, some.clean, [move])
    puts = [
        (body.blocks[1].parts[kind], lambda x, kind=kind: seen[kind, 1].view_as(x))
        for kind in "qkv"
    ]
    logits, _ = of_parts(body, some.clean, puts)
    torch.testing.assert_close(sweep.values[0], scored(logits, some, clean), **tolerance(family))


@pytest.mark.parametrize("family", FAMILIES)
def test_direct_paths_to_the_logits_are_direct_effects(family: str):
    tiny_model, some = double(family), pairs()
    senders = list(heads(tiny_model))
    senders += mlps(tiny_model) if "mlp_out" in anatomy(tiny_model).blocks[0].parts else []
    sweep = patch_paths(tiny_model, some, senders, through_mlps=False)
    patches = [Intervention.at(each, Patch()) for each in senders]
    direct = run(tiny_model, some, patches, effect="direct")
    torch.testing.assert_close(sweep.values, direct.values, **tolerance(family))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_and_groups_change_nothing(side: str):
    some = contrasted(side)
    sweep = patch_paths(model("llama"), some, ["0.1", "m0"], FEW)
    for row in range(len(some)):
        alone = patch_paths(model("llama"), some[row : row + 1], ["0.1", "m0"], FEW)
        torch.testing.assert_close(alone.values, sweep.values[:, row : row + 1])


def test_single_precision_agrees_with_double():
    for family in DEEP:
        some = pairs()
        senders = reaching(family, [parse(each) for each in FEW])
        found = patch_paths(model(family), some, senders, FEW).values
        exact = patch_paths(double(family), some, senders, FEW).values
        torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)


def test_denoising_is_noising_of_the_swapped_prompts():
    some = pairs()
    other = pairs(some.corrupt.tolist(), some.clean.tolist())
    noise = patch_paths(double("gpt2"), other, ["0.1"], ["m1"])
    denoise = patch_paths(double("gpt2"), some, ["0.1"], ["m1"], direction="denoise")
    torch.testing.assert_close(noise.values, denoise.values)
    torch.testing.assert_close(noise.effects, denoise.effects)
    assert denoise.provenance["direction"] == "denoise"
    torch.testing.assert_close(denoise.clean, noise.corrupt)


@pytest.mark.parametrize("tokens", [1, 40])
@pytest.mark.parametrize("receivers", [None, FEW])
def test_less_memory_gives_the_same(tokens: int, receivers, monkeypatch: pytest.MonkeyPatch):
    senders = reaching("gpt2", [parse(each) for each in receivers or ()])
    whole = patch_paths(double("gpt2"), pairs(), senders, receivers)
    monkeypatch.setattr("interp.engine.stored.train_tokens", lambda replay: tokens)
    parts = patch_paths(double("gpt2"), pairs(), senders, receivers)
    torch.testing.assert_close(parts.values, whole.values)


def test_models_without_a_cache_give_the_same(monkeypatch: pytest.MonkeyPatch):
    cached = patch_paths(double("gpt2"), pairs(), ["0.1", "m0"], FEW)
    monkeypatch.setattr(paths.require_pairs(double("gpt2"), pairs(), "noise"), "cached", False)
    whole = patch_paths(double("gpt2"), pairs(), ["0.1", "m0"], FEW)
    torch.testing.assert_close(whole.values, cached.values, **tolerance("gpt2"))


def test_a_metric_of_the_user_sees_all_prompts_at_once():
    some = contrasted("right")

    def both(logits: Tensor) -> Tensor:
        assert len(logits) == len(some)
        return logits[:, 3] - logits[:, 5]

    sweep = patch_paths(double("gpt2"), some, ["0.1", "m0"], FEW, metric=both)
    for row in range(len(some)):
        alone = patch_paths(
            double("gpt2"),
            some[row : row + 1],
            ["0.1", "m0"],
            FEW,
            metric=lambda logits: logits[:, 3] - logits[:, 5],
        )
        torch.testing.assert_close(alone.values, sweep.values[:, row : row + 1])


def test_paths_of_an_embedded_model():
    polymath = interp.load("polymath")
    some = interp.tasks.get("ioi").sample(polymath, n=8, seed=0)
    through = patch_paths(polymath, some, None, progress=False)
    assert through.sites == heads(polymath)
    assert through.values.isfinite().all()
    direct = patch_paths(polymath, some, None, through_mlps=False)
    patches = [Intervention.at(each, Patch()) for each in heads(polymath)]
    expected = run(polymath, some, patches, effect="direct")
    torch.testing.assert_close(direct.values, expected.values, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(direct.values, through.values)
    last = polymath.geometry.n_layers - 1
    some_heads = [each for each in heads(polymath) if each.layer < last]
    into_last = patch_paths(polymath, some, some_heads, [Q(last, 0), Q(last, 1)])
    assert into_last.values.isfinite().all()


def test_the_result_says_what_was_done():
    sweep = patch_paths(double("gpt2"), pairs(), ["0.1"], ["1.0.q", "m1"], through_mlps=False)
    assert (sweep.method, sweep.metric) == ("path-patch", "logit_diff")
    assert sweep.provenance["receivers"] == ["1.0.q", "m1"]
    assert sweep.provenance["through_mlps"] is False
    assert patch_paths(double("gpt2"), pairs(), "0.1").provenance["receivers"] == ["logits"]
    assert "path-patching of 1 sites" in repr(sweep)


def test_the_model_is_left_as_it_was():
    before = hooks_on(double("gpt2"))
    patch_paths(double("gpt2"), pairs(), ["0.1", "m0"], FEW)
    assert hooks_on(double("gpt2")) == before


@pytest.mark.parametrize(
    ("senders", "receivers", "words"),
    [
        (["1.1"], ["1.0.q"], r"No path leads from 1\.1 to 1\.0\.q"),
        (["0.1", "m1"], ["m1", "1.0.v"], r"No path leads from m1 to m1, 1\.0\.v"),
        (["0.1.q"], None, r"0\.1\.q is no sender"),
        (["0.1@END"], None, r"0\.1@END is no sender"),
        (["0.1"], ["1.1"], r"1\.1 is no receiver"),
        (["0.1"], ["logits"], r"logits is only an end of edges"),
        (["0.9"], None, r"0\.9 is outside the model"),
        (["0.1"], [], "There are no sites"),
    ],
)
def test_what_is_no_path_is_refused(senders, receivers, words: str):
    with pytest.raises(SiteError, match=words):
        patch_paths(double("gpt2"), pairs(), senders, receivers)


def test_a_head_does_not_feed_the_mlp_beside_it():
    with pytest.raises(SiteError, match=r"No path leads from 1\.1 to m1"):
        patch_paths(double("gpt-neox"), pairs(), ["1.1"], ["m1"])
    assert patch_paths(double("gpt2"), pairs(), ["1.1"], ["m1"]).effects.abs().min() > 0


def test_paths_need_pairs_and_a_known_direction():
    with pytest.raises(PromptError, match="counterfactual"):
        patch_paths(model("gpt2"), prompts(), ["0.1"])
    with pytest.raises(InterventionError, match="did you mean denoise"):
        patch_paths(model("gpt2"), pairs(), ["0.1"], direction="denoize")
