"""The judge of hostile files sees what readers do that they must not."""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from _pytest.outcomes import Failed

from interp.errors import FileFormatError
from tests.fuzz.hostile import assert_harmless


def reads(path: Path) -> str:
    return path.read_text()


def refuses(path: Path) -> None:
    raise FileFormatError(f"{path} is no file of this kind; give another one.")


def refuses_without_the_name(path: Path) -> None:
    raise FileFormatError("The file is no file of this kind; give another one.")


def refuses_in_two_lines(path: Path) -> None:
    raise FileFormatError(f"{path} is no file:\ngive another one.")


def raises(path: Path) -> None:
    raise ValueError(f"{path} is no file of this kind; give another one.")


def warns(path: Path) -> None:
    warnings.warn("odd", UserWarning, stacklevel=1)


def runs_a_command(path: Path) -> None:
    os.system("true")


def starts_a_process(path: Path) -> None:
    subprocess.run(["true"], check=True)


def unpickles(path: Path) -> None:
    pickle.loads(b"cposix\nsystem\n(S'true'\ntR.")


def connects(path: Path) -> None:
    socket.create_connection(("127.0.0.1", 9))


def writes_beside_it(path: Path) -> None:
    (path.parent / "other").write_text("x")


def reads_another_file(path: Path) -> None:
    (path.parent / "secret").read_text()


def removes_a_file(path: Path) -> None:
    (path.parent / "secret").unlink()


def hides_what_it_did(path: Path) -> None:
    try:
        os.system("true")
    except BaseException:
        refuses(path)


def takes_much_memory(path: Path) -> int:
    return len(bytearray(2**33))


def hides_that_memory_ran_out(path: Path) -> None:
    raise FileFormatError(f"{path}: DefaultCPUAllocator: can't allocate memory.")


def dies(path: Path) -> None:
    os._exit(3)


def never_ends(path: Path) -> None:
    time.sleep(100)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "file.json").write_text("text")
    return tmp_path / "file.json"


def test_a_reader_may_read_and_may_refuse(file: Path) -> None:
    assert assert_harmless(reads, file).result == "text"
    refused = assert_harmless(refuses, file).refused
    assert refused is not None
    assert "give another one" in refused


@pytest.mark.parametrize(
    ("read", "seen"),
    [
        (refuses_without_the_name, "does not name the file"),
        (refuses_in_two_lines, "is no line of text"),
        (raises, "ValueError"),
        (warns, "odd"),
        (runs_a_command, "os.system"),
        (starts_a_process, "subprocess.Popen"),
        (unpickles, "pickle.find_class"),
        (connects, "socket."),
        (writes_beside_it, "open"),
        (reads_another_file, "secret"),
        (removes_a_file, "os.remove"),
        (hides_what_it_did, "os.system"),
        (takes_much_memory, "MemoryError"),
        (hides_that_memory_ran_out, "starved"),
    ],
)
def test_a_reader_may_do_nothing_else(file: Path, read: Any, seen: str) -> None:
    with pytest.raises(AssertionError, match=seen):
        assert_harmless(read, file)
    assert sorted(each.name for each in file.parent.iterdir()) == ["file.json", "secret"]


def test_a_reader_must_live_and_end(file: Path) -> None:
    with pytest.raises(Failed, match="ended the process with 3"):
        assert_harmless(dies, file)
    with pytest.raises(Failed, match=r"took more than 0\.5 s"):
        assert_harmless(never_ends, file, seconds=0.5)
    assert assert_harmless(reads, file).result == "text"
