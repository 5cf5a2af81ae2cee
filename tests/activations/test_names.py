from __future__ import annotations

import pytest

from interp.activations.names import find, gates_open
from interp.errors import InterventionError, SiteError
from tests.activations.samples import model

GATED = "blocks.0.attn.hook_result"


def found(*names: str, family: str = "gpt2") -> list[str]:
    return list(find(model(family).bridge, names))


def test_a_glob_names_every_block_in_order():
    assert found("blocks.*.attn.hook_z") == ["blocks.0.attn.hook_z", "blocks.1.attn.hook_z"]


def test_canonical_names_and_aliases_are_one_hook_point():
    points = find(model("gpt2").bridge, ["blocks.0.attn.hook_z", "blocks.0.attn.o.hook_in"])
    assert len(points) == 2
    assert points["blocks.0.attn.hook_z"] is points["blocks.0.attn.o.hook_in"]


def test_a_glob_takes_a_hook_point_once_under_its_transformerlens_name():
    names = found("blocks.0.hook_*")
    assert "blocks.0.hook_resid_pre" in names
    assert "blocks.0.hook_in" not in names


def test_a_star_stands_for_one_dotted_part():
    assert found("blocks.*.hook_in") == ["blocks.0.hook_in", "blocks.1.hook_in"]


@pytest.mark.parametrize("costly", ["hook_pattern", "hook_attn_scores", "hook_result"])
def test_costly_hooks_have_to_be_spelled_out(costly: str):
    assert f"blocks.0.attn.{costly}" not in found("blocks.0.attn.hook_*")
    assert f"blocks.0.attn.{costly}" in found(f"blocks.*.attn.{costly}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("blocks.7.attn.hook_z", "is a hook of block 7, and .* in blocks 0 to 1"),
        ("blocks.*.attn.hook_zz", r"did you mean blocks\.\*\.attn\.hook_z"),
        ("zebra", r"'zebra' matches no hook of this model .* see model\.bridge\.hook_dict"),
    ],
)
def test_a_name_that_matches_nothing_is_refused(name: str, message: str):
    with pytest.raises(SiteError, match=message):
        found(name)


def test_no_name_at_all_is_refused():
    with pytest.raises(SiteError, match=r"No hook is named; name at least one"):
        found()


def test_gates_are_put_back_also_after_an_exception():
    bridge = model("gpt2").bridge
    with gates_open(bridge, [GATED]):
        assert bridge.cfg.use_attn_result
    assert not bridge.cfg.use_attn_result
    with pytest.raises(ZeroDivisionError), gates_open(bridge, [GATED]):
        _ = 1 / 0
    assert not bridge.cfg.use_attn_result


def test_a_gate_that_the_user_opened_stays_open():
    bridge = model("gpt2").bridge
    bridge.set_use_attn_result(True)
    try:
        with gates_open(bridge, [GATED]):
            pass
        assert bridge.cfg.use_attn_result
    finally:
        bridge.set_use_attn_result(False)


def test_a_gate_that_the_architecture_lacks_is_refused():
    with (
        pytest.raises(InterventionError, match=r"hook_result cannot be captured from this model"),
        gates_open(model("gpt-neo").bridge, [GATED]),
    ):
        pass


def test_gates_that_exclude_each_other_are_refused_and_put_back():
    bridge = model("gpt2").bridge
    names = ["blocks.0.attn.hook_q_input", "blocks.0.attn.hook_attn_in"]
    with pytest.raises(InterventionError, match="mutually exclusive"), gates_open(bridge, names):
        pass
    assert not bridge.cfg.use_split_qkv_input
    assert not bridge.cfg.use_attn_in
