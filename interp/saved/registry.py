"""The classes that a file may name: those that asked for it, and no others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import Field, fields
from types import MappingProxyType
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type[Any])

KEPT_OUT: Mapping[str, Any] = MappingProxyType({"saved": False})
"""Metadata of a field that no file can hold, such as a function; its default stands when read."""

_KNOWN: dict[str, type[Any]] = {}


def register(cls: Class) -> Class:
    """Let files hold instances of a dataclass, under its package and name.

    Raises TypeError if another class of the package has the name.
    """
    name = name_of(cls)
    before = _KNOWN.get(name, cls)
    if (before.__module__, before.__qualname__) != (cls.__module__, cls.__qualname__):
        raise TypeError(f"Two classes would be {name} in files: {before} and {cls}.")
    _KNOWN[name] = cls  # one that was made anew, as by a notebook's autoreload, takes its place
    return cls


def known() -> Mapping[str, type[Any]]:
    """Every class that files may hold, by its name there."""
    return MappingProxyType(_KNOWN)


def name_of(cls: type[Any]) -> str:
    """What a file calls a class: `circuits.Curve`, wherever in the package it is written."""
    package = cls.__module__.removeprefix("interp.").split(".")[0]
    return f"{package}.{cls.__name__}"


def fields_of(cls: type[Any]) -> list[Field[Any]]:
    """The fields that a file holds."""
    return [field for field in fields(cls) if field.init and field.metadata.get("saved", True)]
