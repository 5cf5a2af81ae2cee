"""Files of tensors (safetensors): written whole or not at all, signed, and copied into memory."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.atomic import replacing
from interp.errors import FileFormatError, one_line
from interp.json_file import decode, require_file

SIGNATURE = "sha256"
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Formats of numbers that everything here calculates with."""
EMPTY = 2**20
"""Rows or columns that a tensor without numbers may have, and as many as its file has bytes."""


def write_tensor_file(
    path: str | Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> Path:
    """Write tensors and words about them, and the hash of both; makes folders as needed.

    A file that is already there is replaced in one step, when the new one is on the disk.

    Raises:
        OSError: The disk is full, or the folder cannot be written.
    """
    own = {name: _plain(tensor) for name, tensor in tensors.items()}
    signed = {**metadata, SIGNATURE: signature(metadata, own)}
    try:
        with replacing(path) as partial:
            save_file(own, partial, signed)
    except SafetensorError as error:  # what it makes of a disk that is full
        raise OSError(f"{path} cannot be written ({one_line(error)})") from error
    return Path(path)


@dataclass(frozen=True)
class TensorFile:
    """A file that is open: what it says, and what it holds.

    Attributes:
        path: Where it is.
        metadata: Words under names.
        way_out: What to do about a file that cannot be read, as the end of a sentence.
    """

    path: str | Path
    metadata: Mapping[str, str]
    way_out: str
    _file: Any

    def require(self, format: str, version: str) -> None:
        """Raise FileFormatError unless it says that it is of this format and version."""
        if (self.metadata.get("format"), self.metadata.get("version")) != (format, version):
            kind = format.removeprefix("interp.")
            raise FileFormatError(
                f"{self.path} does not hold a {kind} of version {version}; {self.way_out}."
            )

    def told(self, name: str) -> dict[str, Any]:
        """The JSON object under a name. Raises FileFormatError if there is none."""
        try:
            told = decode(self.metadata.get(name, ""), nan=True)
        except ValueError as error:
            raise self.broken(f"its {name} is no JSON: {error}") from error
        if not isinstance(told, dict):
            raise self.broken(f"its {name} is no JSON object")
        return told

    def tensor(self, name: str) -> Tensor:
        """One tensor, in memory, whatever the hash of the file. Raises FileFormatError.

        It is a copy: what is mapped changes with the file, and ends the process when that is cut.
        """
        try:
            return self._file.get_tensor(name).clone()
        except (RuntimeError, TypeError) as error:  # a format of numbers that torch cannot handle
            raise self.broken(error) from error

    def tensors(self, *, signed: bool = False) -> dict[str, Tensor]:
        """All tensors by name, in memory.

        A file without a hash, as some formats were before they had one, is read as it is unless it
        must be `signed`.

        Raises:
            FileFormatError: Changed since it was written.
        """
        # an open file is no mapping: without keys() it cannot be gone through
        found = {name: self.tensor(name) for name in self._file.keys()}  # noqa: SIM118
        hash = self.metadata.get(SIGNATURE)
        try:
            if (signed or hash is not None) and hash != signature(self.metadata, found):
                raise self.broken("its hash is another than it had")
        except (RuntimeError, TypeError) as error:  # a format of numbers that torch cannot handle
            raise self.broken(error) from error
        return found

    def broken(self, why: object) -> FileFormatError:
        """What is raised for contents that mean nothing."""
        return FileFormatError(f"{self.path} is damaged ({one_line(why)}); {self.way_out}.")


@contextmanager
def open_tensor_file(path: str | Path, *, way_out: str) -> Iterator[TensorFile]:
    """Open a file of tensors; none is read before it is asked for.

    Args:
        path: A safetensors file.
        way_out: What to do about a file that cannot be read, as the end of a sentence.

    Raises:
        FileFormatError: No file, one that is truncated or of another kind, a larger one than
            what memory is free, or a tensor that has no numbers and a great shape.
    """
    size, free = require_file(path, most=2**63, way_out=way_out), psutil.virtual_memory().available
    if size > free:
        raise FileFormatError(
            f"{path} has {size:,} bytes, and {free:,} bytes of memory are free; free some, or read "
            "it on a larger machine."
        )
    try:
        with safe_open(path, framework="pt") as file:
            found = TensorFile(path, file.metadata() or {}, way_out, file)
            _require_small_shapes(found, max(size, EMPTY))
            yield found
    except (OSError, MemoryError, SafetensorError) as error:
        raise FileFormatError(f"{path} cannot be read ({one_line(error)}); {way_out}.") from error


def _require_small_shapes(found: TensorFile, most: int) -> None:
    """Raise FileFormatError for a tensor without numbers that would still be gone through."""
    for name in found._file.keys():  # noqa: SIM118 - no mapping
        shape = found._file.get_slice(name).get_shape()
        if 0 in shape and max(*shape, math.prod(shape[: shape.index(0)])) > most:
            raise found.broken(f"{name[:80]!r} has no numbers and the shape {shape}")


def misfit_of(tensor: Tensor) -> str | None:
    """Why a tensor is not finite numbers, as the end of a sentence; None if it is."""
    if tensor.dtype not in NUMBERS:
        return f"holds {tensor.dtype}"
    return None if bool(tensor.isfinite().all()) else "holds numbers that are not finite"


def signature(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """A hash of the metadata's words, and of the names, shapes, formats and bits of the tensors."""
    words = "".join(metadata[name] for name in sorted(metadata) if name != SIGNATURE)
    digest = hashlib.sha256(words.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _plain(tensor: Tensor) -> Tensor:
    """On the CPU, contiguous, and sharing memory with no other."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
