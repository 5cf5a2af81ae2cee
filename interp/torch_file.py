"""Read files of `torch.save` that others wrote, without running what is in them.

A pickle is a program. Even the few words that torch allows it fill the memory: a bytearray of any
size, a dictionary that is copied again and again. So a file is gone through before torch sees it,
and holds what `torch.save` writes of tensors and plain values, or is refused.
"""

from __future__ import annotations

import io
import pickletools
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp.errors import FileFormatError, one_line
from interp.json_file import require_file

ZIP = b"PK\3\4"
"""How files begin that are an archive; older ones are pickles, and numbers behind them."""
PICKLES = 5
"""In an older file: what it is, of which version and system, what it holds, and its storages."""
LARGEST_DIRECTORY = 2**23
"""Bytes of the list of an archive's parts, which takes ten times as much memory. 80,000 parts."""
MOST_STEPS = 2**20
"""Steps of a pickle; one tensor takes 24."""
MOST_SIZES = 16
"""Dimensions of a tensor."""
ORDERED = "collections OrderedDict"
REBUILT = {f"torch._utils _rebuild_tensor{version}" for version in ("", "_v2", "_v3")}
PARAMETER = "torch._utils _rebuild_parameter"
STORAGE = re.compile(r"torch(\.cuda|\.storage)? [A-Z]\w*Storage")
NUMBERS = {f"torch {name}" for name, kind in vars(torch).items() if isinstance(kind, torch.dtype)}


def read_torch_file(path: Path, *, most: int, way_out: str) -> Any:
    """The tensors and plain values of a file. Twice the size of the file is needed in memory.

    Args:
        path: A file of `torch.save` in its zip format.
        most: Bytes that it may have, and that its parts may have together.
        way_out: What to do about a file that cannot be read, as the end of a sentence.

    Raises:
        FileFormatError: A file that is larger, packed, broken, or holds anything else.
    """
    require_file(path, most=most, way_out=way_out)
    try:
        with warnings.catch_warnings(action="ignore"):  # torch remarks on odd archives
            return torch.load(  # noqa: TID251 - tensors and plain values alone; no code is run
                _copied(path, most), map_location="cpu", weights_only=True
            )
    except Exception as error:  # a broken or hostile file fails anywhere in the unpickler
        raise FileFormatError(
            f"{path} is not whole, or holds more than tensors, numbers, text, lists and "
            f"dictionaries ({one_line(error)[:120]}); {way_out}."
        ) from error


def require_plain_values(path: Path) -> None:
    """Raise an Exception unless a file holds tensors and plain values alone, in either format.

    Only the pickle is read, and the list of parts. A broken or hostile file fails anywhere.
    """
    with path.open("rb") as file:
        if file.read(len(ZIP)) == ZIP:
            with _opened(path, file.seek(0, 2)):
                return
        file.seek(0)
        for _ in range(PICKLES):
            _require_plain_pickle(file)


def _copied(path: Path, most: int) -> io.BytesIO:
    """The parts of an archive, one after another.

    Torch reads archives in its own way, and could see another one in the same bytes than the one
    that was looked at.
    """
    plain = io.BytesIO()
    with _opened(path, most) as archive, zipfile.ZipFile(plain, "w") as copy:
        for part in archive.infolist():
            copy.writestr(part.filename, archive.read(part))
    plain.seek(0)
    return plain


@contextmanager
def _opened(path: Path, most: int) -> Iterator[zipfile.ZipFile]:
    """An archive of parts that are not packed, with one pickle, which is plain.

    Raises ValueError, or what a broken archive leads to.
    """
    with path.open("rb") as file:
        _require_one_directory(file)
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        unpacked = sum(part.file_size for part in parts)
        if unpacked > most:
            raise ValueError(
                f"it would unpack to {unpacked:,} bytes and no more than {most:,} are needed"
            )
        for part in parts:
            if part.compress_type != zipfile.ZIP_STORED or part.compress_size != part.file_size:
                raise ValueError(f"{part.filename!r:.40} is packed, as torch.save packs nothing")
            if part.filename != part.orig_filename:
                raise ValueError(f"{part.filename!r:.40} has two names")
        if len({part.filename for part in parts}) < len(parts):
            raise ValueError("it has two parts of one name")
        root = parts[0].filename.partition("/")[0] if parts else ""
        pickles = [part for part in parts if part.filename.lower().endswith("data.pkl")]
        if [part.filename for part in pickles] != [f"{root}/data.pkl"]:
            raise ValueError("it has no data.pkl, or more than one")
        _require_plain_pickle(archive.read(pickles[0]))
        yield archive


