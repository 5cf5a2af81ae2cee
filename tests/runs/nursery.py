"""A process that has loaded torch once, and forks a child for every sweep that meets a fault.

Where the system allows it, the process has file systems of its own (`unshare -rm`), so that it can
mount a disk that is small, or one that is read-only, and the mount goes when it goes.

It reads one line of JSON after another:

[TASK, ...]   forks a child for each Task, all at once; writes their process ids, then a line with a
              process id and the status for each that ends
{"look"}      writes what a run's folder says of it, read here, as JSON
{"do"}        runs a program, such as mount, with its arguments; writes "ok", or what went wrong
{"whole", "to"}   computes the sweep of a kind here, kept nowhere, and writes the result to a file

A child appends the number of every chunk it has computed to its log, and writes to its run after
every few. What it raises goes to the log's name with `.error`; the allocations that failed, a line
for each, to that with `.full`.
"""

from __future__ import annotations

import copy
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch

from interp import runs
from interp.engine import (
    Intervention,
    Mean,
    Patch,
    SweepResult,
    Zero,
    everywhere,
    memory,
    patch_edges,
    run,
)
from interp.errors import InterpError
from interp.models import Model
from interp.runs import Run, ledger
from interp.runs import run as store
from interp.sites import heads, mlps, neurons, resid
from tests.activations.samples import model, prompts


@dataclass(frozen=True)
class Task:
    """A sweep for a child.

    Attributes:
        folder: Of its run.
        log: Where it writes which chunks it has computed.
        kind: In KINDS.
        pace: Seconds that it waits at every chunk.
        spare: Megabytes that it may still take after its second chunk; None for all there are.
        clocks: Seed of a clock on the wall that jumps by years at every look; None for a true one.
        nan: Whether one of its weights is no number.
    """

    folder: str
    log: str
    kind: str = "zero and mean"
    pace: float = 0.004
    spare: float | None = None
    clocks: int | None = None
    nan: bool = False


def _zero_and_mean(tiny: Any) -> list[Intervention]:
    sites = [*heads(tiny), *mlps(tiny), *resid(tiny)]
    return everywhere(sites, Zero()) + everywhere(sites, Mean())


def _patch(tiny: Any) -> list[Intervention]:
    return everywhere([*heads(tiny), *resid(tiny), *neurons(1, 30)], Patch())


def _wide(tiny: Any) -> list[Intervention]:
    return everywhere([*neurons(0, 48), *neurons(1, 48), *resid(tiny)], Zero())


def own_metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 3] - logits[:, 4]


LONG = [[(7 * row + column) % 90 for column in range(60)] for row in range(55)]
KINDS: dict[str, Callable[..., SweepResult]] = {
    "zero and mean": lambda tiny, **to: run(tiny, prompts(), _zero_and_mean(tiny), **to),
    "patch": lambda tiny, **to: run(tiny, _paired(), _patch(tiny), direction="denoise", **to),
    "own metric": lambda tiny, **to: run(
        tiny, prompts(), _zero_and_mean(tiny), metric=own_metric, **to
    ),
    "edges": lambda tiny, **to: patch_edges(tiny, _paired(), **to),
    # a batch takes tens of megabytes
    "wide": lambda tiny, **to: run(tiny, prompts(rows=LONG), _wide(tiny), **to),
}


def _paired() -> Any:
    base = prompts()
    return replace(base, corrupt=torch.where(base.mask, base.clean + 40, base.clean))


def sweep(kind: str, folder: str | None, *, nan: bool = False) -> SweepResult:
    """The sweep of a kind, in chunks of one or two interventions."""
    memory.CPU_TOKENS = 2**17 if kind == "wide" else 8
    tiny = model("gpt2")
    if nan:
        tiny = Model(copy.deepcopy(tiny.hf), tiny.tokenizer, id=tiny.id)
        with torch.no_grad():
            next(tiny.hf.parameters())[3, 0] = torch.nan
    return KINDS[kind](tiny, run=folder, progress=False)


