"""A process that has loaded torch once, and forks a child for every sweep that is to be killed.

Reads one JSON line `{"folder", "log"}` after another; writes the child's process id, and then the
status with which it ended. The child appends the number of every chunk it has computed to the log,
and writes to the run after every few.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from typing import Any

import torch

from interp.engine import Mean, Zero, everywhere, memory, run
from interp.errors import RunError
from interp.runs import Run
from interp.runs import run as store
from interp.sites import heads, mlps, resid
from tests.activations.samples import model, prompts


def interventions(tiny: Any) -> list[Any]:
    sites = [*heads(tiny), *mlps(tiny), *resid(tiny)]
    return everywhere(sites, Zero()) + everywhere(sites, Mean())


def sweep(folder: str | None, log: str | None = None, *, pace: float = 0.004) -> Any:
    """The sweep that is killed; with a log, slowly, and written often."""
    memory.CPU_TOKENS = 8  # one or two interventions in a chunk
    if log is not None:
        keep = Run.keep

        def noted(self: Run, number: int, chunk: Any) -> None:
            with open(log, "a") as file:
                file.write(f"{number}\n")
            time.sleep(pace)
            keep(self, number, chunk)

        Run.keep = noted  # type: ignore[method-assign]
        store.PAUSE, store.SHARE = 0.01, 0  # type: ignore[attr-defined]
    tiny = model("gpt2")
    return run(tiny, prompts(), interventions(tiny), run=folder, progress=False)


def child(task: dict[str, str]) -> int:
    try:
        sweep(task["folder"], task["log"])
    except KeyboardInterrupt:
        return 130
    except RunError as error:
        print(error, file=sys.stderr, flush=True)
        return 1
    return 0


def main() -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    sweep(None)  # all is imported, built and warm before the first fork
    print("ready", flush=True)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 70
            try:
                code = child(json.loads(line))
            finally:
                os._exit(code)
        print(pid, flush=True)
        print(os.waitpid(pid, 0)[1], flush=True)


if __name__ == "__main__":
    main()