def _require_one_directory(file: io.BufferedReader) -> None:
    """Raise ValueError unless the list of an archive's parts ends where the file does.

    Some readers go by where it is said to begin, others by where it ends.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - 98))
    whole, where, last = struct.unpack("<56s20s22s", file.read().rjust(98, b"\0"))
    mark, *_, length, start, words = struct.unpack("<4s4H2IH", last)
    end = size - len(last)
    if mark != b"PK\5\6" or words:
        raise ValueError("it does not end as an archive")
    if where.startswith(b"PK\6\7"):  # the same again, in larger numbers
        end -= len(whole) + len(where)
        mark, rest, *_, long, far = struct.unpack("<4sQ2H2I4Q", whole)
        said = struct.unpack("<4sIQI", where)[2]
        if (mark, rest, said) != (b"PK\6\6", len(whole) - 12, end):
            raise ValueError("it does not end as an archive")
        if length not in (long, 2**32 - 1) or start not in (far, 2**32 - 1):
            raise ValueError("it has two lists of its parts")
        length, start = long, far
    if start + length != end:
        raise ValueError("the list of its parts is not where it is said to be")
    if length > LARGEST_DIRECTORY:
        raise ValueError(f"the list of its parts has {length:,} bytes")


@dataclass(frozen=True)
class _Named:
    """What a pickle names in place of a value."""

    name: str


def _require_plain_pickle(file: bytes | io.BufferedReader) -> None:
    """Raise ValueError, or anything, unless a pickle does what `torch.save` writes of plain values.

    It is gone through without making anything. Known of what it would make are texts, tuples,
    names, and the keys of dictionaries; all else is None.
    """
    stack: list[Any] = []
    below: list[list[Any]] = []
    memo: dict[int, Any] = {}
    given: Any
    for step, (code, given, _) in enumerate(pickletools.genops(file)):
        if step > MOST_STEPS:
            raise ValueError(f"its pickle has more than {MOST_STEPS:,} steps")
        match code.name:
            case "PROTO":
                if given != 2:
                    raise ValueError(f"its pickle is of protocol {given} and not 2")
            case "GLOBAL":
                stack.append(_allowed(given))
            case "BINUNICODE" | "SHORT_BINSTRING":
                stack.append(given)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "EMPTY_LIST":
                stack.append(None)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append(None)
            case "EMPTY_DICT":
                stack.append({})
            case "BINPUT" | "LONG_BINPUT":
                memo[given] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[given])
            case "MARK":
                below.append(stack)
                stack = []
            case "TUPLE":
                stack, items = below.pop(), stack
                stack.append(tuple(items))
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                count = len(code.stack_before)
                stack[len(stack) - count :] = [tuple(stack[len(stack) - count :])]
            case "APPEND":
                stack.pop()
            case "APPENDS":
                stack = below.pop()
            case "SETITEM":
                key, _ = stack[-2:]
                del stack[-2:]
                _set(stack[-1], [key])
            case "SETITEMS":
                stack, items = below.pop(), stack
                _set(stack[-1], items[::2])
            case "BINPERSID":
                _require_storage(stack.pop())
                stack.append(None)
            case "REDUCE":
                arguments = stack.pop()
                stack.append(_called(stack.pop(), arguments))
            case "BUILD":  # what a state_dict knows of its versions
                if list(stack.pop()) != ["_metadata"] or not isinstance(stack[-1], dict):
                    raise ValueError("it has an object that is no state_dict")
            case "STOP":
                return
            case _:
                raise ValueError(f"its pickle has a step {code.name}")


def _allowed(name: str) -> _Named:
    if not (name in (ORDERED, PARAMETER) or name in REBUILT | NUMBERS or STORAGE.fullmatch(name)):
        told = name.replace(" ", ".")[:60]
        raise ValueError(f"it names {told}, which makes no plain numbers")
    return _Named(name)


def _set(target: Any, keys: list[Any]) -> None:
    if not isinstance(target, dict) or not all(isinstance(key, str) for key in keys):
        raise ValueError("it has a dictionary whose keys are no text")
    target.update(dict.fromkeys(keys))


def _require_storage(told: Any) -> None:
    match told:
        case ("storage", _Named(name), str(), *_) if STORAGE.fullmatch(name):
            return
    raise ValueError("it has a storage that is none")


def _called(function: Any, arguments: Any) -> Any:
    """What a call gives: a dictionary that is still empty, or a tensor.

    All that is given is small, for it is copied, and may be given again and again.
    """
    name = function.name if isinstance(function, _Named) else ""
    match arguments:
        case () if name == ORDERED:
            return {}
        case (_, _, {}) if name == PARAMETER:
            return None
        case (_, _, tuple() as sizes, tuple() as steps, *others) if name in REBUILT:
            dicts = [each for each in others if isinstance(each, dict)]
            if max(map(len, [sizes, steps, *dicts])) <= MOST_SIZES:
                return None
    raise ValueError("it makes something that is no tensor")
