"""Write several results into one folder, each in the format of its class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from interp.circuits import Circuit
from interp.consistency.result import Consistency
from interp.grokking.curves import GrokkingCurves
from interp.heads import HeadAtlas, TrainingCurves
from interp.lens.reading import LensReading
from interp.probes.result import ProbeResult

JSON = (
    Circuit,
    Consistency,
    GrokkingCurves,
    HeadAtlas,
    LensReading,
    ProbeResult,
    TrainingCurves,
)
"""Classes that write JSON; all others write safetensors."""


def save_all(folder: str | Path, **results: Any) -> list[Path]:
    """Write each result into a folder, under its name; returns the paths.

    The ending follows from the class. Files of these names that are there are replaced.
    """
    folder = Path(folder)
    return [
        result.save(folder / f"{name}{'.json' if isinstance(result, JSON) else '.safetensors'}")
        for name, result in results.items()
    ]
