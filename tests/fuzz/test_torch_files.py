"""Files of `torch.save` from strangers: no code, no great memory, no tensors that are not there."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

from interp.circuits.eap_format import write_eap
from interp.torch_file import read_torch_file
from tests.fuzz.hostile import FUZZ, ODD, assert_harmless, assert_refused, mutations
from tests.fuzz.originals import circuit, read_eap_file

MOST = 2**20


def read_tensors(path: Path) -> str:
    return str(type(read_torch_file(path, most=MOST, way_out="give another one")))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return write_eap(circuit(), tmp_path / "c.pt", d_model=8)


def with_parts(path: Path, change: Callable[[str, bytes], bytes], **options: Any) -> None:
    """Pack an archive anew, with other contents of its parts."""
    packed = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(packed, "w", **options) as copy:
        for part in archive.infolist():
            copy.writestr(part.filename, change(part.filename, archive.read(part)))
    path.write_bytes(packed.getvalue())


def test_any_pickle_is_read_or_refused(saved: Path) -> None:
    whole = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        pickled = next(each for each in archive.namelist() if each.endswith("data.pkl"))
        data = archive.read(pickled)

    @FUZZ
    @given(mutations(data))
    def changed(data: bytes) -> None:
        saved.write_bytes(whole)
        with_parts(saved, lambda name, part: data if name == pickled else part)
        assert_harmless(read_eap_file, saved)

    changed()


class Touching:
    """Makes a file when it is unpickled by a loader that runs code."""

    def __init__(self, by: Callable[..., Any], *told: Any) -> None:
        self.by, self.told = by, told

    def __reduce__(self) -> Any:
        return self.by, self.told


@pytest.mark.parametrize("place", ["cfg", "src_nodes", "edges_scores", "interp", "unknown"])
@pytest.mark.parametrize("by", [os.system, os.mkdir, eval, exec, __import__, open, getattr])
def test_code_in_a_pickle_is_not_run(
    saved: Path, tmp_path: Path, place: str, by: Callable[..., Any]
) -> None:
    canary = tmp_path / "canary"
    told = {
        os.system: (f"touch {canary}",),
        os.mkdir: (str(canary),),
        open: (str(canary), "w"),
        getattr: ("x", "upper"),
        __import__: ("antigravity",),
    }.get(by, (f"__import__('os').mkdir({str(canary)!r})",))
    data = torch.load(saved, weights_only=True)
    torch.save(data | {place: Touching(by, *told)}, saved)
    canary.rmdir() if canary.is_dir() else canary.unlink(missing_ok=True)
    assert_refused(read_eap_file, saved, match="more than tensors")
    assert not canary.exists()


def everything_shares(depth: int = 60) -> list[Any]:
    """A list whose text would have 2 ** depth words, in few bytes."""
    inner: list[Any] = ["ha"]
    for _ in range(depth):
        inner = [inner, inner]
    return inner


def holds_itself() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


TENSORS: dict[str, Callable[[], Any]] = {
    "a trillion numbers that are one": lambda: torch.zeros(1).expand(10**6, 10**6),
    "as many rows, without columns": lambda: torch.zeros(10**12, 0),
    "sparse": lambda: torch.sparse_coo_tensor(torch.zeros(2, 1).long(), [1.0], (10**9, 10**9)),
    "compressed rows": lambda: torch.eye(7, 15).to_sparse_csr(),
    "quantised": lambda: torch.quantize_per_tensor(torch.zeros(7, 15), 0.1, 0, torch.qint8),
    "without storage": lambda: torch.zeros(7, 15, device="meta"),
    "complex": lambda: torch.zeros(7, 15, dtype=torch.complex64),
    "eight bits": lambda: torch.zeros(7, 15).to(torch.float8_e4m3fn),
    "a parameter": lambda: torch.nn.Parameter(torch.zeros(7, 15)),
    "turned around": lambda: torch.zeros(15, 7).T,
    "all one number": lambda: torch.zeros(()).expand(7, 15),
    "negated while it is read": lambda: torch._neg_view(torch.ones(7, 15)),
    "not a number": lambda: torch.full((7, 15), torch.nan),
    "infinite": lambda: torch.full((7, 15), -torch.inf),
    "too large for float32": lambda: torch.full((7, 15), 1e300, dtype=torch.float64),
    "a list without end": holds_itself,
    "a list of a trillion words": everything_shares,
    "a dictionary of them": lambda: {"a": everything_shares()},
    "bytes": lambda: bytearray(1000),
    "a set": lambda: {1, 2},
}
READ = ("eight bits", "a parameter", "turned around", "all one number", "negated while it is read")


@pytest.mark.filterwarnings("ignore")  # torch warns of sparse and quantised tensors
@pytest.mark.parametrize("place", ["edges_scores", "edges_in_graph", "src_nodes", "cfg", "interp"])
@pytest.mark.parametrize("name", TENSORS)
def test_odd_tensors_are_read_or_refused(saved: Path, name: str, place: str) -> None:
    data = torch.load(saved, weights_only=True)
    odd = TENSORS[name]()
    if place == "cfg":
        odd = {key: odd for key in data["cfg"]}
    del data["scored"]  # else only those without a score may be odd
    torch.save(data | {place: odd}, saved)
    outcome = assert_harmless(read_eap_file, saved)
    expected = place == "edges_scores" and name in (*READ, "not a number")
    assert (outcome.refused is None) == expected, outcome


@pytest.mark.parametrize("place", ["cfg", "src_nodes", "edges_scores", "nodes_in_graph", "interp"])
def test_odd_entries_are_refused(saved: Path, place: str) -> None:
    whole = torch.load(saved, weights_only=True)
    for odd in ODD:
        torch.save(whole | {place: odd}, saved)
        outcome = assert_harmless(read_eap_file, saved)
        assert outcome.refused or (place, odd) == ("interp", "null")  # as in files of others


def test_flags_that_are_neither_true_nor_false_are_true(saved: Path) -> None:
    data = torch.load(saved, weights_only=True)
    was = data["edges_in_graph"]
    odd = (was.to(torch.uint8) * 0x55).view(torch.bool)
    before = assert_harmless(read_eap_file, saved).result
    torch.save(data | {"edges_in_graph": odd}, saved)
    assert assert_harmless(read_eap_file, saved).result == before


@pytest.mark.parametrize("numbers", [5, 10**3, 10**6, 2**31 - 1])
def test_a_storage_that_announces_more_than_it_holds_is_refused(
    tmp_path: Path, numbers: int
) -> None:
    path = tmp_path / "t.pt"
    torch.save({"x": torch.ones(4)}, path)
    more = b"J" + struct.pack("<i", numbers)

    def grown(name: str, part: bytes) -> bytes:
        if not name.endswith("data.pkl"):
            return part
        assert part.count(b"K\x04t") == part.count(b"K\x00K\x04\x85") == 1
        part = part.replace(b"K\x04t", more + b"t")
        return part.replace(b"K\x00K\x04\x85", b"K\x00" + more + b"\x85")

    with_parts(path, grown)
    assert_refused(read_tensors, path, match="more than tensors")


# Archives


def test_a_packed_archive_is_read_and_a_bomb_is_not(saved: Path) -> None:
    with_parts(saved, lambda name, part: part, compression=zipfile.ZIP_DEFLATED)
    assert assert_harmless(read_eap_file, saved).refused is None
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data/99", bytes(MOST))
    assert saved.stat().st_size < MOST // 10
    assert_refused(read_tensors, saved, match="no more than 1,048,576 are needed")


def test_a_part_that_is_larger_than_it_says_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data/99", bytes(2**26))
    size = struct.pack("<I", 2**26)
    data = saved.read_bytes()
    assert data.count(size) >= 2  # before the part, and in the directory
    saved.write_bytes(data.replace(size, struct.pack("<I", 100)))
    assert_refused(read_eap_file, saved)


def test_a_directory_that_two_readers_see_otherwise_is_no_way_in(saved: Path) -> None:
    """Python goes by where the directory ends, others by where it is said to begin."""
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data.pkl", bytes(2**26))
    inner = bomb.getvalue()
    whole = saved.read_bytes()
    start = inner.rindex(b"PK\x01\x02")
    end = bytearray(whole[whole.rindex(b"PK\x05\x06") :])
    end[16:20] = struct.pack("<I", start)  # the bomb's directory, from the beginning of the file
    saved.write_bytes(inner + whole[: whole.rindex(b"PK\x05\x06")] + bytes(end))
    assert_harmless(read_eap_file, saved)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_parts_of_one_name_are_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(archive.namelist()[0], b"other")
    assert_refused(read_eap_file, saved, match="two parts of one name")


@pytest.mark.parametrize("name", ["../../escaped", "/tmp/escaped", "C:\\escaped", "c/data/../0"])
def test_names_in_an_archive_choose_no_place(saved: Path, tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        archive.writestr(name, b"escaped")
    assert_harmless(read_eap_file, saved)
    assert [each.name for each in tmp_path.iterdir()] == ["c.pt"]
    assert not (tmp_path.parent.parent / "escaped").exists()


def test_many_parts_are_refused_or_read(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive:
        for i in range(5_000):
            archive.writestr(f"c/data/{i + 100}", b"")
    assert_harmless(read_eap_file, saved)
