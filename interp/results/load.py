"""Read any result, whatever wrote it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from interp.activations import Activations
from interp.circuits import Circuit
from interp.consistency.result import Consistency
from interp.engine import SweepResult
from interp.errors import FileFormatError
from interp.grokking.curves import GrokkingCurves
from interp.heads import HeadAtlas, TrainingCurves
from interp.lens.lens_file import load_lens
from interp.lens.reading import LensReading
from interp.probes.directions import Probes
from interp.probes.result import ProbeResult
from interp.results.header import format_of
from interp.runs import info, is_run
from interp.saved import FORMAT, Saved
from interp.vectors.vector import Vector
from interp.vectors.weights.weight_vector import WeightVector

FORMATS: Mapping[str, Callable[[Path], Any]] = MappingProxyType(
    {
        "interp.Activations": Activations.load,
        "interp.Circuit": Circuit.load,
        "interp.Consistency": Consistency.load,
        "interp.GrokkingCurves": GrokkingCurves.load,
        "interp.HeadAtlas": HeadAtlas.load,
        "interp.Lens": load_lens,
        "interp.LensReading": LensReading.load,
        "interp.ProbeResult": ProbeResult.load,
        "interp.Probes": Probes.load,
        "interp.SweepResult": SweepResult.load,
        "interp.TrainingCurves": TrainingCurves.load,
        "interp.Vector": Vector.load,
        "interp.WeightVector": WeightVector.load,
        str(FORMAT["format"]): Saved.load,
    }
)
"""What files call their format -> what reads them.

The imports for it bring in every package whose classes a file may name.
"""


def load(path: str | Path) -> Any:
    """The result in a file, in a folder of activations, or of a run that is done.

    Raises:
        FileFormatError: Nothing that `interp` wrote, of another version, damaged, or a folder of
            several results, which `load_all` reads.
    """
    place = place_of(path)
    if place is None:
        raise FileFormatError(
            f"{path} is a folder of results; read all of them with interp.results.load_all, or "
            "name one of its files."
        )
    try:
        found = format_of(place)
    except OSError as error:
        raise _unreadable(path, error) from error
    if found is None or found not in FORMATS:
        raise FileFormatError(
            f"{path} {'names no format' if found is None else f'is of format {found!r}'}, and this "
            f"release reads {', '.join(sorted(FORMATS))}; give a file that a result's save wrote."
        )
    return FORMATS[found](place)


def load_all(*paths: str | Path) -> list[Any]:
    """The results in files, runs and folders, in their order; in a folder, by name.

    A folder of results holds files that results wrote, and such folders as `load` reads.

    Raises:
        FileFormatError: As `load`; also a folder with nothing in it.
    """
    found = []
    for path in map(Path, paths):
        if place_of(path) is not None:
            found.append(load(path))
            continue
        try:
            inside = sorted(each for each in path.iterdir() if not each.name.startswith("."))
        except OSError as error:
            raise _unreadable(path, error) from error
        if not inside:
            raise FileFormatError(f"{path} is an empty folder; name one with results in it.")
        found += [load(each) for each in inside]
    return found


def place_of(path: str | Path) -> Path | None:
    """The file or folder with the one result that a path stands for; None: it has several.

    Raises FileFormatError for what is not there or may not be read, and for a run that is not done;
    RunError for a run whose ledger is damaged.
    """
    try:
        return _place_of(Path(path))
    except OSError as error:  # of a folder that may not be entered
        raise _unreadable(path, error) from error


def _place_of(path: Path) -> Path | None:
    if not path.exists():
        raise FileFormatError(f"{path} does not exist; name a file or folder with a result.")
    if not path.is_dir() or (path / "index.json").is_file():
        return path
    if not is_run(path):
        return None
    run = info(path)
    if run.result is None:
        raise FileFormatError(
            f"{path} is a run that is not done; `interp runs show {path}` tells more."
        )
    return path / Path(run.result).name  # never a path that leads out of the folder


def _unreadable(path: str | Path, error: OSError) -> FileFormatError:
    return FileFormatError(f"{path} cannot be read ({error.strerror}); name a result.")
