"""check() passes where the hooks tell the truth, names those that do not, and catches faults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import FalconConfig, FalconForCausalLM, OPTConfig, OPTForCausalLM

from interp.activations import capture
from interp.errors import CheckFailed, PromptError, UnsupportedModel
from interp.models import Model, load
from interp.prompts import PromptSet
from tests.families import FAMILIES, tiny, tiny_tokenizer

ROTATED = {"attn.hook_rot_q", "attn.hook_rot_k"}
SHOWN_ONLY = {"attn.hook_pattern", "attn.hook_attn_scores"}
# Hooks of TransformerLens 4.3 that fire or exist, and change nothing.
LIMITS = {
    "gpt-neo": SHOWN_ONLY,
    "gpt-j": SHOWN_ONLY | ROTATED,
    "opt": SHOWN_ONLY,
    "gpt-neox": ROTATED,
    "falcon": ROTATED,
    "mixtral": {"mlp.hook_post"},
    "native": {"attn.hook_attn_scores"},
    "native-gqa": {"attn.hook_attn_scores"} | ROTATED,
}
NO_ROTATION = {"gpt2", "gpt-neo", "opt", "bloom", "native"}
PARALLEL = {"gpt-j", "gpt-neox", "falcon", "phi"}


def tiny_model(family: str = "gpt2") -> Model:
    return Model(tiny(family), tiny_tokenizer(), id=f"tiny-{family}")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    report = tiny_model(family).check()
    assert report.ok
    no_middle = PARALLEL | {"native"}
    assert set(report.limits) == LIMITS.get(family, set()) | (
        set() if family in no_middle else {"hook_resid_mid"}
    )
    absent = ROTATED if family in NO_ROTATION else set()
    absent = absent | ({"hook_resid_mid"} if family in PARALLEL | {"native"} else set())
    absent = absent | ({"mlp.hook_post", "hook_mlp_out"} if family == "native" else set())
    assert set(report.absent) == absent


@pytest.mark.parametrize("family", ["gpt2", "mixtral", "opt"])
def test_known_limits_are_known_before_any_check(family: str) -> None:
    model = tiny_model(family)
    assert model.dead_hooks == LIMITS.get(family, set()) - {"mlp.hook_post"}


def test_report_shows_itself() -> None:
    report = tiny_model("opt").check()
    assert str(report).startswith("check of tiny-opt: passed")
    said = "an edit at blocks.0.attn.hook_pattern moves the logits by 0"
    assert report.limits["attn.hook_pattern"] == said
    assert list(report.to_frame().columns) == ["name", "status", "detail"]
    assert "hook_attn_out" in report._repr_html_()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "gemma2", "mixtral", "native-gqa"])
def test_half_precision(family: str, dtype: torch.dtype) -> None:
    assert Model(tiny(family).to(dtype), tiny_tokenizer(), id=family).check().ok


def test_one_layer_and_a_short_context() -> None:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

    config = TransformerBridgeConfig(
        d_model=16, d_head=4, n_heads=2, n_layers=1, n_ctx=3, d_vocab=7, attn_only=True
    )
    module = NativeModel(config)
    initialize_native_model(module, config, seed=0)
    assert load(module, tiny_tokenizer()).check().ok


def test_the_global_generator_is_left_alone() -> None:
    model = tiny_model()
    state = torch.get_rng_state()
    model.check()
    assert torch.equal(torch.get_rng_state(), state)


def test_hooks_of_the_user_survive_the_check() -> None:
    model = tiny_model()
    seen = []
    model.bridge.add_hook("blocks.0.attn.hook_z", lambda value, hook: seen.append(value.shape))
    model.check()
    seen.clear()
    model.bridge(torch.tensor([[1, 2]]))
    assert len(seen) == 1


# Planted faults: each must be caught, and named.


@pytest.mark.parametrize("kind", ["attn.hook_z", "mlp.hook_post", "attn.hook_q"])
def test_a_hook_whose_edits_are_dropped(kind: str) -> None:
    model = tiny_model("llama")
    name = f"blocks.1.{kind}"
    point = model.bridge.hook_dict[name]
    add_hook = point.add_hook

    def add_deaf_hook(edit: Callable[..., Any], **options: Any) -> Any:
        def ignore(value: torch.Tensor, hook: Any) -> None:
            edit(value, hook)

        return add_hook(ignore, **options)

    point.add_hook = add_deaf_hook
    with pytest.raises(CheckFailed) as error:
        model.check()
    assert f"{kind}: an edit at {name} moves the logits by 0" in str(error.value)
    assert "check=False" in str(error.value)


def test_a_hook_that_never_fires() -> None:
    model = tiny_model()
    point = model.bridge.hook_dict["blocks.0.attn.hook_z"]
    add_hook = point.add_hook
    point.add_hook = lambda hook, **options: add_hook(lambda value, hook: None, **options)
    with pytest.raises(CheckFailed, match=r"attn\.hook_z: blocks\.0\.attn\.hook_z never fires"):
        model.check()


def test_a_bridge_with_other_weights() -> None:
    model, other = tiny_model(), tiny_model()
    with torch.no_grad():
        other.hf.transformer.h[1].mlp.c_fc.weight[3, 3] += 0.2
    model.bridge = other.bridge
    with pytest.raises(
        CheckFailed, match=r"bridge logits = module logits: differ by .* 3.5e-04 allowed"
    ):
        model.check()


def test_positions_that_ignore_the_mask() -> None:
    model = tiny_model()
    model.position_ids = lambda mask: torch.arange(mask.shape[1]).expand(mask.shape)
    with pytest.raises(CheckFailed, match=r"left padding, module: differ by") as error:
        model.check()
    assert "right padding" not in str(error.value)
    assert "left padding, bridge" not in str(error.value)


def test_rotary_positions_that_stall() -> None:
    model = tiny_model("llama")  # a shift of all positions would change nothing
    model.position_ids = lambda mask: torch.arange(mask.shape[1]).expand(mask.shape) // 2
    with pytest.raises(CheckFailed, match=r"bridge logits = module logits: differ by"):
        model.check()


def test_a_bridge_that_attends_to_padding() -> None:
    model = tiny_model()
    forward = model.bridge.forward
    model.bridge.forward = lambda tokens, attention_mask=None, **options: forward(tokens, **options)
    with pytest.raises(CheckFailed) as error:
        model.check()
    assert "left padding, bridge" in str(error.value)
    assert "left padding, module" not in str(error.value)
    assert "right padding" not in str(error.value), "a causal model never sees what follows"


# Faults of TransformerLens 4.3 and transformers 5 that the check finds by itself.


def test_float64_with_left_padding_is_not_a_number() -> None:
    # Eager attention takes the softmax in float32, where the mask of float64 is minus infinity.
    model = load(tiny("llama").double(), tiny_tokenizer())
    row = next(row for row in model.check().rows if row.name == "left padding, bridge")
    assert row.status == "limit"
    assert "NaN: the bridge takes its softmax in float32" in row.detail
    prompts = PromptSet.from_tokens([[1, 2, 3], [4, 5]], answer=[1, 2])
    left = PromptSet.from_tokens(prompts.clean.flip(1), answer=[1, 2], mask=prompts.mask.flip(1))
    assert (
        not capture(model, prompts, "blocks.1.hook_resid_post")["blocks.1.hook_resid_post"][
            prompts.mask
        ]
        .isnan()
        .any()
    )
    with pytest.raises(PromptError, match=r"float64 .* padded on the left.* pad on the right"):
        capture(model, left, "blocks.1.hook_resid_post")


def test_falcon_with_alibi_is_refused() -> None:
    config = FalconConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        multi_query=False, alibi=True, parallel_attn=False,
    )  # fmt: skip
    torch.manual_seed(0)
    module = FalconForCausalLM(config)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.2)
    with pytest.raises(CheckFailed, match="bridge logits = module logits: differ by"):
        load(module, tiny_tokenizer())


def test_an_architecture_that_cannot_be_wrapped() -> None:
    config = FalconConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        new_decoder_architecture=True, num_kv_heads=2,
    )  # fmt: skip
    with pytest.raises(UnsupportedModel) as error:
        load(FalconForCausalLM(config), tiny_tokenizer())
    assert "TransformerLens cannot wrap this FalconForCausalLM (RuntimeError: " in str(error.value)
    assert "check=False" in str(error.value)
    assert load(FalconForCausalLM(config), tiny_tokenizer(), check=False).geometry.n_kv_heads == 2


def test_a_hook_that_refuses_edits_is_a_limit() -> None:
    config = OPTConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, ffn_dim=48,
        max_position_embeddings=64, word_embed_proj_dim=16, do_layer_norm_before=False,
    )  # fmt: skip
    torch.manual_seed(0)
    report = load(OPTForCausalLM(config), tiny_tokenizer()).check()
    assert report.limits["hook_resid_mid"].startswith("an edit raises")


def test_a_bridge_that_cannot_run() -> None:
    with pytest.raises(
        CheckFailed, match=r"cannot run a few random tokens .*got Double.*check=False"
    ):
        load(tiny("mixtral").double(), tiny_tokenizer())


@pytest.mark.parametrize(
    ("family", "entries"),
    [
        ("llama", {"max_position_embeddings": -1}),
        ("llama", {"output_hidden_states": "__class__"}),
        ("llama", {"rms_norm_eps": -(2**63) - 1}),
        ("gpt2", {"pad_token_id": -(2**63) - 1}),
    ],
)
def test_a_model_that_cannot_run(family: str, entries: dict[str, Any], tmp_path: Path) -> None:
    tiny(family).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | entries))
    with pytest.raises(CheckFailed, match=r"cannot run a few random tokens .*check=False"):
        load(tmp_path)


def test_weights_that_make_no_use_of_a_place_are_not_the_hooks_fault() -> None:
    model = tiny_model("gpt2")
    with torch.no_grad():
        for block in model.hf.transformer.h:
            block.mlp.c_proj.weight.zero_()
    before = model.weights_hash
    rows = model.check().to_frame().set_index("name")
    detail = rows.loc["mlp.hook_post", "detail"]
    assert detail.count("0 (these weights make no use of it)") == 2
    assert rows.loc["mlp.hook_post", "status"] == "ok"
    model.derived.pop("weights hash")  # so that it is computed again
    assert model.weights_hash == before
