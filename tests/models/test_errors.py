"""What goes wrong is said in one sentence: the value, the rule, the way out."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import transformers
from torch import nn

from interp.errors import FileFormatError, ModelError, UnknownModel, UnsupportedModel
from interp.models import load
from tests.closed import closed_folder
from tests.families import tiny, tiny_tokenizer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model directory, for tests to damage."""
    tiny("llama").save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    return tmp_path


def refused(
    error: type[ModelError | FileFormatError], *says: str, source: Any, **options: Any
) -> None:
    with pytest.raises(error) as raised:
        load(source, **options)
    message = str(raised.value)
    for part in says:
        assert part in message
    assert message.endswith((".", "?"))
    assert not message.endswith("?.")
    assert "\n" not in message


def edit_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


# Names and places.


def test_no_such_directory(tmp_path: Path) -> None:
    says = ("there is no directory", "missing", "config.json")
    refused(UnknownModel, *says, source=tmp_path / "missing")
    refused(UnknownModel, *says, source="./missing")
    refused(UnknownModel, *says, source="~/missing")


def test_a_file_is_not_a_directory(folder: Path) -> None:
    refused(UnknownModel, "is a file; pass the directory", source=folder / "model.safetensors")


def test_a_folder_that_may_not_be_entered() -> None:
    with closed_folder() as folder:
        for place in (folder, folder / "inside"):
            says = (f"{place} cannot be read (Permission denied)", "load a copy of it")
            refused(FileFormatError, *says, source=place)


def test_impossible_name() -> None:
    refused(UnknownModel, "'no such model!'", "owner/name", source="no such model!")


# Tokenizers.


def test_object_without_tokenizer() -> None:
    refused(ModelError, "a GPT2LMHeadModel in memory", "pass tokenizer=", source=tiny("gpt2"))


def test_directory_without_tokenizer(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path)
    refused(ModelError, "has no tokenizer files in", "pass tokenizer=", source=tmp_path)


def test_damaged_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"model": ')
    refused(ModelError, "tokenizer files in", "cannot be read", "pass tokenizer=", source=folder)


# Architectures.


def tiny_config(kind: str, **sizes: Any) -> Any:
    return getattr(transformers, kind)(**sizes)


SMALL_BERT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
}
SMALL_T5 = {
    "vocab_size": 100,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 32,
    "num_layers": 1,
    "num_heads": 2,
}


def test_encoder_only(tmp_path: Path) -> None:
    module = transformers.BertForMaskedLM(transformers.BertConfig(**SMALL_BERT))
    says = ("(bert) is an encoder-only model", "both directions", "such as 'gpt2'")
    refused(UnsupportedModel, *says, source=module, tokenizer=tiny_tokenizer())
    module.save_pretrained(tmp_path)
    refused(UnsupportedModel, *says, source=tmp_path, tokenizer=tiny_tokenizer())


def test_encoder_decoder(tmp_path: Path) -> None:
    module = transformers.T5ForConditionalGeneration(transformers.T5Config(**SMALL_T5))
    says = ("(t5) is an encoder-decoder model", "such as 'gpt2'")
    refused(UnsupportedModel, *says, source=module, tokenizer=tiny_tokenizer())
    module.save_pretrained(tmp_path)
    refused(UnsupportedModel, *says, source=tmp_path, tokenizer=tiny_tokenizer())


def test_no_language_head() -> None:
    says = ("GPT2Model has no unembedding", "AutoModelForCausalLM")
    body = tiny("gpt2").transformer
    refused(UnsupportedModel, *says, source=body, tokenizer=tiny_tokenizer())


def test_not_a_language_model() -> None:
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    module = transformers.ViTModel(config)
    refused(UnsupportedModel, "(vit) is not a causal", source=module, tokenizer=tiny_tokenizer())


