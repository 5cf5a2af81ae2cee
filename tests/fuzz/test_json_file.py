"""Our own JSON files: what is written comes back, and nothing else is taken for it."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import FileFormatError
from interp.json_file import DEEPEST, decode, read_json_file, unseal, write_json
from tests.fuzz.hostile import BOMBS, FUZZ, assert_harmless, assert_refused, changed_json, mutations

WHAT: dict[str, Any] = {"format": "interp.Thing", "version": 3}
ENTRIES = ("numbers", "words")
THING: dict[str, Any] = {"numbers": [0.1, -0.0, 10**30, None], "words": {"a": ["b\n\x00é𝄞", True]}}
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    return read_json_file(path, **WHAT, entries=ENTRIES, way_out="write one with Thing.save")


def is_the_thing(path: Path) -> bool:
    found = read(path)
    return repr(found) == repr(THING)


@FUZZ
@given(numbers=PLAIN, words=PLAIN)
def test_what_is_written_comes_back(tmp_path: Path, numbers: Any, words: Any) -> None:
    path = write_json(tmp_path / "thing.json", {"numbers": numbers, "words": words}, **WHAT)
    again = read(path)
    assert repr(again) == repr({"numbers": numbers, "words": words})


@FUZZ
@given(data=st.data())
def test_a_damaged_file_is_what_was_written_or_refused(tmp_path: Path, data: Any) -> None:
    path = write_json(tmp_path / "thing.json", THING, **WHAT, indent=1)
    path.write_bytes(data.draw(mutations(path.read_bytes())))
    outcome = assert_harmless(is_the_thing, path)
    assert outcome.refused or outcome.result is True


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused(tmp_path: Path, name: str) -> None:
    BOMBS[name](tmp_path / "bomb.json")
    assert_refused(read, tmp_path / "bomb.json")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda told: told | {"format": "interp.Other"}, "does not hold a Thing"),
        (lambda told: told | {"version": 4}, "is a Thing of version 4, and this release reads"),
        (lambda told: told | {"version": 3.0}, "of version 3.0"),
        (lambda told: told | {"words": {}}, "changed after it was written"),
        (lambda told: told | {"sha256": None}, "changed after it was written"),
        (lambda told: told | {"more": 1}, "changed after it was written"),
        (lambda told: _unsigned(told) | {"more": 1}, "'more' is unknown"),
        (lambda told: {**WHAT, "words": {}}, "'numbers' is missing"),
        (lambda told: [told], "does not hold a Thing"),
        (lambda told: None, "does not hold a Thing"),
    ],
)
def test_what_is_not_what_was_written_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    path = write_json(tmp_path / "thing.json", THING, **WHAT)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    assert_refused(read, path, match=said)


def _unsigned(told: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if name != "sha256"}


def test_files_from_before_the_hash_and_other_spaces_are_read(tmp_path: Path) -> None:
    path = write_json(tmp_path / "thing.json", THING, **WHAT)
    told = json.loads(path.read_text())
    for same in (_unsigned(told), dict(reversed(told.items()))):
        path.write_text(json.dumps(same, indent=3))
        assert read(path) == THING


@pytest.mark.parametrize("where", ['{"\\ud800": 1}', '["x\\udfff"]', '{"a": {"b": "\\ud800"}}'])
def test_half_a_letter_is_refused(tmp_path: Path, where: str) -> None:
    path = tmp_path / "thing.json"
    path.write_text(json.dumps(WHAT)[:-1] + f', "numbers": [], "words": {where}}}')
    assert_refused(read, path, match="half a letter")


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "-Infinity", "1e999", "[-1e400]"])
def test_numbers_that_json_does_not_know_are_read_only_where_they_are_meant(text: str) -> None:
    decode(text, nan=True)
    with pytest.raises(ValueError, match=r"no number of JSON|too large for a float"):
        decode(text)


@pytest.mark.parametrize("value", [b"x", {1, 2}, object(), float("nan"), {b"x": 1}])
def test_what_a_table_holds_and_json_does_not_know_is_refused(value: Any) -> None:
    told = WHAT | {"numbers": [], "words": value}
    with pytest.raises(FileFormatError, match=r"^t\.parquet holds what JSON .* \(.*\); give"):
        unseal(told, "t.parquet", **WHAT, entries=ENTRIES, way_out="give another one")


def test_depth_has_a_limit_that_is_said() -> None:
    decode("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match=f"more than {DEEPEST} deep"):
        decode("[" * (DEEPEST + 1) + "]" * (DEEPEST + 1))


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), object(), {1: 1, "1": 2}, b"x", "\ud800"]
)
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, value: Any) -> None:
    path = write_json(tmp_path / "thing.json", THING, **WHAT)
    with pytest.raises(FileFormatError, match=r"^thing\.json cannot be written \("):
        write_json(path, THING | {"words": value}, **WHAT)
    assert read(path) == THING
    assert os.listdir(tmp_path) == ["thing.json"]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    path = write_json(tmp_path / "deep" / "thing.json", THING, **WHAT)
    assert stat.S_IMODE(path.stat().st_mode) & 0o600 == 0o600

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_json(path, {"numbers": [], "words": {}}, **WHAT)
    assert read(path) == THING
    assert os.listdir(path.parent) == ["thing.json"]


@FUZZ
@given(changed_json(THING | WHAT))
def test_odd_values_are_read_or_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "thing.json"
    path.write_bytes(text)
    assert_harmless(read, path)
