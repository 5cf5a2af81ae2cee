"""What a model directory holds: is it whole, before anything is read into memory?"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from interp.errors import FileFormatError, one_line
from interp.json_file import read_bytes, require_file
from interp.torch_file import require_plain_values

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)


LARGEST = 2**27
"""Bytes of the largest JSON file. An index of a thousand shards has a hundredth of it."""


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object; raises FileFormatError where it is missing, truncated or a list."""
    if not path.exists():
        raise FileFormatError(
            f"{path.parent} has no {path.name}, so it is not a whole model directory; "
            f"save or download it again."
        )
    try:
        content = json.loads(read_bytes(path, most=LARGEST, way_out="save or download it again"))
    except (ValueError, RecursionError) as error:
        raise FileFormatError(
            f"{path} is not valid JSON ({one_line(error)}); save or download it again."
        ) from error
    if not isinstance(content, dict):
        raise FileFormatError(f"{path} holds a {type(content).__name__}, not a JSON object.")
    return content


def check_weights(folder: Path) -> None:
    """Raise FileFormatError unless every weight file of the directory is there and whole."""
    for index, single in (
        ("model.safetensors.index.json", "model.safetensors"),
        ("pytorch_model.bin.index.json", "pytorch_model.bin"),
    ):
        if (folder / single).exists():
            return check_file(folder, single)
        if (folder / index).exists():
            return _check_shards(folder, index)
    raise FileFormatError(
        f"{folder} has a config.json but no weights (model.safetensors, or shards with their "
        f"index): a save or download was cut short; write it again."
    )


def check_file(folder: Path, name: str) -> None:
    """Raise FileFormatError unless a weight file is whole, and in its directory.

    A link into the blobs of a hub cache is one that the cache made itself.
    """
    path = folder / name
    place = Path(os.path.realpath(path))  # a link to itself is no error here
    in_cache = place.parent.name == "blobs" and place.parent.parent.name.startswith("models--")
    if not (in_cache or place.is_relative_to(folder.resolve())):
        raise FileFormatError(
            f"{path} leads out of its directory, to {place}; copy that file here, or load the "
            "directory that holds it."
        )
    require_file(path, most=2**63, way_out="save or download it again")
    (check_safetensors if path.suffix == ".safetensors" else _check_torch_file)(path)


def check_safetensors(path: Path) -> None:
    """Raise FileFormatError if a .safetensors file is not what its own header says."""
    found = require_file(path, most=2**63, way_out="save or download it again")
    try:
        with safe_open(path, framework="pt"):
            pass
    except (OSError, MemoryError, SafetensorError) as error:
        raise FileFormatError(
            f"{path} ({found} bytes) is truncated, damaged or another kind of file "
            f"({one_line(error)}); save or download it again."
        ) from error


def _check_torch_file(path: Path) -> None:
    """Raise FileFormatError for a .bin file that would do more than give weights when it is read.

    `transformers` reads it later, by torch: all that torch would believe is looked at here.
    """
    try:
        require_plain_values(path)
    except Exception as error:  # a broken or hostile file fails anywhere
        raise FileFormatError(
            f"{path} is not whole, or holds more than weights ({one_line(error)[:120]}); save or "
            "download it again, as safetensors."
        ) from error


def has_tokenizer(folder: Path) -> bool:
    """Whether a directory holds any file that a tokenizer is read from."""
    return any((folder / name).exists() for name in TOKENIZER_FILES)


def _check_shards(folder: Path, index: str) -> None:
    named = read_json(folder / index).get("weight_map", {})
    every = list(named.values()) if isinstance(named, dict) else [named]
    for name in every:
        # a plain name on every system, so that no file outside is read
        if not isinstance(name, str) or not re.fullmatch(r"\w[\w.+-]*\.(safetensors|bin)", name):
            raise FileFormatError(
                f"{folder / index} names the shard {str(name)[:80]!r}, which is no file of its "
                "directory; save or download it again."
            )
    shards = sorted(set(every))
    missing = [name for name in shards if not (folder / name).exists()]
    if missing or not shards:
        raise FileFormatError(
            f"{folder} lacks {len(missing)} of the {len(shards)} shards that {index} lists "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): "
            f"a download was cut short; download it again."
        )
    for name in shards:
        check_file(folder, name)
