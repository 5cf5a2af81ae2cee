"""`Saved`: what gives a dataclass its file.

One safetensors file: tensors as they are, all else as JSON in its header, and the hash of both. It
names classes only out of those that are registered, and holds no code.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from interp.errors import FileFormatError, InterpError, one_line
from interp.json_file import decode
from interp.saved.registry import name_of, register
from interp.saved.values import pack, unpack
from interp.tensor_file import open_tensor_file, write_tensor_file

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
        try:
            decode(header)
        except ValueError as error:
            raise FileFormatError(
                f"This {type(self).__name__} could not be read again, for {error}; keep its "
                "to_frame()."
            ) from error
        return write_tensor_file(path, tensors, {"interp": header})

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
    with open_tensor_file(path, way_out=f"give a file that {wanted}.save wrote") as file:
        told = file.told("interp") if "interp" in file.metadata else {}
        if told.get("format") != FORMAT["format"]:
            raise FileFormatError(
                f"{path} does not hold a {wanted}; give a file that {wanted}.save wrote."
            )
        if told.get("version") != FORMAT["version"]:
            raise FileFormatError(
                f"{path} is written in version {told.get('version')!r:.80} of the format and this "
                f"release reads version {FORMAT['version']}; make the result again, or install the "
                "release that wrote it."
            )
        return told, file.tensors(signed=True)


def _broken(path: str | Path, why: object) -> FileFormatError:
    return FileFormatError(
        f"{path} has a missing or broken part ({one_line(why)}); make the result again, or install "
        "the release that wrote it."
    )
