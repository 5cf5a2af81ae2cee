"""Activations on disk: one safetensors shard for each batch, and an index that is written last.

index.json          format, hooks with shapes and dtypes, shards with sizes, provenance
layout.safetensors  mask, and the span of every role
00000.safetensors   the first batch: hook name -> tensor, and so on
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from interp.errors import FileFormatError

FORMAT = {"format": "interp.Activations", "version": 1}
INDEX, LAYOUT = "index.json", "layout.safetensors"
_OURS = re.compile(r"index\.json|layout\.safetensors|\d{5,}\.safetensors")


@dataclass(frozen=True, eq=False)
class Shards:
    """Hook name -> tensor, read from the shards when it is asked for."""

    folder: Path
    index: dict[str, Any]

    def __getitem__(self, name: str) -> Shaped[Tensor, "prompts ..."]:
        return torch.cat([_read(self.folder / each["file"], name) for each in self.index["shards"]])

    def __contains__(self, name: object) -> bool:
        return name in self.index["hooks"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.index["hooks"])

    def __len__(self) -> int:
        return len(self.index["hooks"])


def require_writable(folder: Path) -> None:
    """Raise FileFormatError if something that we did not write would be overwritten."""
    if folder.is_dir():
        foreign = [path.name for path in folder.iterdir() if not _OURS.fullmatch(path.name)]
        if not foreign and (not any(folder.iterdir()) or (folder / INDEX).exists()):
            return
        what = f"holds {min(foreign)}" if foreign else "has no index.json"
    elif folder.exists():
        what = "is a file"
    else:
        return
    raise FileFormatError(
        f"{folder} {what}, so it is not a folder of activations and is not overwritten; "
        "name a new or empty folder."
    )


def write(
    folder: Path,
    batches: Iterable[dict[str, Shaped[Tensor, "prompts ..."]]],
    layout: dict[str, Shaped[Tensor, "prompts ..."]],
    provenance: dict[str, Any],
) -> None:
    """Write the batches one by one beside `folder`, which appears when all of them are there."""
    require_writable(folder)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    partial.mkdir(parents=True)
    try:
        shards: list[dict[str, Any]] = []
        hooks: dict[str, dict[str, Any]] = {}
        for batch in batches:
            file = partial / f"{len(shards):05d}.safetensors"
            save_file({name: tensor.contiguous() for name, tensor in batch.items()}, file)
            shards.append({"file": file.name, "bytes": file.stat().st_size})
            for name, tensor in batch.items():
                shape = [hooks[name]["shape"][0] if name in hooks else 0, *tensor.shape[1:]]
                shape[0] += len(tensor)
                hooks[name] = {"shape": shape, "dtype": str(tensor.dtype).removeprefix("torch.")}
        save_file({name: tensor.contiguous() for name, tensor in layout.items()}, partial / LAYOUT)
        index = {**FORMAT, "hooks": hooks, "shards": shards, "provenance": provenance}
        (partial / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path) -> tuple[Shards, dict[str, Tensor]]:
    """The shards, opened lazily, and the layout.

    Raises FileFormatError for a folder that something else wrote, or that is not whole.
    """
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileFormatError(
            f"{folder} has no index.json, so it is not a folder of activations; "
            "give the folder that was passed to capture(..., to=)."
        ) from None
    except ValueError as error:
        raise FileFormatError(f"{folder / INDEX} is not JSON ({error}); capture again.") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT["format"]:
        raise FileFormatError(
            f"{folder / INDEX} was not written by interp.capture; "
            "give the folder that was passed to capture(..., to=)."
        )
    if index.get("version") != FORMAT["version"]:
        raise FileFormatError(
            f"{folder} is written in version {index.get('version')} of the format and this interp "
            f"reads version {FORMAT['version']}; capture again."
        )
    for shard in index["shards"]:
        if not _OURS.fullmatch(shard["file"]):  # never a path that leads out of the folder
            raise FileFormatError(f"{folder / INDEX} names {shard['file']!r}, which is no shard.")
        path = folder / shard["file"]
        size = path.stat().st_size if path.exists() else 0
        if size != shard["bytes"]:
            raise FileFormatError(
                f"{path} has {size:,} bytes and index.json says {shard['bytes']:,}: "
                "the folder is truncated; capture again."
            )
    try:
        return Shards(folder, index), load_file(folder / LAYOUT)
    except (OSError, SafetensorError) as error:
        raise _damaged(folder / LAYOUT, error) from error


def _read(path: Path, name: str) -> Shaped[Tensor, "prompts ..."]:
    try:
        with safe_open(path, framework="pt") as shard:
            return shard.get_tensor(name)
    except (OSError, SafetensorError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> FileFormatError:
    return FileFormatError(f"{path} cannot be read ({error}); capture again.")
