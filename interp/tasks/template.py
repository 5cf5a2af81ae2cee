"""Filling the holes of a wording while keeping track of where each role stands."""

from __future__ import annotations

import re
from collections.abc import Mapping

HOLE = re.compile(r"\{(\w+)\}")


def fill(template: str, words: Mapping[str, str]) -> tuple[str, dict[str, tuple[int, int]]]:
    """The text, and the span of characters of each hole named in capitals: these are roles.

    >>> fill("{A} met {b}.", {"A": "Ann", "b": "Bob"})
    ('Ann met Bob.', {'A': (0, 3)})
    """
    text, spans, done = "", {}, 0
    for hole in HOLE.finditer(template):
        text += template[done : hole.start()]
        name = hole.group(1)
        if name.isupper():
            spans[name] = (len(text), len(text) + len(words[name]))
        text += words[name]
        done = hole.end()
    return text + template[done:], spans
