"""Sweeps, vectors, lenses, probes and saved classes: files that are damaged or forged."""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from interp.errors import FileFormatError
from interp.heads.facts import Verification
from interp.tensor_file import open_tensor_file
from interp.vectors.vector import Vector
from tests.fuzz.hostile import BOMBS, assert_harmless, assert_refused, mutations
from tests.fuzz.saved_results import TENSORS, behavior, read_anything, read_behavior, vector
from tests.fuzz.tensors import TENSOR_BOMBS, changed_tensors, put_together, signed, taken_apart

FUZZ = settings(
    max_examples=100,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EVERY = BOMBS | TENSOR_BOMBS


@cache
def whole(name: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "whole.safetensors"
        TENSORS[name].write(path)
        return path.read_bytes()


@pytest.mark.parametrize("name", TENSORS)
@FUZZ
@given(data=st.data())
def test_a_damaged_file_is_what_was_written_or_refused(
    name: str, data: Any, tmp_path: Path
) -> None:
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(data.draw(mutations(whole(name))))
    outcome = assert_harmless(TENSORS[name].read, path)
    assert outcome.refused or outcome.result == "the original"


@pytest.mark.parametrize("name", TENSORS)
@FUZZ
@given(data=st.data())
def test_a_forged_file_with_the_right_hash_is_read_or_refused(
    name: str, data: Any, tmp_path: Path
) -> None:
    path = tmp_path / "forged.safetensors"
    path.write_bytes(data.draw(changed_tensors(whole(name))))
    assert_harmless(TENSORS[name].read, path)


@pytest.mark.parametrize("bomb", EVERY)
def test_bombs_are_refused(bomb: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.safetensors"
    EVERY[bomb](path)
    for kind in TENSORS.values():
        assert_refused(kind.read, path)
    if not path.is_dir():
        assert_refused(read_anything, path)


@pytest.mark.parametrize("name", TENSORS)
def test_any_result_is_read_through_one_door(name: str, tmp_path: Path) -> None:
    path = tmp_path / "any.safetensors"
    path.write_bytes(whole(name))
    assert assert_harmless(read_anything, path).refused is None


@pytest.mark.parametrize("name", TENSORS)
def test_files_without_a_hash_are_those_of_formats_that_had_none(name: str, tmp_path: Path) -> None:
    header, data = taken_apart(whole(name))
    del header["__metadata__"]["sha256"]
    path = tmp_path / "old.safetensors"
    path.write_bytes(put_together(header, data))
    outcome = assert_harmless(TENSORS[name].read, path)
    assert (outcome.result == "the original") == (name != "saved class")


def test_one_changed_bit_of_a_number_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "v.safetensors"
    data = bytearray(whole("vector"))
    data[-1] ^= 1
    path.write_bytes(data)
    assert_refused(TENSORS["vector"].read, path, match="its hash is another")


def test_a_table_whose_cells_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header, data = taken_apart(whole("saved class"))
    frame = '{"frame": {"names": ["a"], "columns": [["x"]], "dtypes": ["S999999999"], "rows": 1}}'
    told = header["__metadata__"]["interp"].replace('"agreement"', frame)
    header["__metadata__"]["interp"] = told
    path = tmp_path / "wide.safetensors"
    path.write_bytes(signed(header, data))
    assert_refused(read_behavior, path, match="a column of 'S999999999'")


def test_a_whole_number_that_no_float_holds_is_no_scale(tmp_path: Path) -> None:
    header, data = taken_apart(whole("vector"))
    told = header["__metadata__"]
    told["vector"] = told["vector"].replace('"scale": 1.5', f'"scale": {10**400}')
    path = tmp_path / "long.safetensors"
    path.write_bytes(signed(header, data))
    assert_refused(TENSORS["vector"].read, path, match=r"Vector.scale is not what it must be")


def test_what_was_read_outlives_its_file(tmp_path: Path) -> None:
    path = vector().save(tmp_path / "v.safetensors")
    read = Vector.load(path)
    path.write_bytes(struct.pack("<Q", 0))  # in place: a mapped file would end this process
    assert torch.equal(read.layers[3], vector().layers[3])


@pytest.mark.parametrize("original", [vector(), behavior()], ids=["vector", "saved class"])
def test_a_file_is_replaced_in_one_step_or_stays(
    original: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = original.save(tmp_path / "x.safetensors")
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("interp.atomic.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        original.save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_result_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    deep: Any = ()
    for _ in range(60):
        deep = (deep,)
    with pytest.raises(FileFormatError, match="nested more than 100 deep"):
        Verification((), {"model": deep}).save(tmp_path / "x.safetensors")
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "shape", [[3 * 10**9, 0], [0, 3 * 10**9], [2_000, 2_000, 0], [2**20 + 1, 0], [1, 2**21, 0, 1]]
)
def test_a_great_shape_without_numbers_is_refused(shape: list[int], tmp_path: Path) -> None:
    empty = {"dtype": "I64", "shape": shape, "data_offsets": [0, 0]}
    path = tmp_path / "empty.safetensors"
    path.write_bytes(put_together({"__metadata__": {}, "a": empty}, b""))
    with (
        pytest.raises(FileFormatError, match=r"'a' has no numbers and the shape .*; give another"),
        open_tensor_file(path, way_out="give another"),
    ):
        pass


def test_small_shapes_without_numbers_are_read(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    shapes = [(0,), (0, 4096, 4096), (1_000, 0), (1_000, 1_000, 0), (0, 0)]
    held = {str(i): torch.zeros(shape) for i, shape in enumerate(shapes)}
    save_file(held | {"one": torch.zeros(()), "many": torch.zeros(3, 5)}, path)
    with open_tensor_file(path, way_out="give another") as file:
        found = file.tensors()
    assert [tuple(found[name].shape) for name in held] == shapes


def test_a_file_larger_than_memory_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "big.safetensors")
    free = type("Free", (), {"available": 1000})
    monkeypatch.setattr("interp.tensor_file.psutil.virtual_memory", free)
    with (
        pytest.raises(FileFormatError, match="1,000 bytes of memory are free"),
        open_tensor_file(tmp_path / "big.safetensors", way_out="give another"),
    ):
        pass
