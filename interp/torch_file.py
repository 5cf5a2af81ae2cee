"""Read files of `torch.save` that others wrote, without running what is in them."""

from __future__ import annotations

import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from interp.errors import FileFormatError, one_line
from interp.json_file import require_file


def read_torch_file(path: Path, *, most: int, way_out: str) -> Any:
    """The tensors and plain values of a file. Twice the size of the file is needed in memory.

    Args:
        path: A file of `torch.save` in its zip format.
        most: Bytes, unpacked, that it may hold.
        way_out: What to do about a file that cannot be read, as the end of a sentence.

    Raises:
        FileFormatError: A file that is larger, broken, or holds anything else.
    """
    require_file(path, most=most, way_out=way_out)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch remarks on odd archives
            archive = _plain_archive(path, most, way_out)
            return torch.load(  # noqa: TID251 - tensors and plain values alone; no code is run
                archive, map_location="cpu", weights_only=True
            )
    except FileFormatError:
        raise
    except Exception as error:  # a broken or hostile file fails anywhere in the unpickler
        raise FileFormatError(
            f"{path} is not whole, or holds more than tensors, numbers, text, lists and "
            f"dictionaries ({one_line(error)[:120]}); {way_out}."
        ) from error


def _plain_archive(path: Path, most: int, way_out: str) -> io.BytesIO:
    """The parts of an archive, unpacked and one after another.

    Torch reads archives in its own way, and could see another one in the same bytes than the one
    whose sizes were looked at.
    """
    plain = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(plain, "w") as copy:
        parts = archive.infolist()
        size = sum(part.file_size for part in parts)
        if size > most:
            raise FileFormatError(
                f"{path} holds {size:,} bytes and no more than {most:,} are needed; {way_out}."
            )
        if len({part.filename for part in parts}) < len(parts):
            raise ValueError("it has two parts of one name")
        for part in parts:
            copy.writestr(part.filename, archive.read(part))
    plain.seek(0)
    return plain
