"""What has no section of its own shows its table; reports hold many results, and trust no text."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from interp.errors import InterpError
from interp.grokking import shipped_curves
from interp.report import build
from interp.report.drawing.chart import Scale, Series, curves, points
from interp.report.frame import frame_table
from interp.report.other import ROWS, other_section
from interp.report.rerun import rerun, sampled
from tests.report.analyses import (
    KNOWN,
    consistency,
    erasure,
    gap_reduction,
    head_check,
    injection,
    learned,
    overthinking,
    probes,
    strengths,
    task_evaluation,
)
from tests.report.pages import HOSTILE
from tests.report.test_page import Reader


@dataclass(frozen=True)
class PlainThing:
    """Whether a thing is plain.

    Attributes:
        rows: How many.
    """

    rows: int
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        return pd.DataFrame(
            {"name": [f"r{i}" for i in range(self.rows)], "value": 0.5, "untrained": 0.25, "n": 3}
        )


@dataclass(frozen=True)
class JudgedThing(PlainThing):
    @property
    def verdict(self) -> str:
        return "exceeds all controls"


@dataclass(frozen=True)
class NeedyThing:
    def to_frame(self, model: object) -> pd.DataFrame:
        raise AssertionError


def test_any_result_shows_its_table_and_does_not_pretend_a_verdict() -> None:
    section = other_section(PlainThing(3, KNOWN | {"relation": "antonym", "command": "make it"}))
    assert section.heading == "Plain thing (antonym, toy)"
    assert section.lead.startswith("PlainThing(rows=3")
    assert section.lead.endswith("No verdict: numbers only.")
    assert section.claims == ()
    assert section.blocks[0].meaning == "Whether a thing is plain."
    (table,) = section.blocks[0].tables
    assert table.columns == ("name", "value", "untrained", "n")
    assert table.rows[0] == ("r0", 0.5, 0.25, 3)
    assert section.command == "make it"


def test_its_own_verdict_is_a_claim_that_the_page_does_not_weigh() -> None:
    (claim,) = other_section(JudgedThing(3, KNOWN)).claims
    assert claim.statement == "Judged thing: Exceeds all controls."
    assert claim.verdict == "doubtful"


def test_the_rows_that_are_left_out_are_counted() -> None:
    section = other_section(PlainThing(ROWS + 7, KNOWN))
    (table,) = section.blocks[0].tables
    assert len(table.rows) == ROWS
    assert table.caption == "Plain thing: the first 500 of 507 rows; 7 are left out"
    assert any("to_frame() has all" in limit for limit in section.limits)
    assert "No command was kept with this result." in section.limits


@pytest.mark.parametrize("result", [3, "text", {}, object(), PlainThing, NeedyThing()])
def test_what_has_no_table_is_refused(result: object) -> None:
    with pytest.raises(InterpError, match=r"A report cannot show a .*to_frame"):
        build(result)


def test_results_of_every_kind_stand_in_one_report(tmp_path: Path) -> None:
    results = (
        task_evaluation("antonym", hypothesis=0.9),
        task_evaluation("plural", hypothesis=0.1),
        head_check(0.2, 0.8),
        injection({"function": 0.9, "random": 0.1}),
        strengths(0.3),
        learned(0.9),
        consistency(right=1.0, wrong=0.2),
        overthinking(0.5),
        gap_reduction(0.5),
        probes(0.9),
        probes(0.5),
        erasure(after=0.5),
        shipped_curves(),
        PlainThing(3, KNOWN),
    )
    report = build(*results)
    assert len(report.sections) == len(results)
    headings = [section.heading for section in report.sections]
    assert headings[0] == "Does the task vector of antonym do its task in toy?"
    assert headings[1] == "Does the task vector of plural do its task in toy?"
    page = Reader(report.html)
    for section in report.sections:
        for words in (
            section.heading,
            section.command,
            *(claim.evidence for claim in section.claims),
        ):
            assert words in page.text
    data = json.loads(report.save(tmp_path / "report.json").read_text(encoding="utf-8"))
    assert len(data["sections"]) == len(results)
    assert report.save(tmp_path / "report.md").stat().st_size > 5000


@pytest.mark.parametrize("text", HOSTILE)
def test_names_and_texts_from_outside_are_only_text(text: str) -> None:
    written = text.encode(errors="replace").decode()  # tables and questions are UTF-8
    known = KNOWN | {"model": text, "task": text, "command": text}
    results = (
        replace(task_evaluation(text, hypothesis=0.9), provenance=known),
        replace(injection({written: 0.9, f"random {written}": 0.1}), provenance=known),
        replace(strengths(0.3), behavior=text, provenance=known),
        replace(consistency(right=1.0, wrong=0.2, text=written), provenance=known),
        replace(probes(0.9), provenance=known),
        PlainThing(2, known),
    )
    page = Reader(build(*results, title=text).html)
    tags = [tag for tag, _ in page.tags]
    assert {"img", "iframe", "base", "object"}.isdisjoint(tags)
    for _, attributes in page.tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]
        assert not (attributes.get("href") or "#").startswith("javascript")


def test_intervals_and_values_are_in_the_drawing() -> None:
    series = [
        Series("main", [0.5, torch.nan, 0.7], [0.4, torch.nan, 0.6], [0.6, torch.nan, 0.8]),
        Series("control", [0.1, 0.2, 0.3], control=True),
    ]
    for draw, place in ((curves, "layer 2"), (points, "2")):
        drawing = str(draw(series, ["0", "1", "2"], label="Both.", across="layer"))
        assert f"{place}: main 0.700 (0.600 to 0.800)" in drawing
        assert drawing.count("data-tip") == 5
        assert "nan" not in drawing


def test_ticks_are_round_and_inside() -> None:
    for low, high in ((0.0, 1.0), (-0.3, 0.04), (0.0, 17.3), (-1e-5, 1e-5), (3.0, 40000.0)):
        ticks = Scale(low, high, 0, 100).ticks
        assert 3 <= len(ticks) <= 12
        assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in ticks)


def test_cells_of_a_frame_are_plain_words_and_numbers() -> None:
    frame = pd.DataFrame(
        {"name": ["a"], "good": [True], "n": [3], "x": [0.5], "none": [None], "words": [["b", "c"]]}
    )
    table = frame_table("Some", frame)
    assert table.rows == (("a", "yes", 3, 0.5, "", "b, c"),)
    assert frame_table("Some", frame, {"x": "X", "missing": "Y"}).columns == ("X",)


def test_commands_load_the_model_that_was_measured() -> None:
    assert rerun({"model": "m", "dtype": "float64"}) == "model = interp.load('m', dtype='float64')"
    assert rerun({"model": "m", "command": "interp scan m"}) == "interp scan m"
    told = {"task": "ioi", "n": 4, "prompts_hash": "ab", "notes": {"seed": 1, "split": "test"}}
    assert sampled(told) == (
        "prompts = interp.tasks.get('ioi').sample(model, n=4, seed=1, split='test')  # hash ab"
    )
    assert sampled({"n": 4, "prompts_hash": "ab"}) == "prompts = ...  # 4 prompts, hash ab"
