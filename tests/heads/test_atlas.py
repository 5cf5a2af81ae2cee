"""What an atlas says, shows and writes."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import FileFormatError, MetricError
from interp.heads import HeadAtlas
from interp.sites import Head


def make(values: Any, **provenance: Any) -> HeadAtlas:
    kinds = ("induction", "first-token")
    tensor = torch.as_tensor(values, dtype=torch.float32)
    return HeadAtlas(kinds, tensor, torch.tensor([0.01, 0.02]), {"model": "toy", **provenance})


@pytest.fixture
def atlas() -> HeadAtlas:
    """Two kinds, two layers of two heads, three prompts."""
    induction = [[[0.0, 0.1, 0.2], [0.9, 0.9, 0.9]], [[0.4, 0.5, 0.6], [0.0, 0.0, 0.0]]]
    first = [[[0.5, 0.5, 0.5], [0.6, 0.6, 0.6]], [[0.1, 0.1, 0.1], [0.0, 0.0, 0.3]]]
    return make([induction, first])


def test_top_lists_the_best_first_with_interval_chance_and_n(atlas: HeadAtlas) -> None:
    top = atlas.top("induction", 2)
    assert list(top.columns) == ["head", "score", "ci_low", "ci_high", "chance", "n"]
    assert list(top["head"]) == ["0.1", "1.0"]
    assert top["score"].tolist() == pytest.approx([0.9, 0.5])
    assert (top["ci_low"][1], top["ci_high"][1]) == pytest.approx((0.4, 0.6))
    assert top["chance"].tolist() == pytest.approx([0.01, 0.01])
    assert top["n"].tolist() == [3, 3]
    assert len(atlas.top("induction", 100)) == 4


def test_heads_without_a_score_come_last() -> None:
    atlas = make([[[[math.nan], [0.1]]], [[[0.0], [0.0]]]])
    assert list(atlas.top("induction")["head"]) == ["0.1", "0.0"]
    assert atlas.named(0.05)["induction"] == (Head(0, 1),)


def test_one_prompt_has_no_interval() -> None:
    atlas = make(torch.rand(2, 1, 2, 1))
    assert atlas.top("induction")["ci_low"].isna().all()


def test_heads_are_named_from_the_threshold_on(atlas: HeadAtlas) -> None:
    assert atlas.named() == {
        "induction": (Head(0, 1), Head(1, 0)),
        "first-token": (Head(0, 1), Head(0, 0)),
    }
    assert atlas.named(0.8) == {"induction": (Head(0, 1),), "first-token": ()}


def test_the_frame_has_one_row_a_head(atlas: HeadAtlas) -> None:
    frame = atlas.to_frame()
    assert list(frame.columns) == ["head", "induction", "first-token", "kind"]
    assert list(frame["head"]) == ["0.0", "0.1", "1.0", "1.1"]
    assert list(frame["kind"]) == ["first-token", "induction, first-token", "induction", ""]


def test_plots_show_one_kind_or_all(atlas: HeadAtlas) -> None:
    one = atlas.plot("induction")
    assert one.layout.title.text == "induction heads of toy"
    assert one.data[0].hovertext[1][0].startswith("1.0: 0.500<br>95% interval 0.4")
    assert [note.text for note in atlas.plot().layout.annotations] == list(atlas.kinds)


def test_unknown_kinds_name_the_nearest(atlas: HeadAtlas) -> None:
    for ask in (atlas.top, atlas.grid, atlas.plot):
        with pytest.raises(MetricError, match=r"'inducton' is not .*: did you mean induction"):
            ask("inducton")


def test_it_shows_itself(atlas: HeadAtlas) -> None:
    assert repr(atlas) == "HeadAtlas(toy: 2 layers x 2 heads, induction, first-token; n = 3)"
    assert "0.1 0.90 [0.90, 0.90]" in atlas._repr_html_()


def test_names_are_escaped_in_a_notebook(atlas: HeadAtlas) -> None:
    hostile = make(atlas.values, model="<script>alert(1)</script>")
    assert "<script>" not in hostile._repr_html_()


@given(
    st.lists(st.floats(0, 1, width=32) | st.just(math.nan), min_size=8, max_size=8),
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())),
)
def test_json_keeps_every_bit(values: list[float], provenance: dict[str, Any]) -> None:
    import tempfile

    atlas = make(torch.tensor(values).reshape(2, 1, 2, 2), notes=provenance)
    with tempfile.TemporaryDirectory() as folder:
        again = HeadAtlas.load(atlas.save(Path(folder) / "new" / "atlas.json"))
    assert again.kinds == atlas.kinds
    assert torch.equal(again.values.nan_to_num(nan=-1), atlas.values.nan_to_num(nan=-1))
    assert torch.equal(again.chance, atlas.chance)
    assert again.provenance == atlas.provenance


def test_json_is_strict(atlas: HeadAtlas) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    holey = make(torch.full((2, 1, 1, 1), math.nan))
    assert json.loads(holey.to_json(), parse_constant=refuse)["values"] == [[[[None]]], [[[None]]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "does not hold a HeadAtlas; write one with HeadAtlas.save"),
        ({"version": 2}, "is a HeadAtlas of version 2, and this release reads version 1"),
        ({"values": [[1, 2], [3]]}, "has a missing or broken part"),
        ({"values": "x"}, "has a missing or broken part"),
        ({"values": [[[[0.5]]]]}, r"has values of shape \(1, 1, 1, 1\) and 2 chance levels for 2"),
        ({"kinds": None}, "has a missing or broken part"),
        ({"chance": [0.1]}, "and 1 chance levels for 2 kinds"),
        ({"provenance": 3}, "has a missing or broken part"),
    ],
)
def test_bad_files_are_refused(
    atlas: HeadAtlas, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "atlas.json"
    path.write_text(json.dumps(json.loads(atlas.to_json()) | change))
    with pytest.raises(FileFormatError, match=message):
        HeadAtlas.load(path)


def test_a_truncated_file_is_refused(atlas: HeadAtlas, tmp_path: Path) -> None:
    path = atlas.save(tmp_path / "atlas.json")
    path.write_text(path.read_text()[:-20])
    with pytest.raises(FileFormatError, match="is not whole JSON"):
        HeadAtlas.load(path)


def test_a_missing_part_is_named(atlas: HeadAtlas, tmp_path: Path) -> None:
    data = json.loads(atlas.to_json())
    del data["values"]
    (tmp_path / "atlas.json").write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match=r"broken part \('values'\)"):
        HeadAtlas.load(tmp_path / "atlas.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none.json cannot be read \(No such file"):
        HeadAtlas.load(tmp_path / "none.json")
