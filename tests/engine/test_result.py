from __future__ import annotations

import json
import math
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from interp.engine import SweepResult
from interp.errors import FileFormatError, InterpError, SiteError
from interp.sites import MLP, Edge, Head, Logits, Q, Resid, Site, parse

PROVENANCE = {
    "model": "m<1>",
    "task": "ioi",
    "prompts_hash": "0123456789abcdef",
    "geometry": {"n_layers": 2, "n_heads": 3, "n_kv_heads": 1},
}
NAN = math.nan


def result(
    sites: list[Site], values: list[list[float]], clean: list[float], **others: Any
) -> SweepResult:
    return SweepResult(
        sites=tuple(sites),
        values=torch.tensor(values),
        clean=torch.tensor(clean),
        **{"metric": "logit_diff", "method": "zero", "provenance": PROVENANCE, **others},
    )


def swept(texts: str) -> SweepResult:
    """A sweep over these sites, with effects 1, 2, 3, ... on both of its prompts."""
    sites = [parse(text) for text in texts.split()]
    return result(sites, [[i + 1.0, i + 2.0] for i in range(len(sites))], [0.0, 1.0])


HEADS = result(
    [Head(0, 1), Head(1, 0), Head(1, 2)],
    [[1.0, 2.0, 3.0], [-4.0, -3.0, -2.0], [1.5, 2.5, 4.5]],
    [1.0, 2.0, 3.0],
)
MIXED = result([Head(0, 1), MLP(1), Resid(1, "pre")], HEADS.values.tolist(), [1.0, 2.0, 3.0])
PATCHED = result(  # clean 4 and 2, corrupt 0 and 1
    [Head(0, 0), Head(0, 1), Head(1, 1)],
    [[4.0, 2.0], [0.0, 1.0], [3.0, 1.0]],
    [4.0, 2.0],
    method="patch",
    corrupt=torch.tensor([0.0, 1.0]),
)
DENOISED = replace(PATCHED, provenance={**PROVENANCE, "direction": "denoise"})
RACED = result(
    [Head(0, 0), Head(0, 1), Head(1, 0), Head(1, 1)],
    [[3.0, 4.0, 6.0], [1.0, NAN, 5.0], [7.0, NAN, NAN], [NAN, NAN, NAN]],
    [1.0, 2.0, 3.0],
    exact=torch.tensor([True, False, False, False]),
)


def test_effects_are_value_minus_clean():
    assert HEADS.effects.tolist() == [[0, 0, 0], [-5, -5, -5], [0.5, 0.5, 1.5]]


def test_effects_start_from_the_run_that_was_edited():
    assert PATCHED.baseline.tolist() == [4, 2]
    assert PATCHED.effects.tolist() == [[0, 0], [-4, -1], [-1, -1]]
    assert DENOISED.baseline.tolist() == [0, 1]
    assert DENOISED.effects.tolist() == [[4, 1], [0, 0], [3, 0]]
    with pytest.raises(InterpError, match=r"This patching has no run on corrupt prompts"):
        _ = replace(DENOISED, corrupt=None).effects


def test_a_share_is_0_where_the_run_began_and_1_at_the_other():
    assert PATCHED.normalized().tolist() == pytest.approx([0, 1, 2 / 5])
    assert DENOISED.normalized().tolist() == pytest.approx([1, 0, 3 / 5])
    assert PATCHED.normalized("mean_of_ratios").tolist() == pytest.approx([0, 1, (1 / 4 + 1) / 2])
    assert DENOISED.normalized("mean_of_ratios").tolist() == pytest.approx([1, 0, 3 / 8])


def test_a_share_is_of_the_prompts_that_were_run():
    raced = replace(RACED, corrupt=torch.tensor([2.0, 4.0, 7.0]))  # gaps 1, 2, 4
    expected = [7 / 7, 2 / 5, 6 / 1, NAN]
    assert raced.normalized().tolist() == pytest.approx(expected, nan_ok=True)
    expected = [(2 / 1 + 2 / 2 + 3 / 4) / 3, (0 / 1 + 2 / 4) / 2, 6 / 1, NAN]
    assert raced.normalized("mean_of_ratios").tolist() == pytest.approx(expected, nan_ok=True)


