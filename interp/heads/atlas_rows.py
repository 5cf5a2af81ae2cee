"""The scores of an atlas as Parquet: a row for each kind, layer, head and sample, in this order.

All else stands in the metadata of the schema, in the words of the JSON file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float
from torch import Tensor

from interp.atomic import replacing
from interp.errors import FileFormatError, one_line
from interp.heads.score import Score
from interp.json_file import decode, require_file
from interp.parquet_footer import footer, most_bytes
from interp.table_file import BROKEN

LARGEST_FILE = 2**30
LARGEST_HEADER = 2**26
"""Bytes of all that is no row."""
MOST_ROWS = 2**26
"""Of a file that is read: 67 million, which take 2 GB. 5,000 heads of 20 kinds have 670 samples."""
COLUMNS = {
    "kind": pa.dictionary(pa.int32(), pa.string()),
    "layer": pa.int32(),
    "head": pa.int32(),
    "sample": pa.int32(),
    "value": pa.float64(),
}


def write_rows(path: Path, scores: Mapping[str, Score], told: str) -> Path:
    """Write the rows, and the text that tells of all else.

    Raises:
        FileFormatError: More rows than are read again.
    """
    count = sum(score.values.numel() for score in scores.values())
    if count > MOST_ROWS or len(told) > LARGEST_HEADER:
        raise FileFormatError(
            f"{path} would have {count:,} rows below {len(told):,} bytes, and no more than "
            f"{MOST_ROWS:,} below {LARGEST_HEADER:,} are read again; score fewer samples."
        )
    places = [np.indices(score.values.shape, dtype=np.int32) for score in scores.values()]
    kinds = np.repeat(np.arange(len(scores), dtype=np.int32), [len(p[0].ravel()) for p in places])
    columns = [pa.DictionaryArray.from_arrays(kinds, pa.array(list(scores), pa.string()))]
    columns += [np.concatenate([place[i].ravel() for place in places]) for i in range(3)]
    columns += [np.concatenate([s.values.double().numpy().ravel() for s in scores.values()])]
    rows = pa.table(columns, names=list(COLUMNS)).replace_schema_metadata({"interp": told})
    with replacing(path) as partial:
        pq.write_table(rows, partial, write_page_checksum=True)
    return path


def read_rows(path: Path, *, way_out: str) -> tuple[dict[str, Tensor], Any]:
    """The values of each kind `[layer, head, sample]`, and what is told of all else.

    Raises:
        FileFormatError: No whole Parquet file, other columns, too many rows, or not in order.
    """
    require_file(path, most=LARGEST_FILE, way_out=way_out)
    try:
        _require_small(path)
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _require_columns(file)
            told = decode((file.schema_arrow.metadata or {}).get(b"interp", b"null"))
            return dict(_kinds(file.read().combine_chunks())), told
    except BROKEN as error:
        raise FileFormatError(f"{path} is not whole ({one_line(error)}); {way_out}.") from error


def digest(values: Float[Tensor, "layer head samples"]) -> str:
    """A hash of the values, bit for bit in float32; every NaN is the same."""
    plain = values.float().nan_to_num(nan=torch.nan).contiguous()
    shape = f"{tuple(plain.shape)}".encode()
    return hashlib.sha256(shape + plain.numpy().tobytes()).hexdigest()


def _require_small(path: Path) -> None:
    """Raise ValueError unless what the footer announces fits into the memory."""
    rows, parts = footer(path)
    if not 0 < rows <= MOST_ROWS or sum(part.values for part in parts) != rows * len(COLUMNS):
        raise ValueError(f"it has {rows:,} rows, and whole ones from 1 to {MOST_ROWS:,} are read")
    most_bytes(path, parts)  # raises for pages that would take more


def _require_columns(file: pq.ParquetFile) -> None:
    columns = [(column.name, column.type) for column in file.schema_arrow]
    if columns != list(COLUMNS.items()):
        raise ValueError(f"its columns are {', '.join(name for name, _ in columns)[:200]}")


def _kinds(rows: pa.Table) -> Iterator[tuple[str, Tensor]]:
    if any(column.null_count for column in rows.columns):
        raise ValueError("a row has no value")
    numbers = {name: rows[name].combine_chunks().to_numpy() for name in list(COLUMNS)[1:]}
    kinds = rows["kind"].unify_dictionaries().combine_chunks()
    index = kinds.indices.to_numpy()
    ends = [*np.flatnonzero(np.diff(index)) + 1, len(index)]
    names = [kinds.dictionary[int(index[end - 1])].as_py() for end in ends]
    if len(set(names)) < len(names):
        raise ValueError("the rows of a kind are not together")
    for name, start, end in zip(names, [0, *ends], ends, strict=False):
        yield name, _values(name, {key: each[start:end] for key, each in numbers.items()})


def _values(kind: str, rows: dict[str, np.ndarray]) -> Tensor:
    """The values of one kind, whose rows must go through all layers, heads and samples."""
    places = [rows[name] for name in ("layer", "head", "sample")]
    shape = [int(place[-1]) + 1 for place in places]
    count = shape[0] * shape[1] * shape[2] if min(shape) > 0 else 0
    if count != len(places[0]):
        raise ValueError(f"{kind!r:.80} has {len(places[0]):,} rows for a shape of {shape}")
    for place, along in zip(places, np.ogrid[tuple(map(slice, shape))], strict=True):
        if not (place.reshape(shape) == along).all():
            raise ValueError(f"the rows of {kind!r:.80} are not in order")
    values = torch.from_numpy(rows["value"].copy()).float().reshape(shape)
    if values.isinf().any():
        raise ValueError(f"{kind!r:.80} holds a number that is too large")
    return values