def test_no_attention_heads() -> None:
    config = transformers.MambaConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1)
    module = transformers.MambaForCausalLM(config)
    says = ("MambaForCausalLM has no single number of attention heads",)
    refused(UnsupportedModel, *says, source=module, tokenizer=tiny_tokenizer())


def test_any_other_module() -> None:
    says = ("Linear is neither a transformers model nor", "such as 'gpt2'")
    refused(UnsupportedModel, *says, source=nn.Linear(2, 2), tokenizer=tiny_tokenizer())


def test_a_rewired_transformers_model() -> None:
    model = load(tiny("gpt2"), tiny_tokenizer(), check=False)
    says = ("has already been rewired by TransformerLens", "as it was before")
    for source in (model.bridge, model.bridge.original_model):
        refused(UnsupportedModel, *says, source=source, tokenizer=tiny_tokenizer())


def test_unknown_architecture(folder: Path) -> None:
    edit_config(folder, model_type="llama17")
    refused(UnsupportedModel, "transformers cannot build", "upgrade it", source=folder)


def test_code_in_the_repository(folder: Path) -> None:
    auto = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model"}
    edit_config(folder, model_type="own", auto_map=auto)
    (folder / "code.py").write_text("raise SystemExit('this must not run')")
    says = ("runs code from its own repository", "trust_remote_code=True")
    refused(ModelError, *says, source=folder, tokenizer=tiny_tokenizer())


# Damaged directories.


def test_no_config(folder: Path) -> None:
    (folder / "config.json").unlink()
    refused(FileFormatError, "has no config.json", source=folder)


