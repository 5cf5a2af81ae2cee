"""Ctrl-C at every line of the store: what was recorded stays, and the run goes on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import interp.runs
from interp import runs
from tests.runs.conftest import VALUES, opened, recorded

STORE = str(Path(interp.runs.__file__).parent)
DONE = b"the whole result"


def work(folder: Path) -> None:
    """Go on with a run until it is done, as a sweep does."""
    with opened(folder) as run:
        run.settle("chunks", len(VALUES))
        for number, chunk in run.chunks():
            assert torch.equal(chunk["values"], VALUES[number])
        for number in range(len(VALUES)):
            if number not in run.done:
                run.keep(number, {"values": VALUES[number]})
                if number % 4 == 0:
                    run.flush()
        run.finish(lambda path: path.write_bytes(DONE))


def lines_of(work: Callable[[], None], *, interrupted_at: int | None = None) -> list[str]:
    """Do work, and press Ctrl-C at a line of the store; the lines that were run, one by one."""
    lines: list[str] = []

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        if not frame.f_code.co_filename.startswith(STORE):
            return None
        if event == "line":
            if len(lines) == interrupted_at:
                os.kill(os.getpid(), signal.SIGINT)
            lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno}")
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return lines


# a file that was open when it was interrupted is closed by the collector, which says so
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("every", [9, pytest.param(1, marks=[pytest.mark.soak, pytest.mark.slow])])
@pytest.mark.parametrize("begun", [False, True])
def test_ctrl_c_at_a_line_of_the_store(begun: bool, every: int, tmp_path: Path) -> None:
    def prepared(name: str) -> Path:
        if begun:
            with opened(tmp_path / name) as run:
                run.keep(1, {"values": VALUES[1]})
        return tmp_path / name

    folder = prepared("whole")
    lines = lines_of(lambda: work(folder))
    firsts = [at for at, line in enumerate(lines) if line not in lines[:at]]
    assert len(firsts) > 100
    stopped = 0
    for at in firsts[::every]:
        folder = prepared(f"stopped at {at}")
        try:
            lines_of(lambda folder=folder: work(folder), interrupted_at=at)
        except KeyboardInterrupt:  # it comes to nothing where the collector was at work
            stopped += 1
        known = recorded(folder)
        assert begun <= (1 in known)
        work(folder)
        assert known <= recorded(folder) == set(range(len(VALUES)))
        assert runs.verify(folder) == []
        assert runs.info(folder).state == "done"
        assert runs.result_of(folder).read_bytes() == DONE
    assert stopped > 0.9 * len(firsts[::every])
