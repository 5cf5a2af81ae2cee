"""Runs whose ledger or chunks somebody else wrote: read, verified and asked for their result."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3
import struct
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from interp.errors import InterpError, RunError
from interp.results import load, place_of
from interp.runs import Run, find, info, result_of, verify
from interp.runs.chunk_files import LARGEST
from tests.closed import closed_folder
from tests.fuzz.hostile import BOMBS, ODD, mutations
from tests.fuzz.saved_results import same, sweep
from tests.fuzz.tensors import TENSOR_BOMBS

LEDGER = "ledger.sqlite"
CHUNK = "chunks/000000.safetensors"
FUZZ = settings(
    max_examples=100,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@cache
def whole() -> Path:
    """A run that is done."""
    folder = Path(mkdtemp()) / "run"
    with Run(
        folder, kind="x", result="x.safetensors", identity={"n": 3}, command="interp x"
    ) as run:
        for number in range(3):
            run.keep(number, {"values": torch.full((4,), float(number))})
        run.finish(sweep().save)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(whole(), tmp_path / "run")


READERS: tuple[Callable[[Path], Any], ...] = (info, verify, result_of, place_of, load)


def harmless(folder: Path, read: Callable[[Path], Any]) -> Any:
    """What reading a run gives, or None where it is refused in one sentence, in little time."""
    start = time.monotonic()
    try:
        return read(folder)
    except InterpError as error:
        said = str(error)
        assert folder.name in said
        assert said.isprintable(), said
        assert said[-1] in ".?", said
        return None
    finally:
        assert time.monotonic() - start < 20


def all_harmless(folder: Path) -> None:
    for read in READERS:
        harmless(folder, read)
    found = harmless(folder, info)
    assert found is None or repr(found)


def forge(folder: Path, *statements: str) -> None:
    """Change a ledger with SQL."""
    with closing(sqlite3.connect(folder / LEDGER)) as db, db:
        for statement in statements:
            db.execute(statement)


def note(folder: Path, key: str, value: Any) -> None:
    """Note a value under a key, with the checksum that is right for it."""
    text = json.dumps(value)
    digest = hashlib.sha256(f"{key}={text}".encode()).hexdigest()
    with closing(sqlite3.connect(folder / LEDGER)) as db, db:
        db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?, ?)", (key, text, digest))


def test_a_whole_run_is_read(folder: Path) -> None:
    assert info(folder).state == "done"
    assert verify(folder) == []
    assert same(load(folder), sweep())


@FUZZ
@given(data=st.data())
def test_a_damaged_ledger_is_read_or_refused(data: Any, folder: Path) -> None:
    for left in folder.glob("ledger.sqlite-*"):
        left.unlink()
    (folder / LEDGER).write_bytes(data.draw(mutations((whole() / LEDGER).read_bytes())))
    all_harmless(folder)


@FUZZ
@given(data=st.data())
def test_a_damaged_file_of_a_run_is_seen(data: Any, folder: Path) -> None:
    file = data.draw(st.sampled_from([CHUNK, "x.safetensors"]))
    shutil.copytree(whole(), folder, dirs_exist_ok=True)
    changed = data.draw(mutations((whole() / file).read_bytes()))
    (folder / file).write_bytes(changed)
    all_harmless(folder)
    told = verify(folder)
    assert bool(told) == (changed != (whole() / file).read_bytes())
    assert all(file in each for each in told)


KEYS = ("format", "identity", "result", "result_name", "holder", "command", "settled chunks")


@pytest.mark.parametrize("key", KEYS)
def test_notes_may_say_anything(key: str, folder: Path) -> None:
    for value in ODD:
        note(folder, key, value)
        all_harmless(folder)


@pytest.mark.parametrize("part", ["name", "bytes", "sha256"])
def test_the_file_of_the_result_may_be_anything(part: str, folder: Path) -> None:
    was = {"name": "x.safetensors", "bytes": 9, "sha256": "0"}
    for value in ODD:
        note(folder, "result", was | {part: value})
        all_harmless(folder)


def test_no_name_in_a_ledger_leads_out_of_the_run(folder: Path) -> None:
    for name in ("../x.safetensors", "/etc/passwd", "chunks/000000.safetensors", "..", ""):
        data = (whole() / "x.safetensors").read_bytes()
        (folder.parent / "x.safetensors").write_bytes(data)
        told = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "name": name}
        note(folder, "result", told)
        assert harmless(folder, result_of) is None
        found = harmless(folder, place_of)
        assert found is None or found.parent == folder
    for name in ("../000000.safetensors", "/etc/passwd", "000000.safetensors\n"):
        forge(folder, f"UPDATE files SET name = '{name}'", f"UPDATE chunks SET file = '{name}'")
        assert harmless(folder, verify) is None


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON meta BEGIN DELETE FROM chunks; END",
        "CREATE VIEW v AS SELECT load_extension('x') FROM meta",
        "CREATE TABLE more (a)",
        "CREATE INDEX i ON files (bytes)",
        "ALTER TABLE files ADD COLUMN more AS (length(name) * 10000000000)",
        "DROP TABLE history",
        "DROP TABLE meta",
    ],
)
def test_a_ledger_with_other_tables_is_refused(statement: str, folder: Path) -> None:
    forge(folder, statement)
    for read in (info, verify, result_of):
        assert harmless(folder, read) is None


def test_a_view_in_the_place_of_a_table_is_refused(folder: Path) -> None:
    forge(
        folder,
        "ALTER TABLE chunks RENAME TO old",
        "CREATE VIEW chunks AS WITH RECURSIVE n(number) AS (SELECT 1 UNION ALL SELECT number + 1 "
        "FROM n) SELECT number, '000000.safetensors' AS file FROM n",
    )
    for read in (info, verify, result_of):
        assert harmless(folder, read) is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE files SET bytes = 'many'",
        "UPDATE files SET bytes = -1",
        "UPDATE files SET bytes = 9223372036854775807",
        "UPDATE files SET bytes = 1e300",
        "UPDATE files SET bytes = zeroblob(100)",
        "UPDATE files SET sha256 = x'00ff'",
        "UPDATE files SET sha256 = zeroblob(70000000)",
        "UPDATE files SET name = 7",
        "UPDATE files SET name = zeroblob(70000000)",
        "UPDATE chunks SET file = x'ff'",
        "UPDATE chunks SET number = number - 9223372036854775000",
        "INSERT INTO chunks VALUES (99, 'nowhere')",
        "UPDATE history SET at = x'fffe'",
        "UPDATE history SET what = CAST(x'fffe' AS TEXT)",
        "UPDATE history SET process = 'x' || char(10)",
        "UPDATE meta SET value = zeroblob(70000000)",
        "UPDATE meta SET value = CAST(x'fffe' AS TEXT)",
        "UPDATE meta SET sha256 = 7",
        "PRAGMA user_version = 99",
        "PRAGMA application_id = 99",
        "PRAGMA journal_mode = DELETE",
        "WITH RECURSIVE n(i) AS (SELECT 3 UNION ALL SELECT i + 1 FROM n LIMIT 300000) "
        "INSERT INTO chunks SELECT i, '000000.safetensors' FROM n",
    ],
)
def test_cells_may_hold_anything(statement: str, folder: Path) -> None:
    forge(folder, statement)
    all_harmless(folder)


@pytest.mark.parametrize("page", [512, 65536])
@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_other_pages_and_encodings_are_read_or_refused(
    page: int, encoding: str, folder: Path
) -> None:
    with closing(sqlite3.connect(folder / LEDGER)) as db:
        tables = [sql for (sql,) in db.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL")]
        rows = {
            name: [*db.execute(f"SELECT * FROM {name}")] for name in ("chunks", "files", "meta")
        }
    (folder / LEDGER).unlink()
    for left in folder.glob("ledger.sqlite-*"):
        left.unlink()
    with closing(sqlite3.connect(folder / LEDGER)) as db, db:
        db.execute(f"PRAGMA page_size = {page}")
        db.execute(f"PRAGMA encoding = '{encoding}'")
        for sql in tables:
            db.execute(sql)
        for name, each in rows.items():
            for row in each:
                db.execute(f"INSERT INTO {name} VALUES ({', '.join('?' * len(row))})", row)
    all_harmless(folder)


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_in_the_place_of_a_ledger_are_refused(bomb: str, folder: Path) -> None:
    (folder / LEDGER).unlink()
    BOMBS[bomb](folder / LEDGER)
    for read in (info, verify, result_of):
        assert harmless(folder, read) is None


@pytest.mark.parametrize("bomb", BOMBS | TENSOR_BOMBS)
def test_bombs_in_the_place_of_a_chunk_are_seen(bomb: str, folder: Path) -> None:
    (folder / CHUNK).unlink()
    (BOMBS | TENSOR_BOMBS)[bomb](folder / CHUNK)
    assert any(CHUNK in each for each in verify(folder))


@pytest.mark.parametrize("key", ["values", "x/values", "-1/values", "\u0663/values", "9" * 5000])
def test_a_signed_chunk_may_hold_anything(key: str, folder: Path) -> None:
    data = save({key: torch.ones(1)})
    (folder / CHUNK).write_bytes(data)
    signed = hashlib.sha256(data).hexdigest()
    forge(folder, f"UPDATE files SET bytes = {len(data)}, sha256 = '{signed}'")
    assert any(CHUNK in each for each in verify(folder))


def test_a_write_ahead_log_of_somebody_else_is_harmless(folder: Path) -> None:
    for data in (b"", b"\x37\x7f\x06\x82" + struct.pack(">I", 3007000) + b"\xff" * 5000):
        (folder / f"{LEDGER}-wal").write_bytes(data)
        all_harmless(folder)


def test_reading_a_run_runs_no_code(folder: Path) -> None:
    """Nothing starts a process, opens a socket, or loads an extension."""
    seen: list[str] = []
    watching = True

    def watch(event: str, _: tuple[Any, ...]) -> None:
        outside = ("os.system", "subprocess.", "socket.", "sqlite3.load_extension", "pickle.")
        if watching and event.startswith(outside):
            seen.append(event)

    sys.addaudithook(watch)
    all_harmless(folder)
    watching = False
    assert not seen


@pytest.mark.parametrize("end", ["", "-wal", "-shm"])
def test_a_ledger_that_leads_elsewhere_is_refused_and_left(
    end: str, folder: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "mine.sqlite"
    with closing(sqlite3.connect(elsewhere)) as db, db:
        db.execute("CREATE TABLE mine (x)")
    before = elsewhere.read_bytes()
    (folder / f"{LEDGER}{end}").unlink(missing_ok=True)
    (folder / f"{LEDGER}{end}").symlink_to(elsewhere)
    for read in READERS:
        assert harmless(folder, read) is None
    with pytest.raises(RunError, match=rf"{LEDGER}{end} is no regular file"):
        resumed(folder)
    assert elsewhere.read_bytes() == before


def test_a_journal_that_names_a_file_takes_nothing_with_it(folder: Path, tmp_path: Path) -> None:
    """SQLite deletes the super-journal that a journal names once it has rolled back."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    journal(folder, victim)
    with pytest.raises(RunError, match=rf"{LEDGER}-journal lies beside it, which no run writes"):
        resumed(folder)
    all_harmless(folder)
    assert victim.read_bytes() == b"mine"


