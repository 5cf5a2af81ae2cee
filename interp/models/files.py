"""What a model directory holds: is it whole, before anything is read into memory?"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from interp.errors import FileFormatError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object; raises FileFormatError where it is missing, truncated or a list."""
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise FileFormatError(
            f"{path.parent} has no {path.name}, so it is not a whole model directory; "
            f"save or download it again."
        ) from None
    except ValueError as error:
        raise FileFormatError(
            f"{path} is not valid JSON ({error}); save or download it again."
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
            return check_safetensors(folder / single)
        if (folder / index).exists():
            return _check_shards(folder, index)
    raise FileFormatError(
        f"{folder} has a config.json but no weights (model.safetensors, or shards with their "
        f"index): a save or download was cut short; write it again."
    )


def check_safetensors(path: Path) -> None:
    """Raise FileFormatError if a .safetensors file is shorter than its own header says."""
    if path.suffix != ".safetensors":
        return
    found = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        size = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        try:
            header = json.loads(file.read(size)) if 0 < size <= found - 8 else None
        except ValueError:
            header = None
    if header is None:
        raise FileFormatError(
            f"{path} ({found} bytes) has no whole safetensors header: it is truncated or another "
            f"kind of file; save or download it again."
        )
    ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
    expected = 8 + size + max(ends, default=0)
    if found != expected:
        raise FileFormatError(
            f"{path} has {found} bytes where its header announces {expected}: it is truncated or "
            f"damaged; save or download it again."
        )


def has_tokenizer(folder: Path) -> bool:
    """Whether a directory holds any file that a tokenizer is read from."""
    return any((folder / name).exists() for name in TOKENIZER_FILES)


def _check_shards(folder: Path, index: str) -> None:
    shards = sorted(set(read_json(folder / index).get("weight_map", {}).values()))
    missing = [name for name in shards if not (folder / name).exists()]
    if missing or not shards:
        raise FileFormatError(
            f"{folder} lacks {len(missing)} of the {len(shards)} shards that {index} lists "
            f"({', '.join(missing[:3])}{', ...' if len(missing) > 3 else ''}): "
            f"a download was cut short; download it again."
        )
    for name in shards:
        check_safetensors(folder / name)
