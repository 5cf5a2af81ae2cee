"""A reading as a file: JSON, or Parquet with one row for each layer and token."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from interp.errors import FileFormatError, one_line
from interp.saved import BROKEN
from interp.table_file import read_table, write_table

FORMAT, VERSION = "interp.LensReading", 1
ENTRIES = ("lens", "provenance", "columns")
WAY_OUT = "write one with LensReading.save or `interp lens MODEL TEXT --out reading.json`"

Reading = TypeVar("Reading")


def write(path: Path, frame: pd.DataFrame, told: dict[str, Any]) -> Path:
    """Write the rows and what else is told, by the ending of the name."""
    told = {**told, "columns": {name: frame[name].tolist() for name in frame}}
    return write_table(path, told, columns="columns", format=FORMAT, version=VERSION)


def read(path: Path, make: Callable[[pd.DataFrame, dict[str, Any]], Reading]) -> Reading:
    """What `make` makes of the rows and of what else is told.

    Raises FileFormatError: not such a file, of another version, or damaged.
    """
    about = read_table(
        path, columns="columns", format=FORMAT, version=VERSION, entries=ENTRIES, way_out=WAY_OUT
    )
    try:
        return make(pd.DataFrame(about.pop("columns")), about)
    except BROKEN as error:
        raise FileFormatError(
            f"{path} has a broken part ({one_line(error)}); {WAY_OUT}."
        ) from error
