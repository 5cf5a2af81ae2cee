"""What a Parquet file says of its parts and their pages, read before Arrow sees it.

Arrow's Python ends the whole process when it is asked about a part whose sizes do not fit together.
So the footer, a structure in Thrift's compact protocol, is read here first. Nor does Arrow compare
the footer with what stands before each page, and fills the memory with what either announces.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

MAGIC = b"PAR1"
LARGEST = 2**27
"""Bytes of the largest footer."""
MOST = 2_000_000
"""Values in a footer, at most; one part has some thirty."""
DEEPEST = 20
CODECS = ("UNCOMPRESSED", "SNAPPY", "GZIP", "LZO", "BROTLI", "LZ4", "ZSTD", "LZ4_RAW")
READ = ("UNCOMPRESSED", "SNAPPY")
"""Others pack a thousandfold."""
PLAIN, RUNS, BY_INDEX = 0, 3, (2, 8)
"""How values may be written in a page. Others say many values in a few bytes."""
LARGEST_HEADER = 2**15
"""Bytes before a page. The least and the largest of its values stand there, of 4,096 each."""

I32, I64, LIST, STRUCT = 5, 6, 9, 12
"""Kinds of fields. One of another kind than it must be is no field to Arrow."""
ROWS, SCHEMA, GROUPS = (3, I64), (2, LIST), (4, LIST)
TYPE, CHILDREN = (1, I32), (5, I32)
PARTS, ABOUT = (1, LIST), (3, STRUCT)
CODEC, VALUES, UNPACKED, PACKED = (4, I32), (5, I64), (6, I64), (7, I64)
DATA, DICTIONARY = (9, I64), (11, I64)
"""Number and kind of fields in FileMetaData, SchemaElement, RowGroup, ColumnChunk and
ColumnMetaData."""
PAGE, PAGE_UNPACKED, PAGE_PACKED = (1, I32), (2, I32), (3, I32)
DATA_PAGE, DICTIONARY_PAGE, DATA_PAGE_2 = 0, 2, 3
INSIDE = {DATA_PAGE: (5, STRUCT), DICTIONARY_PAGE: (7, STRUCT), DATA_PAGE_2: (8, STRUCT)}
COUNT = (1, I32)
WRITTEN = {DATA_PAGE: (2, I32), DICTIONARY_PAGE: (2, I32), DATA_PAGE_2: (4, I32)}
"""The same in PageHeader, and in what it says of each kind of page."""
BYTES = 6
"""The type of a column of texts."""
Fields = dict[tuple[int, int], Any]


@dataclass(frozen=True)
class Part:
    """The values of one column in one group of rows.

    Attributes:
        codec: How its pages are packed, a name in CODECS.
        values: How many it says that it has.
        unpacked: Bytes that it says to have when its pages are unpacked.
        start, end: Where in the file its pages are.
        texts: Whether its values are texts.
    """

    codec: str
    values: int
    unpacked: int
    start: int
    end: int
    texts: bool


@dataclass(frozen=True)
class _Page:
    kind: int
    values: int
    written: int
    unpacked: int
    packed: int


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
        types = [each[TYPE] for each in told[SCHEMA] if TYPE in each and not each.get(CHILDREN)]
        groups = [[part[ABOUT] for part in group[PARTS]] for group in told[GROUPS]]
        if any(len(group) != len(types) for group in groups):
            raise KeyError("a part")
        parts = [_part(*each) for group in groups for each in zip(group, types, strict=True)]
        rows = told[ROWS]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError("its footer is incomplete") from error
    if rows < 0:
        raise ValueError("its footer counts no rows")
    return rows, parts


def most_bytes(path: str | Path, parts: list[Part]) -> int:
    """Bytes that pages and texts take in memory, at most: a text stands there for each value.

    A dictionary holds a text once for all values, and the longest may be that of each.

    Raises ValueError: pages of other sizes than the footer says, of other codecs than `READ`, or
    written otherwise than one value after another or as places in a dictionary; OSError.
    """
    with Path(path).open("rb") as file:
        size, left, found = file.seek(0, 2), MOST, 0
        for part in parts:
            if part.codec not in READ:
                raise ValueError(f"it is packed by {part.codec} and not by SNAPPY")
            if not part.values:  # whose pages are not read, and whose places are not told
                continue
            at, values, unpacked, longest = part.start, 0, 0, 0
            while at < part.end <= size:
                file.seek(at)
                header = _Thrift(file.read(LARGEST_HEADER), left)
                page = _page(header.structure())
                at, left = at + header.at + page.packed, left - header.count
                unpacked += header.at + page.unpacked
                if page.kind != DICTIONARY_PAGE:
                    values += page.values
                    found += page.values * longest if page.written in BY_INDEX else 0
                elif part.texts:
                    left -= page.values
                    if left < 0 or unpacked > part.unpacked:
                        raise ValueError("it has a dictionary of more words than are read")
                    file.seek(at - page.packed)
                    longest = _longest(file.read(page.packed), page, part.codec)
            if at != part.end or values != part.values or unpacked > part.unpacked:
                raise ValueError("its pages are not of the sizes that its footer says")
            found += unpacked
    return found


def _page(told: Fields) -> _Page:
    try:
        kind = told[PAGE]
        inside = told[INSIDE[kind]]
        values, written = inside[COUNT], inside[WRITTEN[kind]]
        page = _Page(kind, values, written, told[PAGE_UNPACKED], told[PAGE_PACKED])
    except KeyError as error:
        raise ValueError("it has a page of no known kind") from error
    if min(page.values, page.unpacked, page.packed) < 0:
        raise ValueError("it has a page with numbers below 0")
    if page.written not in (PLAIN, RUNS, *BY_INDEX):
        raise ValueError(f"it has a page that is written in way {page.written}")
    if page.kind == DICTIONARY_PAGE and page.values > page.unpacked:
        raise ValueError("it has a dictionary of more words than bytes")
    return page


def _longest(data: bytes, page: _Page, codec: str) -> int:
    """Bytes of the longest text in a dictionary."""
    if codec != "UNCOMPRESSED":
        data = pa.decompress(data, page.unpacked, codec.lower(), asbytes=True)
    at = longest = 0
    for _ in range(page.values):
        length = int.from_bytes(data[at : at + 4], "little")
        at, longest = at + 4 + length, max(longest, length)
    if at > len(data):
        raise ValueError("it has a dictionary of more words than bytes")
    return longest


def _part(about: Fields, kind: int) -> Part:
    codec, data, words, packed = about[CODEC], about[DATA], about.get(DICTIONARY, 0), about[PACKED]
    start = words if 0 < words < data else data
    name = CODECS[codec]
    part = Part(name, about[VALUES], about[UNPACKED], start, start + packed, kind == BYTES)
    if min(codec, part.values, part.unpacked, start, packed) < 0:
        raise ValueError("its footer has numbers below 0")
    return part


class _Thrift:
    """Reads values of the compact protocol, one after another: of a footer, or before a page."""

    def __init__(self, data: bytes, most: int = MOST) -> None:
        self.data, self.most, self.at, self.count = data, most, 0, 0

    def structure(self, depth: int = 0) -> Fields:
        """Values under the numbers and kinds of their fields."""
        fields: Fields = {}
        numbers: set[int] = set()
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._signed()
            if field in numbers or not 0 < field < 2**15:  # Arrow would take a larger one modulo
                raise ValueError("it has a field twice in its footer, or of no known number")
            numbers.add(field)
            fields[field, head & 15] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        self.count += 1
        if self.count > self.most or depth > DEEPEST:
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
