"""A circuit of our own inside a file of another format, for what that format cannot hold."""

from __future__ import annotations

import json
from typing import Any

from interp.circuits.circuit import Circuit
from interp.circuits.circuit_file import attributes_of, to_json


def to_block(circuit: Circuit) -> dict[str, Any]:
    """The circuit as plain JSON values. Raises FileFormatError for what no file can hold."""
    block: dict[str, Any] = json.loads(to_json(circuit, "a circuit"))
    return block


def from_block(block: Any, file: str) -> Circuit:
    """The circuit in what `to_block` gave.

    Raises:
        FileFormatError: Another kind or version, damaged or incomplete; `file` is where it stands.
    """
    return Circuit(**attributes_of(block, file))
