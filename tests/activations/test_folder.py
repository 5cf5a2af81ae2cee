from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp.activations import Activations, capture
from interp.errors import FileFormatError, InterventionError
from interp.models import Model
from tests.activations.samples import model, prompts
from tests.families import tiny as tiny_model
from tests.families import tiny_tokenizer

NAMES = ["blocks.*.attn.hook_z", "blocks.1.attn.hook_pattern"]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    capture(model("llama"), prompts(), NAMES, batch_size=3, to=tmp_path / "acts")
    return tmp_path / "acts"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_streaming_gives_the_bytes_of_memory(tmp_path: Path, dtype: torch.dtype):
    tiny = Model(tiny_model("llama").to(dtype), tiny_tokenizer(), id="llama")
    memory = capture(tiny, prompts(), NAMES, batch_size=3)
    folder = capture(tiny, prompts(), NAMES, batch_size=3, to=tmp_path / "new" / "acts")
    assert list(folder) == list(memory)
    assert all(torch.equal(folder[name], memory[name]) for name in memory)
    assert torch.equal(folder.mask, memory.mask)
    assert all(torch.equal(folder.roles[role], memory.roles[role]) for role in memory.roles)
    assert folder.provenance == memory.provenance
    assert folder._repr_html_() == memory._repr_html_()
    assert [p.name for p in sorted((tmp_path / "new").iterdir())] == ["acts"]


def test_saved_activations_load_as_they_were(tmp_path: Path):
    acts = capture(model("llama"), prompts(), NAMES, positions=[0, -1])
    loaded = Activations.load(acts.save(tmp_path / "acts"))
    assert all(torch.equal(loaded[name], acts[name]) for name in acts)
    assert loaded.provenance["positions"] == [0, -1]


def test_our_own_folder_is_replaced(written: Path):
    capture(model("llama"), prompts(), "blocks.0.hook_in", to=written)
    assert list(Activations.load(written)) == ["blocks.0.hook_in"]
    assert len(list(written.iterdir())) == 3


def test_a_capture_that_fails_leaves_the_folder_as_it_was(written: Path):
    before = {path.name: path.read_bytes() for path in written.iterdir()}
    with pytest.raises(InterventionError, match="never fires"):
        capture(model("llama"), prompts(), "blocks.0.attn.hook_hidden_states", to=written)
    assert {path.name: path.read_bytes() for path in written.iterdir()} == before
    assert [path.name for path in written.parent.iterdir()] == ["acts"]


def test_a_folder_of_something_else_is_not_overwritten(tmp_path: Path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileFormatError, match=r"holds thesis\.tex, so it is not a folder of act"):
        capture(model("llama"), prompts(), NAMES, to=tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
    with pytest.raises(FileFormatError, match=r"thesis\.tex is a file, so it is not a folder"):
        capture(model("llama"), prompts(), NAMES, to=tmp_path / "thesis.tex")


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def corrupt(path: Path) -> None:
    path.write_bytes(b"\xff" * path.stat().st_size)


def rewrite(**fields: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return write


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("00001.safetensors", truncate, r"00001\.safetensors has .* the folder is truncated"),
        ("00001.safetensors", Path.unlink, r"00001\.safetensors has 0 bytes and index\.json says"),
        ("00000.safetensors", corrupt, r"00000\.safetensors cannot be read"),
        ("layout.safetensors", truncate, r"layout\.safetensors cannot be read"),
        ("index.json", truncate, r"index\.json is not whole JSON"),
        ("index.json", Path.unlink, r"has no index\.json, so it is not a folder of activations"),
        ("index.json", rewrite(format="x"), r"index\.json does not hold an Activations"),
        ("index.json", rewrite(version=9), r"of version 9, and .* reads version 1"),
    ],
)
def test_damage_is_seen(written: Path, file: str, damage: Callable[[Path], None], message: str):
    damage(written / file)
    with pytest.raises(FileFormatError, match=message):
        dict(Activations.load(written))


def test_a_folder_that_was_never_written_is_refused(tmp_path: Path):
    save_file({"x": torch.zeros(1)}, tmp_path / "00000.safetensors")
    with pytest.raises(FileFormatError, match=r"has no index\.json"):
        Activations.load(tmp_path)
    with pytest.raises(FileFormatError, match=r"has no index\.json, so it .* is not overwritten"):
        capture(model("llama"), prompts(), NAMES, to=tmp_path)
