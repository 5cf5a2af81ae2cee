"""Memory that runs out, weights that are no numbers, clocks that jump: nothing is lost."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
import torch

from interp import runs
from interp.engine import memory
from interp.errors import ModelError
from interp.models import Model
from tests.families import tiny, tiny_tokenizer
from tests.runs.conftest import (
    Nursery,
    computed,
    fell_out_of_memory,
    recorded,
    require_whole,
    said,
    told_out_of_memory,
)
from tests.runs.nursery import KINDS


def failures(log: Path) -> int:
    """Allocations that failed in a child, as the engine saw it."""
    full = Path(f"{log}.full")
    return len(full.read_text().splitlines()) if full.exists() else 0


def test_where_memory_runs_out_batches_are_halved_and_no_bit_changes(
    nursery: Nursery, tmp_path: Path
) -> None:
    """Allocations fail from the second chunk on: the process has so many megabytes and no more."""
    halved = 0
    for spare in (40.0, 32.0, 28.0, 24.0):
        folder, log = tmp_path / f"run {spare}", tmp_path / f"log {spare}"
        ended = nursery.sweep(folder, log, kind="wide", spare=spare)
        if ended == 0:
            halved += failures(log) > 0
            require_whole(folder, nursery.whole("wide"))
        else:
            assert told_out_of_memory(log) or fell_out_of_memory(ended, log), said(log)
            assert runs.verify(folder) == []
    assert halved > 0


def test_where_not_even_one_fits_what_was_done_is_kept(nursery: Nursery, tmp_path: Path) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    assert nursery.sweep(folder, log, kind="wide", spare=0.0) == 1
    assert said(log).startswith(
        "OutOfMemory: One intervention on one group of prompts does not fit"
    )
    assert failures(log) > 3
    known = recorded(folder)
    assert known == set(computed(log))
    assert runs.verify(folder) == []
    assert nursery.sweep(folder, log, kind="wide") == 0
    assert known.isdisjoint(computed(log))
    require_whole(folder, nursery.whole("wide"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU whose memory could end")
def test_where_the_memory_of_a_gpu_runs_out_batches_are_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = Model(tiny("gpt2").cuda(), tiny_tokenizer(), id="gpt2")
    wide = KINDS["wide"]
    expected = wide(on, run=None, progress=False)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    wide(on, run=None, progress=False)
    needed = torch.cuda.max_memory_allocated() - before
    total = torch.cuda.get_device_properties(0).total_memory
    failed = []
    full = memory.is_out_of_memory
    monkeypatch.setattr(memory, "is_out_of_memory", lambda error: failed.append(1) or full(error))
    for share in (0.6, 0.02):
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction((before + share * needed) / total)
        try:
            found = wide(on, run=tmp_path / f"run {share}", progress=False)
        except ModelError:
            torch.cuda.set_per_process_memory_fraction(1.0)
            found = wide(on, run=tmp_path / f"run {share}", progress=False)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        assert failed
        assert torch.allclose(found.values, expected.values, atol=1e-4)
        assert runs.verify(tmp_path / f"run {share}") == []
        failed.clear()


def test_weights_that_are_no_numbers_are_told_again_and_lose_nothing(
    nursery: Nursery, tmp_path: Path
) -> None:
    folder, log = tmp_path / "run", tmp_path / "log"
    sentences = set()
    for _ in range(2):
        known = recorded(folder)
        assert nursery.sweep(folder, log, nan=True) == 1
        sentences.add(said(log))
        assert known <= recorded(folder)
        assert known.isdisjoint(computed(log))
        assert runs.verify(folder) == []
    (sentence,) = sentences
    assert sentence.startswith("MetricError: ")
    assert "is NaN for prompt" in sentence
    before = runs.info(folder)
    assert nursery.sweep(folder, log) == 1  # with weights that are mended
    assert "is another run: weights_hash was " in said(log)
    assert runs.info(folder) == before


def test_clocks_on_the_wall_that_jump_change_nothing(nursery: Nursery, tmp_path: Path) -> None:
    """`time.time`, `time.time_ns` and `datetime.now` lie in each process, and so do the files.

    What no clock on the wall may decide: who holds a run, what is resumed, and the order of what
    happened.
    """
    folder, log = tmp_path / "run", tmp_path / "log"
    moments = random.Random(0)
    for turn in range(6):
        known = recorded(folder)
        moment = (moments.randrange(1, 6), moments.uniform(0, 0.01), signal.SIGINT)
        assert nursery.sweep(folder, log, [moment], clocks=turn) == 130
        assert known.isdisjoint(computed(log))
        assert known <= recorded(folder)
    assert nursery.sweep(folder, log, clocks=6) == 0
    require_whole(folder, nursery.whole())
    history = runs.info(folder).history
    assert len({each["at"][:4] for each in history}) > 2  # the clocks did lie
    told = [each["what"].split(" with ")[0] for each in history]
    assert told == ["begun", *["stopped by KeyboardInterrupt", "resumed"] * 6, "done"]
