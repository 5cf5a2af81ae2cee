"""Where a result comes from: enough to make it again."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from interp import __version__
from interp.models import Model
from interp.prompts import PromptSet

LIBRARIES = ("torch", "transformers", "transformer-lens")


def provenance(model: Model, prompts: PromptSet | None = None, **how: Any) -> dict[str, Any]:
    """Model, weights, prompts, precision and versions as plain JSON values; `how` says the rest.

    There is no date in it: the same run gives the same bytes.
    """
    return {
        "model": model.id,
        "revision": model.revision,
        "weights_hash": model.weights_hash,
        "geometry": asdict(model.geometry),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": model.places,
        **({} if prompts is None else _of_prompts(prompts)),
        **how,
        "versions": {"interp": __version__} | {name: version(name) for name in LIBRARIES},
    }


def _of_prompts(prompts: PromptSet) -> dict[str, Any]:
    return {
        "task": prompts.task,
        "prompts_hash": prompts.hash,
        "n": len(prompts),
        "seed": prompts.notes.get("seed"),
        "notes": {
            name: note
            for name, note in prompts.notes.items()
            if isinstance(note, str | int | float | bool)
        },
    }
