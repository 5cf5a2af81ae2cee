"""Is this the run that was begun? Two descriptions, and where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from interp.errors import RunError

MISSING = "nothing"


def differences(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """One phrase for each key that differs; keys of what is nested are joined with dots.

    >>> differences({"n": 8, "versions": {"torch": "2.6"}}, {"n": 16, "versions": {"torch": "2.7"}})
    ['n was 8 and is 16', "versions.torch was '2.6' and is '2.7'"]
    """
    old, new = _flat(was), _flat(now)
    return [
        f"{key} was {_shown(old, key)} and is {_shown(new, key)}"
        for key in [*old, *(key for key in new if key not in old)]
        if _shown(old, key) != _shown(new, key)
    ]


def require_same(folder: object, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise RunError, naming every difference, unless both describe the same run."""
    kinds = was.get("kind"), now.get("kind")
    if kinds[0] != kinds[1]:
        raise RunError(
            f"{folder} is another run: kind was {kinds[0]!r} and is {kinds[1]!r}; give another "
            "folder."
        )
    if found := differences(was, now):
        raise RunError(
            f"{folder} is another run: {'; '.join(found)}; resume it as it was begun, or give "
            "another folder."
        )


def _flat(nested: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{key}.")
        else:
            flat[f"{above}{key}"] = value
    return flat


def _shown(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else MISSING
