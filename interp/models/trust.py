"""What the files of a model directory ask for, and do not get: sizes of no model, foreign code.

`transformers` builds what a config.json says, for as long as that takes, and loads kernels from the
hub that it names. Neither is done for a file that is only to be read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from interp.errors import FileFormatError, ModelError, one_line
from interp.json_file import require_file
from interp.models.files import LARGEST, read_json

MOST_LAYERS = 10_000
"""Layers, or experts in one. The deepest models that were trained have a tenth of it."""
FEW_LAYERS = 512
"""As many are built in a second or two. Experts of one layer may be a single tensor."""
COUNTS = re.compile(r"layer|expert|block|depth|codebook|stage")
MEASURES = re.compile(r"size|dim|token|length")
REPEATED = re.compile(r"(^|_)(layers?|experts|blocks?|depth|stages?)$")
"""Ends of the names of what has tensors of its own, each time."""
IMPLEMENTATIONS = re.compile(r"attn_implementation|experts_implementation")
BUILT_IN = ("None", "eager", "sdpa", "flex_attention", "grouped_mm", "batched_mm")
"""Those for which `transformers` loads nothing. For flash_attention_2 it asks the hub."""
SETTINGS = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".codes", ".tokenizer")
"""Endings of all that `transformers` reads beside weights and code."""


def require_harmless(folder: Path, name: str, *, trust_remote_code: bool) -> None:
    """Refuse what the files of a directory must not bring about.

    Raises:
        FileFormatError: A size that no model has, weights under another name, or an adapter, which
            would be merged or left out without a word.
        ModelError: Code of another repository, without trust.
    """
    for path in [*folder.iterdir(), *folder.glob("additional_chat_templates/*.jinja")]:
        if path.suffix in SETTINGS and not path.is_dir():
            require_file(path, most=LARGEST, way_out="save or download it again")
    config = folder / "config.json"
    for keys, value in _entries(read_json(config)):
        key = keys.rpartition(".")[2]
        counts = COUNTS.search(key) and not MEASURES.search(key)
        if counts and isinstance(value, int) and value > MOST_LAYERS:
            raise FileFormatError(
                f"{config} says {keys} {value!r:.30}, and no model has more than {MOST_LAYERS:,}; "
                "save or download it again."
            )
        if not trust_remote_code and _is_code(keys, value):
            raise ModelError(
                f"{name!r} runs code from {str(value)[:80]!r} ({keys} in {config}); read it, then "
                "pass trust_remote_code=True, or take the entry out."
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


def require_depth(folder: Path, tensors: int) -> None:
    """Refuse a config.json with more layers than weights have tensors, before they are built.

    Raises FileFormatError.
    """
    config, most = folder / "config.json", max(tensors, FEW_LAYERS)
    for keys, value in _entries(read_json(config)):
        repeated = REPEATED.search(keys.rpartition(".")[2])
        if repeated and isinstance(value, int) and value > most:
            raise FileFormatError(
                f"{config} says {keys} {value!r:.30}, and the weights beside it have no more than "
                f"{tensors:,} tensors; save both again from one model."
            )


def _is_code(keys: str, value: Any) -> bool:
    """Whether an entry makes `transformers` load code, from a repository or by a known name."""
    if IMPLEMENTATIONS.search(keys):
        return str(value).removeprefix("paged|") not in BUILT_IN
    return "implementation" in keys and "/" in str(value)


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every value that is no object or list, at any depth, with the keys that lead to it.

    Of many keys the last are given, on one line, and none below one that names an implementation.
    """
    waiting: list[tuple[str, Any]] = [("", value)]
    while waiting:
        keys, value = waiting.pop()
        if isinstance(value, dict):
            named = "implementation" in keys
            waiting += [
                (keys if named else f"{keys}.{name}"[-100:].lstrip("."), each)
                for name, each in value.items()
            ]
        elif isinstance(value, list):
            waiting += [(keys, each) for each in value]
        else:
            yield one_line(keys), value