def child(task: Task) -> int:
    """Do a task; the exit code is as of the shell."""
    keep, taken = Run.keep, 0
    hoard: list[torch.Tensor] = []

    def noted(self: Run, number: int, chunk: Any) -> None:
        nonlocal taken
        taken += 1
        with open(task.log, "a") as file:
            file.write(f"{number}\n")
        if task.spare is not None and taken == 2:
            hoard.extend(_hoarded(task.spare))
        time.sleep(task.pace)
        keep(self, number, chunk)

    Run.keep = noted  # type: ignore[method-assign]
    store.PAUSE, store.SHARE = 0.01, 0  # type: ignore[attr-defined]
    full = memory.is_out_of_memory

    def counted(error: RuntimeError) -> bool:
        with open(f"{task.log}.full", "a") as file:
            file.write(f"{str(error).splitlines()[0]}\n")
        return full(error)

    memory.is_out_of_memory = counted
    if task.clocks is not None:
        _set_clocks(random.Random(task.clocks), Path(task.folder))
    try:
        sweep(task.kind, task.folder, nan=task.nan)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
        ours = isinstance(error, InterpError)
        said = f"{type(error).__name__}: {error}" if ours else traceback.format_exc()
        Path(f"{task.log}.error").write_text(said)
        return 1 if ours else 70
    return 0


def _hoarded(spare: float) -> list[torch.Tensor]:
    """All memory there is, so that, while this is held, there are so many megabytes and no more."""
    left = torch.empty(int(spare * 2**20), dtype=torch.uint8)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize(), -1))
    hoard = []
    for size in (2**24, 2**22, 2**20, 2**18):
        with suppress(RuntimeError):
            while True:
                hoard.append(torch.empty(size, dtype=torch.uint8))
    del left
    return hoard


def _set_clocks(chance: random.Random, folder: Path) -> None:
    """Every look at the wall clock of this process, and every file of the run, says another year.

    Clocks that only go forward, such as `time.monotonic`, are left alone: no administrator and no
    time server can set them.
    """
    really = time.time

    def lying() -> float:
        return really() + chance.uniform(-10, 10) * 365 * 86400

    class Lying(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.fromtimestamp(0, tz) + timedelta(seconds=lying())

    time.time, time.time_ns = lying, lambda: int(lying() * 1e9)
    ledger.datetime = Lying  # type: ignore[attr-defined]
    for path in folder.rglob("*"):
        os.utime(path, (lying(), lying()))


def fork(task: Task) -> int:
    """Start a child; its process id."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what runs at a fork swallows it
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            code = child(task)
        except KeyboardInterrupt:  # before the sweep began, or after it had ended
            code = 130
        finally:
            os._exit(code)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    return pid


def look(folder: str) -> dict[str, Any]:
    """What there is to read of a run."""
    if not runs.is_run(folder):
        return {"state": "none", "recorded": [], "damaged": []}
    recorded, damaged = sorted(runs.recorded(folder)), runs.verify(folder)
    return {"state": runs.info(folder).state, "recorded": recorded, "damaged": damaged}


def main() -> None:
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".* computed again")  # the log tells what was
    torch.set_num_threads(1)
    sweep("zero and mean", None)  # all is imported, built and warm before the first fork
    _say("ready")
    for line in sys.stdin:
        asked = json.loads(line)
        if isinstance(asked, list):
            pids = [fork(Task(**each)) for each in asked]
            _say(*pids)
            for _ in pids:
                _say(*os.wait())
        elif "look" in asked:
            _say(json.dumps(look(asked["look"])))
        elif "do" in asked:
            ended = subprocess.run(asked["do"], capture_output=True, text=True, check=False)
            _say(ended.stderr.strip() or "ok")
        else:
            sweep(asked["whole"], None).save(asked["to"])
            _say("ok")


def _say(*words: object) -> None:
    print(*words, flush=True)


def line_of(tasks: list[Task]) -> str:
    """Tasks as a line for a nursery."""
    return json.dumps([asdict(task) for task in tasks])


if __name__ == "__main__":
    main()
