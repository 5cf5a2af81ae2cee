"""What a file or folder says that it is, from its header alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

INDEX = "index.json"
"""In a folder of activations."""
PARQUET = b"PAR1"


def format_of(path: Path) -> str | None:
    """The format that is named in a safetensors, Parquet or JSON file, or in a folder's index.

    None where none is named, as in a file of another tool. Raises OSError for what cannot be read.
    """
    if path.is_dir():
        return format_of(path / INDEX) if (path / INDEX).is_file() else None
    with path.open("rb") as file:
        start = file.read(9)
    try:
        if start.startswith(PARQUET):
            return _named((pq.read_schema(path).metadata or {}).get(b"interp", b"null"))
        if start[8:] == b"{":  # eight bytes of length, then the header
            with safe_open(path, framework="pt") as opened:
                metadata = opened.metadata() or {}
            return metadata.get("format") or _named(metadata.get("interp", "null"))
        return _named(path.read_bytes())
    except (ValueError, RecursionError, SafetensorError, pa.ArrowException):
        return None


def _named(text: str | bytes) -> str | None:
    told: Any = json.loads(text)
    found = told.get("format") if isinstance(told, dict) else None
    return found if isinstance(found, str) else None
