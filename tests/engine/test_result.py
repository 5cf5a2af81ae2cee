from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from interp.engine import SweepResult
from interp.errors import FileFormatError, InterpError, SiteError
from interp.sites import MLP, Head, Resid, Site

PROVENANCE = {"model": "m<1>", "task": "ioi", "geometry": {"n_layers": 2, "n_heads": 3}}


def result(sites: list[Site], values: list[list[float]], clean: list[float]) -> SweepResult:
    return SweepResult(
        sites=tuple(sites),
        values=torch.tensor(values),
        clean=torch.tensor(clean),
        metric="logit_diff",
        method="zero",
        provenance=PROVENANCE,
    )


HEADS = result(
    [Head(0, 1), Head(1, 0), Head(1, 2)],
    [[1.0, 2.0, 3.0], [-4.0, -3.0, -2.0], [1.5, 2.5, 4.5]],
    [1.0, 2.0, 3.0],
)
MIXED = result([Head(0, 1), MLP(1), Resid(1, "pre")], HEADS.values.tolist(), [1.0, 2.0, 3.0])


def test_effects_are_value_minus_clean():
    assert HEADS.effects.tolist() == [[0, 0, 0], [-5, -5, -5], [0.5, 0.5, 1.5]]


def test_the_grid_has_no_number_where_nothing_was_tested():
    grid = HEADS.grid()
    assert grid.isnan().tolist() == [[True, False, True], [False, True, False]]
    assert grid[1, 0] == -5


def test_a_grid_is_of_heads_alone():
    with pytest.raises(SiteError, match=r"m1 is not a head; use to_frame\(\)"):
        MIXED.grid()
    with pytest.raises(SiteError, match=r"m1 is not a head"):
        MIXED.plot()


def test_the_frame_has_a_row_for_each_site():
    frame = MIXED.to_frame()
    columns = ["site", "layer", "head", "mean", "effect", "ci_low", "ci_high", "n"]
    assert list(frame.columns) == columns
    assert frame["site"].tolist() == ["0.1", "m1", "r1.pre"]
    assert frame["head"].isna().tolist() == [False, True, True]
    assert frame["mean"].tolist() == pytest.approx([2, -3, 17 / 6])
    assert frame["effect"].tolist() == pytest.approx([0, -5, 5 / 6])
    assert frame["ci_low"].tolist() == pytest.approx([0, -5, 0.5])
    assert frame["ci_high"].tolist() == pytest.approx([0, -5, 1.5])


def test_the_top_is_by_size_or_by_sign():
    assert HEADS.top(2)["site"].tolist() == ["1.0", "1.2"]
    assert HEADS.top(2, by="highest")["site"].tolist() == ["1.2", "0.1"]
    assert HEADS.top(5, by="lowest")["site"].tolist() == ["1.0", "0.1", "1.2"]
    with pytest.raises(InterpError, match=r"not sorted by 'size': known: abs, highest, lowest"):
        HEADS.top(by="size")


def test_one_prompt_has_no_interval():
    single = result([Head(0, 0)], [[2.0]], [1.0])
    assert math.isnan(single.to_frame()["ci_low"][0])


def test_the_plot_is_a_heatmap_centred_on_zero():
    heatmap = HEADS.plot().data[0]
    assert heatmap.zmin == -heatmap.zmax
    assert heatmap.hovertext[0][0] == "not tested"
    assert heatmap.hovertext[1][2].startswith("1.2: +0.833<br>95% interval +0.500 to +1.500")


def test_notebooks_show_the_largest_effects_and_no_markup_of_the_model():
    shown = HEADS._repr_html_()
    assert "m&lt;1&gt;" in shown
    assert shown.index("<td>1.0</td>") < shown.index("<td>1.2</td>")


@given(st.integers(0, 5), st.integers(1, 4), st.sampled_from([torch.float32, torch.float64]))
def test_what_is_saved_is_loaded_bit_for_bit(tmp_path_factory, sites, prompts, dtype):
    path = tmp_path_factory.mktemp("sweep") / "new" / "sweep.safetensors"
    every = [Head(0, 1), Head(1, 2), MLP(0), Resid(1, "mid"), Resid(1, "post")]
    values = torch.randn(sites, prompts, dtype=dtype)
    sweep = SweepResult(tuple(every[:sites]), values, values.sum(0), "f", "mean", PROVENANCE)
    loaded = SweepResult.load(sweep.save(path))
    assert loaded.sites == sweep.sites
    assert torch.equal(loaded.values, values)
    assert torch.equal(loaded.clean, sweep.clean)
    assert loaded.provenance == PROVENANCE
    assert (loaded.metric, loaded.method) == ("f", "mean")
    assert [each.name for each in path.parent.iterdir()] == ["sweep.safetensors"]


def test_files_that_are_not_whole_or_not_sweeps_are_refused(tmp_path: Path):
    path = HEADS.save(tmp_path / "sweep.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(FileFormatError, match=r"sweep\.safetensors cannot be read .* run the swe"):
        SweepResult.load(path)
    with pytest.raises(FileFormatError, match=r"missing\.safetensors cannot be read"):
        SweepResult.load(tmp_path / "missing.safetensors")
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(FileFormatError, match=r"is not a sweep; give a file that SweepResult\.sa"):
        SweepResult.load(path)
    metadata = {"interp": '{"format": "interp.SweepResult", "version": 7}'}
    save_file({"values": torch.zeros(2)}, path, metadata=metadata)
    with pytest.raises(FileFormatError, match=r"in version 7 of the format .* reads version 1"):
        SweepResult.load(path)
