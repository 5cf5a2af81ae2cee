"""Atlases in Parquet that are forged: rows and what is told of them are checked together."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from interp.heads.atlas_rows import MOST_ROWS
from interp.parquet_footer import footer
from tests.fuzz.hostile import EACH_TYPE, FUZZ, assert_harmless, assert_refused, changed_json
from tests.fuzz.originals import atlas, read_atlas


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return atlas().save(tmp_path / "atlas.parquet")


def told_in(path: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(pq.read_schema(path).metadata[b"interp"])
    return told


def test_anything_may_be_told(saved: Path) -> None:
    rows = pq.read_table(saved)

    @FUZZ
    @given(changed_json(told_in(saved)))
    def told(text: bytes) -> None:
        pq.write_table(rows.replace_schema_metadata({"interp": text}), saved)
        assert_harmless(read_atlas, saved)

    told()


@pytest.mark.parametrize("key", ["scores", "claims", "missing", "provenance"])
def test_each_part_may_be_anything(saved: Path, key: str) -> None:
    rows, told = pq.read_table(saved), told_in(saved)
    del told["sha256"]
    for value in EACH_TYPE:
        text = json.dumps(told | {key: value})
        pq.write_table(rows.replace_schema_metadata({"interp": text}), saved)
        assert_harmless(read_atlas, saved)


def _set(rows: pa.Table, name: str, values: Any) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, pa.array(values))


def _with(rows: pa.Table, name: str, at: int, value: Any) -> pa.Table:
    column = rows[name].to_pylist()
    column[at] = value
    return _set(rows, name, pa.array(column, rows[name].type))


FORGED: dict[str, Callable[[pa.Table], pa.Table]] = {
    "no rows": lambda rows: rows.slice(0, 0),
    "a row less": lambda rows: rows.slice(1),
    "the last row less": lambda rows: rows.slice(0, len(rows) - 1),
    "a row twice": lambda rows: pa.concat_tables([rows, rows.slice(0, 1)]),
    "all rows twice": lambda rows: pa.concat_tables([rows, rows]),
    "backwards": lambda rows: rows.take(np.arange(len(rows))[::-1]),
    "two rows changed over": lambda rows: rows.take([1, 0, *range(2, len(rows))]),
    "another value": lambda rows: _with(rows, "value", 3, 0.5),
    "an infinite value": lambda rows: _with(rows, "value", 3, float("inf")),
    "a value too large": lambda rows: _with(rows, "value", 3, 1e300),
    "no value": lambda rows: _with(rows, "value", 3, None),
    "a negative layer": lambda rows: _with(rows, "layer", 0, -1),
    "a last head far out": lambda rows: _with(rows, "head", len(rows) - 1, 2**31 - 1),
    "no kind": lambda rows: _set(rows, "kind", [None] * len(rows)),
    "another kind": lambda rows: rows.set_column(
        0, "kind", pa.array(["x"] * len(rows)).dictionary_encode()
    ),
    "kinds as text": lambda rows: _set(rows, "kind", rows["kind"].cast(pa.string()).to_pylist()),
    "layers as text": lambda rows: _set(rows, "layer", ["0"] * len(rows)),
    "layers as floats": lambda rows: _set(rows, "layer", [0.5] * len(rows)),
    "values in lists": lambda rows: _set(rows, "value", [[0.5]] * len(rows)),
    "a column less": lambda rows: rows.drop_columns("sample"),
    "a column more": lambda rows: rows.append_column("more", pa.array([1] * len(rows))),
    "a column twice": lambda rows: rows.append_column("layer", rows["layer"]),
    "other names": lambda rows: rows.rename_columns(["a", "b", "c", "d", "e\n"]),
    "nothing told": lambda rows: rows.replace_schema_metadata({}),
    "no JSON told": lambda rows: rows.replace_schema_metadata({"interp": b"\xff["}),
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_rows_are_refused(saved: Path, name: str) -> None:
    pq.write_table(FORGED[name](pq.read_table(saved)), saved)
    assert_refused(read_atlas, saved)


def test_the_same_rows_in_other_pages_and_groups_are_read(saved: Path) -> None:
    rows, was = pq.read_table(saved), assert_harmless(read_atlas, saved).result
    pq.write_table(rows, saved, row_group_size=5, data_page_size=16, compression="none")
    assert assert_harmless(read_atlas, saved).result == was


def test_rows_from_before_their_hash_are_read(saved: Path) -> None:
    rows, told = pq.read_table(saved), told_in(saved)
    was = assert_harmless(read_atlas, saved).result
    del told["sha256"]
    for score in told["scores"].values():
        score["values"] = None
    pq.write_table(rows.replace_schema_metadata({"interp": json.dumps(told)}), saved)
    assert assert_harmless(read_atlas, saved).result == was


@pytest.mark.parametrize("compression", ["gzip", "zstd", "brotli", "lz4"])
def test_what_packs_a_thousandfold_is_refused(saved: Path, compression: str) -> None:
    pq.write_table(pq.read_table(saved), saved, compression=compression)
    assert_refused(read_atlas, saved, match="not by SNAPPY")


def test_billions_of_rows_in_few_bytes_are_refused_unread(saved: Path) -> None:
    schema = pq.read_schema(saved)
    some = 2**24
    kinds = pa.DictionaryArray.from_arrays(np.zeros(some, np.int32), ["induction"])
    zeros = [np.zeros(some, np.int32)] * 3
    rows = pa.table([kinds, *zeros, np.zeros(some)], schema=schema)
    with pq.ParquetWriter(saved, schema) as writer:
        for _ in range(MOST_ROWS // some + 1):
            writer.write_table(rows)
    assert saved.stat().st_size < 2**21
    assert_refused(read_atlas, saved, match="rows, and whole ones from 1 to")


def test_sizes_that_do_not_fit_together_do_not_end_the_process(saved: Path) -> None:
    """Arrow's Python aborts when it is asked about a part with another number of histograms."""
    whole = saved.read_bytes()
    start = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for at in range(start, start + 150):
        saved.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert_harmless(read_atlas, saved)


def test_a_long_name_in_few_bytes_takes_no_great_memory(saved: Path) -> None:
    rows = pq.read_table(saved)
    index = np.zeros(len(rows), np.int32)
    long = pa.DictionaryArray.from_arrays(index, ["x" * 2**24])
    pq.write_table(rows.set_column(0, "kind", long), saved)
    assert_refused(read_atlas, saved)


def test_a_kind_that_is_not_in_the_dictionary_is_refused(saved: Path) -> None:
    """Arrow gives places in a dictionary as they are."""
    told = pq.read_schema(saved).metadata
    rows = pq.read_table(saved).replace_schema_metadata(told)
    pq.write_table(rows, saved, compression="none")
    whole, part = saved.read_bytes(), footer(saved)[1][0]
    for at in range(part.start, part.end):
        for byte in (whole[at] ^ 4, 255):
            saved.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            assert_harmless(read_atlas, saved)
