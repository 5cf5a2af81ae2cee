"""Model directories that hold code, lead elsewhere, or describe what no machine can hold."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.errors import UnknownModel
from interp.models import hub, load
from tests.fuzz.hostile import BOMBS, assert_harmless, assert_refused, changed_json, mutations
from tests.fuzz.model_folders import FAMILIES, read_model, whole
from tests.fuzz.tensors import TENSOR_BOMBS

FUZZ = settings(
    max_examples=25,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
JSON_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(whole("llama"), tmp_path / "model")


def edit(path: Path, **entries: Any) -> None:
    told = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(told | entries))


class Harm:
    """A pickle that makes a file when it is read."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.canary}",)


# Code


@pytest.mark.parametrize("wrap", ["torch.save", "a plain pickle", "an old file of torch"])
@pytest.mark.parametrize("shards", [False, True])
def test_code_in_a_bin_file_never_runs(
    wrap: str, shards: bool, folder: Path, tmp_path: Path
) -> None:
    (folder / "model.safetensors").unlink()
    name, harm = "pytorch_model.bin", {"a": Harm(tmp_path / "canary")}
    if shards:
        name = "pytorch_model-00001-of-00001.bin"
        index = {"metadata": {}, "weight_map": {"model.embed_tokens.weight": name}}
        edit(folder / "pytorch_model.bin.index.json", **index)
    if wrap == "a plain pickle":
        (folder / name).write_bytes(pickle.dumps(harm, protocol=2))
    else:
        new = wrap == "torch.save"
        torch.save(harm, folder / name, _use_new_zipfile_serialization=new)
    assert_refused(read_model, folder, match="more than weights")
    assert not (tmp_path / "canary").exists()


def test_weights_in_a_bin_file_are_read(folder: Path) -> None:
    from safetensors.torch import load_file

    was = assert_harmless(read_model, folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert assert_harmless(read_model, folder).result == was.result


def test_safetensors_come_before_a_bin_file(folder: Path, tmp_path: Path) -> None:
    torch.save(Harm(tmp_path / "canary"), folder / "pytorch_model.bin")
    assert assert_harmless(read_model, folder).refused is None
    assert not (tmp_path / "canary").exists()


def test_a_bin_file_that_unpacks_to_a_terabyte_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))
        archive.writestr("archive/data/0", b"\0" * 10**8)
    assert_refused(read_model, folder, match="would unpack to")


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("place", ["here.", "someone/else--here."])
def test_code_of_a_repository_never_runs(
    file: str, place: str, folder: Path, tmp_path: Path
) -> None:
    code = f"open({str(tmp_path / 'canary')!r}, 'w')\nclass Mine: pass\n"
    (folder / "here.py").write_text(code)
    classes = {name: f"{place}Mine" for name in ("AutoConfig", "AutoModelForCausalLM", "AutoModel")}
    classes["AutoTokenizer"] = [f"{place}Mine", None]  # type: ignore[assignment]
    edit(folder / file, auto_map=classes, model_type="mine", tokenizer_class="Mine")
    assert_harmless(read_model, folder)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    "entries",
    [
        {"attn_implementation": "someone/kernel"},
        {"_attn_implementation": "kernels-community/flash-attn"},
        {"attn_implementation": {"": "someone/kernel@main:kernel"}},
        {"experts_implementation": "someone/kernel"},
        {"text_config": {"_attn_implementation": "someone/kernel"}},
    ],
)
def test_kernels_of_the_hub_are_code(entries: dict[str, Any], folder: Path) -> None:
    edit(folder / "config.json", **entries)
    assert_refused(read_model, folder, match="pass trust_remote_code=True")


def test_templates_of_chats_are_never_rendered(folder: Path, tmp_path: Path) -> None:
    harm = "{{ cycler.__init__.__globals__.os.system('touch %s') }}" % (tmp_path / "canary")
    edit(folder / "tokenizer_config.json", chat_template=harm)
    (folder / "chat_template.jinja").write_text(harm)
    assert assert_harmless(read_model, folder).refused is None
    assert not (tmp_path / "canary").exists()


# Ways out of the directory


@pytest.mark.parametrize(
    "name",
    ["../../x.safetensors", "/etc/x.safetensors", "..\\x.safetensors", "C:\\x.safetensors",
     "a/b.safetensors", "config.json", "x.safetensors\n", "", None, 3, ["x.safetensors"]],
)  # fmt: skip
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_no_shard_is_outside(name: Any, index: str, folder: Path) -> None:
    shutil.move(folder / "model.safetensors", folder.parent / "x.safetensors")
    edit(folder / index, metadata={}, weight_map={"a": name})
    assert_refused(read_model, folder, match="which is no file of its directory")


