"""A scan or an evaluation that is killed at random moments, and begun again until it is done.

`python -m tests.stopped WHAT FOLDER` loads everything once, and forks a child for each attempt. The
child appends the number of every chunk to a log before it goes into the run. Printed is a JSON list
with one object an attempt: how it ended, what was recorded before, and what it computed.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from interp import runs
from interp.circuits import Circuit, Evaluation, evaluate
from interp.engine import graph
from interp.heads import HeadAtlas, scan, scan_work
from interp.runs import Run
from interp.runs import run as store
from interp.zoo import handmade
from tests.parity.compare import model, pairs

ROOT = Path(__file__).parents[1]
KILLS = 4


def a_scan(folder: Path | None = None, **how: Any) -> HeadAtlas:
    """Ten detectors, of which some cannot be asked, and three claims."""
    with Small():
        return scan(handmade.ALL["induction"]().model, n=3, run=folder, progress=False, **how)


def an_evaluation(folder: Path | None = None, **how: Any) -> Evaluation:
    """Two circuits and their controls, in many small batches."""
    none = Circuit.from_edges(model("gpt2"), [])
    drawn = torch.rand(2, len(none.kept), generator=torch.Generator().manual_seed(0)) < 0.6
    circuits = {name: none.keeping(kept) for name, kept in zip("ab", drawn, strict=True)}
    options = {"ablation": "mean", "over": "position", "random": 9, "run": folder, **how}
    with Small():
        return evaluate(model("gpt2"), pairs(), circuits, progress=False, **options)


class Small:
    """Claims on few prompts, and few circuits at once."""

    def __enter__(self) -> None:
        self.before = scan_work.PROMPTS, graph.HELD
        scan_work.PROMPTS, graph.HELD = 4, 30_000

    def __exit__(self, *_: object) -> None:
        scan_work.PROMPTS, graph.HELD = self.before


def killed(what: str, folder: Path) -> list[dict[str, Any]]:
    """What `python -m tests.stopped` prints, run in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.stopped", what, str(folder)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ended.stdout)


def main(what: str, folder: Path) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    work = {"scan": a_scan, "evaluation": an_evaluation}[what]
    work()  # all is imported, built and warm before the first fork
    moments, log = random.Random(what), folder.with_suffix(".log")
    attempts: list[dict[str, Any]] = []
    while not attempts or attempts[-1]["ended"]:
        log.write_text("")
        known = sorted(runs.recorded(folder)) if runs.is_run(folder) else []
        pid = os.fork()
        if pid == 0:
            _child(work, folder, log)
        if len(attempts) < KILLS:
            more = moments.randrange(1, 4)
            while len(_numbers(log)) < more and not _has_ended(pid):
                time.sleep(0.001)
            time.sleep(moments.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
        ended = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert ended in (0, -signal.SIGKILL), ended
        attempts.append({"ended": ended, "known": known, "computed": _numbers(log)})
    print(json.dumps(attempts))


def _child(work: Any, folder: Path, log: Path) -> None:
    """Begin the work, or go on with it; written often, and slowly enough to be met anywhere."""
    keep = Run.keep

    def noted(self: Run, number: int, chunk: Any) -> None:
        with log.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(0.02)
        keep(self, number, chunk)

    Run.keep = noted  # type: ignore[method-assign]
    store.PAUSE, store.SHARE = 0.01, 0
    code = 70
    try:
        work(folder)
        code = 0
    finally:
        os._exit(code)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _numbers(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