def journal(folder: Path, names: Path) -> None:
    """A ledger in the mode of journals, and beside it a hot one that names a file."""
    with closing(sqlite3.connect(folder / LEDGER)) as db:
        db.execute("PRAGMA journal_mode = DELETE")
        size = db.execute("PRAGMA page_size").fetchone()[0]
    pages, name = (folder / LEDGER).stat().st_size // size, str(names).encode()
    magic = bytes.fromhex("d9d505f920a163d7")
    header = magic + struct.pack(">IIIII", 0, 0, pages, 512, size)
    checksum = sum(signed - 256 if signed > 127 else signed for signed in name) & 0xFFFFFFFF
    end = struct.pack(">I", 2**30 // size + 1) + name
    end += struct.pack(">II", len(name), checksum) + magic
    (folder / f"{LEDGER}-journal").write_bytes(header.ljust(512, b"\0") + end)


def resumed(folder: Path) -> None:
    with Run(folder, kind="x", result="x.safetensors", identity={"n": 3}):
        pass


def test_a_ledger_of_another_program_is_not_changed(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / LEDGER)) as db, db:
        db.execute("CREATE TABLE mine (x)")
    before = (tmp_path / LEDGER).read_bytes()
    with pytest.raises(RunError, match="it has other tables"):
        resumed(tmp_path)
    assert (tmp_path / LEDGER).read_bytes() == before


