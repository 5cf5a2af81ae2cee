"""Hostile files, and what a reader may do with them: give a result, or refuse in one sentence.

`assert_harmless(read, path)` reads in a process of its own, as a user's would be: no checks of
types, every warning counted, little memory, a limit of time, and an eye on all that Python does to
the outside. `read` is found there by its name: a function of a module, or a class method.
"""

from __future__ import annotations

import atexit
import json
import os
import select
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

FUZZ = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "100")),
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
"""The same inputs each time; FUZZ_EXAMPLES=10000 in the environment tries many others."""
SECONDS = 20.0
"""One file may take this long; most take a thousandth."""
MEMORY = 3 * 2**29
"""Bytes that reading may take beyond what the process has."""
EDGE = (0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 1.5, -0.0, 1e308, 5e-324)
ODD: tuple[Any, ...] = (
    *(None, True, False, *EDGE, float("nan"), float("inf"), float("-inf")),
    *("", "x", "0", "0.0", "logits", "null", "\ud800", "\x00", "é\n", "a" * 5_000),
    *("../../escaped", "/etc/passwd", "C:\\x", "<script>alert(1)</script>", "__class__"),
    *([], {}, [[]], [[], [[]]], [None], [True], [0.5], ["x"], [[[0.5]]], {"": 0}, {"shape": []}),
    *({"__reduce__": ["os.system", "true"]}, [0] * 5_000, {str(i): i for i in range(500)}),
)
"""What may stand in place of any value in a file."""
EACH_TYPE: tuple[Any, ...] = (
    *(None, True, 7, -1, 10**400, 1.5, float("nan"), "", "x", [], [[]], [0.5], {}, {"x": 0}),
)
"""A few of them, of every type."""
PIECES = (
    *(b"", b"\x00", b"\xff", b'"', b"{", b"[", b"}", b"]", b",", b":", b"-", b"1e999", b"NaN"),
    *(b"9" * 40, b"9" * 5_000, b"null", b"-1", b"\\ud800", b"\xed\xa0\x80", b"[" * 200),
    *(b"[" * 100_000, b'{"a":' * 100_000, b"\xff\xff\xff\x7f", b"\xff" * 8, b"\x80\x80\x80\x01"),
)
"""What may come into the bytes of any file."""


# Strategies


@st.composite
def mutations(draw: Callable[..., Any], whole: bytes) -> bytes:
    """The bytes of a file with one to four changes: flipped, cut out, doubled, put in, cut off."""
    data = whole
    for _ in range(draw(st.integers(1, 4))):
        start, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        change = draw(st.sampled_from(["flip", "byte", "cut", "double", "move", "put in", "end"]))
        if change == "flip" and data:
            at = min(start, len(data) - 1)
            flipped = data[at] ^ (1 << draw(st.integers(0, 7)))
            data = data[:at] + bytes([flipped]) + data[at + 1 :]
        elif change == "byte":
            data = data[:start] + bytes([draw(st.integers(0, 255))]) + data[start + 1 :]
        elif change == "cut":
            data = data[:start] + data[end:]
        elif change == "double":
            data = data[:end] + data[start:]
        elif change == "move":
            data = data[end:] + data[start:end] + data[:start]
        elif change == "put in":
            data = data[:start] + draw(st.sampled_from(PIECES)) + data[start:]
        else:
            data = data[:start]
    return data


@st.composite
def changed_json(draw: Callable[..., Any], whole: Any) -> bytes:
    """JSON with one to three values replaced by odd ones, left out, doubled or renamed.

    A hash is taken out, so that what is below it is looked at.
    """
    data = deepcopy(whole)
    data.pop("sha256", None)
    for _ in range(draw(st.integers(1, 3))):
        inside = _somewhere(draw, data)
        if not inside:
            continue
        key = draw(
            st.sampled_from(list(inside) if isinstance(inside, dict) else range(len(inside)))
        )
        change = draw(st.sampled_from(["odd", "odd", "odd", "out", "twice", "name", "other"]))
        if change == "odd":
            inside[key] = deepcopy(draw(st.sampled_from(ODD)))
        elif change == "out":
            del inside[key]
        elif change == "twice" and isinstance(inside, list):
            inside.append(deepcopy(inside[key]))
        elif change == "twice":
            inside[_Twice(key)] = deepcopy(inside[key])
        elif change == "name" and isinstance(inside, dict):
            odd = draw(st.sampled_from([each for each in ODD if isinstance(each, str)]))
            inside[odd] = inside.pop(key)
        else:
            inside[key] = deepcopy(_somewhere(draw, data))
    return json.dumps(data).encode()


