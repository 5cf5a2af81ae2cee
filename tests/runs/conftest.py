"""A nursery of sweeps that meet faults, and a run of a few small chunks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from interp import runs
from interp.engine import SweepResult
from interp.runs import Run
from tests.runs.nursery import Task, line_of

ROOT = Path(__file__).parents[2]
Moment = tuple[int, float, int]
"""Send a signal so many chunks, and then so many seconds, after the last."""
OWN_DISKS = ["unshare", "--user", "--map-root-user", "--mount"]


class Nursery:
    """Starts sweeps in children of a process that is warm, and does things to them.

    Attributes:
        mounts: Whether it has a table of mounts of its own.
        wholes: The sweep of each kind, never stopped and kept nowhere.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.mounts = shutil.which("unshare") is not None and not subprocess.call(
            [*OWN_DISKS, "true"], stderr=subprocess.DEVNULL
        )
        self.wholes: dict[str, SweepResult] = {}
        self.process = subprocess.Popen(
            [*(OWN_DISKS if self.mounts else []), sys.executable, "-m", "tests.runs.nursery"],
            cwd=ROOT,
            # a block of memory that is given back is asked for anew, so that asking can fail
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "PYTHONPATH": str(ROOT),
                "MALLOC_MMAP_THRESHOLD_": "131072",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def sweep(self, folder: Path, log: Path, signals: Sequence[Moment] = (), **how: Any) -> int:
        """Run a sweep, and send it signals; `how` is the rest of the Task.

        Returns how it ended, as a shell does: the exit code, or minus the signal that ended it.
        """
        task = Task(str(folder), str(log), **how)
        (pid,) = self._start([task])
        chunks = 0
        for more, wait, number in signals:
            chunks += more
            while more and len(computed(log)) < chunks and _runs(pid):
                time.sleep(0.001)
            time.sleep(wait)
            if _runs(pid):
                os.kill(pid, number)
        return self._ended()[pid]

    def at_once(self, tasks: Sequence[Task]) -> list[int]:
        """Run sweeps that all start at the same moment; how each ended."""
        pids = self._start(tasks)
        ended: dict[int, int] = {}
        for _ in pids:
            ended |= self._ended()
        return [ended[pid] for pid in pids]

    def whole(self, kind: str = "zero and mean") -> SweepResult:
        """What a sweep of a kind finds when nothing happens to it."""
        if kind not in self.wholes:
            to = self.place / f"{kind}.safetensors"
            assert self._ask(json.dumps({"whole": kind, "to": str(to)})) == "ok"
            self.wholes[kind] = SweepResult.load(to)
        return self.wholes[kind]

    def look(self, folder: Path) -> dict[str, Any]:
        """What a run says of itself, read where its disk is mounted: nothing is damaged."""
        found = json.loads(self._ask(json.dumps({"look": str(folder)})))
        assert not found["damaged"], found
        return found

    def do(self, *words: object) -> None:
        """Run a program, such as mount, whose mounts the nursery and `inside` alone see."""
        said = self._ask(json.dumps({"do": [str(word) for word in words]}))
        assert said == "ok", said

    def inside(self, path: Path) -> Path:
        """A file or folder as the nursery sees it, with what is mounted there.

        SQLite, which resolves links itself, finds what is mounted here instead.
        """
        return Path(f"/proc/{self.process.pid}/root{path}")

    def _start(self, tasks: Sequence[Task]) -> list[int]:
        for task in tasks:
            for name in (task.log, f"{task.log}.error", f"{task.log}.full"):
                Path(name).unlink(missing_ok=True)
        return [int(pid) for pid in self._ask(line_of(list(tasks))).split()]

    def _ended(self) -> dict[int, int]:
        pid, status = map(int, self._line().split())
        return {pid: os.waitstatus_to_exitcode(status)}

    def _ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _runs(pid: int) -> bool:
    """Whether a child has not ended; its number is not given to another before that is told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def computed(log: Path) -> list[int]:
    """The chunks that a child computed."""
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def said(log: Path) -> str:
    """What a child raised."""
    error = Path(f"{log}.error")
    return error.read_text() if error.exists() else ""


def told_out_of_memory(log: Path) -> bool:
    """Whether a child ended with the error of a part of the sweep that does not fit."""
    return said(log).startswith("OutOfMemory: ")


def fell_out_of_memory(ended: int, log: Path) -> bool:
    """Whether it ended as libraries below the engine do: in their own words, or by a signal.

    Some of them use an allocation without asking whether it was made.
    """
    words = ("can't allocate memory", "could not create a primitive", "MemoryError")
    return ended == -signal.SIGSEGV or any(each in said(log) for each in words)


def recorded(folder: Path) -> set[int]:
    """The chunks that the ledger holds; none before there is one."""
    return runs.recorded(folder) if runs.is_run(folder) else set()


def require_whole(folder: Path, expected: SweepResult) -> None:
    """A run that is done: all is recorded and undamaged, and every number is the expected one."""
    info = runs.info(folder)
    assert (info.state, info.done) == ("done", info.chunks)
    assert runs.verify(folder) == []
    found = SweepResult.load(runs.result_of(folder))
    assert torch.equal(found.values, expected.values)
    assert torch.equal(found.clean, expected.clean)
    assert found.sites == expected.sites


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    made = Nursery(tmp_path_factory.mktemp("nursery"))
    yield made
    made.close()


VALUES = torch.arange(60.0).reshape(12, 5)


def opened(folder: Path, **changed: Any) -> Run:
    """A small run of the store's own, opened."""
    identity = {"model": "tiny", "prompts": {"n": 4, "hash": "a"}, **changed}
    return Run(folder, kind="test", result="all.safetensors", identity=identity)


def refill(folder: Path, count: int, *, padding: int = 0) -> None:
    """Record every chunk up to `count` that is missing, each in a file of its own."""
    with opened(folder) as run:
        run.settle("chunks", len(VALUES))
        for number in range(count):
            if number not in run.done:
                extra = {"padding": torch.zeros(padding)} if padding else {}
                run.keep(number, {"values": VALUES[number], **extra})
                run.flush()


def require_kept(folder: Path) -> None:
    """Every chunk that a run of `refill` gives is the one that was put in."""
    with opened(folder) as run:
        for number, chunk in run.chunks():
            assert torch.equal(chunk["values"], VALUES[number])