def test_shares_of_nothing_are_refused():
    with pytest.raises(InterpError, match=r"zero ablation has no run on corrupt .* the effects"):
        HEADS.normalized()
    with pytest.raises(InterpError, match=r"no share 'ratios': did you mean ratio_of_means or"):
        PATCHED.normalized("ratios")
    some = replace(PATCHED, corrupt=torch.tensor([4.0, 1.0]))
    assert some.normalized().tolist() == [0, 5, 2]
    with pytest.raises(InterpError, match=r"on a prompt, .* use kind='ratio_of_means'"):
        some.normalized("mean_of_ratios")
    with pytest.raises(InterpError, match=r"same clean and corrupt on average, .* effects themsel"):
        replace(PATCHED, corrupt=torch.tensor([2.0, 4.0])).normalized()


def test_the_standard_error_is_that_of_the_mean():
    expected = HEADS.effects.std(dim=1) / math.sqrt(3)
    torch.testing.assert_close(HEADS.stderr(), expected)
    expected = [1 / math.sqrt(3) / math.sqrt(3), 1.0, NAN, NAN]
    assert RACED.stderr().tolist() == pytest.approx(expected, nan_ok=True)


def test_prompts_that_were_not_run_count_nowhere():
    frame = RACED.to_frame()
    assert frame["n"].tolist() == [3, 2, 1, 0]
    assert frame["effect"].tolist() == pytest.approx([7 / 3, 1, 6, NAN], nan_ok=True)
    assert frame["mean"].tolist() == pytest.approx([13 / 3, 3, 7, NAN], nan_ok=True)
    assert frame["ci_low"].isna().tolist() == [False, False, True, True]
    assert (frame["ci_low"][1], frame["ci_high"][1]) == (0, 2)
    assert frame["exact"].tolist() == [True, False, False, False]
    for by in ("abs", "lowest", "highest"):
        assert RACED.top(by=by)["site"].tolist()[-1] == "1.1", "what was never run comes last"
    assert RACED.top(1)["exact"].tolist() == [False]


def test_two_sweeps_are_compared_prompt_by_prompt():
    other = result(
        [Head(1, 2), MLP(0), Head(0, 1)],
        [[2.5, 2.5, NAN], [0.0, 0.0, 0.0], [1.0, 3.0, 6.0]],
        [1.0, 2.0, 3.0],
        method="mean",
    )
    frame = HEADS.compare(other)
    assert frame["site"].tolist() == ["0.1", "1.2"]
    assert frame["effect"].tolist() == [0, 0.5]
    assert frame["other"].tolist() == pytest.approx([4 / 3, 1.0])
    assert frame["difference"].tolist() == pytest.approx([-4 / 3, -0.5])
    assert frame["ci_low"].tolist() == [-3, -1]
    assert frame["ci_high"].tolist() == [0, 0]
    assert frame["n"].tolist() == [3, 2]
    back = other.compare(HEADS)
    assert back["difference"].tolist() == pytest.approx([0.5, 4 / 3])
    assert HEADS.compare(replace(other, sites=tuple(map(MLP, range(3))))).empty


def test_a_paired_interval_is_narrower_than_what_prompts_differ_by():
    spread = torch.linspace(-9, 9, 20)
    values = torch.stack([spread, spread + 1])
    sweep = result([Head(0, 0), Head(0, 1)], values.tolist(), [0.0] * 20)
    moved = replace(sweep, values=values + 0.5)
    frame = moved.compare(sweep)
    assert (frame["ci_high"] - frame["ci_low"]).max() < 1e-5
    assert (sweep.ci()[1] - sweep.ci()[0]).min() > 4


