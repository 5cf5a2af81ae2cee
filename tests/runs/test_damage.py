"""Disks that fail, fill up or lie: a run says so, and never gives a wrong number."""

from __future__ import annotations

import os
import random
import resource
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import torch

from interp import runs
from interp.errors import RunError
from tests.runs.conftest import VALUES, opened, refill

COUNT = 12


def flip(path: Path, byte: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "deleted"])
def test_a_damaged_file_is_named_and_computed_again(tmp_path: Path, how: str) -> None:
    refill(tmp_path, COUNT)
    file = sorted((tmp_path / "chunks").iterdir())[1]
    if how == "flipped":
        flip(file, -1)
    elif how == "deleted":
        file.unlink()
    else:
        os.truncate(file, 0 if how == "emptied" else file.stat().st_size - 1)
    assert [str(file) in sentence for sentence in runs.verify(tmp_path)] == [True]
    with (
        opened(tmp_path) as run,
        pytest.warns(UserWarning, match=rf"{file.name} .* again, 1 chunk"),
    ):
        assert len(dict(run.chunks())) == COUNT - 1
    refill(tmp_path, COUNT)
    assert runs.verify(tmp_path) == []
    check(tmp_path)
    assert any("1 chunk struck" in each["what"] for each in runs.info(tmp_path).history)


def check(folder: Path) -> None:
    """Every chunk that the run gives is the one that was put in."""
    with opened(folder) as run:
        for number, chunk in run.chunks():
            assert torch.equal(chunk["values"], VALUES[number])


def test_no_bit_of_any_file_changes_a_number(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    refill(whole, COUNT)
    chance = random.Random(0)
    refused = warned = 0
    for turn in range(60):
        folder = tmp_path / "flipped"
        shutil.copytree(whole, folder)
        chunks = sorted((folder / "chunks").iterdir())
        file = chance.choice(chunks) if turn % 3 == 0 else folder / "ledger.sqlite"
        for _ in range(chance.choice([1, 1, 30])):
            flip(file, chance.randrange(file.stat().st_size), chance.randrange(8))
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                check(folder)
            except RunError:
                refused += 1
        warned += bool(told)
        with suppress(RunError):
            runs.info(folder)
            runs.verify(folder)
        shutil.rmtree(folder)
    assert refused > 5
    assert warned > 5


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 5000])
def test_a_ledger_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    refill(tmp_path, COUNT)
    os.truncate(tmp_path / "ledger.sqlite", size)
    with pytest.raises(RunError, match=r"ledger of .* is damaged"):
        opened(tmp_path)
    with pytest.raises(RunError, match=r"ledger of .* is damaged"):
        runs.info(tmp_path)


def test_a_ledger_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("a page about ledgers\n" * 100)
    with pytest.raises(RunError, match="file is not a database"):
        opened(tmp_path)


def test_a_ledger_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    import sqlite3

    refill(tmp_path / "run", 2)
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        db.execute("UPDATE files SET name = '../../secret' WHERE name = '000000.safetensors'")
        db.execute("UPDATE chunks SET file = '../../secret' WHERE file = '000000.safetensors'")
    db.close()
    with pytest.raises(RunError, match=r"it names the file '\.\./\.\./secret'"):
        runs.verify(tmp_path / "run")


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file grows beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [100, 3000, 40_000])
def test_a_full_disk_is_told_and_keeps_what_was_recorded(tmp_path: Path, most: int) -> None:
    refill(tmp_path, 3)
    with (
        pytest.raises(RunError, match=r"cannot be written .* what it holds is kept"),
        full_disk(most),
    ):
        refill(tmp_path, COUNT, padding=6000)
    assert set(range(3)) <= runs.recorded(tmp_path)
    assert runs.verify(tmp_path) == []
    refill(tmp_path, COUNT)
    assert runs.recorded(tmp_path) == set(range(COUNT))
    check(tmp_path)


def test_a_full_disk_at_the_beginning(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot be written"), full_disk(10):
        refill(tmp_path / "run", 1)
    refill(tmp_path / "run", 3)
    check(tmp_path / "run")


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """The folder as it is to somebody who may only read it."""
    if os.geteuid() == 0:  # who may write everything, so another is played
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    inside = [folder, *folder.rglob("*")]
    modes = [path.stat().st_mode for path in inside]
    for path in inside:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        yield
    finally:
        for path, mode in zip(inside, modes, strict=True):
            path.chmod(mode)


def test_a_read_only_run_can_be_read_and_not_resumed() -> None:
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    try:
        refill(folder / "run", COUNT)
        with unwritable(folder / "run"):
            assert runs.info(folder / "run").done == COUNT
            assert runs.info(folder / "run").state == "stopped"
            assert runs.verify(folder / "run") == []
            with pytest.raises(RunError, match=r"cannot be written \(Permission denied\)"):
                opened(folder / "run")
        with unwritable(folder), pytest.raises(RunError, match="cannot be written"):
            opened(folder / "new")
    finally:
        shutil.rmtree(folder)
