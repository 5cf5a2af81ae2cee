from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from interp.activations import Activations, capture
from interp.errors import InterventionError, PromptError, SiteError
from interp.models import Model
from interp.prompts import PromptSet
from tests.activations.samples import ROWS, hooks_on, model, prompts
from tests.families import FAMILIES

EVERYWHERE = ["blocks.*.hook_resid_pre", "blocks.*.attn.hook_z", "blocks.*.attn.hook_pattern"]


def close(one: Activations, other: Activations) -> None:
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=2e-5)


def z_of_module(model: Model, some: PromptSet, projections: list[nn.Module]) -> Tensor:
    """What enters the output projection of each layer of the module as it was given."""
    seen: list[Tensor] = []
    handles = [
        each.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        for each in projections
    ]
    model.logits(some.clean, mask=some.mask)
    for handle in handles:
        handle.remove()
    return torch.stack(seen).unflatten(-1, (model.geometry.n_heads, model.geometry.d_head))


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize(
    ("family", "projections"),
    [
        ("gpt2", lambda hf: [block.attn.c_proj for block in hf.transformer.h]),
        ("llama", lambda hf: [layer.self_attn.o_proj for layer in hf.model.layers]),
        ("qwen3", lambda hf: [layer.self_attn.o_proj for layer in hf.model.layers]),
    ],
)
def test_z_is_what_enters_the_output_projection(family: str, projections, side: str):
    tiny, some = model(family), prompts(side)
    ours = capture(tiny, some, "blocks.*.attn.hook_z").stack("attn.hook_z")
    theirs = z_of_module(tiny, some, projections(tiny.hf))
    torch.testing.assert_close(ours[:, some.mask], theirs[:, some.mask], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_on_either_side_gives_the_activations_of_the_prompt_alone(family: str):
    tiny = model(family)
    for side in ("right", "left"):
        together = capture(tiny, prompts(side), EVERYWHERE, positions=[0, -1])
        for i, row in enumerate(ROWS):
            alone = capture(tiny, prompts(rows=[row]), EVERYWHERE, positions=[0, -1])
            for name in together:
                ours, theirs = together[name][i], alone[name][0]
                if name.endswith("pattern"):  # keys: those of the row, wherever it stands
                    ours = ours[..., prompts(side).mask[i]]
                torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("batch_size", [1, 2, 7])
@pytest.mark.parametrize("family", ["gpt2", "llama", "mixtral"])
def test_the_batch_size_changes_nothing(family: str, batch_size: int):
    names = [*EVERYWHERE, "blocks.1.hook_mlp_out", "hook_embed"]
    whole = capture(model(family), prompts(), names)
    close(capture(model(family), prompts(), names, batch_size=batch_size), whole)


@settings(max_examples=10)
@given(st.permutations(range(len(ROWS))))
def test_the_order_of_prompts_does_not_matter(order: list[int]):
    tiny, some = model("llama"), prompts()
    straight = capture(tiny, some, EVERYWHERE, batch_size=2)
    shuffled = capture(tiny, some[order], EVERYWHERE, batch_size=2)
    for name in straight:
        torch.testing.assert_close(shuffled[name], straight[name][order], rtol=1e-4, atol=2e-5)


def test_shapes_on_a_grouped_query_model():
    some = prompts()
    names = ["hook_q", "hook_k", "hook_v", "hook_z", "hook_pattern", "hook_result"]
    acts = capture(model("llama"), some, [f"blocks.1.attn.{name}" for name in names])
    assert [list(tensor.shape) for tensor in acts.values()] == [
        [4, 6, 4, 8],
        [4, 6, 2, 8],
        [4, 6, 2, 8],
        [4, 6, 4, 8],
        [4, 4, 6, 6],
        [4, 6, 4, 32],
    ]


def test_results_of_the_heads_add_up_to_the_output_of_attention():
    tiny = model("llama")  # without a bias in the output projection
    acts = capture(tiny, prompts(), ["blocks.*.attn.hook_result", "blocks.*.hook_attn_out"])
    total = acts["blocks.0.attn.hook_result"].sum(dim=-2)
    torch.testing.assert_close(total, acts["blocks.0.hook_attn_out"], rtol=1e-4, atol=2e-5)
    assert not tiny.bridge.cfg.use_attn_result


def test_positions_pick_the_queries_of_a_pattern():
    tiny, some = model("gpt2"), prompts()
    whole = capture(tiny, some, "blocks.*.attn.hook_pattern")
    ends = capture(tiny, some, "blocks.*.attn.hook_pattern", positions="END")
    for name in ends:
        assert ends[name].shape == (4, 4, 1, 6)
        for i, end in enumerate(some.end.tolist()):
            assert torch.equal(ends[name][i, :, 0], whole[name][i, :, end])


def test_roles_and_mask_follow_the_columns():
    tiny, some = model("gpt2"), prompts("left")
    whole = capture(tiny, some, "blocks.0.hook_in")
    assert torch.equal(whole.mask, some.mask)
    assert torch.equal(whole.roles["S"], some.roles["S"])
    subject = capture(tiny, some, "blocks.0.hook_in", positions="S")
    assert subject["blocks.0.hook_in"].shape == (4, 2, 32)
    assert subject.roles["S"].tolist() == [[0, 2]] * 4
    assert subject.mask.all()
    start, stop = some.roles["S"][1].tolist()
    assert torch.equal(subject["blocks.0.hook_in"][1], whole["blocks.0.hook_in"][1, start:stop])


def test_tokens_in_one_row_and_shared_tables_are_given_to_their_prompts():
    acts = capture(model("mixtral"), prompts(), ["blocks.0.mlp.gate.hook_out", "embed.hook_in"])
    assert acts["blocks.0.mlp.gate.hook_out"].shape == (4, 6, 4)
    assert torch.equal(acts["embed.hook_in"], prompts().clean)
    tables = capture(model("llama"), prompts(rows=[[1, 2, 3], [4, 5, 6]]), "rotary_emb.hook_cos")
    assert tables["rotary_emb.hook_cos"].shape == (2, 3, 8)


def test_nothing_runs_behind_the_last_hook():
    tiny, late = model("gpt2"), []
    points = ["blocks.1.attn.hook_z", "unembed.hook_out"]
    for name, hooks in (("blocks.0.attn.hook_z", 0), ("blocks.1.hook_in", 1)):
        watch = [(point, lambda activation, hook: late.append(hook.name)) for point in points]
        with tiny.bridge.hooks(fwd_hooks=watch):
            capture(tiny, prompts(), name)
        assert len(late) == hooks
    assert "unembed.hook_out" not in late


@pytest.mark.parametrize("family", FAMILIES)
def test_the_model_is_as_it_was(family: str):
    tiny, some = model(family), prompts("left")
    before = tiny.bridge(some.clean, attention_mask=some.mask.long())
    hooks = hooks_on(tiny)
    capture(tiny, some, ["blocks.0.attn.hook_z"], batch_size=3)
    assert hooks_on(tiny) == hooks
    assert torch.equal(tiny.bridge(some.clean, attention_mask=some.mask.long()), before)


def test_no_hook_is_left_behind_after_an_exception_and_the_users_own_stay():
    tiny, calls = model("llama"), []
    point = tiny.bridge.hook_dict["blocks.0.attn.hook_z"]
    point.add_hook(lambda activation, hook: calls.append(hook.name))
    hooks = hooks_on(tiny)
    try:
        with pytest.raises(InterventionError, match=r"hook_hidden_states never fires"):
            capture(tiny, prompts(), ["blocks.0.attn.hook_z", "blocks.0.attn.hook_hidden_states"])
        assert hooks_on(tiny) == hooks
        capture(tiny, prompts(), "blocks.0.attn.hook_z")
        assert len(calls) == 2
    finally:
        point.remove_hooks()


def test_a_hook_that_fires_twice_is_refused():
    with pytest.raises(InterventionError, match=r"rotary_emb\.hook_cos fires 2 times in one"):
        capture(model("gemma3"), prompts(), "rotary_emb.hook_cos")


def test_later_edits_do_not_reach_what_was_captured():
    tiny = model("gpt2")
    acts = capture(tiny, prompts(), "blocks.0.hook_in")

    def spoil(activation: Tensor, hook: object) -> None:
        activation.zero_()

    with tiny.bridge.hooks(fwd_hooks=[("blocks.0.attn.hook_in", spoil)]):
        spoiled = capture(tiny, prompts(), "blocks.0.hook_in")
    assert torch.equal(acts["blocks.0.hook_in"], spoiled["blocks.0.hook_in"])


def test_bad_calls_are_refused_before_anything_runs():
    tiny = model("gpt2")
    with pytest.raises(PromptError, match=r"batch_size is 0; give at least 1"):
        capture(tiny, prompts(), "blocks.0.hook_in", batch_size=0)
    with pytest.raises(PromptError, match=r"Prompt 1 holds token 100, and gpt2 knows 0 to 99"):
        capture(tiny, prompts(rows=[[1, 2, 3], [3, 100, 2]]), "blocks.0.hook_in")
    with pytest.raises(PromptError, match=r"longest prompt has 65 tokens and gpt2 reads 64"):
        capture(tiny, prompts(rows=[[1] * 65]), "blocks.0.hook_in")


def test_a_mapping_that_says_what_it_lacks():
    acts = capture(model("gpt2"), prompts(), "blocks.*.attn.hook_z", positions=-1)
    assert len(acts) == 2
    assert "blocks.0.attn.hook_z" in acts
    assert acts.get("blocks.0.attn.hook_q") is None
    with pytest.raises(SiteError, match=r"^blocks\.0\.attn\.hook_q was not captured: did you mean"):
        acts["blocks.0.attn.hook_q"]
    with pytest.raises(SiteError, match=r"No block was captured at 'hook_z': .* attn\.hook_z"):
        acts.stack("hook_z")
    assert acts.stack("attn.hook_z").shape == (2, 4, 1, 4, 8)
    assert "[4, 1, 4, 8]" in acts._repr_html_()


def test_provenance_says_where_the_numbers_come_from():
    tiny, some = model("gpt2"), prompts()
    source = capture(tiny, some, "blocks.0.hook_in", positions="END").provenance
    assert source["model"] == "gpt2"
    assert source["weights_hash"] == tiny.weights_hash
    assert source["prompts_hash"] == some.hash
    assert source["positions"] == "END"
    assert source["dtype"] == "float32"
    assert source["n"] == 4
    assert set(source["versions"]) == {"interp", "torch", "transformers", "transformer-lens"}
