"""`Saved`: what gives a dataclass its file.

One safetensors file: tensors as they are, all else as JSON in its header, and the hash of both. It
names classes only out of those that are registered, and holds no code.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from interp.errors import FileFormatError, InterpError
from interp.saved.registry import name_of, register
from interp.saved.values import pack, unpack

FORMAT = {"format": "interp.result", "version": 1}
LARGEST = 90_000_000
"""Bytes of JSON; a header of 100 MB or more is refused by safetensors when it is read."""

BROKEN = (
    *(LookupError, TypeError, ValueError, ArithmeticError, RuntimeError, AttributeError),
    InterpError,  # of a class that refuses its fields
)
"""What a file that holds something else leads to."""
Result = TypeVar("Result", bound="Saved")


class Saved:
    """A dataclass with `save` and `load`.

    Its fields are tensors, arrays, tables, numbers, words, sites, tuples, lists, sets, mappings,
    and other dataclasses that are `Saved` or registered. Fields with the metadata `KEPT_OUT` are
    left out.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        register(cls)

    def save(self, path: str | Path) -> Path:
        """Write everything as one safetensors file, making folders as needed; returns the path.

        A file that is already there is replaced in one step. Tensors keep their bits and their
        number format, and come back on the CPU.

        Raises FileFormatError for contents that no file can hold.
        """
        path = Path(path)
        tensors: dict[str, Tensor] = {}
        try:
            told = {**FORMAT, "result": pack(self, tensors, "")}
        except TypeError as error:
            raise FileFormatError(
                f"This {type(self).__name__} cannot be saved, for {error}; keep its to_frame()."
            ) from error
        header = json.dumps(told)
        if len(header) > LARGEST:
            raise FileFormatError(
                f"This {type(self).__name__} has {len(header):,} bytes beside its tensors and a "
                f"file holds {LARGEST:,}; make it of fewer prompts."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        try:
            save_file(tensors, partial, {"interp": header, "sha256": _hash(header, tensors)})
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        return path

    @classmethod
    def load(cls: type[Result], path: str | Path) -> Result:
        """Read what `save` wrote.

        Raises FileFormatError: not such a file, of another class or version, or damaged.
        """
        told, tensors = _opened(path, cls.__name__)
        try:
            result = unpack(told["result"], tensors)
        except BROKEN as error:
            raise _broken(path, error) from error
        if not isinstance(result, cls):
            raise FileFormatError(
                f"{path} holds a {name_of(type(result))}, not a {name_of(cls)}; read it with "
                "interp.results.load."
            )
        if tensors:
            raise _broken(path, f"nothing names its tensor {min(tensors)}")
        return result


def _opened(path: str | Path, wanted: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file that is whole and of this version."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            # an open file is no mapping: without keys() it cannot be gone through
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise FileFormatError(
            f"{path} cannot be read ({error}); give a file that {wanted}.save wrote."
        ) from error
    header = metadata.get("interp", "")
    try:
        told = json.loads(header)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or told.get("format") != FORMAT["format"]:
        raise FileFormatError(
            f"{path} does not hold a {wanted}; give a file that {wanted}.save wrote."
        )
    if told.get("version") != FORMAT["version"]:
        raise FileFormatError(
            f"{path} is written in version {told.get('version')!r} of the format and this release "
            f"reads version {FORMAT['version']}; make the result again, or install the release "
            "that wrote it."
        )
    if metadata.get("sha256") != _hash(header, tensors):
        raise FileFormatError(f"{path} is damaged: its hash is another; make the result again.")
    return told, tensors


def _broken(path: str | Path, why: object) -> FileFormatError:
    return FileFormatError(
        f"{path} has a missing or broken part ({why}); make the result again, or install the "
        "release that wrote it."
    )


def _hash(header: str, tensors: dict[str, Tensor]) -> str:
    """Changes with any word of the header, and any bit, shape, format or name of a tensor."""
    digest = hashlib.sha256(header.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
