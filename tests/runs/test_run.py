"""The store on its own: who may open a run, what is kept, and what is refused."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp import runs
from interp.errors import RunError, RunHeld
from interp.runs import Run
from interp.runs import run as store
from interp.runs.identity import differences
from tests.runs.conftest import opened, refill

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=3),
    max_leaves=8,
)


def test_what_is_kept_is_there_again_bit_for_bit(tmp_path: Path) -> None:
    kept = {number: torch.randn(3, 5, dtype=torch.float64) for number in range(7)}
    with opened(tmp_path) as run:
        assert not run.resumed
        for number, values in kept.items():
            run.keep(number, {"values": values, "count": torch.tensor([number])})
    with opened(tmp_path) as run:
        assert run.resumed
        assert run.done == set(kept)
        found = dict(run.chunks())
    assert all(torch.equal(found[number]["values"], kept[number]) for number in kept)
    assert [found[number]["count"].item() for number in sorted(found)] == list(range(7))


def test_a_chunk_with_a_nan_is_no_result(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        run.keep(0, {"values": torch.tensor([1.0])})
        run.keep(1, {"values": torch.tensor([torch.nan])})
    assert runs.recorded(tmp_path) == {0}


def test_one_slow_write_puts_off_the_next_for_half_a_minute_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    written = store.write_chunks

    def slow(*what: Any) -> Any:
        now[0] += 100
        return written(*what)

    with opened(tmp_path) as run:
        monkeypatch.setattr(store, "write_chunks", slow)
        now[0] += 2
        run.keep(0, {"values": torch.tensor([0.0])})
        now[0] += 29
        run.keep(1, {"values": torch.tensor([1.0])})
        assert runs.recorded(tmp_path) == {0}
        now[0] += 2
        run.keep(2, {"values": torch.tensor([2.0])})
        assert runs.recorded(tmp_path) == {0, 1, 2}


def test_what_was_settled_first_holds(tmp_path: Path) -> None:
    with opened(tmp_path) as run:
        assert run.settle("batch", 64) == 64
    with opened(tmp_path) as run:
        assert run.settle("batch", 128) == 64


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"model": "other"}, "model was 'tiny' and is 'other'"),
        ({"prompts": {"n": 4, "hash": "b"}}, "prompts.hash was 'a' and is 'b'"),
        ({"extra": 1}, "extra was nothing and is 1"),
    ],
)
def test_another_run_is_refused_and_the_difference_is_named(
    tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    refill(tmp_path, 3)
    before = runs.info(tmp_path)
    with pytest.raises(RunError, match="is another run") as refused:
        opened(tmp_path, **changed)
    assert named in str(refused.value)
    assert runs.info(tmp_path) == before


@given(JSON, JSON)
def test_two_descriptions_differ_if_and_only_if_something_is_named(was: Any, now: Any) -> None:
    assert differences({"all": was}, {"all": was}) == []
    if isinstance(was, dict) or isinstance(now, dict):
        return  # empty dictionaries say nothing
    assert bool(differences({"all": was}, {"all": now})) == (repr(was) != repr(now))


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds notes\.txt and no ledger\.sqlite"):
        opened(tmp_path)
    with pytest.raises(RunError, match="is a file; give a folder"):
        opened(tmp_path / "notes.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_second_process_is_refused_and_told_which_the_first_is(tmp_path: Path) -> None:
    code = (
        "import sys; from interp.runs import Run\n"
        "run = Run(sys.argv[1], kind='test', result='all.safetensors', identity={})\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    folder = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"},
    ) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        with pytest.raises(RunHeld, match=f"is being written by process {first.pid} on "):
            Run(folder, kind="test", result="all.safetensors", identity={})
        assert runs.info(folder).state == "running"
        with pytest.raises(RunHeld):
            runs.remove(folder)
        first.kill()
        first.wait()
    assert runs.info(folder).state == "stopped"
    with Run(folder, kind="test", result="all.safetensors", identity={}) as run:
        assert run.resumed


def test_a_lock_that_a_killed_process_left_holds_nobody_up(tmp_path: Path) -> None:
    (tmp_path / "lock").write_text("process 1 on elsewhere")
    refill(tmp_path, 2)
    assert runs.recorded(tmp_path) == {0, 1}


@pytest.mark.skipif(os.name != "posix", reason="flock is of POSIX")
@pytest.mark.parametrize("why", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_refused(
    why: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `flock` answers on some network disks; the disk here is one that has locks."""

    def flock(*_: Any) -> None:
        raise OSError(why, os.strerror(why))

    monkeypatch.setattr("fcntl.flock", flock)
    with pytest.raises(RunError, match=r"has no locks .* give a folder on another disk"):
        opened(tmp_path / "run")
    monkeypatch.undo()
    refill(tmp_path / "run", 1)


def test_removing_takes_a_run_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    refill(folder, 2)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match=r"holds notes\.txt, which is not of the run"):
        runs.remove(folder)
    (folder / "notes.txt").unlink()
    runs.remove(folder)
    assert not folder.exists()
    with pytest.raises(RunError, match=r"has no ledger\.sqlite, so it is no run"):
        runs.remove(tmp_path)


def test_runs_are_found_in_a_folder(tmp_path: Path) -> None:
    for name in ("b", "a"):
        refill(tmp_path / name, 1)
    (tmp_path / "other").mkdir()
    assert runs.find(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert runs.find(tmp_path / "a") == [tmp_path / "a"]
    with pytest.raises(RunError, match="is no folder"):
        runs.find(tmp_path / "c")


def test_a_result_that_is_whole_is_not_written_again(tmp_path: Path) -> None:
    def finish(content: bytes) -> None:
        with opened(tmp_path) as run:
            run.finish(lambda path: path.write_bytes(content))

    finish(b"first")
    finish(b"second")
    assert runs.result_of(tmp_path).read_bytes() == b"first"
    (tmp_path / "all.safetensors").write_bytes(b"harmed")
    finish(b"second")
    assert runs.result_of(tmp_path).read_bytes() == b"second"
