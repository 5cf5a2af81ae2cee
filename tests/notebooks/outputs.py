"""What a notebook gives, in a form in which two runs compare: words exactly, numbers nearly."""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from nbformat import NotebookNode

FIGURE = "application/vnd.plotly.v1+json"
NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w.]*\w)")
RELATIVE, ABSOLUTE = 1e-2, 2e-2

Told = tuple[list[str], list[float]]
"""The words, with # for each number, and the numbers."""


def kinds(cell: NotebookNode) -> list[str]:
    """What sorts of output a cell gives, in order."""
    return [
        f"{output.output_type} {output.get('name', '')}{' '.join(sorted(output.get('data', {})))}"
        for output in cell.outputs
    ]


def told(cell: NotebookNode) -> Told:
    """All that a cell gives."""
    words, numbers = [], []
    for output in cell.outputs:
        for text in _texts(output):
            found = NUMBER.findall(text)
            numbers += [float(each.replace("−", "-").replace(",", "")) for each in found]
            words.append(" ".join(NUMBER.sub("#", text).split()))
        for figure in _figures(output):
            label, values = _flat(figure)
            words += label
            numbers += values
    return words, numbers


def differences(mine: Told, theirs: Told) -> list[str]:
    """Where two cells differ: none if their words are the same and their numbers nearly so."""
    if mine[0] != theirs[0]:
        pairs = zip(mine[0], theirs[0], strict=False)
        return [f"{a!r:.300} is {b!r:.300}" for a, b in pairs if a != b] or ["one says more"]
    if len(mine[1]) != len(theirs[1]):
        return [f"{len(mine[1])} numbers are {len(theirs[1])}"]
    ours, others = np.array(mine[1]), np.array(theirs[1])
    same = np.isclose(others, ours, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    return [f"{a} is {b}" for a, b in zip(ours[~same], others[~same], strict=True)]


def _texts(output: NotebookNode) -> Iterator[str]:
    if output.output_type == "stream":
        yield output.text
    data = output.get("data", {})
    for kind, read in (("text/plain", str), ("text/html", _visible)):
        if kind in data and FIGURE not in data:
            yield read(data[kind])


def _visible(page: str) -> str:
    """The text of a table; of a widget in a frame the text of its page, with its data."""
    frame = re.search(r'srcdoc="([^"]*)"', page)
    page = html.unescape(frame[1]) if frame else page
    page = re.sub(r"<style.*?</style>|<script>.*?</script>", " ", page, flags=re.DOTALL)
    return html.unescape(re.sub(r"<[^>]*>", " ", page))


def _figures(output: NotebookNode) -> Iterator[Any]:
    figure = output.get("data", {}).get(FIGURE)
    if figure is not None:
        yield figure["data"]
        layout = figure["layout"]
        yield {name: part for name, part in layout.items() if name != "template"}


def _flat(part: Any) -> Told:
    """The words and numbers of a figure; its parts by name, for a file has them in that order."""
    if isinstance(part, dict) and "bdata" in part:
        values = np.frombuffer(base64.b64decode(part["bdata"]), dtype=part["dtype"])
        return ["numbers"], values.astype(float).tolist()
    if isinstance(part, bool) or part is None:
        return [str(part)], []
    if isinstance(part, int | float):
        return [], [float(part)]
    if isinstance(part, str):
        found = NUMBER.findall(part)
        numbers = [float(each.replace("−", "-").replace(",", "")) for each in found]
        return [NUMBER.sub("#", part)], numbers
    items = sorted(part.items()) if isinstance(part, dict) else enumerate(part)
    words, values = [], []
    for name, each in items:
        label, found = _flat(each)
        words += [str(name), *label] if isinstance(part, dict) else label
        values += found
    return words, values
