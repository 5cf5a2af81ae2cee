"""What an atlas says, shows and writes."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import FileFormatError, MetricError
from interp.heads import KINDS, HeadAtlas, Score
from interp.sites import Head
from tests.report.results import check


def make(
    induction: Any, first: Any = None, *, missing: dict[str, str] | None = None, **provenance: Any
) -> HeadAtlas:
    values = torch.as_tensor(induction, dtype=torch.float32)
    other = values if first is None else torch.as_tensor(first, dtype=torch.float32)
    scores = {
        "induction": Score("induction", values, chance=0.01),
        "first-token": Score("first-token", other),
    }
    return HeadAtlas(
        scores, {"induction": check(heads="0.0")}, missing or {}, {"model": "toy", **provenance}
    )


@pytest.fixture
def atlas() -> HeadAtlas:
    """Two kinds, two layers of two heads, three prompts."""
    induction = [[[0.0, 0.1, 0.2], [0.9, 0.9, 0.9]], [[0.4, 0.5, 0.6], [0.0, 0.0, 0.0]]]
    first = [[[0.5, 0.5, 0.5], [0.6, 0.6, 0.6]], [[0.1, 0.1, 0.1], [0.0, 0.0, 0.3]]]
    return make(induction, first)


def test_top_lists_the_best_first_with_interval_chance_and_n(atlas: HeadAtlas) -> None:
    top = atlas.top("induction", 2)
    assert list(top.columns) == ["head", "score", "ci_low", "ci_high", "chance", "n"]
    assert list(top["head"]) == ["0.1", "1.0"]
    assert top["score"].tolist() == pytest.approx([0.9, 0.5])
    assert (top["ci_low"][1], top["ci_high"][1]) == pytest.approx((0.4, 0.6))
    assert top["chance"].tolist() == pytest.approx([0.01, 0.01])
    assert top["n"].tolist() == [3, 3]
    assert len(atlas.top("induction", 100)) == 4


def test_samples_that_say_nothing_of_a_head_are_left_out() -> None:
    atlas = make([[[math.nan, 0.3], [0.1, 0.1]], [[math.nan, math.nan], [0.0, 0.0]]])
    top = atlas.top("induction")
    assert list(top["head"]) == ["0.0", "0.1", "1.1", "1.0"]
    assert top["n"].tolist() == [1, 2, 2, 0]
    assert atlas.named(0.05)["induction"] == (Head(0, 0), Head(0, 1))


def test_one_prompt_has_no_interval() -> None:
    assert make(torch.rand(1, 2, 1)).top("induction")["ci_low"].isna().all()


def test_heads_are_named_from_the_threshold_of_their_kind_on(atlas: HeadAtlas) -> None:
    assert atlas.named() == {
        "induction": (Head(0, 1), Head(1, 0)),
        "first-token": (Head(0, 1), Head(0, 0)),
    }
    assert atlas.named(0.8) == {"induction": (Head(0, 1),), "first-token": ()}


def test_heads_that_do_no_better_than_chance_are_not_named() -> None:
    values = torch.tensor([[[0.5, 0.5], [0.7, 0.7]]])
    assert Score("induction", values, chance=0.6).named() == (Head(0, 1),)


def test_the_frame_has_one_row_a_head(atlas: HeadAtlas) -> None:
    frame = atlas.to_frame()
    assert list(frame.columns) == ["head", "induction", "first-token", "kinds"]
    assert list(frame["head"]) == ["0.0", "0.1", "1.0", "1.1"]
    assert list(frame["kinds"]) == ["first-token", "induction, first-token", "induction", ""]


def test_heads_have_the_kinds_that_they_are_named_after_as_labels(atlas: HeadAtlas) -> None:
    assert atlas.labels() == {
        Head(0, 1): ("induction", "first-token"),
        Head(1, 0): ("induction",),
        Head(0, 0): ("first-token",),
    }
    assert atlas.labels(0.8) == {Head(0, 1): ("induction",)}


def test_claims_are_a_frame_too(atlas: HeadAtlas) -> None:
    row = atlas.claims_frame().iloc[0]
    assert (row["kind"], row["heads"], row["task"]) == ("induction", "0.0", "repeated_tokens")
    assert (row["clean"], row["effect"], row["random"]) == pytest.approx((4.0, -3.0, -0.5))
    assert row["confirmed"]


def test_plots_show_one_kind_or_all(atlas: HeadAtlas) -> None:
    one = atlas.plot("induction")
    assert one.layout.title.text == "induction heads of toy"
    assert one.data[0].hovertext[1][0].startswith("1.0: 0.500<br>95% interval 0.4")
    assert [note.text for note in atlas.plot().layout.annotations] == list(atlas.kinds)


def test_unknown_kinds_name_the_nearest(atlas: HeadAtlas) -> None:
    for ask in (atlas.top, atlas.grid, atlas.plot, atlas.ci):
        with pytest.raises(MetricError, match=r"'inducton' is not .*: did you mean induction"):
            ask("inducton")


def test_a_kind_that_was_not_measured_says_why() -> None:
    atlas = make(torch.rand(1, 2, 3), missing={"successor": "No MLP."})
    with pytest.raises(MetricError, match="'successor' was not measured: No MLP"):
        atlas.top("successor")
    assert "not measured: No MLP." in atlas._repr_html_()


def test_an_atlas_needs_scores_of_one_model() -> None:
    with pytest.raises(MetricError, match=r"scores of one model.*\(1, 2\), \(1, 3\)"):
        make(torch.rand(1, 2, 3), torch.rand(1, 3, 3))
    with pytest.raises(MetricError, match="No words"):
        HeadAtlas({}, missing={"retrieval": "No words."})


def test_it_shows_itself(atlas: HeadAtlas) -> None:
    assert repr(atlas) == ("HeadAtlas(toy: 2 layers x 2 heads, 2 kinds; 1 of 1 claims confirmed)")
    shown = atlas._repr_html_()
    assert "0.1 0.90 [0.90, 0.90]" in shown
    assert "repeated_tokens -3.00 (random -0.50): confirmed" in shown


def test_names_are_escaped_in_a_notebook() -> None:
    hostile = make(torch.rand(1, 2, 3), model="<script>alert(1)</script>")
    assert "<script>" not in hostile._repr_html_()


@pytest.mark.parametrize("name", ["atlas.json", "atlas.parquet"])
@given(
    st.lists(st.floats(-1, 1, width=32) | st.just(math.nan), min_size=8, max_size=8),
    st.dictionaries(st.text(), st.integers() | st.text() | st.lists(st.booleans())),
)
def test_files_keep_every_bit(name: str, values: list[float], notes: dict[str, Any]) -> None:
    atlas = make(torch.tensor(values).reshape(2, 2, 2), torch.rand(2, 2, 5), notes=notes)
    with tempfile.TemporaryDirectory() as folder:
        again = HeadAtlas.load(atlas.save(Path(folder) / "new" / name))
    assert again.kinds == atlas.kinds
    for kind, score in atlas.scores.items():
        found = again.scores[kind]
        assert torch.equal(found.values.nan_to_num(nan=-1), score.values.nan_to_num(nan=-1))
        assert (found.samples, found.notes) == (score.samples, score.notes)
        assert found.chance == score.chance or math.isnan(score.chance)
    assert again.claims["induction"].heads == atlas.claims["induction"].heads
    assert torch.equal(again.claims["induction"].random, atlas.claims["induction"].random)
    assert (again.provenance, again.missing) == (atlas.provenance, atlas.missing)


def test_json_is_strict(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    holey = make(torch.full((1, 1, 1), math.nan)).save(tmp_path / "atlas.json")
    told = json.loads(holey.read_text(), parse_constant=refuse)
    assert told["scores"]["induction"]["values"] == [[[None]]]


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"format": "x"}, "does not hold a HeadAtlas; write one with HeadAtlas.save"),
    ({"version": 1}, "is a HeadAtlas of version 1, and this release reads version 2"),
    ({"scores": {}}, r"has a missing or broken part \(its scores are not of one model\)"),
    ({"scores": None}, "has a missing or broken part"),
    ({"claims": {"induction": {"heads": ["1"]}}}, "has a missing or broken part"),
    ({"provenance": 3}, "has a missing or broken part"),
]
OF_A_SCORE: list[tuple[dict[str, Any], str]] = [
    ({"values": [[1, 2], [3]]}, "has a missing or broken part"),
    ({"values": "x"}, "has a missing or broken part"),
    ({"values": [[0.5]]}, "values of induction is no table of 3 dim"),
    ({"values": [[[0.5]]]}, "its scores are not of one model"),
    ({"chance": "x"}, "has a missing or broken part"),
]


def _unsigned(path: Path) -> dict[str, Any]:
    """What a file says, without its hash, which would be found to be that of other content."""
    data: dict[str, Any] = json.loads(path.read_text())
    del data["sha256"]
    return data


@pytest.mark.parametrize(("change", "message"), BROKEN)
def test_bad_files_are_refused(
    atlas: HeadAtlas, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = atlas.save(tmp_path / "atlas.json")
    path.write_text(json.dumps(_unsigned(path) | change))
    with pytest.raises(FileFormatError, match=message):
        HeadAtlas.load(path)


@pytest.mark.parametrize(("change", "message"), OF_A_SCORE)
def test_bad_scores_are_refused(
    atlas: HeadAtlas, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = atlas.save(tmp_path / "atlas.json")
    data = _unsigned(path)
    data["scores"]["induction"] |= change
    path.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match=message):
        HeadAtlas.load(path)


@pytest.mark.parametrize("name", ["atlas.json", "atlas.parquet"])
def test_a_truncated_file_is_refused(atlas: HeadAtlas, tmp_path: Path, name: str) -> None:
    path = atlas.save(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(FileFormatError, match=r"is not whole|cannot be read"):
        HeadAtlas.load(path)


def test_a_missing_part_is_named(atlas: HeadAtlas, tmp_path: Path) -> None:
    path = atlas.save(tmp_path / "atlas.json")
    data = _unsigned(path)
    del data["scores"]["induction"]["values"]
    path.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match=r"broken part \('values'\)"):
        HeadAtlas.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"none.json cannot be read \(No such file"):
        HeadAtlas.load(tmp_path / "none.json")


def test_every_kind_says_what_it_means() -> None:
    for name, kind in KINDS.items():
        assert name == kind.name
        assert kind.meaning
        assert kind.source
        assert 0 < kind.threshold <= 1
