"""Model directories that hold code, lead elsewhere, or describe what no machine can hold."""

from __future__ import annotations

import json
import math
import os
import pickle
import shutil
import zipfile
from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp.errors import UnknownModel
from interp.models import hub, load
from interp.models.tokenizer_growth import growth
from interp.models.trust import require_harmless
from tests.fuzz.hostile import BOMBS, assert_harmless, assert_refused, changed_json, mutations
from tests.fuzz.model_folders import FAMILIES, read_model, whole
from tests.fuzz.tensors import TENSOR_BOMBS, put_together, taken_apart

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
        {"attn_implementation": "flash_attention_2"},
        {"_attn_implementation": "flash_attention_3"},
        {"attn_implementation": "paged|flash_attention_2"},
        {"attn_implementation": {"": "eager", "text_config": "flash_attention_2"}},
        {"experts_implementation": "deepgemm"},
    ],
)
def test_kernels_of_the_hub_are_code(entries: dict[str, Any], folder: Path) -> None:
    edit(folder / "config.json", **entries)
    assert_refused(read_model, folder, match="pass trust_remote_code=True")
    require_harmless(folder, "mine", trust_remote_code=True)


@pytest.mark.parametrize("name", ["eager", "sdpa", "flex_attention", "paged|eager", None])
def test_attention_that_is_built_in_is_no_code(name: str | None, folder: Path) -> None:
    edit(folder / "config.json", attn_implementation=name)
    assert assert_harmless(read_model, folder).refused is None


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


# Tokenizers

DOUBLE = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
FOUND = {"type": "Replace", "pattern": {"Regex": "(?=a)"}, "content": "a"}
BYTES = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}
UNTYPED = {"pattern": {"String": "a"}, "content": "aa"}
LONG_TABLE = b"\x00\x00\x00\x00" + b"a" * 40 + b"\x00b\x00"
CHARS = {"type": "Precompiled", "precompiled_charsmap": b64encode(LONG_TABLE).decode()}


LONG = {"type": "Prepend", "prepend": "a" * 999}


def in_sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "normalizers": [*steps]}


GROWING: dict[str, dict[str, Any]] = {
    "two letters for one": {"normalizer": in_sequence(*[DOUBLE] * 11)},
    "no types": {"normalizer": {"normalizers": [UNTYPED] * 11}},
    "one in another": {"normalizer": in_sequence(in_sequence(*[DOUBLE] * 11))},
    "a pattern of no letters": {"normalizer": in_sequence(*[FOUND] * 11)},
    "a long text for one letter": {"normalizer": DOUBLE | {"content": "a" * 2_000}},
    "a long text before all": {"normalizer": in_sequence(LONG, DOUBLE)},
    "letters for bytes": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 11}},
    "two tables": {"normalizer": in_sequence(CHARS, CHARS)},
    "what is decoded": {"decoder": {"type": "Sequence", "decoders": [DOUBLE] * 11}},
}


@pytest.mark.parametrize("what", GROWING)
def test_a_tokenizer_that_makes_texts_much_longer_is_refused(what: str, folder: Path) -> None:
    edit(folder / "tokenizer.json", **GROWING[what])
    assert_refused(read_model, folder, match="times as long")


