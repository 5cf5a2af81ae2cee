"""What a Parquet file says of its parts, read before Arrow sees it.

Arrow's Python ends the whole process when it is asked about a part whose sizes do not fit together.
So the footer, a structure in Thrift's compact protocol, is read here first.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"PAR1"
LARGEST = 2**27
"""Bytes of the largest footer."""
MOST = 2_000_000
"""Values in a footer, at most; one part has some thirty."""
DEEPEST = 20
CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
ROWS, GROUPS, PARTS, ABOUT, CODEC, VALUES, UNPACKED = 3, 4, 1, 3, 4, 5, 6
"""Numbers of fields in FileMetaData, RowGroup, ColumnChunk and ColumnMetaData."""


@dataclass(frozen=True)
class Part:
    """The values of one column in one group of rows.

    Attributes:
        codec: How its pages are packed, a name in CODECS.
        values: How many it says that it has.
        unpacked: Bytes that it says to have when its pages are unpacked.
    """

    codec: str
    values: int
    unpacked: int


def footer(path: str | Path) -> tuple[int, list[Part]]:
    """How many rows a file says that it has, and its parts.

    Raises ValueError: the footer is no such structure, or a number in it is below 0; OSError.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 8))
        length, magic = struct.unpack("<I4s", file.read(8).rjust(8, b"\0"))
        if magic != MAGIC or not 0 < length <= min(size - 12, LARGEST):
            raise ValueError("it has no footer")
        file.seek(size - 8 - length)
        told = _Thrift(file.read(length)).structure()
    try:
        groups = [group[PARTS] for group in told[GROUPS]]
        parts = [_part(part[ABOUT]) for group in groups for part in group]
        rows = told[ROWS]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("its footer is incomplete") from error
    if type(rows) is not int or rows < 0:
        raise ValueError("its footer counts no rows")
    return rows, parts


def _part(about: dict[int, Any]) -> Part:
    codec, values, unpacked = about[CODEC], about[VALUES], about[UNPACKED]
    if not all(type(each) is int and each >= 0 for each in (codec, values, unpacked)):
        raise ValueError("its footer has numbers below 0")
    return Part(CODECS[codec], values, unpacked)


class _Thrift:
    """Reads values of the compact protocol, one after another."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at, self.count = data, 0, 0

    def structure(self, depth: int = 0) -> dict[int, Any]:
        """Values under the numbers of their fields."""
        fields: dict[int, Any] = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            if field in fields:
                raise ValueError("its footer has a field twice")
            fields[field] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self.count += 1
        if self.count > MOST or depth > DEEPEST:
            raise ValueError(f"its footer has over {MOST:,} values, or some nested too deeply")
        if kind in (1, 2):
            return kind == 1
        if kind == 3:
            return self._byte()
        if kind in (4, 5, 6):
            return self._signed()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._unsigned())
        if kind in (9, 10):
            return self._list(depth)
        if kind == 12:
            return self.structure(depth + 1)
        raise ValueError("its footer has a value of no known kind")

    def _list(self, depth: int) -> list[Any]:
        head = self._byte()
        size = head >> 4 if head >> 4 < 15 else self._unsigned()
        kind = head & 15
        if kind in (1, 2):
            kind = 3  # in a list each stands in a byte of its own
        return [self._value(kind, depth + 1) for _ in range(size)]

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, size: int) -> bytes:
        found = self.data[self.at : self.at + size]
        if len(found) < size:
            raise ValueError("its footer ends too early")
        self.at += size
        return found

    def _unsigned(self) -> int:
        number = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            number |= (byte & 127) << shift
            if byte < 128:
                return number
        raise ValueError("its footer has a number without end")

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
