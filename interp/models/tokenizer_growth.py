"""How much longer may a tokenizer make a text? Asked before a text is given to it.

Its steps follow one another, and one that puts two letters in the place of each doubles what those
before it made: forty of them make a terabyte of one word, and the library then ends the process.
"""

from __future__ import annotations

import math
from base64 import b64decode
from typing import Any

MOST_GROWTH = 1_000
"""Letters in the place of one. The tables of Unicode, which put 18 there, come once or twice."""


def require_short(told: dict[str, Any], name: str) -> None:
    """Raise ValueError if a tokenizer lets a text grow much; `told` is the content of its file."""
    reading = growth(told.get("normalizer")) * growth(told.get("pre_tokenizer"))
    for what, found in (("a text", reading), ("what is decoded", growth(told.get("decoder")))):
        if found > MOST_GROWTH:
            raise ValueError(
                f"the steps of {name} may make {what} {found:,.0f} times as long, and no more than "
                f"{MOST_GROWTH:,} is read"
            )


def growth(step: Any) -> float:
    """The most letters that a step, or several in sequence, may put in the place of one.

    Steps are known by their fields: their type may be left out.

    >>> replace = {"type": "Replace", "pattern": {"String": "a"}, "content": "aa"}
    >>> growth({"type": "Sequence", "normalizers": [replace] * 10})
    1024.0
    """
    if not isinstance(step, dict):
        return 1.0
    for name in ("normalizers", "pretokenizers", "decoders"):
        if isinstance(step.get(name), list):
            return math.prod(map(growth, step[name]))
    if "content" in step:
        return _of_replacing(step.get("pattern"), len(step["content"]))
    if "prepend" in step:
        return 1.0 + len(step["prepend"])
    if "precompiled_charsmap" in step:
        return _of_table(b64decode(step["precompiled_charsmap"] or ""))
    return 2.0 if step.get("type") == "ByteLevel" or "trim_offsets" in step else 1.0


def _of_replacing(pattern: Any, content: int) -> float:
    """An empty text, and what any regular expression may find, stands between all letters."""
    found = pattern.get("String") if isinstance(pattern, dict) else None
    return max(1.0, content / len(found)) if found else 1.0 + content


def _of_table(table: bytes) -> float:
    """Four bytes that say how long the index is, the index, and texts with a zero behind each."""
    texts = table[4 + int.from_bytes(table[:4], "little") :]
    return float(max(map(len, texts.split(b"\0")), default=1) or 1)
