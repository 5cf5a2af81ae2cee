"""Hostile files of tensors, whose headers say what their bytes do not hold, or too much."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load

from interp.tensor_file import SIGNATURE, signature
from tests.fuzz.hostile import changed_json

DTYPES = ("F32", "F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "F4", "C64", "I16", "X")


def taken_apart(whole: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file."""
    size = struct.unpack("<Q", whole[:8])[0]
    header: dict[str, Any] = json.loads(whole[8 : 8 + size])
    return header, whole[8 + size :]


def put_together(header: bytes | dict[str, Any], data: bytes) -> bytes:
    """A file of a header and data."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def signed(header: dict[str, Any], data: bytes) -> bytes:
    """A file with the hash that is right for it, if it can be read at all."""
    file = put_together(header, data)
    try:
        tensors = load(file)
        header["__metadata__"][SIGNATURE] = signature(header["__metadata__"], tensors)
    except (SafetensorError, KeyError, RuntimeError, TypeError, AttributeError, ValueError):
        return file
    return put_together(header, data)


@st.composite
def changed_tensors(draw: Callable[..., Any], whole: bytes) -> bytes:
    """A file that is signed, and says something else in its metadata, header or numbers."""
    header, data = taken_apart(whole)
    metadata = header["__metadata__"]
    change = draw(st.sampled_from(["told", "told", "told", "header", "dtype", "name", "numbers"]))
    if change == "told":
        told = [name for name, text in metadata.items() if text[:1] == "{"]
        name = draw(st.sampled_from(told))
        metadata[name] = draw(changed_json(json.loads(metadata[name]))).decode()
    elif change == "header":
        return put_together(draw(changed_json(header)), data)
    elif change == "numbers" and data:
        at, odd = draw(st.integers(0, len(data) - 1)), b"\x00\x00\xc0\x7f\x00\x00\x80\xff"
        data = (data[:at] + odd + data[at + 8 :])[: len(data)]
    else:
        names = [name for name in header if name != "__metadata__"] or ["__metadata__"]
        name = draw(st.sampled_from(names))
        if change == "dtype":
            header[name]["dtype"] = draw(st.sampled_from(DTYPES))
        else:
            new = draw(
                st.sampled_from(["../../x", "", "a\nb", "blocks.-1.x", "blocks.9e9", *names])
            )
            header[new] = header.pop(name)
    return signed(header, data)


def _header(announced: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(struct.pack("<Q", announced) + b"{}" + b" " * 90)

    return make


def _tensors(header: dict[str, Any], data: bytes = b"\x00" * 16) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.write_bytes(put_together(header, data))

    return make


def _one(**told: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **told}}


def _sparse(path: Path) -> None:
    size = 2**43
    tensor = {"dtype": "F32", "shape": [size // 4], "data_offsets": [0, size]}
    text = put_together({"a": tensor, "__metadata__": {}}, b"")
    with path.open("wb") as file:
        file.write(text)
        file.truncate(len(text) + size)


TENSOR_BOMBS: dict[str, Callable[[Path], None]] = {
    "a header of 2^60 bytes": _header(2**60),
    "a header of no bytes": _header(0),
    "a header of 2^64 - 1 bytes": _header(2**64 - 1),
    "8 TB with a hole": _sparse,
    "tensors that overlap": _tensors(_one() | {"b": _one()["a"]}),
    "a tensor of too large a shape": _tensors(_one(shape=[2**60])),
    "a shape that overflows": _tensors(_one(shape=[2**32, 2**32])),
    "a shape below zero": _tensors(_one(shape=[-4])),
    "offsets behind the end": _tensors(_one(data_offsets=[0, 2**50])),
    "offsets that go back": _tensors(_one(data_offsets=[16, 0])),
    "bytes that no tensor has": _tensors(_one(), b"\x00" * 64),
    "a format of numbers that is none": _tensors(_one(dtype="F1024")),
    "metadata of 20 MB": _tensors(_one() | {"__metadata__": {"interp": "x" * 20_000_000}}),
    "metadata that is no text": _tensors(_one() | {"__metadata__": {"format": {"a": 1}}}),
    "metadata 100,000 deep": _tensors(_one() | {"__metadata__": {"interp": "[" * 100_000}}),
    "names that are paths": _tensors({"../../x": _one()["a"]}),
    "10,000 empty tensors": _tensors(
        {str(i): {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(10_000)},
        b"",
    ),
}
"""Files that no reader of tensors accepts: what to call them, and what makes them."""
