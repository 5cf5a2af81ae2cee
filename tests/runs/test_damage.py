"""Files that are cut short, or lie: a run says so or mends itself, and no number is ever wrong."""

from __future__ import annotations

import os
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp import runs
from interp.errors import RunError
from tests.runs.conftest import VALUES, opened, refill, require_kept

COUNT = len(VALUES)
RESULT = "all.safetensors"
KINDS = ("chunk", "ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "lock", RESULT)


def flip(path: Path, byte: int, bit: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "deleted"])
def test_a_damaged_file_is_named_and_computed_again(tmp_path: Path, how: str) -> None:
    refill(tmp_path, COUNT)
    file = sorted((tmp_path / "chunks").iterdir())[1]
    if how == "flipped":
        flip(file, -1)
    elif how == "deleted":
        file.unlink()
    else:
        os.truncate(file, 0 if how == "emptied" else file.stat().st_size - 1)
    assert [str(file) in sentence for sentence in runs.verify(tmp_path)] == [True]
    with (
        opened(tmp_path) as run,
        pytest.warns(UserWarning, match=rf"{file.name} .* again, 1 chunk"),
    ):
        assert len(dict(run.chunks())) == COUNT - 1
    refill(tmp_path, COUNT)
    assert runs.verify(tmp_path) == []
    require_kept(tmp_path)
    assert any("1 chunk struck" in each["what"] for each in runs.info(tmp_path).history)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as a kill leaves it, with a file of every kind and most of its ledger in the -wal."""
    place = tmp_path_factory.mktemp("damage")
    with opened(place / "run") as run:
        run.settle("chunks", COUNT)
        for number, values in enumerate(VALUES):
            run.keep(number, {"values": values})
            if number % 3 == 2:
                run.flush()
        run.finish(lambda path: path.write_bytes(b"every value" * 100))
        shutil.copytree(place / "run", place / "killed")
    (place / "killed" / "lock").write_text("4711")  # flock asks for no content
    return place / "killed"


DAMAGE = st.one_of(
    st.tuples(st.just("flip"), st.integers(0, 2**20), st.integers(0, 7)),
    st.tuples(st.just("flip far"), st.integers(0, 2**20), st.integers(1, 60)),
    st.tuples(st.just("cut"), st.integers(0, 2**20), st.just(0)),
    st.tuples(st.just("zeros"), st.integers(0, 2**20), st.integers(1, 5000)),
    st.tuples(st.just("longer"), st.integers(0, 2**20), st.integers(1, 5000)),
    st.tuples(st.just("gone"), st.just(0), st.just(0)),
)


def damage(file: Path, how: str, place: int, much: int) -> None:
    """Do to a file what disks, cables and people do."""
    data = bytearray(file.read_bytes())
    size = max(1, len(data))
    if how == "flip" and data:
        data[place % size] ^= 1 << much
    elif how == "flip far":
        for step in range(much if data else 0):
            data[(place + 97 * step * step) % size] ^= 1 << step % 8
    elif how == "cut":
        del data[place % size :]
    elif how == "zeros":
        data[place % size : place % size + much] = bytes(len(data[place % size :][:much]))
    elif how == "longer":
        data += bytes((place + step) % 256 for step in range(much))
    file.write_bytes(data)
    if how == "gone":
        file.unlink()


@settings(max_examples=20)
@pytest.mark.parametrize("kind", KINDS)
@given(harm=DAMAGE, other=st.none() | st.tuples(st.sampled_from(KINDS), DAMAGE))
def test_no_damage_to_any_file_makes_a_wrong_number(
    kind: str, harm: Any, other: Any, killed: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = killed.with_name("damaged")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(killed, folder)
    for name, (how, place, much) in [(kind, harm), *([] if other is None else [other])]:
        files = sorted((folder / "chunks").iterdir()) if name == "chunk" else [folder / name]
        file = files[place % len(files)]
        if file.exists():
            damage(file, how, place, much)
    looked = copy_of(folder)
    for look in (runs.info, runs.verify, runs.recorded, runs.result_of):
        found, refused = attempted(look, looked)
        assert "\n" not in refused
        if look is runs.recorded and not refused:
            assert found <= set(range(COUNT))
        if look is runs.result_of and not refused:
            assert found.read_bytes() == b"every value" * 100
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        _, refused = attempted(mend, folder)
    assert "\n" not in refused
    if refused:
        return
    assert all("computed again" in str(each.message) for each in told)
    assert runs.recorded(folder) == set(range(COUNT))
    assert [each for each in runs.verify(folder) if RESULT not in each] == []


def attempted(do: Callable[[Path], Any], folder: Path) -> tuple[Any, str]:
    """What came of it, and the sentence with which it was refused."""
    try:
        return do(folder), ""
    except RunError as error:
        return None, str(error)


def mend(folder: Path) -> None:
    """Go on with a run: what it has is what was put in, and what it lacks is put in again."""
    with opened(folder) as run:
        for number, chunk in run.chunks():
            assert torch.equal(chunk["values"], VALUES[number])
        for number in set(range(COUNT)) - run.done:
            run.keep(number, {"values": VALUES[number]})


def copy_of(folder: Path) -> Path:
    copy = folder.with_name("looked at")
    shutil.rmtree(copy, ignore_errors=True)
    return Path(shutil.copytree(folder, copy))


@pytest.mark.parametrize("kind", ["chunk", "ledger.sqlite"])
def test_damage_is_found_and_not_only_survived(kind: str, killed: Path) -> None:
    folder = copy_of(killed)
    chunks = sorted((folder / "chunks").iterdir())
    for file in chunks if kind == "chunk" else [folder / kind]:
        flip(file, file.stat().st_size // 2)
        flip(file, 0, 7)
    if kind == "chunk":
        assert len(runs.verify(folder)) == len(chunks)
    else:
        with pytest.raises(RunError, match="is damaged"):
            runs.info(folder)


@pytest.mark.parametrize("size", [0, 1, 100, 4096, 5000])
def test_a_ledger_cut_short_is_refused(tmp_path: Path, size: int) -> None:
    refill(tmp_path, COUNT)
    os.truncate(tmp_path / "ledger.sqlite", size)
    with pytest.raises(RunError, match=r"ledger of .* is damaged"):
        opened(tmp_path)
    with pytest.raises(RunError, match=r"ledger of .* is damaged"):
        runs.info(tmp_path)


def test_a_ledger_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").write_text("a page about ledgers\n" * 100)
    with pytest.raises(RunError, match="file is not a database"):
        opened(tmp_path)


def test_a_ledger_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    refill(tmp_path / "run", 2)
    with sqlite3.connect(tmp_path / "run" / "ledger.sqlite") as db:
        db.execute("UPDATE files SET name = '../../secret' WHERE name = '000000.safetensors'")
        db.execute("UPDATE chunks SET file = '../../secret' WHERE file = '000000.safetensors'")
    db.close()
    with pytest.raises(RunError, match=r"it names the file '\.\./\.\./secret'"):
        runs.verify(tmp_path / "run")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE files SET bytes = 'many'", "has no size and checksum"),
        ("UPDATE files SET sha256 = x'00'", "has no size and checksum"),
        ("UPDATE history SET at = x'00'", "its history is no history"),
        ("UPDATE meta SET value = '[]'", "its checksum differs"),
        ("DELETE FROM files", "which is no file"),
    ],
)
def test_a_ledger_that_says_nonsense_is_refused(tmp_path: Path, statement: str, why: str) -> None:
    refill(tmp_path, 2)
    with sqlite3.connect(tmp_path / "ledger.sqlite") as db:
        db.execute(statement)
    db.close()
    with pytest.raises(RunError, match=why):
        runs.info(tmp_path)
