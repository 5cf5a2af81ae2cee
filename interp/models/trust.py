"""What the files of a model directory ask for, and do not get: sizes of no model, foreign code.

`transformers` builds what a config.json says, for as long as that takes, and loads kernels from the
hub that it names. Neither is done for a file that is only to be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interp.errors import FileFormatError, ModelError
from interp.models.files import read_json

MOST_LAYERS = 10_000
"""Layers, or experts in one. The deepest models that were trained have a tenth of it."""


def require_harmless(folder: Path, name: str, *, trust_remote_code: bool) -> None:
    """Refuse what the files of a directory must not bring about.

    Raises:
        FileFormatError: A size that no model has, weights under another name, or an adapter, which
            would be merged or left out without a word.
        ModelError: Code of another repository, without trust.
    """
    config = folder / "config.json"
    for keys, value in _entries(read_json(config)):
        key = keys.rpartition(".")[2]
        counts = ("layer" in key or "expert" in key) and not ("size" in key or "dim" in key)
        if counts and isinstance(value, int) and value > MOST_LAYERS:
            raise FileFormatError(
                f"{config} says {keys} {value!r:.30}, and no model has more than {MOST_LAYERS:,}; "
                "save or download it again."
            )
        if "implementation" in keys and "/" in str(value) and not trust_remote_code:
            raise ModelError(
                f"{name!r} runs code from {str(value)[:80]!r} ({keys} in {config}); read it, then "
                "pass trust_remote_code=True."
            )
        if key == "transformers_weights" and value is not None:
            raise FileFormatError(
                f"{config} names {str(value)[:80]!r} as its weights, and only model.safetensors or "
                "the shards of its index are read; rename the file, and leave the name out."
            )
    settings = folder / "tokenizer_config.json"
    named = read_json(settings).get("fast_tokenizer_files", []) if settings.exists() else []
    if not isinstance(named, list) or any(Path(str(each)).name != each for each in named):
        raise FileFormatError(
            f"{settings} names tokenizer files that are not in its directory; save or download it "
            "again."
        )
    if (folder / "adapter_config.json").exists():
        raise FileFormatError(
            f"{folder} holds an adapter beside a model; merge it into the weights "
            "(merge_and_unload), or move adapter_config.json away to load the model alone."
        )
    if found := sorted(folder.glob("shard-*-model-*.safetensors")):
        raise FileFormatError(
            f"{found[0]} is of a distributed checkpoint, which is not read; save the model with "
            "save_pretrained."
        )


def _entries(value: Any, keys: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no object or list, at any depth, with the keys that lead to it."""
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _entries(each, f"{keys}.{name}".lstrip("."))
    elif isinstance(value, list):
        for each in value:
            yield from _entries(each, keys)
    else:
        yield keys, value
