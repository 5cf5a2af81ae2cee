"""Values to JSON and back, with tensors apart.

Words, whole numbers, finite numbers, booleans, None and lists stand for themselves. Anything else
is an object with one key, or two for a dataclass, that says what it is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from interp.saved.fits import fitted
from interp.saved.registry import fields_of, known, name_of
from interp.sites import Site, parse

COLUMN = re.compile(r"bool|object|str|string|u?int(8|16|32|64)|float(16|32|64)")
"""What a column of a table may be. pandas would take "S999999999", a gigabyte for each row."""
COLLECTIONS: dict[str, type[Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
MOST_ALIKE = 100
"""Values of one hash in a set or dictionary: of many, each is compared with all before it."""
DTYPES = {str(value): value for value in vars(torch).values() if isinstance(value, torch.dtype)}


def pack(value: Any, tensors: dict[str, Tensor], at: str) -> Any:
    """What stands for a value in JSON; its tensors are put into `tensors`, named after `at`.

    Raises TypeError for what a file cannot hold.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        return value if math.isfinite(value) else {"float": str(value)}
    if type(value) is list:
        return [pack(each, tensors, f"{at}.{i}") for i, each in enumerate(value)]
    for name, collection in COLLECTIONS.items():
        if type(value) is collection:
            return {name: [pack(each, tensors, f"{at}.{i}") for i, each in enumerate(value)]}
    if isinstance(value, Mapping):
        pairs = value.items()
        return {
            "dict": [[pack(k, tensors, at), pack(each, tensors, f"{at}.{k}")] for k, each in pairs]
        }
    if isinstance(value, Tensor):
        return {"tensor": _keep(value, tensors, at)}
    if isinstance(value, np.ndarray):
        return {"array": _keep(torch.from_numpy(value.copy()), tensors, at)}
    if isinstance(value, pd.DataFrame):
        return {"frame": _pack_frame(value, tensors, at)}
    if isinstance(value, Site):
        return {"site": str(value)}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value)}
    if known().get(name_of(type(value))) is type(value):
        inside = {
            field.name: pack(getattr(value, field.name), tensors, f"{at}.{field.name}".strip("."))
            for field in fields_of(type(value))
        }
        return {"object": name_of(type(value)), "fields": inside}
    raise TypeError(f"{at} is a {type(value).__name__}")


def unpack(data: Any, tensors: dict[str, Tensor]) -> Any:
    """The value that `pack` packed; each tensor is taken out of `tensors`.

    Raises what a file with a value that is no such thing leads to: KeyError, TypeError, ValueError,
    RecursionError, or the error of a class that refuses its fields.
    """
    if isinstance(data, list):
        return [unpack(each, tensors) for each in data]
    if not isinstance(data, dict):
        return data
    match data:
        case {"float": "nan" | "inf" | "-inf" as text}:
            return float(text)
        case {"dict": list(pairs)}:
            keys = _unlike([unpack(key, tensors) for key, _ in pairs])
            values = [unpack(each, tensors) for _, each in pairs]
            return dict(zip(keys, values, strict=True))
        case {"tensor": str(name)}:
            return tensors.pop(name)
        case {"array": str(name)}:
            return tensors.pop(name).numpy()
        case {"frame": dict(columns)}:
            return _unpack_frame(columns, tensors)
        case {"site": str(text)}:
            return parse(text)
        case {"dtype": str(name)}:
            return DTYPES[name]
        case {"object": str(name), "fields": dict(inside)}:
            return _make(name, inside, tensors)
    for name, collection in COLLECTIONS.items():
        if isinstance(data.get(name), list):
            values = [unpack(each, tensors) for each in data[name]]
            return collection(values if collection is tuple else _unlike(values))
    raise ValueError(f"{data!s:.80} is nothing that this release writes")


def _unlike(values: list[Any]) -> list[Any]:
    """The same values. Raises ValueError where a set of them would take for ever to make."""
    alike = max(Counter(map(hash, values)).values(), default=0)
    if alike > MOST_ALIKE:
        raise ValueError(f"{alike:,} values of a set or dictionary have the same hash")
    return values


def _make(name: str, inside: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """An instance of a class that is known, of fields that are what the class says."""
    if name not in known():
        raise ValueError(f"{name!r:.80} is no class of this release")
    cls = known()[name]
    expected = [field.name for field in fields_of(cls)]
    if sorted(inside) != sorted(expected):
        raise ValueError(f"{name} has the fields {', '.join(expected)}, not {', '.join(inside)}")
    values = {field: unpack(each, tensors) for field, each in inside.items()}
    return fitted(cls, **values)


def _keep(tensor: Tensor, tensors: dict[str, Tensor], at: str) -> str:
    """Put a tensor among the others, and say under which name."""
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise TypeError(f"{at} is a tensor that is sparse or quantized")
    plain = at.encode("ascii", "backslashreplace").decode()
    name, copies = plain, 1
    while name in tensors:  # keys that are printed alike, such as 1 and "1"
        copies += 1
        name = f"{plain}#{copies}"
    tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    return name


def _pack_frame(frame: pd.DataFrame, tensors: dict[str, Tensor], at: str) -> dict[str, Any]:
    """Columns by their names; numbers as tensors, all else as lists."""
    if not frame.index.equals(pd.RangeIndex(len(frame))):
        raise TypeError(f"{at} is a table with an index of its own")
    return {
        "names": pack(list(frame.columns), tensors, at),
        "columns": [
            pack(
                column.to_numpy() if column.dtype.kind in "biuf" else column.tolist(),
                tensors,
                f"{at}.{name}",
            )
            for name, column in frame.items()
        ],
        "dtypes": [str(dtype) for dtype in frame.dtypes],
        "rows": len(frame),
    }


def _unpack_frame(data: dict[str, Any], tensors: dict[str, Tensor]) -> pd.DataFrame:
    if unknown := [each for each in data["dtypes"] if not COLUMN.fullmatch(each)]:
        raise ValueError(f"a table has a column of {unknown[0]!r:.80}")
    names = unpack(data["names"], tensors)
    columns = [
        pd.Series(unpack(column, tensors), dtype=dtype)
        for column, dtype in zip(data["columns"], data["dtypes"], strict=True)
    ]
    if type(data["rows"]) is not int or any(len(column) != data["rows"] for column in columns):
        raise ValueError("a table has columns of unequal length")
    frame = pd.DataFrame(dict(enumerate(columns)), index=pd.RangeIndex(data["rows"]))
    frame.columns = pd.Index(names) if names else frame.columns
    return frame