def test_sweeps_on_other_prompts_or_metrics_are_not_compared():
    with pytest.raises(InterpError, match=r"measures logit_diff and the other kl; compare sweeps"):
        HEADS.compare(replace(HEADS, metric="kl"))
    for told in ({**PROVENANCE, "prompts_hash": "fedc"}, {"geometry": PROVENANCE["geometry"]}):
        with pytest.raises(
            InterpError, match=r"on different prompts \(hashes 0123456789abcdef and"
        ):
            HEADS.compare(replace(HEADS, provenance=told))
    nameless = replace(HEADS, provenance={})
    with pytest.raises(InterpError, match=r"hashes None and None"):
        nameless.compare(nameless)


def test_the_grid_has_no_number_where_nothing_was_tested():
    grid = HEADS.grid()
    assert grid.isnan().tolist() == [[True, False, True], [False, True, False]]
    assert grid[1, 0] == -5


@pytest.mark.parametrize(
    ("texts", "grid"),
    [
        ("0.0.q 1.2.q", [[1, NAN, NAN], [NAN, NAN, 2]]),
        ("1.0.pattern", [[NAN, NAN, NAN], [1, NAN, NAN]]),
        ("1.0.k", [[NAN], [1]]),
        ("0.0.v 1.0.v", [[1], [2]]),
        ("m0 m1", [[1], [2]]),
        ("a1", [[NAN], [1]]),
        ("r0.mid r1.mid", [[1], [2]]),
        ("m0@0 m1@2", [[1, NAN, NAN], [NAN, NAN, 2]]),
        ("r0.pre@1 r1.pre@0", [[NAN, 1], [2, NAN]]),
        ("a0@-1 a1@-3", [[NAN, NAN, 1], [2, NAN, NAN]]),
    ],
)
def test_a_grid_has_a_row_for_each_layer(texts: str, grid: list[list[float]]):
    sweep = swept(texts)
    torch.testing.assert_close(sweep.grid(), torch.tensor(grid).float(), equal_nan=True)
    figure = sweep.plot()
    assert figure.data[0].type == "heatmap"
    told = [[text != "not tested" for text in row] for row in figure.data[0].hovertext]
    assert told == sweep.grid().isfinite().tolist()


def test_columns_are_named_and_numbered():
    def axis(texts: str) -> tuple[str, bool, int]:
        figure = swept(texts).plot()
        across = figure.layout.xaxis
        return across.title.text, across.showticklabels, figure.data[0].x0

    assert axis("0.0.q") == ("head", True, 0)
    assert axis("0.0.k") == ("group", True, 0)
    assert axis("m0@-1 m0@-3") == ("position", True, -3)
    assert axis("m0") == ("", False, 0)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("0.1 m1", r"a cell for each head and m1 is no head; use to_frame\(\), or sweep over"),
        ("0.1 0.1.q", r"0\.1\.q is no head"),
        ("0.0.k 0.0.v", r"0\.0\.v is no key"),
        ("r0.pre r0.post", r"r0\.post is no residual stream \(pre\)"),
        ("m0 m0@1", r"m0@1 is no MLP"),
        ("m0@1 m0@END", r"m0@END is no MLP at a position"),
        ("m0@1 m0@-1", r"-1 and 1 are counted from different ends of the prompt"),
        ("0.1@3", r"0\.1@3 is no head"),
        ("0.1->m1", r"0\.1->m1 is no head"),
        ("m0.1", r"m0\.1 is no head"),
        ("0.1+m1", r"0\.1\+m1 is no head"),
    ],
)
def test_sites_that_make_no_grid_are_drawn_as_bars(texts: str, message: str):
    sweep = swept(texts)
    with pytest.raises(SiteError, match=message):
        sweep.grid()
    bars = sweep.plot().data[0]
    assert bars.type == "bar"
    assert list(bars.y) == sweep.top()["site"].tolist()


