"""Pipes that nobody reads, or that are full: a command ends quietly, and its run is whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from interp import runs

SWEEP = ("sweep", "polymath", "--task", "ioi", "--n", "4", "--out")
LONG = ("--sites", "neurons:0", "--top", 600, "--json")
"""Prints more than a pipe holds."""


def start(*arguments: object, **pipes: Any) -> subprocess.Popen[bytes]:
    """A command in a process of its own; what it says is kept, unless `pipes` says otherwise."""
    return subprocess.Popen(
        [sys.executable, "-m", "interp", *map(str, arguments)],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "",  # with it Python itself loses what a pipe took no more
        },
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **pipes},
    )


def read(process: subprocess.Popen[bytes]) -> tuple[bytes, str]:
    """What is left to read on stdout, and what was said on stderr."""
    with process:
        out, said = process.communicate(timeout=120)
    return out or b"", (said or b"").decode()


def require_done(folder: Path) -> None:
    assert runs.info(folder).state == "done"
    assert runs.verify(folder) == []


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep that is done, whose printed result nobody waited for."""
    folder = tmp_path_factory.mktemp("pipes") / "run"
    process = start(*SWEEP, folder, *LONG)
    assert process.stdout is not None
    assert process.stdout.read(10) == b'{\n  "metri'  # as `| head -c 10` does
    process.stdout.close()
    with process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
    assert process.returncode == 1
    assert said == f"Wrote {folder}/sweep.safetensors\n"
    return folder


def test_a_sweep_whose_reader_goes_away_is_whole(done: Path) -> None:
    require_done(done)


def test_a_command_that_nobody_reads_is_silent(done: Path) -> None:
    ours, its = os.pipe()
    os.close(ours)  # as `| true` does
    process = start("runs", "show", done, stdout=its)
    os.close(its)
    assert read(process) == (b"", "")
    assert process.returncode == 1


def test_a_reader_that_sleeps_gets_everything(done: Path) -> None:
    process = start(*SWEEP, done, *LONG)
    assert process.stderr is not None
    assert process.stderr.readline().startswith(b"Resuming: ")
    assert process.stderr.readline() == f"Wrote {done}/sweep.safetensors\n".encode()
    time.sleep(2)  # by now the pipe is full, and the command waits
    assert process.poll() is None
    out, said = read(process)
    assert (process.returncode, said) == (0, "")
    assert len(out) > 2**16
    assert len(json.loads(out)["top"]) == 512


def test_a_sweep_whose_stderr_is_closed_does_its_work(tmp_path: Path) -> None:
    # what is opened next gets the number of stderr, and nothing may write there
    process = start(
        *SWEEP, tmp_path / "run", "--sites", "mlps", "--json", preexec_fn=lambda: os.close(2)
    )
    out, _ = read(process)
    assert process.returncode == 0
    assert len(json.loads(out)["top"]) == 6
    require_done(tmp_path / "run")


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_under_stdout_is_one_line(done: Path, options: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        process = start("runs", "show", done, *options, stdout=full)
        assert read(process) == (b"", "Error: [Errno 28] No space left on device\n")
    assert process.returncode == 1
    require_done(done)


def test_a_command_with_nowhere_to_print_ends_well(done: Path) -> None:
    process = start("runs", "show", done, preexec_fn=lambda: os.closerange(0, 3))
    assert read(process) == (b"", "")
    assert process.returncode == 0
    require_done(done)