class _Twice(str):
    """A name that JSON gets a second time: equal text, another key."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def _somewhere(draw: Callable[..., Any], data: Any) -> Any:
    """A list or dictionary inside another, at any depth; each depth is as likely."""
    here = data
    for _ in range(draw(st.integers(0, 5))):
        values = here.values() if isinstance(here, dict) else here
        deeper = [each for each in values if isinstance(each, dict | list)]
        if not deeper:
            break
        here = draw(st.sampled_from(deeper))
    return here


# Bombs: small files that ask for much


def _deep(path: Path) -> None:
    path.write_bytes(b"[" * 10**6)


def _deep_and_whole(path: Path) -> None:
    path.write_bytes(b'{"a":' * 800 + b"1" + b"}" * 800)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.write(b'{"format": "interp.Circuit", "version": 1, "x": "')
        file.truncate(2**36)


def _digits(path: Path) -> None:
    path.write_bytes(b'{"format": ' + b"7" * 10**6 + b"}")


def _twice(path: Path) -> None:
    path.write_bytes(b"{" + b'"format": "interp.Circuit",' * 10**4 + b'"version": 1}')


def _names(path: Path) -> None:
    path.write_bytes(json.dumps({str(i): [] for i in range(10**4)}).encode())


def _utf16(path: Path) -> None:
    path.write_bytes('{"format": "interp.Circuit"}'.encode("utf-16"))


def _folder(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path)  # opening it would wait for ever


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def _loop(path: Path) -> None:
    path.symlink_to(path)


BOMBS: dict[str, Callable[[Path], None]] = {
    "lists a million deep": _deep,
    "objects 800 deep": _deep_and_whole,
    "64 GB with a hole": _sparse,
    "a number of a million digits": _digits,
    "a name given 10,000 times": _twice,
    "10,000 unknown names": _names,
    "text in UTF-16": _utf16,
    "a folder": _folder,
    "a pipe": _pipe,
    "a device without end": _device,
    "a link to itself": _loop,
}
"""Files that no reader accepts, whatever their format: what to call them, and what makes them."""


# The judge


@dataclass(frozen=True)
class Outcome:
    """What reading did. `refused` is the message of the InterpError; None where there was none."""

    refused: str | None
    result: Any = None


def assert_harmless(
    read: Callable[[Path], Any], path: Path, *, seconds: float = SECONDS
) -> Outcome:
    """Read a file elsewhere; fail unless it gives a result, or one InterpError of one sentence.

    Args:
        read: A module's function or a class method. What it returns is given back if it is None, a
            boolean, a number or text; so a function that compares with the original can say so.
        path: The file. Beside it, nothing may be made or changed.
        seconds: The time it may take.
    """
    before = _listing(path.parent)
    answer = _Server.running().ask(f"{read.__module__}:{read.__qualname__}", path, seconds)
    assert _listing(path.parent) == before, f"reading {path} changed files beside it"
    assert answer["outcome"] in ("read", "refused"), answer
    assert not answer["touched"], answer
    assert not answer["warned"], answer
    if answer["outcome"] == "read":
        return Outcome(None, answer["result"])
    said = answer["message"]
    assert path.name in said, f"the message does not name the file: {said}"
    assert said.isprintable(), f"the message is no line of text: {said!r}"
    assert said[-1] in ".?", f"the message is no sentence: {said}"
    assert len(said) < 1_500, f"the message has {len(said)} letters: {said[:300]}..."
    return Outcome(said)


def assert_refused(read: Callable[[Path], Any], path: Path, *, match: str = "") -> None:
    """As `assert_harmless`, and it must be refused with these words."""
    outcome = assert_harmless(read, path)
    assert outcome.refused is not None, f"{path} was read"
    assert match in outcome.refused, outcome.refused


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    about = [(each.name, each.stat(follow_symlinks=False)) for each in os.scandir(folder)]
    return sorted((name, told.st_size, told.st_mtime_ns) for name, told in about)


class _Server:
    """A process that reads files when asked to; a new one takes its place when it has died."""

    one: _Server | None = None

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.reader"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "OMP_NUM_THREADS": "1", "FUZZ_MEMORY": str(MEMORY)},
        )
        atexit.register(self.process.kill)

    @classmethod
    def running(cls) -> _Server:
        if cls.one is None or cls.one.process.poll() is not None:
            cls.one = cls()
        return cls.one

    def ask(self, read: str, path: Path, seconds: float) -> dict[str, Any]:
        """What reading a file came to. The first question about a module waits for its import."""
        self._send({"import": read})
        self._answer(120.0, f"the import of {read}")
        self._send({"read": read, "path": str(path)})
        return self._answer(seconds, f"{read} of {path}")

    def _send(self, request: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request).encode() + b"\n")
        self.process.stdin.flush()

    def _answer(self, seconds: float, what: str) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], seconds)[0]:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"{what} took more than {seconds} s")
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(f"{what} ended the process with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer
