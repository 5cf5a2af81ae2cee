"""A run that is open: what is recorded, and where new results go.

A folder of these files:

ledger.sqlite        who the run is, which chunks are done in which file with which checksum
chunks/NNNNNN.safetensors   the values, a second's worth of chunks in each
lock                 held by the process that writes

The file of the whole result joins them when all is done.
"""

from __future__ import annotations

import errno
import json
import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from interp.errors import RunError, RunHeld
from interp.runs.chunk_files import (
    PARTIAL,
    Chunk,
    Damaged,
    Written,
    check,
    counted,
    read_chunks,
    sign,
    write_chunks,
)
from interp.runs.identity import differences, require_same
from interp.runs.ledger import LEDGER, PARTIALS, Ledger, cannot_be_written

CHUNKS, LOCK = "chunks", "lock"
PAUSE = 1.0
"""Seconds between two files, at least: what a kill can cost."""
GLANCE = 0.2
"""Seconds for which a process that only asks whether a run is held may be waited for."""
SHARE = 50
"""Writing a file takes at most one part in this many of the time between two,"""
LONGEST_PAUSE = 30.0
"""unless that would be more seconds than this."""
FULL = 2**28
"""Bytes of chunks that do not wait any longer."""


class Run:
    """A run that is open for writing, in one process at a time. Use it as a context.

    >>> import tempfile, torch
    >>> folder = Path(tempfile.mkdtemp()) / "squares"
    >>> with Run(folder, kind="squares", result="all.safetensors", identity={"count": 3}) as run:
    ...     run.keep(1, {"values": torch.tensor([1.0])})
    >>> with Run(folder, kind="squares", result="all.safetensors", identity={"count": 3}) as run:
    ...     sorted(run.done), [chunk["values"].item() for _, chunk in run.chunks()]
    ([1], [1.0])

    Leaving the context writes what is waiting, also after an error or an interrupt.

    Args:
        folder: New, empty, or that of this run.
        kind: What the run computes, such as "sweep".
        result: Name that the file of the whole result will have in the folder.
        identity: What makes it this run and no other, as plain JSON values.
        command: The shell line that starts and resumes it, if there is one.

    Attributes:
        done: Chunks that are recorded, by number.
        resumed: Whether it had been begun before.

    Raises:
        RunError: The folder holds something else, a run of another identity (the message names
            every difference), or a damaged ledger; it cannot be written; or another process
            writes it.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        kind: str,
        result: str,
        identity: Mapping[str, Any],
        command: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self._waiting: dict[int, Chunk] = {}
        self._bytes = 0
        self._failed = False
        self._result = self.folder / result
        require_run_or_empty(self.folder)
        self._lock = locked(self.folder)
        try:
            self._ledger = Ledger(self.folder, write=True)
            try:
                self._begin(kind, result, dict(identity), command)
            except BaseException:
                self._ledger.close()
                raise
        except BaseException:
            self._lock.release()
            raise

    def _begin(self, kind: str, result: str, identity: dict[str, Any], command: str | None) -> None:
        was = self._ledger.get("identity", dict)
        self.resumed = was is not None
        now = json.loads(json.dumps({"kind": kind, **identity}))
        if self.resumed and not self._ledger.files() and differences(was, now):
            self._ledger.start_again()  # nothing is lost: a call may have been wrong, and mended
            self.resumed = False
        if self.resumed:
            require_same(self.folder, was, now)
        try:
            (self.folder / CHUNKS).mkdir(exist_ok=True)
            if (self.folder / CHUNKS).is_symlink():
                raise OSError(f"{CHUNKS} is a link, and leads out of the folder")
            for left in (self.folder / CHUNKS).glob(f"*{PARTIAL}"):  # of a process that was killed
                left.unlink()
        except OSError as error:
            raise cannot_be_written(self.folder, error) from error
        self.done = self._ledger.done()
        names = [int(Path(file.name).stem) for file, _ in self._ledger.files()]
        self._next_file = max(names, default=-1) + 1
        told = {} if command is None else {"command": command}
        what = f"resumed with {counted(len(self.done))}" if self.resumed else "begun"
        self._ledger.note(what, identity=now, result_name=result, holder=_this_process(), **told)
        self._written, self._pause = time.monotonic(), PAUSE

    def settle(self, name: str, value: Any) -> Any:
        """The plain JSON value that was first noted under a name: this one, if there was none.

        What depends on the machine's state when the run begins, and decides its numbers, is the
        same ever after.
        """
        before = self._ledger.get(f"settled {name}", type(value))
        if before is None:
            self._ledger.note(**{f"settled {name}": value})
            return value
        return before

    def chunks(self) -> Iterator[tuple[int, Chunk]]:
        """Every chunk that is recorded, with its tensors.

        Those of a damaged file are taken out of the ledger, with a warning: they are to be
        computed again.
        """
        for file, numbers in self._ledger.files():
            try:
                found = read_chunks(self.folder / CHUNKS, file)
                if not numbers <= found.keys():
                    raise Damaged("lacks a chunk that the ledger places in it")
            except Damaged as damage:
                self._ledger.strike(file.name, f"{damage}; {counted(len(numbers))} struck")
                self.done -= numbers
                warnings.warn(
                    f"{self.folder / CHUNKS / file.name} {damage}; what it held is computed again, "
                    f"{counted(len(numbers))}.",
                    stacklevel=2,
                )
            else:
                yield from ((number, found[number]) for number in sorted(numbers))

    def keep(self, number: int, chunk: Chunk) -> None:
        """Take in a chunk; it is written, with those that came before, every second or so.

        A chunk with a NaN is not recorded: it is no result, and is computed again.
        """
        self._waiting[number] = chunk
        self._bytes += sum(tensor.nbytes for tensor in chunk.values())
        if time.monotonic() - self._written >= self._pause or self._bytes >= FULL:
            self.flush()

    def flush(self) -> None:
        """Write what is waiting. Raises RunError if the disk refuses."""
        start = time.monotonic()
        whole = {
            number: {name: tensor.cpu().contiguous() for name, tensor in chunk.items()}
            for number, chunk in self._waiting.items()
            if number not in self.done
        }
        whole = {
            number: chunk
            for number, chunk in whole.items()
            if not any(tensor.isnan().any() for tensor in chunk.values())
        }
        if whole:
            number, self._next_file = self._next_file, self._next_file + 1
            try:
                file = write_chunks(self.folder / CHUNKS, number, whole)
                self._ledger.record(file, whole)
            except OSError as error:
                self._failed = True
                raise cannot_be_written(self.folder, error) from error
            except RunError:
                self._failed = True
                raise
        self.done |= whole.keys()
        self._waiting.clear()
        self._bytes = 0
        self._written = time.monotonic()
        self._pause = min(max(PAUSE, SHARE * (self._written - start)), LONGEST_PAUSE)

    def finish(self, write: Callable[[Path], Any]) -> None:
        """`write` writes the whole result to a path, in one step, once all chunks are recorded.

        Where some gave no numbers the run stays open, and computes them when it is started again.
        Nothing is written where the result is there and whole: a full disk could only harm it.
        Raises RunError if the disk refuses.
        """
        self.flush()
        if len(self.done) < (self._ledger.get("settled chunks", int) or 0):
            return
        signed = self._written_result()
        if signed is None:
            try:
                write(self._result)
                signed = sign(self._result)
            except (OSError, SafetensorError) as error:
                self._failed = True
                raise cannot_be_written(self.folder, error) from error
        self._ledger.note("done", result=vars(signed))

    def _written_result(self) -> Written | None:
        """The result, if it was written before and is undamaged."""
        found = self._ledger.result()
        try:
            if found is not None:
                check(self.folder, found)
        except Damaged:
            return None
        return found

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if not self._failed:
                self.done = self._ledger.done()  # an interrupt may have come before it was told
                self.flush()
                ended = None if error is None else f"stopped by {type(error).__name__}"
                self._ledger.note(ended, holder=None)
        finally:
            self._ledger.close()
            self._lock.release()


def require_run_or_empty(folder: Path) -> None:
    """Raise RunError for a folder that holds something else, and for a file."""
    if not folder.exists() or (folder / LEDGER).is_file():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; give a folder for the run.")
    begun = {LOCK, *PARTIALS}  # a kill may come before there is a ledger
    foreign = sorted(path.name for path in folder.iterdir() if path.name not in begun)
    if foreign:
        raise RunError(
            f"{folder} holds {foreign[0]} and no {LEDGER}, so it is no run and nothing is written "
            "there; give a new or an empty folder."
        )


def locked(folder: Path) -> FileLock:
    """The lock of a run, held. Raises RunError if another process holds it, or none can be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # what stands in for locks elsewhere outlives a process that is killed
        lock = FileLock(folder / LOCK, timeout=GLANCE, fallback_to_soft=False)
        lock.acquire(poll_interval=GLANCE / 10)
    except Timeout:
        raise RunHeld(
            f"{folder} is being written by {_holder(folder)}; wait for it, stop it, or give "
            "another folder."
        ) from None
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            raise RunError(
                f"The disk of {folder} has no locks ({error.strerror}), which keep two processes "
                "from writing one run; give a folder on another disk."
            ) from error
        raise cannot_be_written(folder, error) from error
    return lock


def _holder(folder: Path) -> str:
    """The process that writes a run, in words."""
    try:
        ledger = Ledger(folder, write=False)
        holder = ledger.get("holder", dict)
        ledger.close()
    except RunError:
        holder = None
    if holder is None:
        return "another process"
    return f"process {holder.get('process')} on {holder.get('machine')}"


def _this_process() -> dict[str, Any]:
    return {"process": os.getpid(), "machine": platform.node()}
