"""Activations on disk: one safetensors shard for each batch, and an index that is written last.

index.json          format, hooks with shapes and dtypes, shards with sizes, provenance
layout.safetensors  mask, and the span of every role
00000.safetensors   the first batch: hook name -> tensor, and so on
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors.torch import save_file
from torch import Tensor

from interp.atomic import replacing
from interp.errors import FileFormatError, one_line
from interp.json_file import read_json, unseal, write_json
from interp.saved import BROKEN
from interp.tensor_file import open_tensor_file, signature, write_tensor_file

FORMAT, VERSION = "interp.Activations", 1
ENTRIES = ("hooks", "shards", "provenance")
WAY_OUT = "capture again, or give the folder that was passed to capture(..., to=)"
INDEX, LAYOUT = "index.json", "layout.safetensors"
_SHARD = re.compile(r"\d{5,}\.safetensors")
_OURS = re.compile(r"index\.json|layout\.safetensors|\d{5,}\.safetensors")


@dataclass(frozen=True, eq=False)
class Shards:
    """Hook name -> tensor, read from the shards when it is asked for."""

    folder: Path
    index: dict[str, Any]

    def __getitem__(self, name: str) -> Shaped[Tensor, "prompts ..."]:
        if name not in self:
            raise KeyError(name)
        shape = self.index["hooks"][name]["shape"]
        parts = [self._part(shard, name) for shard in self.index["shards"]]
        if sum(map(len, parts)) != shape[0]:
            raise self._misfit(name, [sum(map(len, parts)), *shape[1:]], parts[0].dtype)
        return torch.cat(parts)

    def _part(self, shard: dict[str, Any], name: str) -> Shaped[Tensor, "prompts ..."]:
        told = self.index["hooks"][name]
        with open_tensor_file(self.folder / shard["file"], way_out=WAY_OUT) as file:
            found = file.tensor(name)
            if "sha256" in shard and shard["sha256"].get(name) != signature({}, {name: found}):
                raise file.broken(f"the hash of {name} is another than it had")
        fits = found.ndim > 0 and list(found.shape[1:]) == told["shape"][1:]
        if not fits or str(found.dtype) != f"torch.{told['dtype']}":
            raise self._misfit(name, list(found.shape), found.dtype)
        return found

    def _misfit(self, name: str, shape: list[int], dtype: torch.dtype) -> FileFormatError:
        told = self.index["hooks"][name]
        return FileFormatError(
            f"{self.folder} holds {name!r:.80} of shape {shape} in {dtype}, and {INDEX} says "
            f"{told['shape']} in {told['dtype']}; {WAY_OUT}."
        )

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
            own = {name: tensor.cpu().contiguous() for name, tensor in batch.items()}
            with replacing(file) as place:
                save_file(own, place)
            hashes = {name: signature({}, {name: tensor}) for name, tensor in own.items()}
            shards.append({"file": file.name, "bytes": file.stat().st_size, "sha256": hashes})
            for name, tensor in batch.items():
                shape = [hooks[name]["shape"][0] if name in hooks else 0, *tensor.shape[1:]]
                shape[0] += len(tensor)
                hooks[name] = {"shape": shape, "dtype": str(tensor.dtype).removeprefix("torch.")}
        write_tensor_file(partial / LAYOUT, layout, {})
        index = {"hooks": hooks, "shards": shards, "provenance": provenance}
        write_json(partial / INDEX, index, format=FORMAT, version=VERSION, indent=1)
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def read(folder: Path) -> tuple[Shards, dict[str, Tensor]]:
    """The shards, opened lazily, and the layout.

    Raises FileFormatError for a folder that something else wrote, or that is not whole.
    """
    if not os.path.isfile(folder / INDEX):  # also of a folder that may not be entered
        raise FileFormatError(
            f"{folder} has no {INDEX}, so it is not a folder of activations; {WAY_OUT}."
        )
    told = read_json(folder / INDEX, way_out=WAY_OUT)
    index = unseal(
        told, folder / INDEX, format=FORMAT, version=VERSION, entries=ENTRIES, way_out=WAY_OUT
    )
    try:
        _require_index(folder, index)
        with open_tensor_file(folder / LAYOUT, way_out=WAY_OUT) as file:
            layout = file.tensors()
        _require_layout(layout)
    except FileFormatError:
        raise
    except BROKEN as error:
        raise FileFormatError(
            f"{folder} has a missing or broken part ({one_line(error)}); {WAY_OUT}."
        ) from error
    return Shards(folder, index), layout


def _require_index(folder: Path, index: dict[str, Any]) -> None:
    """Raise FileFormatError or ValueError unless an index tells of whole shards of its folder."""
    for name, told in index["hooks"].items():
        match told:
            case {"shape": [int(), *others], "dtype": str()} if all(
                isinstance(each, int) for each in others
            ):
                continue
        raise ValueError(f"{name!r:.80} has no shape and dtype")
    files: set[str] = set()
    for shard in index["shards"]:
        name = shard["file"]
        if not (isinstance(name, str) and _SHARD.fullmatch(name)):
            raise FileFormatError(f"{folder / INDEX} names {name!r:.80}, which is no shard.")
        path = folder / name
        _require_inside(path, folder)
        size = path.stat().st_size if path.exists() else 0
        if size != shard["bytes"]:
            raise FileFormatError(
                f"{path} has {size:,} bytes and index.json says {shard['bytes']!r:.80}: the folder "
                f"is truncated; {WAY_OUT}."
            )
        if not isinstance(shard.get("sha256", {}), dict):
            raise ValueError(f"{name} has no hashes")
        files.add(os.path.realpath(path))
    if len(files) < len(index["shards"]):
        raise FileFormatError(f"{folder / INDEX} names one shard twice; {WAY_OUT}.")
    if not index["shards"] or not isinstance(index["provenance"].get("model"), str):
        raise ValueError("it has no shards, or no model")
    _require_inside(folder / LAYOUT, folder)


def _require_inside(path: Path, folder: Path) -> None:
    """Raise FileFormatError for a link to what is not in the folder."""
    if os.path.dirname(os.path.realpath(path)) != os.path.realpath(folder):
        raise FileFormatError(f"{path} leads out of its folder; {WAY_OUT}.")


def _require_layout(layout: dict[str, Tensor]) -> None:
    """Raise ValueError unless there is a mask, and a span of each role in each prompt."""
    mask = layout["mask"]
    if mask.dtype != torch.bool or mask.ndim != 2:
        raise ValueError("its mask is none")
    for name, spans in layout.items():
        whole = spans.dtype == torch.int64 and spans.shape == (len(mask), 2)
        if name != "mask" and not (name.startswith("role ") and whole):
            raise ValueError(f"{name!r:.80} is no role")
