"""Sweeps that meet one fault after another, for as long as asked: nothing is lost or wrong.

python -m tests.runs.soak --minutes 60 --seed 7

The faults are drawn from the seed; at which moment each strikes depends on the machine too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from tests.runs.conftest import (
    Moment,
    Nursery,
    computed,
    fell_out_of_memory,
    require_whole,
    said,
    told_out_of_memory,
)
from tests.runs.nursery import KINDS, Task

PAGE = 4096
ROOM = 2**14
"""Pages of a disk with room for any run."""
MOST = 15
"""Faults that a run meets before it is let be."""


@dataclass
class Tally:
    """What was tried and found."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    recorded: int = 0
    recomputed: int = 0
    wrong: int = 0

    def __str__(self) -> str:
        rows = [("seed", self.seed), *sorted(self.faults.items())]
        rows += [("all faults", self.faults.total())]
        rows += [(f"runs done: {kind}", count) for kind, count in sorted(self.done.items())]
        rows += [("chunks recorded", self.recorded), ("chunks recomputed", self.recomputed)]
        rows += [("wrong numbers", self.wrong)]
        return "\n".join(f"{name:32}{count:>8,}" for name, count in rows)


class Soak:
    """One run after another, each on a disk of its own where disks can be mounted."""

    def __init__(self, nursery: Nursery, place: Path, seed: int) -> None:
        self.nursery, self.place = nursery, place
        self.chance, self.tally = random.Random(seed), Tally(seed)
        self.log = place / "log"
        self.kind, self.disk, self.run = "", place, place

    def last(self, seconds: float) -> Tally:
        """Go on for so long; the run that is going on then is finished."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._one_run()
        return self.tally

    def _one_run(self) -> None:
        self.kind = self.chance.choice(list(KINDS))
        self.disk = self.place / "disk"
        self.run = self.disk / "run"
        self.disk.mkdir()
        faults = [self._kill, self._two_signals, self._two_processes, self._clocks, self._damage]
        if self.kind == "wide":
            faults.append(self._memory)
        if self.nursery.mounts:
            self.nursery.do("mount", "-t", "tmpfs", "-o", f"size={ROOM * PAGE}", "x", self.disk)
            faults.append(self._full_disk)
        for _ in range(self.chance.randrange(1, MOST)):
            self.chance.choice(faults)()
        assert self._sweep() == 0, said(self.log)
        self._require_whole()
        self.tally.done[self.kind] += 1
        self.tally.recorded += len(self._recorded())
        if self.nursery.mounts:
            self.nursery.do("umount", self.disk)
        shutil.rmtree(self.disk)

    def _require_whole(self) -> None:
        copy = shutil.copytree(self.nursery.inside(self.run), self.place / "copy")
        self.tally.wrong += 1
        require_whole(copy, self.nursery.whole(self.kind))
        self.tally.wrong -= 1
        shutil.rmtree(copy)

    def _recorded(self) -> set[int]:
        return set(self.nursery.look(self.run)["recorded"])

    def _sweep(self, *signals: Moment, **how: Any) -> int:
        """Go on with the run; what was recorded stays, and is not computed again."""
        known = self._recorded()
        ended = self.nursery.sweep(self.run, self.log, signals, kind=self.kind, **how)
        self._require_kept(known, [self.log])
        return ended

    def _require_kept(self, known: set[int], logs: Sequence[Path]) -> None:
        again = [number for log in logs for number in computed(log) if number in known]
        self.tally.recomputed += len(again)
        assert not again, f"computed again: {again}"
        lost = known - self._recorded()
        assert not lost, f"lost: {lost}"

    def _moment(self, number: int) -> Moment:
        return self.chance.randrange(6), self.chance.uniform(0, 0.03), number

    def _kill(self) -> None:
        ended = self._sweep(self._moment(signal.SIGKILL))
        assert ended in (0, -signal.SIGKILL), said(self.log)
        self.tally.faults["SIGKILL"] += 1

    def _two_signals(self) -> None:
        first = self.chance.choice([signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
        ended = self._sweep(self._moment(first), (0, self.chance.uniform(0, 0.01), signal.SIGINT))
        assert ended in (0, 130, -first, -signal.SIGINT), said(self.log)
        self.tally.faults[f"{first.name}, then Ctrl-C"] += 1

    def _two_processes(self) -> None:
        known = self._recorded()
        logs = [self.place / "log 1", self.place / "log 2"]
        codes = self.nursery.at_once([Task(str(self.run), str(log), self.kind) for log in logs])
        assert 0 in codes
        for code, log in zip(codes, logs, strict=True):
            assert code == 0 or "is being written by" in said(log)
        assert not set(computed(logs[0])) & set(computed(logs[1]))
        self._require_kept(known, logs)
        self.tally.faults["two processes"] += 1

    def _clocks(self) -> None:
        ended = self._sweep(self._moment(signal.SIGINT), clocks=self.chance.randrange(10**6))
        assert ended in (0, 130), said(self.log)
        self.tally.faults["clock jumps, then Ctrl-C"] += 1

    def _memory(self) -> None:
        ended = self._sweep(spare=self.chance.uniform(0, 48))
        if ended == 0:
            self.tally.faults["out of memory: done"] += 1
        elif told_out_of_memory(self.log):
            self.tally.faults["out of memory: told"] += 1
        else:
            assert fell_out_of_memory(ended, self.log), (ended, said(self.log))
            self.tally.faults["out of memory: fell"] += 1

    def _full_disk(self) -> None:
        disk = os.statvfs(self.nursery.inside(self.disk))
        pages = disk.f_blocks - disk.f_bfree + self.chance.randrange(40)
        pages = max(pages, 1)  # none would mean no limit at all, which cannot be taken back
        self.nursery.do("mount", "-o", f"remount,size={pages * PAGE}", self.disk)
        ended = self._sweep()
        assert ended == 0 or "and what it holds is kept" in said(self.log), said(self.log)
        self.nursery.do("mount", "-o", f"remount,size={ROOM * PAGE}", self.disk)
        self.tally.faults["disk full"] += 1

    def _damage(self) -> None:
        """Harm one file; if the run is refused, take it back from a copy, as the error says."""
        run = self.nursery.inside(self.run)
        files = sorted(path for path in run.rglob("*") if path.is_file()) if run.exists() else []
        if not files:
            return
        file = self.chance.choice(files)
        copy = shutil.copytree(run, self.place / "before")
        known = self._recorded()
        if file.suffix == ".safetensors":
            known -= _chunks_of(file)  # these are to be computed again
        elif file.name.startswith("ledger"):
            known = set()
        data = bytearray(file.read_bytes())
        if self.chance.random() < 0.3 or not data:
            del data[self.chance.randrange(len(data) + 1) :]
        else:
            for _ in range(self.chance.choice([1, 1, 30])):
                data[self.chance.randrange(len(data))] ^= 1 << self.chance.randrange(8)
        file.write_bytes(data)
        ended = self.nursery.sweep(self.run, self.log, kind=self.kind)
        if ended == 1 and "is damaged" in said(self.log):
            shutil.rmtree(run)
            shutil.copytree(copy, run)
        else:
            assert ended == 0, said(self.log)
            self._require_kept(known, [self.log])
            self._require_whole()
        shutil.rmtree(copy)
        what = "chunk" if file.parent.name == "chunks" else file.name
        self.tally.faults[f"damage: {what}"] += 1


def _chunks_of(file: Path) -> set[int]:
    """The numbers of the chunks in a file; of a result, or what was damaged before, none."""
    try:
        names = [name.split("/")[0] for name in load_file(file)]
    except SafetensorError:
        names = []
    return {int(name) for name in names if name.isdigit()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        soaked(Path(folder), asked.minutes, asked.seed)


def soaked(place: Path, minutes: float, seed: int) -> Tally:
    """Soak for so many minutes, and print the table, also if it ends with an error."""
    nursery = Nursery(place)
    soak = Soak(nursery, place, seed)
    try:
        return soak.last(60 * minutes)
    finally:
        print(soak.tally, flush=True)
        nursery.close()


if __name__ == "__main__":
    main()