def test_bars_have_their_intervals_and_are_not_too_many():
    edges = [Edge(Head(0, head), Q(1, other)) for head in range(6) for other in range(6)]
    sweep = result(edges, [[i + 1.0, i + 3.0] for i in range(36)], [0.0, 0.0], method="eap-ig")
    figure = sweep.plot()
    assert figure.layout.title.text == "EAP-IG attribution of m<1>: the largest 30 of 36"
    bars = figure.data[0]
    assert (bars.y[0], bars.x[0]) == ("0.5->1.5.q", 37)
    assert (bars.error_x.array[0], bars.error_x.arrayminus[0]) == (1, 1)
    assert bars.hovertext[0].startswith("0.5->1.5.q: +37.000<br>95% interval +36.000 to +38.000")
    assert len(bars.x) == 30
    assert figure.layout.xaxis.title.text == "change of logit_diff"


def test_what_is_no_exact_number_says_so_in_the_figure():
    texts = RACED.plot().data[0].hovertext
    assert ["approximate" in text for text in texts[0][:2]] == [False, True]


def test_the_frame_has_a_row_for_each_site():
    frame = MIXED.to_frame()
    columns = "site layer head position mean effect ci_low ci_high n exact"
    assert " ".join(frame.columns) == columns
    assert frame["site"].tolist() == ["0.1", "m1", "r1.pre"]
    assert frame["head"].isna().tolist() == [False, True, True]
    assert frame["position"].isna().all()
    assert frame["exact"].tolist() == [True, True, True]
    assert frame["exact"].dtype == bool
    assert frame["mean"].tolist() == pytest.approx([2, -3, 17 / 6])
    assert frame["effect"].tolist() == pytest.approx([0, -5, 5 / 6])
    assert frame["ci_low"].tolist() == pytest.approx([0, -5, 0.5])
    assert frame["ci_high"].tolist() == pytest.approx([0, -5, 1.5])


def test_layers_heads_and_positions_of_every_kind_of_site():
    frame = swept("0.1.q 1.0.k 1.2.pattern 0.2@3 m1@-1 m0.7 1.1+m0 0.1->m1 m0->logits").to_frame()
    assert frame["layer"].tolist() == [0, 1, 1, 0, 1, 0, 0, 1, 2]
    assert frame["head"].tolist() == [1, 0, 2, 2, *[pd.NA] * 5]
    assert frame["position"].dtype == "Int64"
    assert frame["position"].dropna().tolist() == [3, -1]
    roles = swept("m0@END m1@3 m1").to_frame()["position"]
    assert roles.dtype == "string"
    assert roles[:2].tolist() == ["END", "3"]
    assert roles.isna().tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("method", "title"),
    [
        ("zero", "Zero ablation of m<1>"),
        ("mean", "Mean ablation of m<1>"),
        ("patch", "Patching of m<1>"),
        ("eap", "EAP attribution of m<1>"),
        ("eap-ig-inputs", "EAP-IG-inputs attribution of m<1>"),
        ("scale", "Scale of m<1>"),
    ],
)
def test_a_figure_says_what_was_done(method: str, title: str):
    assert replace(HEADS, method=method).plot().layout.title.text == title


def test_a_sweep_says_what_it_is():
    assert repr(PATCHED) == (
        "SweepResult(patching of 3 sites of m<1>; logit_diff on 2 prompts of ioi, 3.000 when "
        "clean, 0.500 when corrupt)"
    )
    assert repr(HEADS).startswith("SweepResult(zero ablation of 3 sites of m<1>;")
    assert repr(HEADS).endswith("2.000 when clean)")


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
    every = [Head(0, 1), parse("1.2@END"), parse("0.0+m0"), Resid(1, "mid"), Edge(MLP(1), Logits())]
    both = torch.randn(sites + 2, prompts, dtype=dtype)  # tensors that share memory
    clean, corrupt, values = both[0], both[1], both[2:]
    exact = torch.arange(sites) > 1
    sites = tuple(every[:sites])
    sweep = SweepResult(sites, values, clean, "f", "mean", PROVENANCE, corrupt, exact)
    loaded = SweepResult.load(sweep.save(path))
    assert loaded.sites == sweep.sites
    assert torch.equal(loaded.values, values)
    assert torch.equal(loaded.clean, clean)
    assert torch.equal(loaded.corrupt, corrupt)
    assert torch.equal(loaded.exact, exact)
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
    with pytest.raises(FileFormatError, match=r"in version 7 of the format .* reads version 2"):
        SweepResult.load(path)


