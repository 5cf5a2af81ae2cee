"""What a folder says about its run, without touching it; and how it is removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp.errors import RunError, RunHeld
from interp.runs.chunk_files import PARTIAL, Damaged, check, counted, read_chunks
from interp.runs.ledger import LEDGER, Ledger
from interp.runs.run import CHUNKS, LOCK, locked

OURS = {LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm", CHUNKS, LOCK}


@dataclass(frozen=True)
class RunInfo:
    """A run as its ledger tells it.

    Attributes:
        folder: Where it is.
        state: "done"; "running", if its process lives; else "stopped", and it can be resumed.
        done: Chunks that are recorded.
        chunks: All there will be; None where it was stopped before it was planned.
        bytes: Of the files of chunks and the result.
        identity: What makes it this run.
        command: The shell line that starts and resumes it; None if it was begun from Python.
        result: Name of the file of the whole result; None before it is done.
        history: What happened: at (UTC), process, what.
    """

    folder: Path
    state: str
    done: int
    chunks: int | None
    bytes: int
    identity: dict[str, Any]
    command: str | None
    result: str | None
    history: list[dict[str, Any]]


def is_run(folder: str | Path) -> bool:
    """Whether a folder holds a ledger; a folder that cannot be read holds none."""
    return os.path.isfile(Path(folder) / LEDGER)


def info(folder: str | Path) -> RunInfo:
    """What the ledger of a run says. Raises RunError for a folder without one, or a damaged one."""
    folder = Path(folder)
    with _ledger(folder) as ledger:
        result = ledger.result()
        files = [file for file, _ in ledger.files()]
        state = "running" if ledger.get("holder", dict) is not None and _held(folder) else "stopped"
        return RunInfo(
            folder=folder,
            state="done" if result is not None and state == "stopped" else state,
            done=len(ledger.done()),
            chunks=ledger.get("settled chunks", int),
            bytes=sum(file.bytes for file in [*files, *([] if result is None else [result])]),
            identity=ledger.get("identity", dict) or {},
            command=ledger.get("command", str),
            result=None if result is None else result.name,
            history=ledger.history(),
        )


def settled(folder: str | Path, name: str, kind: type) -> Any:
    """What a run has settled under a name; None if nothing. Raises RunError as `info` does."""
    with _ledger(Path(folder)) as ledger:
        return ledger.get(f"settled {name}", kind)


def recorded(folder: str | Path) -> set[int]:
    """The numbers of the chunks that a run has recorded. Raises RunError as `info` does."""
    with _ledger(Path(folder)) as ledger:
        return ledger.done()


def find(folder: str | Path) -> list[Path]:
    """The runs in a folder, in folders in it, and in folders in these, by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise RunError(f"{folder} is no folder; name one in which there are runs.")
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise RunError(
            f"{folder} cannot be read ({error.strerror}); name a folder that you may read."
        ) from error
    below = [each for within in inside for each in within.glob("*")]
    return [each for each in (folder, *sorted([*inside, *below])) if is_run(each)]


def verify(folder: str | Path) -> list[str]:
    """Read everything that a run recorded; one sentence for each file that is not what it was.

    Raises RunError for a folder that is no run, or whose ledger is damaged.
    """
    folder = Path(folder)
    found = []
    with _ledger(folder) as ledger:
        for file, numbers in ledger.files():
            try:
                held = read_chunks(folder / CHUNKS, file).keys()
                if not numbers <= held:
                    raise Damaged("lacks a chunk that the ledger places in it")
            except Damaged as damage:
                name = folder / CHUNKS / file.name
                found.append(
                    f"{name} {damage}; resuming computes what it held again, "
                    f"{counted(len(numbers))}."
                )
        result = ledger.result()
        if result is not None:
            try:
                check(folder, result)
            except Damaged as damage:
                found.append(f"{folder / result.name} {damage}; resuming writes it again.")
    return found


def result_of(folder: str | Path) -> Path:
    """The file of the whole result of a run that is done.

    Raises RunError for a run that is not done, and for a result that is damaged.
    """
    folder = Path(folder)
    with _ledger(folder) as ledger:
        result, chunks = ledger.result(), ledger.get("settled chunks", int)
        if result is None:
            of = "" if chunks is None else f" of {chunks:,}"
            raise RunError(
                f"{folder} is not done, with {len(ledger.done()):,}{of} chunks; start it again to "
                "finish it, then export it."
            )
        try:
            check(folder, result)
        except Damaged as damage:
            raise RunError(
                f"{folder / result.name} {damage}; start the run again, which writes it anew."
            ) from damage
    return folder / result.name


def remove(folder: str | Path) -> None:
    """Delete a run.

    Raises RunError for a folder that is no run or holds files that are not the run's, and for a
    run that a process is writing.
    """
    folder = Path(folder)
    with _ledger(folder) as ledger:
        result = ledger.get("result_name", str)
    names = sorted(path.name for path in folder.iterdir() if path.name not in {*OURS, result})
    foreign = [n for n in names if not (n.startswith(f".{result}.") and n.endswith(PARTIAL))]
    if foreign:
        raise RunError(
            f"{folder} holds {foreign[0]}, which is not of the run; move it away, then remove the "
            "run."
        )
    with locked(folder):
        shutil.rmtree(folder)


@contextmanager
def _ledger(folder: Path) -> Iterator[Ledger]:
    if not is_run(folder):
        raise RunError(
            f"{folder} has no {LEDGER}, so it is no run; give a folder that --out or run= named."
        )
    ledger = Ledger(folder, write=False)
    try:
        yield ledger
    finally:
        ledger.close()


def _held(folder: Path) -> bool:
    """Whether a process holds the lock; one that was killed does not."""
    try:
        with locked(folder):
            return False
    except RunHeld:
        return True
    except RunError:  # a folder that cannot be written
        return False
