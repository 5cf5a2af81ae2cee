"""The footer of Parquet files, which is read before Arrow sees it."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.parquet_footer import MAGIC, footer
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
