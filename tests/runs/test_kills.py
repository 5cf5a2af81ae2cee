"""Signals stop a sweep at random moments and it goes on: nothing is lost, repeated or changed."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from interp import runs
from tests.runs.conftest import Nursery, computed, recorded, require_whole, said
from tests.runs.nursery import Task

KILLS = 50


@pytest.mark.parametrize("kind", ["zero and mean", "patch"])
def test_50_kills_of_one_sweep_lose_repeat_and_change_nothing(
    kind: str, nursery: Nursery, tmp_path: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    moments = random.Random(kind)
    in_the_middle = 0
    for kill in range(KILLS):
        known = recorded(folder)
        chunks = 0 if kill % 3 == 0 else moments.randrange(1, 5)  # a third while it starts
        moment = (chunks, moments.uniform(0, 0.03), signal.SIGKILL)
        ended = nursery.sweep(folder, log, [moment], kind=kind, pace=0.02)
        assert ended == -signal.SIGKILL
        again = known.intersection(computed(log))
        assert not again, f"computed though they were recorded: {again}"
        assert known <= recorded(folder)
        in_the_middle += bool(computed(log))
    assert in_the_middle > KILLS / 2
    known = recorded(folder)
    assert nursery.sweep(folder, log, kind=kind) == 0
    assert known.isdisjoint(computed(log))
    require_whole(folder, nursery.whole(kind))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGINT, signal.SIGINT),
        (signal.SIGINT, signal.SIGKILL),
        (signal.SIGINT, signal.SIGTERM),  # without a handler, as from Python
        (signal.SIGHUP, signal.SIGINT),  # the terminal is closed
    ],
)
def test_two_signals_leave_a_run_that_goes_on(
    first: int, second: int, nursery: Nursery, tmp_path: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    moments = random.Random(first * 100 + second)
    for turn in range(8):
        known = recorded(folder)
        signals = [
            (turn % 4, moments.uniform(0, 0.01), first),
            (0, moments.choice([0, 0.001, 0.01]), second),
        ]
        assert nursery.sweep(folder, log, signals) in (130, -first, -second), said(log)
        assert known.isdisjoint(computed(log))
        assert known <= recorded(folder)
        if runs.is_run(folder):
            assert runs.verify(folder) == []
    assert nursery.sweep(folder, log) == 0
    require_whole(folder, nursery.whole())


def test_one_ctrl_c_keeps_all_that_was_computed(nursery: Nursery, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    assert nursery.sweep(folder, log, [(20, 0.0, signal.SIGINT)]) == 130
    numbers = computed(log)
    # the interrupt may come between the log's line and the chunk's way into the run
    assert set(numbers[:-1]) <= recorded(folder) <= set(numbers)
    info = runs.info(folder)
    assert info.state == "stopped"
    assert info.history[-1]["what"] == "stopped by KeyboardInterrupt"


def test_of_two_processes_that_start_at_one_moment_one_writes(
    nursery: Nursery, tmp_path: Path
) -> None:
    moments = random.Random(2)
    for pair in range(10):
        kind = "zero and mean" if pair % 5 == 0 else "own metric"  # which is done at once
        folder, logs = tmp_path / f"run {pair}", [tmp_path / "log 1", tmp_path / "log 2"]
        pace = moments.uniform(0, 0.05)
        codes = nursery.at_once([Task(str(folder), str(log), kind, pace) for log in logs])
        writers = [log for log in logs if computed(log)]
        assert len(writers) == 1
        for code, log in zip(codes, logs, strict=True):
            if log in writers:
                assert code == 0, said(log)
            else:  # it came while the other wrote, or after
                assert code == 0 or "is being written by" in said(log)
        require_whole(folder, nursery.whole(kind))


def test_of_five_processes_on_what_a_kill_left_one_goes_on(
    nursery: Nursery, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    nursery.sweep(folder, tmp_path / "log", [(9, 0.01, signal.SIGKILL)])
    known = recorded(folder)
    tasks = [Task(str(folder), str(tmp_path / f"log {each}")) for each in range(5)]
    codes = nursery.at_once(tasks)
    assert set(codes) == {0, 1}
    done = [number for task in tasks for number in computed(Path(task.log))]
    assert len(done) == len(set(done))
    assert known.isdisjoint(done)
    require_whole(folder, nursery.whole())
