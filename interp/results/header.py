"""What a file or folder says that it is, from its header alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from interp.json_file import LARGEST, decode, require_file
from interp.tensor_file import open_tensor_file

INDEX = "index.json"
"""In a folder of activations."""
PARQUET = b"PAR1"


def format_of(path: Path) -> str | None:
    """The format that is named in a safetensors, Parquet or JSON file, or in a folder's index.

    None where none is named, as in a file of another tool. Raises FileFormatError or OSError
    for what cannot be read.
    """
    if path.is_dir():
        return format_of(path / INDEX) if (path / INDEX).is_file() else None
    try:
        size = require_file(path, most=2**63, way_out="name a result")
        with path.open("rb") as file:
            start = file.read(9)
        if start.startswith(PARQUET):
            return _named((pq.read_schema(path).metadata or {}).get(b"interp", b"null"))
        if start[8:] == b"{":  # eight bytes of length, then the header
            with open_tensor_file(path, way_out="name a result") as file:
                return file.metadata.get("format") or _named(file.metadata.get("interp", "null"))
        return _named(path.read_bytes()) if size <= LARGEST else None
    except (ValueError, pa.ArrowException):
        return None


def _named(text: str | bytes) -> str | None:
    told = decode(text, nan=True)
    found = told.get("format") if isinstance(told, dict) else None
    return found if isinstance(found, str) else None
