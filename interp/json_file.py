"""JSON files: read with distrust, written whole or not at all, signed with a hash of what they say.

Files of our own are an object whose first entries say what it is: `format`, `version` and `sha256`.
Releases before the hash wrote the same versions without it. So a file without one is read, and one
whose hash is not that of its content never is. Spaces and the order of entries do not count.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from interp.atomic import replacing
from interp.errors import FileFormatError, one_line

LARGEST = 2**28
"""Bytes of the largest file. What is read takes up to 25 times as much memory."""
DEEPEST = 100
"""Lists and objects inside one another. Python itself gives up at some hundreds."""


def write_json(
    path: str | Path,
    data: Mapping[str, Any],
    *,
    format: str,
    version: int,
    indent: int | None = None,
) -> Path:
    """Write a file of our own, making folders as needed; returns the path.

    A file that is already there is replaced in one step, when the new one is on the disk.

    Args:
        path: Where to.
        data: All that the file is to hold.
        format, version: What it is, such as "interp.Circuit" and 1.
        indent: Spaces of each level; None writes one line.

    Raises:
        FileFormatError: Data that no file can hold: infinite numbers, objects, too much of it.
        OSError: The disk is full, or the folder cannot be written.
    """
    path = Path(path)
    text = to_text(path.name, data, format=format, version=version, indent=indent) + "\n"
    write_text(path, text)
    return path


def read_json_file(
    path: str | Path,
    *,
    format: str,
    version: int,
    entries: Collection[str],
    way_out: str,
    most: int = LARGEST,
) -> dict[str, Any]:
    """The entries of a file that `write_json` wrote, without its header.

    Args:
        path: The file.
        format, version: What it must be.
        entries: The names of all that it holds beside the header, no more and no less.
        way_out: What to do about a file that cannot be read, as the end of a sentence.
        most: Bytes of the largest file.

    Raises:
        FileFormatError: No file, too large, no JSON (see `decode`), of another format or version,
            other entries, or changed since it was written.
    """
    told = read_json(path, most=most, way_out=way_out)
    return unseal(told, path, format=format, version=version, entries=entries, way_out=way_out)


def read_json(path: str | Path, *, way_out: str, most: int = LARGEST, nan: bool = False) -> Any:
    """What a JSON file of any program holds.

    Args:
        path: The file.
        way_out: What to do about a file that cannot be read, as the end of a sentence.
        most: Bytes of the largest file.
        nan: Whether NaN and infinities are read, which JSON does not know.

    Raises:
        FileFormatError: No file, too large, or no JSON (see `decode`).
    """
    text = read_bytes(path, most=most, way_out=way_out)
    try:
        return decode(text, nan=nan)
    except ValueError as error:
        raise FileFormatError(
            f"{path} is not whole JSON ({one_line(error)}); {way_out}."
        ) from error


def read_json_lines(
    path: str | Path, *, way_out: str, most: int = LARGEST
) -> Iterator[tuple[int, Any]]:
    """The number of each line that is not empty, from 1, and the value in it.

    Raises:
        FileFormatError: No file, too large, no UTF-8, or a line that is no JSON; names the line.
    """
    text = read_bytes(path, most=most, way_out=way_out)
    for number, line in enumerate(text.split(b"\n"), 1):
        try:
            if line.strip():
                yield number, decode(line)
        except ValueError as error:
            raise FileFormatError(
                f"{path}, line {number} is not JSON ({one_line(error)}); {way_out}."
            ) from error


def read_bytes(path: str | Path, *, most: int, way_out: str) -> bytes:
    """All bytes of a file, of which no more than `most` are read.

    Raises:
        FileFormatError: No file, or a larger one.
    """
    size = require_file(path, most=most, way_out=way_out)
    try:
        with Path(path).open("rb") as file:
            return file.read(size)
    except OSError as error:
        raise FileFormatError(f"{path} cannot be read ({error.strerror}); {way_out}.") from error


def require_file(path: str | Path, *, most: int, way_out: str) -> int:
    """The bytes that a file has. It is not opened: a pipe would wait, and a device never end.

    Raises:
        FileFormatError: No file, or a larger one than `most`.
    """
    try:
        about = os.stat(path)
    except (OSError, ValueError) as error:  # a name with a null byte is a ValueError
        why = getattr(error, "strerror", None) or error
        raise FileFormatError(f"{path} cannot be read ({why}); {way_out}.") from error
    if not stat.S_ISREG(about.st_mode):
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "no regular file"
        raise FileFormatError(f"{path} cannot be read (it is {kind}); {way_out}.")
    if about.st_size > most:
        raise FileFormatError(
            f"{path} holds {about.st_size:,} bytes and no more than {most:,} are needed; {way_out}."
        )
    return about.st_size


def decode(text: bytes | str, *, nan: bool = False) -> Any:
    """The value that JSON text stands for.

    Raises:
        ValueError: No UTF-8 or no JSON; a name that is given twice in one object; NaN or an
            infinity, unless `nan`; a number too large for a float; values nested too deeply.

    >>> decode('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: 'a' is given twice
    """
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_each_once,
            parse_float=None if nan else _finite,
            parse_constant=None if nan else _no_number,
        )
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST} deep") from None
    level = _nested([value])
    for _ in range(DEEPEST):
        level = [inner for each in level for inner in _nested(each)]
    if level:
        raise ValueError(f"it is nested more than {DEEPEST} deep")
    return value


def to_text(
    name: str, data: Mapping[str, Any], *, format: str, version: int, indent: int | None = None
) -> str:
    """JSON of some data below its header: what `unseal` reads, in a file or inside another one.

    Raises:
        FileFormatError: Data that no file can hold; `name` is what it was for.
    """
    header = {"format": format, "version": version}
    try:
        plain = decode(json.dumps({**header, **data}, allow_nan=False))
        between = (",", ":") if indent is None else None
        text = json.dumps(
            header | {"sha256": _hash(plain)} | plain, indent=indent, separators=between
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{name} cannot be written ({one_line(error)}); a file of {format} holds text, finite "
            "numbers, lists and dictionaries."
        ) from error
    if len(text) > LARGEST:
        raise FileFormatError(
            f"{name} would have {len(text):,} bytes and no more than {LARGEST:,} are read again; "
            "save less of it, or in another format."
        )
    return text


def unseal(
    told: Any,
    path: str | Path,
    *,
    format: str,
    version: int,
    entries: Collection[str],
    way_out: str,
) -> dict[str, Any]:
    """What stands below the header that `to_text` wrote; the arguments are as of `read_json_file`.

    Raises:
        FileFormatError: Another format or version, other entries, values that JSON does not know,
            or another hash than it had.
    """
    kind = format.removeprefix("interp.")
    kind = f"{'an' if kind[0] in 'AEIOaeio' else 'a'} {kind}"
    if not isinstance(told, dict) or told.get("format") != format:
        raise FileFormatError(f"{path} does not hold {kind}; {way_out}.")
    found = told.get("version")
    if type(found) is not int or found != version:
        raise FileFormatError(
            f"{path} is {kind} of version {found!r:.80}, and this release reads version "
            f"{version}; make it again, or install the release that wrote it."
        )
    data = {name: value for name, value in told.items() if name != "sha256"}
    try:
        found = _hash(data)
    except UnicodeEncodeError as error:
        raise FileFormatError(
            f"{path} has a text with half a letter in it ({one_line(error)}); {way_out}."
        ) from error
    except (TypeError, ValueError) as error:  # of a table in another format
        raise FileFormatError(
            f"{path} holds what JSON does not know ({one_line(error)}); {way_out}."
        ) from error
    if told.get("sha256", found) != found:
        raise FileFormatError(
            f"{path} was changed after it was written: its sha256 is that of other content; "
            f"{way_out}, or take sha256 out of it if the change was meant."
        )
    del data["format"], data["version"]
    missing, unknown = sorted(set(entries) - set(data)), sorted(set(data) - set(entries))
    if missing or unknown:
        why = f"{missing[0]!r} is missing" if missing else f"{unknown[0]!r:.80} is unknown"
        raise FileFormatError(f"{path} has a missing or broken part ({why}); {way_out}.")
    return data


def write_text(path: Path, text: str) -> None:
    """Write a file in one step, making folders as needed. Raises OSError."""
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _hash(data: dict[str, Any]) -> str:
    """Of the content in one way of writing it.

    Raises UnicodeEncodeError for half of a surrogate pair, which neither tables nor pages can show.
    """
    text = json.dumps(
        data, allow_nan=False, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    )
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} is given twice")
        found[name] = value
    return found


def _nested(value: dict[str, Any] | list[Any]) -> list[Any]:
    inside = value.values() if isinstance(value, dict) else value
    return [each for each in inside if isinstance(each, dict | list)]


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:80]} is too large for a float")
    return number


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")
