"""Files of `torch.save` from strangers: no code, no great memory, no tensors that are not there."""

from __future__ import annotations

import io
import os
import pickletools
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given

from interp.circuits.eap_format import write_eap
from interp.models.files import check_file
from interp.torch_file import MOST_STEPS, read_torch_file
from tests.fuzz.hostile import FUZZ, ODD, assert_harmless, assert_refused, mutations
from tests.fuzz.originals import circuit, read_eap_file

MOST = 2**21


def read_tensors(path: Path) -> str:
    return str(type(read_torch_file(path, most=MOST, way_out="give another one")))


def read_weights(path: Path) -> None:
    check_file(path.parent, path.name)


READERS = {".pt": read_tensors, ".bin": read_weights}


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


# Pickles that torch would follow into all of the memory


def state() -> dict[str, Any]:
    """The weights of a module that has some twice, and what torch keeps beside them."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    module.add_module("again", module[0])
    return module.state_dict()


def pickled(content: bytes) -> bytes:
    return b"\x80\x02" + content + b"."


def named(name: str) -> bytes:
    module, _, word = name.rpartition(".")
    return b"c" + f"{module}\n{word}\n".encode()


def number(value: int) -> bytes:
    return b"\x8a\x08" + struct.pack("<q", value)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


ORDERED, REBUILD = named("collections.OrderedDict"), named("torch._utils._rebuild_tensor_v2")
STORAGE = (
    b"(" + text("storage") + named("torch.FloatStorage") + text("0") + text("cpu") + b"K\x00tQ"
)
GREAT = b"}(" + b"".join(text(f"{i:04}") + b"N" for i in range(2_000)) + b"uq\x00"
DEEP = b"(K\x00tq\x00" + b"h\x00h\x00\x86q\x00" * 60
PICKLES = {
    "a great bytearray": (
        named("builtins.bytearray") * 2 + number(3 * 10**9) + b"\x85R\x85R",
        "it names builtins.bytearray",
    ),
    "a great storage": (
        named("torch.storage.UntypedStorage") + number(10**9) + b"\x85R",
        "no tensor",
    ),
    "copies of a dictionary": (
        b"](" + GREAT + (ORDERED + b"h\x00\x85R") * 2_000 + b"e",
        "no tensor",
    ),
    "a dictionary as attributes": (
        b"](" + GREAT + (ORDERED + b")Rh\x00b") * 2_000 + b"e",
        "no state_dict",
    ),
    "tensors of a thousand dimensions": (
        b"](" + b"(" + b"K\x01" * 1_000 + b"tq\x01" + STORAGE + b"q\x02"
        + (REBUILD + b"(h\x02K\x00h\x01h\x01\x89}t" + b"R") * 100 + b"e",
        "no tensor",
    ),
    "a key that takes for ever": (b"}" + DEEP + b"Ns", "keys are no text"),
    "numbers as keys": (b"}" + number(1) + b"Ns", "keys are no text"),
    "numbers as keys in one step": (b"}(" + number(1) + b"Nu", "keys are no text"),
    "a set": (b"\x8f", "a step EMPTY_SET"),
    "another protocol": (b"\x80\x04N", "protocol 4 and not 2"),
    "a name by its parts": (text("builtins") + text("bytearray") + b"\x93", "STACK_GLOBAL"),
    "a storage of no kind": (
        b"(" + text("storage") + named("torch.float32") + text("0") + b"tQ",
        "storage that is none",
    ),
    "a storage that is a number": (b"K\x01Q", "storage that is none"),
    "lists without end": (b"](" + b"]" * MOST_STEPS + b"e", "steps"),
    "no end": (b"N" + text("x")[:-2], "not whole"),
}  # fmt: skip


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("name", PICKLES)
def test_a_pickle_that_makes_more_than_tensors_is_refused(
    tmp_path: Path, name: str, ending: str
) -> None:
    path = tmp_path / f"x{ending}"
    torch.save({"x": torch.ones(4)}, path)
    content, said = PICKLES[name]
    whole = pickled(content)
    with_parts(path, lambda each, part: whole if each.endswith("data.pkl") else part)
    assert_refused(READERS[ending], path, match=said)


@pytest.mark.parametrize("place", range(5))
def test_so_is_one_in_any_place_of_an_old_file(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x.bin"
    torch.save({"x": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    file = io.BytesIO(path.read_bytes())
    parts = []
    for _ in range(5):
        start = file.tell()
        list(pickletools.genops(file))
        parts.append(file.getvalue()[start : file.tell()])
    for name in ("a great bytearray", "copies of a dictionary", "a set", "no end"):
        content, said = PICKLES[name]
        changed = [*parts[:place], pickled(content), *parts[place + 1 :]]
        path.write_bytes(b"".join(changed) + file.read())
        assert_refused(read_weights, path, match=said)


@pytest.mark.parametrize("new", [True, False])
def test_weights_are_read(tmp_path: Path, new: bool) -> None:
    odd = {"eight bits": torch.ones(3).to(torch.float8_e4m3fn), "half": torch.ones(2).half()}
    odd |= {"parameter": torch.nn.Parameter(torch.ones(2)), "none": torch.zeros(0, 4)}
    odd |= {"negated": torch._neg_view(torch.ones(2)), "turned": torch.ones(2, 3).T}
    for content in (state(), odd, {"told": [1, -(2**40), 0.5, None, True, ("a", [])], "x": {}}):
        path = tmp_path / "x.bin"
        torch.save(content, path, _use_new_zipfile_serialization=new)
        assert assert_harmless(read_weights, path).refused is None
        if new:
            found = read_torch_file(path, most=MOST, way_out="give another one")
            assert list(found) == list(content)
            assert {name: str(each) for name, each in found.items()} == {
                name: str(each) for name, each in content.items()
            }


# Archives


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_packed_archive_is_refused(tmp_path: Path, kind: int, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    torch.save({"x": torch.rand(4)}, path)
    with_parts(path, lambda name, part: part, compression=kind)
    assert_refused(READERS[ending], path, match="as torch.save packs nothing")


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("kind", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_part_that_is_larger_than_it_says_is_refused(
    tmp_path: Path, kind: int, ending: str
) -> None:
    path = tmp_path / f"x{ending}"
    with zipfile.ZipFile(path, "w", kind) as archive:
        archive.writestr("c/data.pkl", bytes(2**26))
    assert_refused(READERS[ending], path, match="would unpack to 67,108,864")
    size = struct.pack("<I", 2**26)
    data = path.read_bytes()
    assert data.count(size) >= 2  # before the part, and in the directory
    path.write_bytes(data.replace(size, struct.pack("<I", 100)))
    assert_refused(READERS[ending], path, match="as torch.save packs nothing")


def archive_of(parts: dict[str, bytes], kind: int = zipfile.ZIP_STORED) -> tuple[bytes, int]:
    """An archive, and where its directory begins."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", kind) as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return packed.getvalue(), archive.start_dir


