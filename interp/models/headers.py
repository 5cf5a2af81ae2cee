"""What do the headers of weight files say: how many tensors, of which number format?"""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Iterable
from pathlib import Path

from safetensors import safe_open

from interp.errors import FileFormatError
from interp.models.files import read_json

FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
"""Formats of weights that stand for themselves."""
WHOLES = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"})
"""Formats of what lies beside them, such as masks."""
PICKLED = 20
"""Bytes that the name of a tensor and what rebuilds it take at least in a file of torch."""


def weight_files(folder: Path) -> list[Path]:
    """The files that the weights of a directory are read from, which `check_weights` accepted."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).exists():
            return [folder / name]
        if (folder / f"{name}.index.json").exists():
            named = read_json(folder / f"{name}.index.json")["weight_map"]
            return [folder / shard for shard in sorted(set(named.values()))]
    return []


def count_tensors(files: Iterable[Path]) -> int:
    """The tensors in weight files; at most so many in files of torch, which stay unread."""
    return sum(map(_count, files))


def require_floats(files: Iterable[Path], weights: Collection[str]) -> None:
    """Raise FileFormatError where safetensors files hold something else than numbers.

    The tensors that `weights` names must have a point, all others may also be whole.
    """
    for path in files:
        if path.suffix != ".safetensors":
            continue
        with safe_open(path, framework="pt") as file:
            # an open file is no mapping: without keys() it cannot be gone through
            found = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
        for name, dtype in found.items():
            if dtype not in FLOATS and (name in weights or dtype not in WHOLES):
                raise FileFormatError(
                    f"{path} holds {name!r:.80} as {dtype}, which is no format of weights; save it "
                    "again as float32, float16 or bfloat16."
                )


def _count(path: Path) -> int:
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as file:
            return len(file.keys())
    if not zipfile.is_zipfile(path):
        return path.stat().st_size // PICKLED
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    return sum(part.file_size for part in parts if part.filename.endswith(".pkl")) // PICKLED