@pytest.mark.parametrize("sharded", [False, True])
def test_no_link_leads_outside(sharded: bool, folder: Path) -> None:
    name = "model-00001-of-00001.safetensors" if sharded else "model.safetensors"
    shutil.move(folder / "model.safetensors", folder.parent / "other.safetensors")
    (folder / name).symlink_to("../other.safetensors")
    if sharded:
        index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
        edit(folder / "model.safetensors.index.json", **index)
    assert_refused(read_model, folder, match="leads out of its directory")


def test_the_links_of_a_hub_cache_are_followed(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "models--someone--tiny" / "blobs"
    snapshot = tmp_path / "models--someone--tiny" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    assert load(snapshot, check=False).weights_hash == load(folder, check=False).weights_hash


@pytest.mark.parametrize("revision", ["../../x", "/etc/x", "..", "main\x00", ""])
def test_no_revision_leads_outside(
    revision: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "checkpoints").mkdir()
    shutil.copy(folder / "model.safetensors", folder / "checkpoints" / "step-1.safetensors")
    shutil.copy(folder / "model.safetensors", tmp_path / "x.safetensors")
    with pytest.raises(UnknownModel, match="has no revision"):
        load(folder, revision=revision)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hub.cached("someone/tiny", revision, tokenizer=True) is None


@pytest.mark.parametrize(
    ("file", "entries", "says"),
    [
        ("config.json", {"transformers_weights": "x.safetensors"}, "as its weights"),
        ("tokenizer_config.json", {"fast_tokenizer_files": ["../tokenizer.4.json"]}, "directory"),
        ("adapter_config.json", {"base_model_name_or_path": "../other"}, "holds an adapter"),
        ("shard-00001-model-00001-of-00001.safetensors", {}, "distributed checkpoint"),
    ],
)
def test_no_other_file_takes_the_place_of_the_weights(
    file: str, entries: dict[str, Any], says: str, folder: Path
) -> None:
    edit(folder / file, **entries)
    assert_refused(read_model, folder, match=says)


# Sizes

SIZES: tuple[Any, ...] = (10**12, 2**60, 10**400, -1, True, "12", "x", 1.5, None, [], {})
NAMES = {
    "llama": ("num_hidden_layers", "vocab_size", "hidden_size", "num_attention_heads"),
    "gpt2": ("n_layer", "vocab_size", "n_embd", "n_positions"),
    "native": ("n_layers", "d_vocab", "d_model", "n_ctx"),
}


@pytest.mark.parametrize(("family", "name"), [(f, name) for f in FAMILIES for name in NAMES[f]])
def test_sizes_of_no_model_are_refused(family: str, name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(whole(family), tmp_path / "model")
    told = json.loads((folder / "config.json").read_text())
    for size in SIZES:
        odd = {"config": told["config"] | {name: size}} if family == "native" else {name: size}
        (folder / "config.json").write_text(json.dumps(told | odd))
        assert_harmless(read_model, folder)


# Anything


@pytest.mark.parametrize("file", JSON_FILES)
@FUZZ
@given(data=st.data())
def test_odd_values_are_read_or_refused(file: str, data: Any, folder: Path) -> None:
    path = folder / file
    was = json.loads((whole("llama") / file).read_text())
    path.write_bytes(data.draw(changed_json(was)))
    assert_harmless(read_model, folder)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "tokenizer.json"])
@FUZZ
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(
    file: str, family: str, data: Any, tmp_path: Path
) -> None:
    folder = tmp_path / family
    if not folder.exists():
        shutil.copytree(whole(family), folder)
    (folder / file).write_bytes(data.draw(mutations((whole(family) / file).read_bytes())))
    assert_harmless(read_model, folder)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"]
)
def test_bombs_of_json_are_harmless(file: str, bomb: str, folder: Path) -> None:
    (folder / file).unlink()
    BOMBS[bomb](folder / file)
    assert_harmless(read_model, folder)


@pytest.mark.parametrize("bomb", BOMBS | TENSOR_BOMBS)
def test_bombs_of_weights_are_refused(bomb: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    make: Callable[[Path], None] = (BOMBS | TENSOR_BOMBS)[bomb]
    make(folder / "model.safetensors")
    assert_refused(read_model, folder)
