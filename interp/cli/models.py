"""`interp models`: what ships with the package."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from interp.cli.options import AsJson


def models(as_json: AsJson = False) -> None:
    """List the models that ship with the package.

    Examples:
    interp models
    interp models --json
    """
    from interp.cli import show
    from interp.resources import data_dir

    configs = sorted((data_dir() / "models").glob("*/config.json"))
    found = [describe(config.parent) for config in configs]
    if as_json:
        show.print_json(found)
        return
    show.table(
        ("name", "parameters", "size", "checkpoints", "description"),
        [
            (
                model["name"],
                f"{model['parameters'] / 1e6:.2f} M",
                f"{model['bytes'] / 1e6:.1f} MB",
                str(model["checkpoints"] or "–"),
                model["description"],
            )
            for model in found
        ],
        title=f"{len(found)} embedded models",
    )


def describe(folder: Path) -> dict[str, Any]:
    """What the files of an embedded model say, without loading it."""
    weights = folder / "model.safetensors"
    checkpoints = list((folder / "checkpoints").glob("*.safetensors"))
    return {
        "name": folder.name,
        "description": _description(folder / "README.md"),
        "parameters": _parameters(weights),
        "bytes": sum(path.stat().st_size for path in [weights, *checkpoints]),
        "checkpoints": len(checkpoints),
    }


def _description(card: Path) -> str:
    """The first sentence of a model card."""
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    text = next((line for line in lines if line and not line.startswith(("#", "---"))), "")
    return text.partition(". ")[0].rstrip(".")


def _parameters(weights: Path) -> int:
    """Numbers in a safetensors file, from its header: 8 bytes of length, then JSON."""
    with weights.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(part["shape"]) for name, part in header.items() if name != "__metadata__")
