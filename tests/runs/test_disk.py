"""Real disks that are full, or may only be read: a run says so, and keeps what it has."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from interp import runs
from interp.errors import RunError
from tests.runs.conftest import (
    VALUES,
    Nursery,
    computed,
    opened,
    recorded,
    refill,
    require_kept,
    require_whole,
    said,
)

COUNT = 12
PAGE = 4096


@pytest.fixture
def disk(nursery: Nursery, tmp_path: Path) -> Path:
    """Where a disk can be mounted."""
    if not nursery.mounts:
        pytest.skip("nothing can be mounted: `unshare --user --map-root-user --mount` is refused")
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


def room(nursery: Nursery, disk: Path, pages: int) -> None:
    """Make the disk so large."""
    nursery.do("mount", "-o", f"remount,size={pages * PAGE}", disk)


def which(log: Path) -> str:
    """What of a run could not be written, from the one sentence that told it."""
    told = said(log)
    assert told.startswith("RunError: The run "), told
    assert "and what it holds is kept; see that the folder can be written" in told
    if "sweep.safetensors" in told:
        return "result"
    return "chunk" if "No space left on device" in told else "ledger"


def taken_off(nursery: Nursery, run: Path, to: Path) -> Path:
    """A copy of a run on another disk."""
    return Path(shutil.copytree(nursery.inside(run), to / "copy"))


def test_a_disk_that_is_full_again_and_again_loses_nothing(
    nursery: Nursery, disk: Path, tmp_path: Path
) -> None:
    refused, chance, log = Counter[str](), random.Random(0), tmp_path / "log"
    for turn in range(10):  # on how many disks chunks are refused is up to luck
        if min(refused["chunk"], refused["ledger"]) > 2:
            break
        pages, ended, run = 1, 1, disk / "run"
        nursery.do("mount", "-t", "tmpfs", "-o", f"size={PAGE}", "disk", disk)
        while ended:
            known = set(nursery.look(run)["recorded"])
            ended = nursery.sweep(run, log, pace=0.001)
            if ended:
                assert ended == 1, said(log)
                refused[which(log)] += 1
                pages += chance.randrange(1, 16)
                room(nursery, disk, pages)
            assert known.isdisjoint(computed(log))
            assert known <= set(nursery.look(run)["recorded"])
        (tmp_path / str(turn)).mkdir()
        require_whole(taken_off(nursery, run, tmp_path / str(turn)), nursery.whole())
        nursery.do("umount", disk)
    assert refused["chunk"] > 2
    assert refused["ledger"] > 2


def test_a_disk_that_is_full_at_the_end_is_told_and_the_result_is_written_later(
    nursery: Nursery, disk: Path, tmp_path: Path
) -> None:
    nursery.do("mount", "-t", "tmpfs", "disk", disk)
    run, log = disk / "run", tmp_path / "log"
    assert nursery.sweep(run, log, kind="own metric") == 0
    (nursery.inside(run) / "sweep.safetensors").unlink()
    used = os.statvfs(nursery.inside(disk))
    pages, ended, refused = used.f_blocks - used.f_bfree, 1, Counter[str]()
    while ended:
        room(nursery, disk, pages)
        ended = nursery.sweep(run, log, kind="own metric")
        assert computed(log) == []
        refused[which(log) if ended else "nothing"] += 1
        pages += 1
    assert refused["result"] > 0
    require_whole(taken_off(nursery, run, tmp_path), nursery.whole("own metric"))


def test_a_run_on_a_read_only_disk_is_read_and_not_resumed(
    nursery: Nursery, disk: Path, tmp_path: Path
) -> None:
    made, run, log = tmp_path / "made", disk / "run", tmp_path / "log"
    nursery.sweep(made / "run", log, [(9, 0.0, signal.SIGKILL)])
    known, before = recorded(made / "run"), contents(made)
    nursery.do("mount", "--bind", "-o", "ro", made, disk)
    assert nursery.look(run) == {"state": "stopped", "recorded": sorted(known), "damaged": []}
    for folder in (run, disk / "new"):
        assert nursery.sweep(folder, log) == 1
        assert f"The run {folder} cannot be written (Read-only file system)" in said(log)
    assert contents(made) == before
    assert nursery.sweep(made / "run", log) == 0
    require_whole(made / "run", nursery.whole())


def contents(folder: Path) -> dict[str, bytes]:
    """Every file, but for the memory that readers of a ledger share."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".sqlite-shm"]
    return {str(path): path.read_bytes() for path in files}


@contextmanager
def full_disk(most: int) -> Iterator[None]:
    """No file grows beyond so many bytes, where nothing can be mounted."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("most", [100, 3000, 40_000])
def test_a_file_that_cannot_grow_is_told_and_keeps_what_was_recorded(
    tmp_path: Path, most: int
) -> None:
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
    require_kept(tmp_path)


@pytest.mark.parametrize("most", [0, 10, 5000])
def test_a_file_that_cannot_grow_at_the_beginning(tmp_path: Path, most: int) -> None:
    with pytest.raises(RunError, match="cannot be written"), full_disk(most):
        refill(tmp_path / "run", 1)
    assert not runs.is_run(tmp_path / "run")  # a ledger appears whole or not at all
    refill(tmp_path / "run", 3)
    require_kept(tmp_path / "run")


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


@pytest.mark.parametrize("killed", [False, True])
def test_a_run_of_somebody_else_is_read_and_not_resumed(killed: bool) -> None:
    folder = Path(tempfile.mkdtemp())  # pytest's folders are closed to others
    folder.chmod(0o755)
    try:
        run = folder / "run"
        refill(run, COUNT - killed)
        if killed:
            run = without_shared_memory(run, folder / "killed")
        with unwritable(run):
            assert runs.info(run).done == COUNT
            assert runs.info(run).state == "stopped"
            assert runs.verify(run) == []
            with pytest.raises(RunError, match=r"cannot be written \(Permission denied\)"):
                opened(run)
        with unwritable(folder), pytest.raises(RunError, match="cannot be written"):
            opened(folder / "new")
    finally:
        shutil.rmtree(folder)


def without_shared_memory(run: Path, to: Path) -> Path:
    """A run as a kill leaves it and a copy takes it away: the last stands in its -wal alone."""
    with opened(run) as held:
        held.keep(COUNT - 1, {"values": VALUES[COUNT - 1]})
        held.flush()
        shutil.copytree(run, to)
    (to / "ledger.sqlite-shm").unlink()
    assert (to / "ledger.sqlite-wal").stat().st_size > 0
    return to
