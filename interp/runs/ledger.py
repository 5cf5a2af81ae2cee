"""The ledger of a run: who it is, which chunks are on the disk, and what happened, in SQLite."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import stat
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from interp.errors import RunError, one_line
from interp.runs.chunk_files import NAMES, PARTIAL, Written, sync_folder

LEDGER = "ledger.sqlite"
BESIDE = ("", "-wal", "-shm", "-journal")
"""How the names of the files end that SQLite makes of one."""
PARTIALS = tuple(f"{LEDGER}{PARTIAL}{end}" for end in BESIDE)
"""A ledger that is being made."""
FORMAT = {"format": "interp.Run", "version": 1}
LONGEST = 2**26
"""Bytes of the longest value that is read: a thousand times what is ever noted."""
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
            if write and not (folder / LEDGER).exists():
                _create(folder)
            _require_own_files(folder)
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

    def get(self, key: str, kind: type) -> Any:
        """What is noted under a key, which is of that kind; None if nothing is."""
        with self._said():
            row = self.db.execute("SELECT value, sha256 FROM meta WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value, digest = row
        try:
            if hashlib.sha256(f"{key}={value}".encode()).hexdigest() != digest:
                raise ValueError("its checksum differs")
            found = json.loads(value)
            if found is not None and not isinstance(found, kind):
                raise ValueError(f"it is no {kind.__name__}")
        except (ValueError, TypeError, RecursionError) as error:
            raise _damaged(self.folder, f"{key}: {error}") from error
        return found

    def note(self, happened: str | None = None, **notes: Any) -> None:
        """Note values under keys, and what happened in the history."""
        with self._said(), self.db:
            rows = [_noted(key, value) for key, value in notes.items()]
            self.db.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", rows)
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

    def start_again(self) -> None:
        """Forget what was settled, the result and the command."""
        with self._said(), self.db:
            self.db.execute(
                "DELETE FROM meta WHERE key LIKE 'settled %' OR key IN ('result', 'command')"
            )

    def done(self) -> set[int]:
        """The chunks that are entered."""
        with self._said():
            return {number for (number,) in self.db.execute("SELECT number FROM chunks")}

    def files(self) -> list[tuple[Written, set[int]]]:
        """The files, and the chunks that each holds."""
        with self._said():
            rows = self.db.execute("SELECT * FROM files ORDER BY name").fetchall()
            files = [self._written(*row) for row in rows]
            held: dict[str, set[int]] = {file.name: set() for file in files}
            for number, name in self.db.execute("SELECT number, file FROM chunks"):
                if name not in held:
                    raise _damaged(self.folder, f"chunk {number} is in {name!r}, which is no file")
                held[name].add(number)
        for file in files:
            if not NAMES.fullmatch(file.name):
                raise _damaged(self.folder, f"it names the file {file.name!r}")
        return [(file, held[file.name]) for file in files]

    def result(self) -> Written | None:
        """The file of the whole result, which lies in the folder itself; None before there is."""
        noted = self.get("result", dict)
        if noted is None:
            return None
        file = self._written(*map(noted.get, ("name", "bytes", "sha256")))
        plain = Path(file.name).name == file.name and file.name.isprintable()
        if not plain or file.name in ("", ".."):
            raise _damaged(self.folder, f"it names the result {file.name!r}")
        return file

    def history(self) -> list[dict[str, Any]]:
        """What happened: at (UTC), process, what."""
        with self._said():
            rows = self.db.execute(
                "SELECT at, process, what FROM history ORDER BY rowid"
            ).fetchall()
        if any(tuple(map(type, row)) != (str, int, str) for row in rows):
            raise _damaged(self.folder, "its history is no history")
        return [dict(zip(("at", "process", "what"), row, strict=True)) for row in rows]

    def _written(self, name: Any, size: Any, sha256: Any) -> Written:
        if (type(name), type(size), type(sha256)) != (str, int, str):
            raise _damaged(self.folder, f"of {name!r} it has no size and checksum")
        return Written(name, size, sha256)

    def _check(self) -> None:
        """Raise RunError unless this is a whole ledger of ours."""
        db = self.db
        db.text_factory = bytes.decode  # or sqlite3 calls what is no UTF-8 an error of the disk
        db.execute("PRAGMA trusted_schema = OFF")
        db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
        found = db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL ORDER BY name")
        if tuple(sql for (sql,) in found) != TABLES:
            raise _damaged(self.folder, "it has other tables")
        trouble = [text for (text,) in db.execute("PRAGMA quick_check(1)")]
        if trouble != ["ok"]:
            raise _damaged(self.folder, trouble[0])
        if self.write:
            db.execute("PRAGMA synchronous = FULL")
        if (said := self.get("format", dict)) != FORMAT:
            raise RunError(
                f"{self.folder} is written in the format {said} and this interp reads {FORMAT}; "
                "use the version that wrote it, or start the run again in another folder."
            )

    @contextmanager
    def _said(self) -> Iterator[None]:
        """Errors of SQLite as sentences."""
        try:
            yield
        except (sqlite3.OperationalError, OSError) as error:
            if self.write:
                raise cannot_be_written(self.folder, error) from error
            raise _damaged(self.folder, str(error)) from error
        except (sqlite3.DatabaseError, OverflowError, UnicodeDecodeError) as error:
            raise _damaged(self.folder, str(error)) from error


def _create(folder: Path) -> None:
    """Make an empty ledger, which appears whole or not at all. Raises OSError, sqlite3.Error."""
    for name in PARTIALS:  # of a process that was killed
        (folder / name).unlink(missing_ok=True)
    partial = folder / f"{LEDGER}{PARTIAL}"
    with closing(sqlite3.connect(partial)) as db:
        db.execute("PRAGMA journal_mode = MEMORY")
        with db:
            for sql in TABLES:
                db.execute(sql)
            db.execute("INSERT INTO meta VALUES (?, ?, ?)", _noted("format", FORMAT))
        db.execute("PRAGMA journal_mode = WAL")  # now, so that a journal never lies beside it
    os.replace(partial, folder / LEDGER)
    sync_folder(folder)


def _require_own_files(folder: Path) -> None:
    """Raise RunError for files that lead out of the folder.

    Links do, and SQLite deletes the file that a journal names: a ledger of ours has none.
    """
    for end in BESIDE:
        path = folder / f"{LEDGER}{end}"
        try:
            kind = path.lstat().st_mode
        except FileNotFoundError:
            continue
        if end == "-journal":
            raise _damaged(folder, f"{path.name} lies beside it, which no run writes")
        if not stat.S_ISREG(kind):
            raise _damaged(folder, f"{path.name} is no regular file")


def _noted(key: str, value: Any) -> tuple[str, str, str]:
    """A row of meta."""
    text = json.dumps(value)
    return key, text, hashlib.sha256(f"{key}={text}".encode()).hexdigest()


def _connect(path: Path, write: bool) -> sqlite3.Connection:
    """Open a ledger; one that is read is neither made nor changed."""
    if write:
        return sqlite3.connect(path, timeout=30)
    db = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:  # the folder is read-only, and so has no shared memory
        db.close()
        db = _copied(path)
    return db


def _copied(path: Path) -> sqlite3.Connection:
    """A ledger in memory, with what stands in its -wal alone. Raises OSError, sqlite3.Error."""
    memory = sqlite3.connect(":memory:")
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        for file in (path, path.with_name(f"{path.name}-wal")):
            if file.exists():
                shutil.copy(file, folder)
        with closing(sqlite3.connect(Path(folder) / path.name)) as db:
            db.backup(memory)
    return memory


def cannot_be_written(folder: Path, error: Exception) -> RunError:
    """What is raised when the disk refuses."""
    why = getattr(error, "strerror", None) or error
    return RunError(
        f"The run {folder} cannot be written ({why}), and what it holds is kept; see that the "
        "folder can be written and the disk has room, then start it again as before."
    )


def _damaged(folder: Path, why: str) -> RunError:
    return RunError(
        f"The ledger of {folder} is damaged ({one_line(why)}), so that it does not say what is "
        f"done; restore {LEDGER} from a copy, or start the run again in another folder."
    )
