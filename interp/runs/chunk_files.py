"""Files of chunks: each is written whole or not at all, and read only if not one bit has changed.

Several chunks share a file, whose tensors are called `NUMBER/NAME`.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from interp.errors import one_line

Chunk = dict[str, Tensor]
NUMBER = re.compile(r"[0-9]{1,18}")
NAMES = re.compile(r"\d{6,}\.safetensors")
PARTIAL = ".partial"
LARGEST = 2**32
"""Bytes of the largest file of chunks that is read."""


@dataclass(frozen=True)
class Written:
    """A file as the ledger knows it."""

    name: str
    bytes: int
    sha256: str


class Damaged(Exception):
    """A file is not what was written; the message says how, as the end of a sentence."""


def counted(chunks: int) -> str:
    """A number of chunks in words."""
    return "1 chunk" if chunks == 1 else f"{chunks:,} chunks"


def write_chunks(folder: Path, number: int, chunks: Mapping[int, Chunk]) -> Written:
    """Write file `number` of a folder; when this returns it is on the disk. Raises OSError."""
    data = save(
        {f"{at}/{name}": each for at, some in chunks.items() for name, each in some.items()}
    )
    path = folder / f"{number:06d}.safetensors"
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(folder)
    return Written(path.name, len(data), hashlib.sha256(data).hexdigest())


def read_chunks(folder: Path, written: Written) -> dict[int, Chunk]:
    """The chunks of a file. Raises Damaged."""
    check(folder, written, most=LARGEST)
    try:
        tensors = load((folder / written.name).read_bytes())
    except (SafetensorError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise Damaged(f"is no safetensors file ({error})") from error
    chunks: dict[int, Chunk] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition("/")
        if not NUMBER.fullmatch(number):
            raise Damaged(f"holds {key!r:.80}, which is of no chunk")
        chunks.setdefault(int(number), {})[name] = tensor
    return chunks


def check(folder: Path, written: Written, *, most: int | None = None) -> None:
    """Raise Damaged unless a file is what was written, and has no more than `most` bytes.

    A pipe would wait, a device never end, and a link lead out of the folder.
    """
    path = folder / written.name
    try:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            raise Damaged("cannot be read (it is no regular file)")
        if about.st_size != written.bytes:
            raise Damaged(f"has {about.st_size:,} bytes and had {written.bytes:,}")
        if most is not None and about.st_size > most:
            raise Damaged(f"has {about.st_size:,} bytes, and no more than {most:,} are read")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
    except (OSError, ValueError) as error:  # a name that the disk cannot have is a ValueError
        raise Damaged(f"cannot be read ({one_line(error)})") from error
    if digest.hexdigest() != written.sha256:
        raise Damaged("is not what was written: its checksum differs")


def sign(path: Path) -> Written:
    """What the ledger notes of a file that something else has written whole, now on the disk."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        size = file.tell()
        os.fsync(file.fileno())
    sync_folder(path.parent)
    return Written(path.name, size, digest.hexdigest())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive the end of power."""
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
