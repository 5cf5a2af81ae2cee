"""The ledger of a run: who it is, which chunks are on the disk, and what happened, in SQLite."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from interp.errors import RunError
from interp.runs.chunk_files import NAMES, Written

LEDGER = "ledger.sqlite"
FORMAT = {"format": "interp.Run", "version": 1}
TABLES = (
    "CREATE TABLE chunks (number INTEGER PRIMARY KEY, file TEXT NOT NULL)",
    "CREATE TABLE files (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, sha256 TEXT NOT NULL)",
    "CREATE TABLE history (at TEXT NOT NULL, process INTEGER NOT NULL, what TEXT NOT NULL)",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, sha256 TEXT NOT NULL)",
)


class Ledger:
    """An open ledger. Every method that writes is one transaction: it happens whole or not at all.

    Raises RunError where the file is damaged, is of something else, or cannot be written.
    """

    def __init__(self, folder: Path, *, write: bool) -> None:
        self.folder, self.write = folder, write
        with self._said():
            self.db = _connect(folder / LEDGER, write)
        try:
            with self._said():
                self._check()
        except BaseException:
            self.db.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self.db.close()

    def get(self, key: str) -> Any:
        """What is noted under a key; None if nothing is."""
        with self._said():
            row = self.db.execute("SELECT value, sha256 FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value, digest = row
        try:
            if hashlib.sha256(f"{key}={value}".encode()).hexdigest() != digest:
                raise ValueError("its checksum differs")
            return json.loads(value)
        except (ValueError, AttributeError, RecursionError) as error:
            raise _damaged(self.folder, f"{key}: {error}") from error

    def note(self, happened: str | None = None, **notes: Any) -> None:
        """Note values under keys, and what happened in the history."""
        with self._said(), self.db:
            for key, value in notes.items():
                text = json.dumps(value)
                digest = hashlib.sha256(f"{key}={text}".encode()).hexdigest()
                self.db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, digest))
            if happened is not None:
                now = datetime.now(UTC).isoformat(timespec="seconds")
                self.db.execute(
                    "INSERT INTO history VALUES (?, ?, ?)", (now, os.getpid(), happened)
                )

    def record(self, file: Written, chunks: Iterable[int]) -> None:
        """Enter chunks that are on the disk. One that is entered already is an error of ours."""
        with self._said(), self.db:
            row = (file.name, file.bytes, file.sha256)
            self.db.execute("INSERT INTO files VALUES (?, ?, ?)", row)
            rows = [(number, file.name) for number in chunks]
            self.db.executemany("INSERT INTO chunks VALUES (?, ?)", rows)

    def strike(self, file: str, why: str) -> None:
        """Take a damaged file and its chunks out."""
        with self._said(), self.db:
            self.db.execute("DELETE FROM chunks WHERE file = ?", (file,))
            self.db.execute("DELETE FROM files WHERE name = ?", (file,))
        self.note(f"{file} {why}")

    def done(self) -> set[int]:
        """The chunks that are entered."""
        with self._said():
            return {number for (number,) in self.db.execute("SELECT number FROM chunks")}

    def files(self) -> list[tuple[Written, set[int]]]:
        """The files, and the chunks that each holds."""
        with self._said():
            files = [Written(*row) for row in self.db.execute("SELECT * FROM files ORDER BY name")]
            held: dict[str, set[int]] = {file.name: set() for file in files}
            for number, name in self.db.execute("SELECT number, file FROM chunks"):
                if name not in held:
                    raise _damaged(self.folder, f"chunk {number} is in {name!r}, which is no file")
                held[name].add(number)
        for file in files:
            if not isinstance(file.name, str) or not NAMES.fullmatch(file.name):
                raise _damaged(self.folder, f"it names the file {file.name!r}")
        return [(file, held[file.name]) for file in files]

    def history(self) -> list[dict[str, Any]]:
        """What happened: at (UTC), process, what."""
        with self._said():
            rows = self.db.execute(
                "SELECT at, process, what FROM history ORDER BY rowid"
            ).fetchall()
        return [dict(zip(("at", "process", "what"), row, strict=True)) for row in rows]

    def _check(self) -> None:
        """Raise RunError unless this is a whole ledger of ours; make the tables of a new one."""
        db = self.db
        db.execute("PRAGMA trusted_schema = OFF")
        if self.write:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = FULL")
        found = db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name")
        tables = tuple(sql for (sql,) in found)
        if self.write and not tables:
            if any((self.folder / "chunks").glob("*.safetensors")):
                raise _damaged(self.folder, "it is empty and there are chunks")
            with db:
                for sql in TABLES:
                    db.execute(sql)
            self.note(format=FORMAT)
        elif tables != TABLES:
            raise _damaged(self.folder, "it has other tables")
        trouble = [text for (text,) in db.execute("PRAGMA quick_check(1)")]
        if trouble != ["ok"]:
            raise _damaged(self.folder, trouble[0])
        if (said := self.get("format")) != FORMAT:
            raise RunError(
                f"{self.folder} is written in the format {said} and this interp reads {FORMAT}; "
                "use the version that wrote it, or start the run again in another folder."
            )

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Errors of SQLite as sentences."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if self.write:
                raise cannot_be_written(self.folder, error) from error
            raise _damaged(self.folder, str(error)) from error
        except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
            raise _damaged(self.folder, str(error)) from error


def _connect(path: Path, write: bool) -> sqlite3.Connection:
    """Open a ledger; one that is read is neither made nor changed."""
    if write:
        return sqlite3.connect(path, timeout=30)
    uri = f"{path.resolve().as_uri()}?mode=ro"
    db = sqlite3.connect(uri, uri=True, timeout=30)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:  # the folder is read-only, and so has no shared memory
        db.close()
        db = sqlite3.connect(f"{uri}&immutable=1", uri=True)
    return db


def cannot_be_written(folder: Path, error: Exception) -> RunError:
    """What is raised when the disk refuses."""
    why = getattr(error, "strerror", None) or error
    return RunError(
        f"The run {folder} cannot be written ({why}), and what it holds is kept; see that the "
        "folder can be written and the disk has room, then start it again as before."
    )


def _damaged(folder: Path, why: str) -> RunError:
    return RunError(
        f"The ledger of {folder} is damaged ({why}), so that it does not say what is done; restore "
        f"{LEDGER} from a copy, or start the run again in another folder."
    )