def test_chunks_that_lead_elsewhere_are_refused(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "mine.partial").touch()
    shutil.rmtree(folder / "chunks")
    (folder / "chunks").symlink_to(elsewhere)
    with pytest.raises(RunError, match="chunks is a link, and leads out of the folder"):
        resumed(folder)
    assert [path.name for path in elsewhere.iterdir()] == ["mine.partial"]


@pytest.mark.parametrize("place", [CHUNK, "x.safetensors"])
@pytest.mark.parametrize("what", ["pipe", "device", "link", "folder"])
def test_what_is_no_file_is_not_waited_for(what: str, place: str, folder: Path) -> None:
    path = folder / place
    size, digest = 0, hashlib.sha256(b"").hexdigest()
    kept = path.rename(path.with_name("kept"))
    if what == "pipe":
        os.mkfifo(path)
    elif what == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if what == "device" else kept)
        size, digest = (0, digest) if what == "device" else (kept.stat().st_size, sha256(kept))
    if place == CHUNK:
        forge(folder, f"UPDATE files SET bytes = {size}, sha256 = '{digest}'")
    else:
        note(folder, "result", {"name": place, "bytes": size, "sha256": digest})
    assert "cannot be read (it is no regular file)" in verify(folder)[0]
    all_harmless(folder)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_chunks_beyond_all_measure_are_not_read(folder: Path) -> None:
    with (folder / CHUNK).open("r+b") as file:
        file.truncate(LARGEST + 1)
    forge(folder, f"UPDATE files SET bytes = {LARGEST + 1}")
    assert "and no more than 4,294,967,296 are read" in verify(folder)[0]


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E8M0"])
def test_numbers_of_a_kind_that_torch_has_not_are_damage(dtype: str, folder: Path) -> None:
    header = json.dumps(
        {"0/values": {"dtype": dtype, "shape": [8], "data_offsets": [0, 8]}}
    ).encode()
    (folder / CHUNK).write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    path = folder / CHUNK
    forge(folder, f"UPDATE files SET bytes = {path.stat().st_size}, sha256 = '{sha256(path)}'")
    assert len(verify(folder)) == 1


def test_a_folder_without_permission_is_told() -> None:
    with closed_folder() as folder:
        with pytest.raises(RunError, match=r"cannot be read \(Permission denied\)"):
            find(folder)
        with pytest.raises(RunError, match=r"has no ledger\.sqlite"):
            info(folder)
        assert find(folder.parent) == []


@pytest.mark.parametrize("place", ["meta.value", "files.name", "history.what"])
def test_text_that_is_no_text_is_damage(place: str, folder: Path) -> None:
    table, column = place.split(".")
    forge(folder, f"UPDATE {table} SET {column} = CAST(X'7BFF' AS TEXT)")
    with pytest.raises(RunError, match=r"The ledger of .* is damaged \('utf-8' codec"):
        info(folder) if table == "history" else resumed(folder)
    all_harmless(folder)
