"""The footer of Parquet files, which is read before Arrow sees it."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.parquet_footer import MAGIC, Part, footer, most_bytes
from tests.fuzz.hostile import FUZZ, mutations


@settings(FUZZ, max_examples=30)
@given(
    rows=st.integers(0, 100),
    codec=st.sampled_from(["NONE", "SNAPPY", "GZIP", "ZSTD", "BROTLI"]),
    group=st.integers(10, 200),
    columns=st.integers(1, 20),
)
def test_it_says_what_arrow_says(
    tmp_path: Path, rows: int, codec: str, group: int, columns: int
) -> None:
    table = pa.table({f"c{i}": np.arange(rows) * 0.5 for i in range(columns)})
    path = tmp_path / "t.parquet"
    pq.write_table(table, path, compression=codec, row_group_size=group)
    about = pq.read_metadata(path)
    groups = [about.row_group(i) for i in range(about.num_row_groups)]
    theirs = [group.column(i) for group in groups for i in range(columns)]
    found, parts = footer(path)
    assert found == rows
    assert [(part.codec, part.values, part.unpacked) for part in parts] == [
        (each.compression, each.num_values, each.total_uncompressed_size) for each in theirs
    ]


def test_a_damaged_footer_is_read_or_a_value_error(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": ["x", None], "b": [[1], [2, 3]]}), path)
    whole = path.read_bytes()
    length = struct.unpack("<I", whole[-8:-4])[0]

    @FUZZ
    @given(mutations(whole[-8 - length : -8]))
    def damaged(data: bytes) -> None:
        path.write_bytes(whole[: -8 - length] + data + struct.pack("<I", len(data)) + MAGIC)
        with suppress(ValueError):
            footer(path)

    damaged()


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b"PAR1", b"PAR1PAR1", b"PAR1\0\0\0\0PAR1", b"PAR1\xff\xff\xff\xffPAR1"),
        b"PAR1" + b"\x1c" * 1_000 + struct.pack("<I", 1_000) + MAGIC,
        b"PAR1" + b"\x19" * 1_000 + struct.pack("<I", 1_000) + MAGIC,
        b"PAR1" + b"\x19\xf1\xff\xff\xff\xff\x7f\0" + struct.pack("<I", 8) + MAGIC,
        b"PAR1" + b"\x16" + b"\xff" * 20 + struct.pack("<I", 21) + MAGIC,
    ],
)
def test_what_is_no_footer_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.parquet").write_bytes(data)
    with pytest.raises(ValueError, match="footer"):
        footer(tmp_path / "t.parquet")


# Pages


MIXED = pa.table(
    {
        "text": [f"word {i % 7}" if i % 5 else None for i in range(300)],
        "list": [[0.5] * (i % 4) if i % 3 else None for i in range(300)],
        "texts": [[f"{j}" for j in range(i % 4)] for i in range(300)],
        "number": np.arange(300) * 0.5,
        "flag": [i % 2 == 0 for i in range(300)],
        "none": [None] * 300,
    }
)


@pytest.mark.parametrize(
    "how",
    [
        *({}, {"compression": "none"}, {"use_dictionary": False}, {"data_page_version": "2.0"}),
        {"row_group_size": 17},
        {"data_page_size": 64},
        {"write_page_checksum": True, "write_page_index": True, "write_statistics": False},
        {"dictionary_pagesize_limit": 10},
    ],
)
def test_pages_of_real_files_are_as_their_footers_say(tmp_path: Path, how: dict[str, Any]) -> None:
    path = tmp_path / "t.parquet"
    for table in (MIXED, MIXED.slice(0, 0), MIXED.slice(0, 1)):
        pq.write_table(table, path, **how)
        most_bytes(path, footer(path)[1])


def test_long_words_before_a_page_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    words = [letter * 4_000 for letter in "ab"]
    pq.write_table(pa.table({"text": words}), path)
    most_bytes(path, footer(path)[1])


@pytest.mark.parametrize("codec", ["GZIP", "ZSTD", "BROTLI", "LZ4"])
def test_what_packs_a_thousandfold_is_refused(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(MIXED, path, compression=codec)
    with pytest.raises(ValueError, match=f"packed by {codec}.* and not by SNAPPY"):
        most_bytes(path, footer(path)[1])


@pytest.mark.parametrize("written", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_words_that_share_their_beginning_are_refused(tmp_path: Path, written: str) -> None:
    """Each of a million words may then be a million letters that the one before it has."""
    path = tmp_path / "t.parquet"
    table = pa.table({"a": ["x" * 10_000] * 1_000})
    pq.write_table(table, path, use_dictionary=False, column_encoding={"a": written})
    with pytest.raises(ValueError, match="it has a page that is written in way"):
        most_bytes(path, footer(path)[1])


def test_pages_that_are_not_of_the_sizes_in_the_footer_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(MIXED, path)
    parts = footer(path)[1]

    def refused(part: Part, **other: int) -> None:
        with pytest.raises(ValueError, match=r"footer|page|dictionary"):
            most_bytes(path, [*parts, replace(part, **other)])

    for part in parts:
        refused(part, values=part.values - 1)
        refused(part, values=part.values + 1)
        refused(part, unpacked=part.unpacked - 1)
        refused(part, end=part.end - 1)
        refused(part, end=part.end + 1)
        refused(part, end=10**12)
        refused(part, start=part.start + 1)


@pytest.mark.parametrize("how", [{}, {"data_page_version": "2.0"}, {"use_dictionary": False}])
def test_damaged_pages_are_as_they_should_be_or_a_value_error(
    tmp_path: Path, how: dict[str, Any]
) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(MIXED, path, **how)
    whole, parts = path.read_bytes(), footer(path)[1]

    @settings(FUZZ, max_examples=50)
    @given(mutations(whole[4 : parts[-1].end]))
    def damaged(data: bytes) -> None:
        path.write_bytes(MAGIC + data)
        with suppress(ValueError, OSError):
            most_bytes(path, parts)

    damaged()


@pytest.mark.parametrize("codec", ["none", "snappy"])
@pytest.mark.parametrize("inside", [False, True])
def test_a_text_counts_as_often_as_it_stands_there(
    tmp_path: Path, codec: str, inside: bool
) -> None:
    path = tmp_path / "t.parquet"
    texts: list[Any] = ["x" * 1_000, "", "y" * 20] * 1_000
    table = pa.table({"a": [[text, text] for text in texts] if inside else texts})
    sizes = {}
    for dictionary in (True, False):
        pq.write_table(table, path, compression=codec, use_dictionary=dictionary)
        sizes[dictionary] = most_bytes(path, footer(path)[1])
    least = 1_020 * 1_000 * (1 + inside)
    assert least < sizes[False] < least * 1.1
    assert 3 * 1_000 * 1_000 * (1 + inside) < sizes[True] < 3.1 * 1_000 * 1_000 * (1 + inside)


def test_a_dictionary_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": ["ab", "cd"]}), path, compression="none")
    whole = path.read_bytes()
    word = b"\2\0\0\0cd"
    assert whole.count(word) == 1
    path.write_bytes(whole.replace(word, b"\3" + word[1:]))
    with pytest.raises(ValueError, match="a dictionary of more words than bytes"):
        most_bytes(path, footer(path)[1])


def zigzag(number: int) -> bytes:
    """A number above 0 of the compact protocol."""
    number, found = number << 1, b""
    while number > 127:
        found += bytes([number & 127 | 128])
        number >>= 7
    return found + bytes([number])


def forged(whole: bytes, was: int, now: int) -> bytes:
    """A file whose footer says another number, in as many bytes."""
    length = struct.unpack("<I", whole[-8:-4])[0]
    old, new = zigzag(was), zigzag(now)
    new = new[:-1] + bytes([new[-1] | 128]) + b"\x80" * (len(old) - len(new) - 1) + b"\0"
    about = whole[-8 - length : -8]
    assert old in about
    return whole[: -8 - length] + about.replace(old, new) + whole[-8:]


def test_a_footer_that_says_less_than_the_pages_is_refused(tmp_path: Path) -> None:
    """Arrow reads what stands before the page: 17 GB of it from 300 bytes."""
    path = tmp_path / "t.parquet"
    how = {"store_schema": False, "write_statistics": False, "data_page_size": 2**30}
    pq.write_table(pa.table({"a": [np.zeros(10**6)]}), path, **how)
    assert path.stat().st_size < 1_000
    whole = forged(path.read_bytes(), 10**6, 10)
    path.write_bytes(whole)
    assert sum(part.values for part in footer(path)[1]) == 10
    assert len(pq.read_table(path)["a"].combine_chunks().flatten()) == 10**6
    with pytest.raises(ValueError, match="not of the sizes that its footer says"):
        most_bytes(path, footer(path)[1])


def test_a_field_of_another_kind_or_number_is_none(tmp_path: Path) -> None:
    """Arrow passes over the one, and takes the number of the other modulo 2 to the power of 16."""
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    whole = path.read_bytes()
    length = struct.unpack("<I", whole[-8:-4])[0]
    start, about = len(whole) - 8 - length, whole[-8 - length : -8]
    assert about[0] == 0x15  # field 1 is an i32
    for more in (b"\x06" + zigzag(2**16 + 3) + zigzag(10**6), b"\x06" + zigzag(3) + zigzag(7)):
        changed = about[:-1] + more + b"\0"
        path.write_bytes(whole[:start] + changed + struct.pack("<I", len(changed)) + MAGIC)
        with pytest.raises(ValueError, match="a field twice in its footer, or of no known"):
            footer(path)
    for at in range(len(about)):
        if about[at] & 15 == 6:  # an i64 becomes an i32
            changed = about[:at] + bytes([about[at] - 1]) + about[at + 1 :]
            path.write_bytes(whole[:start] + changed + whole[-8:])
            with suppress(ValueError):
                rows, parts = footer(path)
                assert (rows, parts[0].values) == (1, 1)
