"""Tables in files of our own: JSON, or its twin in Parquet, by the ending of the name.

In Parquet one entry is rows, and all others are JSON in the metadata of the schema. Twins say the
same, and have one hash.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from interp.atomic import replacing
from interp.errors import FileFormatError, one_line
from interp.json_file import (
    LARGEST,
    decode,
    read_json,
    require_file,
    to_text,
    unseal,
    write_json,
)
from interp.parquet_footer import footer, most_bytes

FIRST, EACH = 2**20, 32
"""A file may hold this many values, and this many more for each of its bytes. Real ones hold less
than three in a byte, and a forged one would fill the memory."""
LETTERS = 8
"""Bytes that a value may have on average: a long text in a dictionary stands there once for all."""

TYPES = (
    *(pa.types.is_null, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating),
    pa.types.is_string,
)
"""What a column may hold, or lists of it."""
BROKEN = (OSError, ValueError, LookupError, ArithmeticError, MemoryError, pa.ArrowException)
"""What a damaged or forged Parquet file leads to."""


def write_table(
    path: Path, told: Mapping[str, Any], *, columns: str, format: str, version: int
) -> Path:
    """Write what is told, of which the entry called `columns` is lists of one length by name.

    Raises:
        FileFormatError: Data that no file can hold.
        OSError: The disk is full, or the folder cannot be written.
    """
    plain = {name: _plain(values) for name, values in told[columns].items()}
    told = {**told, columns: plain}
    if path.suffix != ".parquet":
        return write_json(path, told, format=format, version=version)
    whole = json.loads(to_text(path.name, told, format=format, version=version))
    header = {name: value for name, value in whole.items() if name != columns}
    table = pa.table(plain).replace_schema_metadata({"interp": json.dumps(header)})
    with replacing(path) as partial:
        pq.write_table(table, partial)
    return path


def read_table(
    path: Path,
    *,
    columns: str,
    format: str,
    version: int,
    entries: Collection[str],
    way_out: str,
) -> dict[str, Any]:
    """What `write_table` was told; the arguments are those of `interp.json_file.read_json_file`.

    Raises:
        FileFormatError: As `read_json_file`; also more rows or text than the bytes of a file can
            hold, and columns of other types or packed otherwise than `write_table` does it.
    """
    parquet = path.suffix == ".parquet"
    told = _parquet(path, columns, way_out) if parquet else read_json(path, way_out=way_out)
    data = unseal(told, path, format=format, version=version, entries=entries, way_out=way_out)
    rows = data[columns]
    lists = isinstance(rows, dict) and all(isinstance(each, list) for each in rows.values())
    if not lists or len(set(map(len, rows.values()))) > 1:
        raise FileFormatError(f"{path} holds no lists of one length as {columns}; {way_out}.")
    return data


def _parquet(path: Path, columns: str, way_out: str) -> Any:
    """What the JSON twin of a file holds."""
    size = require_file(path, most=LARGEST, way_out=way_out)
    try:
        _require_small(path, size)
        with pq.ParquetFile(path) as file:
            _require_types(file.schema_arrow)
            table = file.read()
        table.validate(full=True)
        told = decode((table.schema.metadata or {}).get(b"interp", b"null"))
        rows = table.to_pydict()
    except BROKEN as error:
        raise FileFormatError(f"{path} is not whole ({one_line(error)}); {way_out}.") from error
    plain = {name: _plain(values) for name, values in rows.items()}
    return {**told, columns: plain} if isinstance(told, dict) else told


def _require_small(path: Path, size: int) -> None:
    """Raise ValueError for a file that would take far more memory than its bytes."""
    rows, parts = footer(path)
    values = max(rows, sum(part.values for part in parts))
    unpacked = sum(part.unpacked for part in parts)
    most = FIRST + EACH * size
    if max(values, unpacked // LETTERS) > most:
        raise ValueError(f"it announces {values:,} values in {unpacked:,} bytes")
    if (found := most_bytes(path, parts)) > LETTERS * most:
        raise ValueError(f"it holds texts that would take {found:,} bytes")


def _require_types(schema: pa.Schema) -> None:
    for column in schema:
        inner = column.type.value_type if pa.types.is_list(column.type) else column.type
        if not any(is_one(inner) for is_one in TYPES):
            raise ValueError(f"{column.name!r:.80} is of {column.type}")


def _plain(values: list[Any]) -> list[Any]:
    """NaN as null, which JSON knows."""
    return [None if isinstance(x, float) and not math.isfinite(x) else x for x in values]