def test_a_tokenizer_of_another_version_is_looked_at(folder: Path) -> None:
    shutil.copy(folder / "tokenizer.json", folder / "tokenizer.4.0.0.json")
    edit(folder / "tokenizer.4.0.0.json", **GROWING["two letters for one"])
    edit(folder / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json"])
    assert_refused(read_model, folder, match="times as long")


def test_the_steps_of_known_tokenizers_are_short() -> None:
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spaces = {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": " "}
    llama = in_sequence({"type": "Prepend", "prepend": "▁"}, space)
    clip = in_sequence({"type": "NFC"}, spaces, {"type": "Lowercase"})
    quotes = [DOUBLE | {"pattern": {"String": "``"}, "content": '"'}] * 2
    albert = in_sequence(*quotes, {"type": "NFKD"}, CHARS, spaces)
    assert [growth(each) for each in (None, llama, clip, albert)] == [1, 2, 2, 80]


def test_a_panic_of_the_tokenizer_is_one_sentence(folder: Path) -> None:
    slow = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$b"}, "behavior": "Isolated"}
    longer = DOUBLE | {"content": "a" * 40 + "!"}
    edit(folder / "tokenizer.json", normalizer=longer, pre_tokenizer=slow | {"invert": False})
    assert_refused(read_model, folder, match="cannot be read (Onig: Regex search error")


# Sizes

LARGE = (
    *("tokenizer.json", "tokenizer_config.json", "generation_config.json", "added_tokens.json"),
    *("special_tokens_map.json", "chat_template.jinja", "merges.txt", "vocab.txt", "spiece.model"),
    *("additional_chat_templates/x.jinja",),
)


@pytest.mark.parametrize("name", LARGE)
def test_no_large_file_is_read_beside_the_weights(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).touch()
    os.truncate(folder / name, 2**28)
    assert_refused(read_model, folder, match="are needed; save or download it again")


def test_other_files_may_be_large(folder: Path) -> None:
    (folder / "model.gguf").touch()
    os.truncate(folder / "model.gguf", 2**28)
    assert assert_harmless(read_model, folder).refused is None


@pytest.mark.parametrize(
    "entries",
    [
        {"num_blocks": 10**7},
        {"vision_config": {"depth": 10**7}},
        {"num_codebooks": 10**7},
        {"audio_config": {"num_stages": 10**7}},
        {"a\nb": {"num_layers": 10**7}},
    ],
)
def test_counts_of_no_model_are_refused(entries: dict[str, Any], folder: Path) -> None:
    edit(folder / "config.json", **entries)
    assert_refused(read_model, folder, match="and no model has more than 10,000")


def test_numbers_that_count_nothing_may_be_large(folder: Path) -> None:
    names = ("block_size", "codebook_pad_token_id", "layer_dim", "block_length", "seed")
    edit(folder / "config.json", **dict.fromkeys(names, 10**6))
    assert assert_harmless(read_model, folder).refused is None


@pytest.mark.parametrize("pickled", [False, True])
@pytest.mark.parametrize(
    "entries",
    [
        {"num_hidden_layers": 3_000},
        {"text_config": {"num_hidden_layers": 3_000}},
        {"num_local_experts": 3_000},
        {"audio_config": {"num_blocks": 3_000}},
    ],
)
def test_no_model_has_more_layers_than_tensors(
    entries: dict[str, Any], pickled: bool, folder: Path
) -> None:
    from safetensors.torch import load_file

    if pickled:
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    edit(folder / "config.json", **entries)
    assert_refused(read_model, folder, match="tensors; save both again from one model")


# Number formats

BITS = {"F4": 4, "F6_E2M3": 6, "F8_E8M0": 8, "BOOL": 8, "I32": 32, "C64": 64}


def recast(path: Path, dtype: str) -> None:
    """Weights of the same shapes in another format, all of them zero."""
    header, _ = taken_apart(path.read_bytes())
    header.pop("__metadata__", None)
    end = 0
    for tensor in header.values():
        size = math.prod(tensor["shape"]) * BITS[dtype] // 8
        tensor |= {"dtype": dtype, "data_offsets": [end, end + size]}
        end += size
    path.write_bytes(put_together(header, b"\x00" * end))


def read_checkpoint(folder: Path) -> str:
    return load(folder, check=False, device="cpu", revision="step-1").weights_hash


@pytest.mark.parametrize("dtype", BITS)
@pytest.mark.parametrize("family", FAMILIES)
def test_weights_are_floating_numbers(family: str, dtype: str, tmp_path: Path) -> None:
    folder = shutil.copytree(whole(family), tmp_path / "model")
    (folder / "checkpoints").mkdir()
    checkpoint = folder / "checkpoints" / "step-1.safetensors"
    shutil.copy(folder / "model.safetensors", checkpoint)
    assert assert_harmless(read_checkpoint, folder).refused is None
    recast(checkpoint, dtype)
    assert_refused(read_checkpoint, folder, match=f"as {dtype}, which is no format of weights")
    recast(folder / "model.safetensors", dtype)
    assert_refused(read_model, folder, match=f"as {dtype}, which is no format of weights")


# Sizes of any kind

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