def test_config_cut_short(folder: Path) -> None:
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text[: len(text) // 2])
    refused(FileFormatError, "config.json is not valid JSON", source=folder)


def test_config_but_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    refused(FileFormatError, "has a config.json but no weights", "cut short", source=folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_weights(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    refused(FileFormatError, str(path), "truncated", "again", source=folder)


def test_weights_of_another_kind(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 20) + b"not json, but 20 byt")
    refused(FileFormatError, "another kind of file", "invalid JSON", source=folder)


def test_a_missing_shard(tmp_path: Path) -> None:
    tiny("llama").save_pretrained(tmp_path, max_shard_size="30KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    shards[1].unlink()
    says = (f"lacks 1 of the {len(shards)} shards", shards[1].name, "download it again")
    refused(FileFormatError, *says, source=tmp_path, tokenizer=tiny_tokenizer())


def test_missing_keys(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=3)
    refused(FileFormatError, "missing keys", "model.layers.2.", "random", source=folder)


def test_unexpected_keys(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=1)
    refused(FileFormatError, "unexpected keys", "model.layers.1.", "ignored", source=folder)


def test_other_shapes(folder: Path) -> None:
    edit_config(folder, intermediate_size=96)
    refused(FileFormatError, "do not have the shapes that config.json says", source=folder)


def test_native_directory_that_does_not_fit(tmp_path: Path) -> None:
    from interp.models import native

    native.save(tiny("native"), tiny_tokenizer(), tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    for change, says in (
        ({"n_layers": 3}, "does not fit the config.json"),
        ({"d_sae": 3}, "has fields that a TransformerLensNative config does not: d_sae"),
    ):
        changed = {**content, "config": {**content["config"], **change}}
        (tmp_path / "config.json").write_text(json.dumps(changed))
        refused(FileFormatError, says, source=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "TransformerLensNative"}))
    refused(FileFormatError, "does not describe a TransformerLensNative model", source=tmp_path)


# Options.


@pytest.mark.parametrize(
    ("dtype", "says"),
    [
        ("float31", "dtype 'float31' cannot hold weights; did you mean float32"),
        ("int8", "dtype 'int8' cannot hold weights"),
        (torch.int64, "dtype 'int64' cannot hold weights"),
    ],
)
def test_dtype(folder: Path, dtype: str | torch.dtype, says: str) -> None:
    refused(ModelError, says, source=folder, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "warp"])
def test_device(folder: Path, device: str) -> None:
    says = (f"device '{device}' cannot be used here", "pass 'cpu'")
    refused(ModelError, *says, source=folder, device=device)


def test_options_that_an_object_cannot_take() -> None:
    module, tokenizer = tiny("gpt2"), tiny_tokenizer()
    says = ("device= dtype= cannot be applied to a GPT2LMHeadModel in memory",)
    options = {"tokenizer": tokenizer, "device": "cpu", "dtype": "float32"}
    refused(ModelError, *says, source=module, **options)
    model = load(module, tokenizer, check=False)
    says = ("revision= cannot be applied to a Model in memory", "load its source again")
    refused(ModelError, *says, source=model, revision="main")


def test_wrong_revision(folder: Path) -> None:
    (folder / "checkpoints").mkdir()
    for step in ("step-000000", "step-000200"):
        (folder / "checkpoints" / f"{step}.safetensors").touch()
    says = ("has no revision 'step-200'", "did you mean step-000200")
    refused(UnknownModel, *says, source=folder, revision="step-200")
    refused(FileFormatError, "step-000200.safetensors", source=folder, revision="step-000200")


def test_not_enough_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edit_config(folder, hidden_size=65536, intermediate_size=262144, num_hidden_layers=100)
    says = ("GB for its weights in torch.float32, but cpu has", "GB free", "dtype='bfloat16'")
    refused(ModelError, *says, source=folder)
    # The rule is about bytes: just enough in bfloat16 is not enough in float32.
    edit_config(folder, hidden_size=32, intermediate_size=48, num_hidden_layers=2)
    count = sum(weight.numel() for weight in tiny("llama").parameters())
    buffers = sum(buffer.nbytes for buffer in tiny("llama").buffers())
    memory = psutil.virtual_memory()._replace(available=2 * count + buffers)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    assert load(folder, dtype="bfloat16", check=False).dtype == torch.bfloat16
    refused(ModelError, *says, source=folder, dtype="float32")
    memory = memory._replace(available=2 * count)
    refused(ModelError, "a smaller model", source=folder, dtype="bfloat16")


@pytest.mark.parametrize(
    ("family", "name", "length", "size"),
    [
        ("gpt-j", "n_positions", 4 * 10**7, "1.3 GB"),
        ("gpt-neo", "max_position_embeddings", 30_000, "1.8 GB"),
        ("native-gqa", "n_ctx", 25_000, "1.3 GB"),
    ],
)
def test_masks_of_no_model(family: str, name: str, length: int, size: str, tmp_path: Path) -> None:
    from interp.models import native

    if family == "native-gqa":
        native.save(tiny(family), tiny_tokenizer(), tmp_path)
        told = json.loads((tmp_path / "config.json").read_text())["config"]
        edit_config(tmp_path, config=told | {name: length})
    else:
        tiny(family).save_pretrained(tmp_path)
        tiny_tokenizer().save_pretrained(tmp_path)
        edit_config(tmp_path, **{name: length})
    says = (f"config.json makes masks and tables of {size} beside weights", "context length")
    refused(FileFormatError, *says, source=tmp_path)


def test_messages_are_single_sentences(folder: Path) -> None:
    with pytest.raises(ModelError) as raised:
        load(folder, dtype="float31")
    assert len(re.findall(r"[.?](?:\s|$)", str(raised.value))) == 1


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize("placed", [3, {0: "cpu"}])
def test_a_map_that_is_none_is_refused(placed: Any) -> None:
    with pytest.raises(ModelError, match=r"device_map is .*; give one of auto, .* by the part's"):
        load("polymath", device_map=placed)


@pytest.mark.usefixtures("types_unchecked")
@pytest.mark.parametrize("size", ["lots", None])
def test_a_memory_that_is_no_size_is_refused(size: Any) -> None:
    with pytest.raises(ModelError, match=r"max_memory gives 'cpu' .*, which is no size; give"):
        load("polymath", device_map="auto", max_memory={"cpu": size})
