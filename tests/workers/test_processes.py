"""A process of its own with a cluster: stopped by Ctrl-C, without Ray, with nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from interp import runs

ROOT = Path(__file__).parents[2]
INTERRUPTED = """
import sys
from interp.models import Model
from interp.runs import Run
from interp.workers import Ray, kept_and_computed
from tests.families import tiny, tiny_tokenizer
from tests.workers.works import Logits, prompts

model = Model(tiny("gpt2"), tiny_tokenizer(), id="tiny")
with Run(sys.argv[1], kind="test", result="all.safetensors", identity={}) as run:
    engine = Ray(workers=2, cpus=0.5)
    for number, _ in kept_and_computed(engine, model, Logits(0.05), prompts(9000), run):
        print(number, flush=True)
"""
MISSING = """
import sys
sys.modules["ray"] = None  # as where it is not installed
from interp.errors import ClusterError
from interp.workers import Ray
try:
    Ray().compute(None, None, [(0, 0)]).__next__()
except ClusterError as error:
    print(error)
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.mark.slow
def test_ctrl_c_ends_it_at_once_and_keeps_what_came(tmp_path: Path) -> None:
    process = started(INTERRUPTED, str(tmp_path))
    assert process.stdout is not None
    came = [int(process.stdout.readline()) for _ in range(10)]
    family = psutil.Process(process.pid).children(recursive=True)
    assert any("raylet" in each.name() for each in family)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to every process
    start = time.monotonic()
    out, told = process.communicate(timeout=120)
    assert told.splitlines()[-1] == "KeyboardInterrupt"
    assert set(came) | {int(line) for line in out.splitlines()} <= runs.recorded(tmp_path)
    _, alive = psutil.wait_procs(family, timeout=15)
    assert not alive
    print(f"ended after {time.monotonic() - start:.1f} s")


def test_without_ray_it_is_told_how_to_get_it() -> None:
    process = started(MISSING)
    out, told = process.communicate(timeout=120)
    assert (process.returncode, told) == (0, "")
    assert out == ("A cluster needs Ray, which is not installed; pip install interp[cluster].\n")