def test_what_a_sweep_lacks_it_lacks_when_loaded(tmp_path: Path):
    loaded = SweepResult.load(RACED.save(tmp_path / "sweep"))
    assert loaded.corrupt is None
    assert torch.equal(loaded.values.isnan(), RACED.values.isnan())
    loaded = SweepResult.load(PATCHED.save(tmp_path / "sweep"))
    assert loaded.exact is None


@pytest.mark.parametrize(
    ("header", "tensors", "message"),
    [
        ({"sites": None}, {}, r"its header has no full list of sites, metric, method, and proven"),
        ({"metric": 3}, {}, r"its header has no full list"),
        ({"provenance": {"model": "m"}}, {}, r"its header has no full list"),
        ({"sites": ["0.0", "head", "1.1"]}, {}, r"its model has no site 'head'; run the sweep"),
        ({"sites": ["0.0", "0.1", "2.1"]}, {}, r"its model has no site '2\.1'"),
        ({"sites": ["0.0", "0.1", 1.1]}, {}, r"its model has no site 1\.1"),
        ({"sites": ["0.0", "0.1", "9" * 5000 + ".1"]}, {}, r"its model has no site '999"),
        ({"sites": ["0.0"]}, {}, r"values has shape \(3, 2\) where 1 sites and 2 prompts make"),
        ({}, {"clean": torch.zeros(3)}, r"values has shape|corrupt has shape \(2,\)"),
        ({}, {"corrupt": torch.zeros(1, 2)}, r"corrupt has shape \(1, 2\)"),
        ({}, {"exact": torch.zeros(3)}, r"exact holds torch\.float32"),
        ({}, {"exact": torch.zeros(2).bool()}, r"exact has shape \(2,\)"),
        ({}, {"values": torch.zeros(3, 2).int()}, r"values holds torch\.int32"),
        ({}, {"more": torch.zeros(2)}, r"its tensors are clean, corrupt, more, values"),
        ({}, {"clean": None}, r"its tensors are corrupt, values"),
        ({"provenance": DENOISED.provenance}, {"corrupt": None}, r"its tensors are clean, values"),
    ],
)
def test_malformed_files_are_refused(
    tmp_path: Path, header: dict[str, Any], tensors: dict[str, Any], message: str
):
    path = PATCHED.save(tmp_path / "sweep")
    whole = {
        "format": "interp.SweepResult",
        "version": 2,
        "sites": [str(site) for site in PATCHED.sites],
        "metric": "logit_diff",
        "method": "patch",
        "provenance": PROVENANCE,
    }
    numbers = {name: t for name, t in (load_file(path) | tensors).items() if t is not None}
    save_file(numbers, path, metadata={"interp": json.dumps(whole | header)})
    with pytest.raises(FileFormatError, match=f"is not a whole sweep: ({message})"):
        SweepResult.load(path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", "[" * 100_000, '{"format": "other"}'])
def test_headers_of_other_files_are_refused(tmp_path: Path, text: str):
    path = tmp_path / "sweep"
    save_file({"values": torch.zeros(2)}, path, metadata={"interp": text})
    with pytest.raises(FileFormatError, match=r"is not a sweep; give a file|is damaged"):
        SweepResult.load(path)


@given(st.data())
def test_no_change_of_a_file_raises_anything_else(tmp_path_factory, data: st.DataObject):
    path = PATCHED.save(tmp_path_factory.mktemp("sweep") / "sweep")
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(FileFormatError):
        SweepResult.load(path).to_frame()
