"""A sweep is stopped at random moments and goes on: nothing is lost, repeated or changed."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torch

from interp import runs
from interp.engine import SweepResult
from tests.runs.conftest import Nursery


def computed(log: Path) -> list[int]:
    """The chunks that the last child computed."""
    if not log.exists():
        return []
    return [int(line) for line in log.read_text().split()]


def recorded(folder: Path) -> set[int]:
    """The chunks that the ledger holds."""
    return runs.recorded(folder) if runs.is_run(folder) else set()


@pytest.mark.parametrize(
    "kills", [15, pytest.param(300, marks=[pytest.mark.soak, pytest.mark.slow])]
)
def test_kills_at_random_moments_lose_repeat_and_change_nothing(
    kills: int, nursery: Nursery, whole: SweepResult, tmp_path: Path
) -> None:
    moments = random.Random(kills)
    killed = finished = 0
    while killed < kills or not finished:
        folder, log = tmp_path / f"run {finished}", tmp_path / "log"
        known = recorded(folder)
        moment = (moments.randrange(6), moments.uniform(0, 0.03), signal.SIGKILL)
        ended = nursery.sweep(folder, log, [moment] if killed < kills else [])
        again = known.intersection(computed(log))
        assert not again, f"computed though they were recorded: {again}"
        assert known <= recorded(folder)
        if ended == 0:
            finished += 1
            info = runs.info(folder)
            assert (info.state, info.done) == ("done", info.chunks)
            assert runs.verify(folder) == []
            found = SweepResult.load(folder / "sweep.safetensors")
            assert torch.equal(found.values, whole.values)
            assert torch.equal(found.clean, whole.clean)
            assert found.sites == whole.sites
        else:
            assert ended == -signal.SIGKILL
            killed += 1


def test_ctrl_c_twice_leaves_a_run_that_goes_on(
    nursery: Nursery, whole: SweepResult, tmp_path: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    moments = random.Random(0)
    for _ in range(8):
        known = recorded(folder)
        signals = [
            (moments.randrange(1, 6), moments.uniform(0, 0.01), signal.SIGINT),
            (0, moments.uniform(0, 0.01), signal.SIGINT),
        ]
        ended = nursery.sweep(folder, log, signals)
        assert ended in (130, 0)
        assert not known.intersection(computed(log))
        assert runs.verify(folder) == []
    assert nursery.sweep(folder, log) == 0
    found = SweepResult.load(folder / "sweep.safetensors")
    assert torch.equal(found.values, whole.values)


def test_one_ctrl_c_keeps_all_that_was_computed(nursery: Nursery, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    assert nursery.sweep(folder, log, [(20, 0.0, signal.SIGINT)]) == 130
    numbers = computed(log)
    # the interrupt may come between the log's line and the chunk's way into the run
    assert set(numbers[:-1]) <= recorded(folder) <= set(numbers)
    info = runs.info(folder)
    assert info.state == "stopped"
    assert info.history[-1]["what"] == "stopped by KeyboardInterrupt"