PARTS = {"c/data.pkl": pickled(b"}"), "c/version": b"3\n"}


def test_parts_that_lie_in_one_place_are_refused(tmp_path: Path) -> None:
    data, start = archive_of({"c/data.pkl": bytes(2**18)})
    entry, end = data[start:-22], bytearray(data[-22:])
    entries = b"".join(entry.replace(b"c/", f"{i % 10}/".encode()) for i in range(4))
    end[12:16] = struct.pack("<I", len(entries))
    (tmp_path / "x.bin").write_bytes(data[:start] + entries + bytes(end))
    assert_refused(read_weights, tmp_path / "x.bin", match="would unpack to 1,048,576")


@pytest.mark.parametrize("ending", READERS)
def test_a_directory_that_two_readers_see_otherwise_is_no_way_in(
    tmp_path: Path, ending: str
) -> None:
    """Python goes by where the directory ends, others by where it is said to begin."""
    path = tmp_path / f"x{ending}"
    bomb, start = archive_of(PARTS | {"c/data.pkl": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    plain, _ = archive_of(PARTS)
    path.write_bytes(bomb + plain[:-6] + struct.pack("<I", start) + plain[-2:])
    with zipfile.ZipFile(path) as archive:
        assert sum(part.file_size for part in archive.infolist()) < 100
    assert_refused(READERS[ending], path, match="not where it is said to be")


def _larger(data: bytes, start: int, *, far: int | None = None, at: int = 0) -> bytes:
    """The same with a directory in larger numbers, which may be said to be elsewhere."""
    end = len(data) - 22
    whole = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, end - start, far or start)
    return data[:end] + whole + struct.pack("<4sIQI", b"PK\6\7", 0, end + at, 1) + data[end:]


ENDS: dict[str, Callable[[bytes, int], bytes]] = {
    "words behind it": lambda data, start: data[:-2] + b"\1\0x",
    "cut off": lambda data, start: data[:-1],
    "something before it": lambda data, start: b"x" * 100 + data,
    "something between": lambda data, start: data[:-22] + b"x" + data[-22:],
    "two lists": lambda data, start: _larger(data, start, far=start - 1),
    "a list that is elsewhere": lambda data, start: _larger(data, start, at=-1),
    "nothing": lambda data, start: b"PK\3\4",
}


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize("name", ENDS)
def test_an_archive_ends_in_one_directory(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    data, start = archive_of(PARTS)
    for whole in (data, _larger(data, start)):
        path.write_bytes(whole)
        assert assert_harmless(READERS[ending], path).refused is None
    path.write_bytes(ENDS[name](data, start))
    assert_refused(READERS[ending], path)


@pytest.mark.parametrize("ending", READERS)
@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"c/other": b""}, "no data.pkl, or more than one"),
        ({"a/x": b""} | PARTS, "no data.pkl, or more than one"),
        (PARTS | {"a/data.pkl": b""}, "no data.pkl, or more than one"),
        (PARTS | {"c/DATA.PKL": b""}, "no data.pkl, or more than one"),
    ],
)
def test_an_archive_has_one_pickle(
    tmp_path: Path, parts: dict[str, bytes], said: str, ending: str
) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(archive_of(parts)[0])
    assert_refused(READERS[ending], path, match=said)


@pytest.mark.parametrize("ending", READERS)
def test_a_part_has_one_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    data, _ = archive_of(PARTS | {"c/data.pklx": pickled(b"\x8f")})
    path.write_bytes(data.replace(b"data.pklx", b"data.pkl\0"))
    assert_refused(READERS[ending], path, match="has two names")


def test_a_list_of_parts_without_end_is_refused(tmp_path: Path) -> None:
    data, start = archive_of(PARTS)
    entries = data[start:-22] * 10**5
    end = data[-22:-10] + struct.pack("<I", len(entries)) + data[-6:]
    (tmp_path / "x.bin").write_bytes(data[:start] + entries + end)
    assert_refused(read_weights, tmp_path / "x.bin", match="the list of its parts has")


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
