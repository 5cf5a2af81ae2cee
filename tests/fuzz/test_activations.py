"""Folders of activations whose files are damaged, forged, or lead elsewhere."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from interp.activations import Activations
from tests.fuzz.hostile import BOMBS, assert_harmless, assert_refused, changed_json, mutations
from tests.fuzz.saved_results import activations, read_activations, read_anything
from tests.fuzz.tensors import TENSOR_BOMBS

FILES = ("index.json", "layout.safetensors", "00000.safetensors")
FUZZ = settings(
    max_examples=50,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read_hooks(path: Path) -> int:
    return len(dict(Activations.load(path)))


@cache
def whole() -> Path:
    return activations().save(Path(mkdtemp()) / "acts")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(whole(), tmp_path / "acts")


@pytest.mark.parametrize("file", FILES)
@FUZZ
@given(data=st.data())
def test_a_damaged_file_is_what_was_written_or_refused(file: str, data: Any, folder: Path) -> None:
    (folder / file).write_bytes(data.draw(mutations((whole() / file).read_bytes())))
    outcome = assert_harmless(read_activations, folder)
    assert outcome.refused or outcome.result == "the original"


@FUZZ
@given(data=st.data())
def test_odd_values_in_the_index_are_read_or_refused(data: Any, folder: Path) -> None:
    index = json.loads((whole() / "index.json").read_text())
    (folder / "index.json").write_bytes(data.draw(changed_json(index)))
    assert_harmless(read_activations, folder)


@pytest.mark.parametrize("bomb", BOMBS | TENSOR_BOMBS)
@pytest.mark.parametrize("file", FILES)
def test_bombs_are_refused(file: str, bomb: str, folder: Path) -> None:
    (folder / file).unlink()
    (BOMBS | TENSOR_BOMBS)[bomb](folder / file)
    assert_refused(read_activations, folder)


def forge(folder: Path, *shards: Tensor, twice: str = "", **hook: Any) -> None:
    """Write shards, and an index without hashes that tells of them and of one hook."""
    names = [f"{i:05d}.safetensors" for i in range(len(shards))]
    for name, tensor in zip(names, shards, strict=True):
        save_file({"h": tensor}, folder / name)
    index = json.loads((folder / "index.json").read_text())
    index.pop("sha256", None)
    index["hooks"] = {"h": hook}
    names += [twice] if twice else []
    index["shards"] = [{"file": each, "bytes": (folder / each).stat().st_size} for each in names]
    (folder / "index.json").write_text(json.dumps(index))


@pytest.mark.parametrize("name", ["00000.safetensors", "00007.safetensors"])
def test_a_shard_that_is_named_twice_is_refused(folder: Path, name: str) -> None:
    (folder / "00007.safetensors").symlink_to("00000.safetensors")
    forge(folder, torch.zeros(3, 4), twice=name, shape=[6, 4], dtype="float32")
    assert_refused(read_activations, folder, match="names one shard twice")


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ([(2, 3), (2, 4)], "of shape [2, 4] in torch.float32, and index.json says [4, 3]"),
        ([(2, 3), (2,)], "of shape [2] in torch.float32"),
        ([(2, 3), (2, 3, 1)], "of shape [2, 3, 1] in torch.float32"),
        ([(), ()], "of shape [] in torch.float32"),
        ([(2, 3), (3, 3)], "of shape [5, 3] in torch.float32, and index.json says [4, 3]"),
        ([(2, 3)], "of shape [2, 3] in torch.float32, and index.json says [4, 3]"),
    ],
)
def test_shards_that_do_not_fit_together_are_refused(
    folder: Path, shards: list[tuple[int, ...]], said: str
) -> None:
    forge(folder, *map(torch.zeros, shards), shape=[4, 3], dtype="float32")
    assert_refused(read_hooks, folder, match=said)


def test_shards_of_two_formats_of_numbers_are_refused(folder: Path) -> None:
    shards = (torch.zeros(2, 3), torch.zeros(2, 3).double())
    forge(folder, *shards, shape=[4, 3], dtype="float32")
    assert_refused(read_hooks, folder, match="in torch.float64, and index.json says [4, 3] in flo")
    forge(folder, *shards[::-1], shape=[4, 3], dtype="float64")
    assert_refused(read_hooks, folder, match="in torch.float32, and index.json says [4, 3] in flo")


def _names(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = json.loads((folder / "index.json").read_text())
        del index["sha256"]
        index["shards"][0]["file"] = name
        (folder / "index.json").write_text(json.dumps(index))

    return change


def _links(name: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        shutil.move(folder / name, folder.parent / name)
        (folder / name).symlink_to(target)

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_names("../00000.safetensors"), "which is no shard"),
        (_names("/etc/passwd"), "which is no shard"),
        (_names("..\\00000.safetensors"), "which is no shard"),
        (_names("00000.safetensors\n"), "which is no shard"),
        (_names("index.json"), "which is no shard"),
        (_links("00000.safetensors", "../00000.safetensors"), "leads out of its folder"),
        (_links("layout.safetensors", "../layout.safetensors"), "leads out of its folder"),
        (_links("00000.safetensors", "/dev/zero"), "leads out of its folder"),
    ],
)
def test_no_name_and_no_link_leads_out_of_the_folder(
    change: Callable[[Path], None], says: str, folder: Path
) -> None:
    change(folder)
    assert_refused(read_activations, folder, match=says)
    assert_refused(read_anything, folder, match=says)
