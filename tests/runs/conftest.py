"""A nursery of sweeps that are stopped by signals, and a run of a few small chunks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from interp.runs import Run

ROOT = Path(__file__).parents[2]


class Nursery:
    """Starts sweeps in children of a process that is warm, and stops them with signals."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.runs.nursery"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready"

    def sweep(self, folder: Path, log: Path, signals: Sequence[tuple[int, float, int]] = ()) -> int:
        """Run the sweep, and send each signal so many chunks and then seconds after the last.

        Returns how it ended, as a shell does: the exit code, or minus the signal that ended it.
        """
        log.unlink(missing_ok=True)
        assert self.process.stdin is not None
        task = {"folder": str(folder), "log": str(log)}
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        pid = int(self._line())
        chunks = 0
        for more, wait, number in signals:
            chunks += more
            while more and _lines(log) < chunks and _runs(pid):
                time.sleep(0.001)
            time.sleep(wait)
            if _runs(pid):
                os.kill(pid, number)
        return os.waitstatus_to_exitcode(int(self._line()))

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=20)
        if self.process.stdout is not None:
            self.process.stdout.close()


def _lines(log: Path) -> int:
    return len(log.read_bytes().splitlines()) if log.exists() else 0


def _runs(pid: int) -> bool:
    """Whether a child has not ended; its number is not given to another before that is told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture(scope="session")
def whole() -> Any:
    """The nursery's sweep, never stopped and kept nowhere, computed in this process."""
    from interp.engine import run
    from tests.activations.samples import model, prompts
    from tests.runs.nursery import interventions

    patch = pytest.MonkeyPatch()
    patch.setattr("interp.engine.memory.CPU_TOKENS", 8)
    tiny = model("gpt2")
    result = run(tiny, prompts(), interventions(tiny), progress=False)
    patch.undo()
    return result


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
