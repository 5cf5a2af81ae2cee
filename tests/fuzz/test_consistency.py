"""Consistency and lens readings as JSON and Parquet; questions, contrasts and pairs as lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.consistency import read_questions
from interp.consistency.questions import Question
from tests.fuzz.hostile import (
    BOMBS,
    ODD,
    assert_harmless,
    assert_refused,
    changed_json,
    mutations,
)
from tests.fuzz.saved_results import LINES, TABLES

FUZZ = settings(
    max_examples=100,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
FORMATS = TABLES | LINES
JSON = [name for name, kind in TABLES.items() if kind.ending == ".json"]
PARQUET = [name for name, kind in TABLES.items() if kind.ending == ".parquet"]


def original(name: str, folder: Path) -> Path:
    path = folder / f"file{FORMATS[name].ending}"
    FORMATS[name].write(path)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_what_was_written_or_refused(name: str, tmp_path: Path) -> None:
    path, kind = original(name, tmp_path), FORMATS[name]
    whole, was = path.read_bytes(), assert_harmless(kind.read, path)
    assert was.refused is None

    @FUZZ
    @given(mutations(whole))
    def damaged(data: bytes) -> None:
        path.write_bytes(data)
        outcome = assert_harmless(kind.read, path)
        assert outcome.refused or not kind.signed or outcome.result == was.result

    damaged()


@pytest.mark.parametrize("name", JSON)
def test_odd_values_are_read_or_refused(name: str, tmp_path: Path) -> None:
    path, kind = original(name, tmp_path), FORMATS[name]
    whole = json.loads(path.read_text())

    @FUZZ
    @given(changed_json(whole))
    def odd(text: bytes) -> None:
        path.write_bytes(text)
        assert_harmless(kind.read, path)

    odd()
    del whole["sha256"]
    for key in whole:
        for value in ODD:
            path.write_text(json.dumps(whole | {key: value}))
            assert_harmless(kind.read, path)


@pytest.mark.parametrize("name", PARQUET)
@FUZZ
@given(data=st.data())
def test_anything_may_be_told_beside_the_rows(name: str, data: Any, tmp_path: Path) -> None:
    path = original(name, tmp_path)
    rows = pq.read_table(path)
    told = data.draw(changed_json(json.loads(rows.schema.metadata[b"interp"])))
    pq.write_table(rows.replace_schema_metadata({"interp": told}), path)
    assert_harmless(FORMATS[name].read, path)


@pytest.mark.parametrize("name", LINES)
def test_a_line_may_be_anything(name: str, tmp_path: Path) -> None:
    path = original(name, tmp_path)
    first = json.loads(path.read_text().splitlines()[0])
    first = first[0] if isinstance(first, list) else first
    for value in ODD:
        for row in (value, *({**first, key: value} for key in first)):
            path.write_text(json.dumps([row] if name == "pairs" else row) + "\n")
            assert_harmless(FORMATS[name].read, path)


def count_questions(path: Path) -> int:
    return len(read_questions(path))


def test_many_questions_with_many_answers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    rows = ({"question": f"Which is {i}?", "answer": str(i)} for i in range(15_000))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert assert_harmless(count_questions, path).result == 15_000


class Counted(str):
    """Text that counts how often it is hashed."""

    __slots__ = ()
    hashed = 0

    def __hash__(self) -> int:
        Counted.hashed += 1
        return super().__hash__()


def test_questions_share_their_labels() -> None:
    labels = tuple(Counted(f"label {i}") for i in range(100))
    questions = [Question("Which?", label, labels) for label in labels]
    assert [question.right for question in questions] == [*range(100)]
    assert [question.read(f"The answer is {question.answer}.") for question in questions] == [
        (i, 14) for i in range(100)
    ]
    assert Counted.hashed < 1_000


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_refused(bomb: str, tmp_path: Path) -> None:
    for name, kind in FORMATS.items():
        path = tmp_path / name / f"bomb{kind.ending}"
        path.parent.mkdir()
        BOMBS[bomb](path)
        assert_refused(kind.read, path)


@pytest.mark.parametrize("name", PARQUET)
def test_a_small_file_of_a_hundred_million_rows_is_refused(name: str, tmp_path: Path) -> None:
    path = original(name, tmp_path)
    told = pq.read_schema(path).metadata
    zeros = pa.DictionaryArray.from_arrays(pa.array(np.zeros(10**8, np.int8)), pa.array(["x"]))
    table = pa.table({"text": zeros}).replace_schema_metadata(told)
    pq.write_table(table, path)
    assert path.stat().st_size < 2_000_000
    assert_refused(FORMATS[name].read, path, match="announces")


@pytest.mark.parametrize(("one", "other"), [*zip(JSON, PARQUET, strict=True)])
def test_twins_have_one_hash(one: str, other: str, tmp_path: Path) -> None:
    told = json.loads(original(one, tmp_path).read_text())
    twin = json.loads(pq.read_schema(original(other, tmp_path)).metadata[b"interp"])
    assert twin["sha256"] == told["sha256"]
