"""Tables in Parquet from strangers: small files that stand for much, and columns that none has."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from interp.errors import FileFormatError
from interp.lens.reading import LensReading
from interp.table_file import read_table, write_table
from tests.fuzz.hostile import assert_harmless, assert_refused
from tests.fuzz.saved_results import consistency, read_consistency, read_reading, reading

READERS: dict[str, Callable[[Path], str]] = {
    "reading": read_reading,
    "consistency": read_consistency,
}


@cache
def whole(name: str) -> pa.Table:
    with TemporaryDirectory() as folder:
        original: Any = {"reading": reading, "consistency": consistency}[name]()
        return pq.read_table(original.save(Path(folder) / "whole.parquet"))


def changed(name: str, column: str, values: Any) -> pa.Table:
    """A table with other values in a column."""
    table = whole(name)
    column_at = table.schema.get_field_index(column)
    return table.set_column(column_at, column, values)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize(
    "how",
    [
        *({}, {"compression": "none"}, {"use_dictionary": False}),
        *({"row_group_size": 2}, {"data_page_size": 1}, {"data_page_version": "2.0"}),
        {"dictionary_pagesize_limit": 1},
    ],
)
def test_the_same_rows_in_other_pages_are_read(
    name: str, how: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "same.parquet"
    pq.write_table(whole(name), path, **how)
    assert assert_harmless(READERS[name], path).result == "the original"


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("codec", ["gzip", "zstd", "brotli", "lz4"])
def test_what_packs_a_thousandfold_is_refused(name: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / "packed.parquet"
    pq.write_table(whole(name), path, compression=codec)
    assert_refused(READERS[name], path, match="and not by SNAPPY")


@pytest.mark.parametrize("inside", [False, True])
def test_a_long_text_that_stands_in_every_row_is_refused(inside: bool, tmp_path: Path) -> None:
    path = tmp_path / "long.parquet"
    texts = pa.DictionaryArray.from_arrays(np.zeros(10**4, np.int32), ["x" * 10**5])
    if inside:
        texts = pa.ListArray.from_arrays(np.arange(10**4 + 1, dtype=np.int32), texts)
    pq.write_table(pa.table({"layer": texts}), path, store_schema=False, write_statistics=False)
    assert path.stat().st_size < 10_000
    assert_refused(read_reading, path, match="it holds texts that would take 1,000,")


@pytest.mark.parametrize(
    "value",
    [
        *(b"\xff", datetime.timedelta(1), datetime.date(2020, 1, 1), Decimal("0.5")),
        *(datetime.datetime(2020, 1, 1), datetime.time(1), {"a": 1}, [[0.5]], [b"x"]),
    ],
)
@pytest.mark.parametrize("name", READERS)
def test_columns_that_no_table_has_are_refused(name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "odd.parquet"
    column = {"reading": "prob", "consistency": "log_prob"}[name]
    pq.write_table(changed(name, column, pa.array([value] * len(whole(name)))), path)
    assert_refused(READERS[name], path, match=f"'{column}' is of")


def test_lists_of_a_fixed_length_are_refused(tmp_path: Path) -> None:
    """One that is not there has its length too, which may be a billion."""
    path = tmp_path / "wide.parquet"
    wide = pa.array([None] * 3, pa.list_(pa.float64(), 10))
    pq.write_table(pa.table({"p": wide}), path)
    assert_refused(read_consistency, path, match="'p' is of fixed_size_list")


def test_lists_with_a_number_that_json_does_not_know_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nan.parquet"
    rows = whole("consistency")["p"].to_pylist()
    rows[0] = [float("nan"), *rows[0][1:]]
    pq.write_table(changed("consistency", "p", pa.array(rows)), path)
    assert_refused(read_consistency, path, match="holds what JSON does not know")


def test_texts_that_are_no_utf8_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bytes.parquet"
    texts = pa.array([b"\xff"] * 6).view(pa.string())
    pq.write_table(changed("consistency", "text", texts), path)
    assert_refused(read_consistency, path, match="is not whole")


def test_many_texts_are_read(tmp_path: Path) -> None:
    """They are too many for a dictionary, in which a few may stand before the others."""
    what: dict[str, Any] = {"columns": "rows", "format": "interp.Thing", "version": 1}
    texts = [f"{i} " * 50 for i in range(5_000)]
    lists = [[text, "x"] if i % 3 else None for i, text in enumerate(texts)]
    told = {"rows": {"texts": texts, "lists": lists, "none": [None] * len(texts)}}
    path = write_table(tmp_path / "t.parquet", told, **what)
    assert read_table(path, **what, entries=("rows",), way_out="give another one") == told


def test_memory_that_ends_is_an_error_of_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = reading().save(tmp_path / "r.parquet")

    def full(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("interp.table_file.pq.ParquetFile", full)
    with pytest.raises(FileFormatError, match=r"r\.parquet is not whole \(MemoryError\); write"):
        LensReading.load(path)
