"""A lens as a file: safetensors, with all but the translators in the metadata."""

from __future__ import annotations

import json
from pathlib import Path

from interp.errors import LensError
from interp.lens.lens import Lens
from interp.saved import fitted
from interp.tensor_file import misfit_of, open_tensor_file, write_tensor_file

FORMAT, VERSION = "interp.Lens", "1"
WAY_OUT = "write one with save_lens or `interp lens MODEL TEXT --train 250 --tuned FILE`"


def save_lens(lens: Lens, path: str | Path) -> Path:
    """Write a lens as safetensors, making folders as needed; returns the path.

    Raises LensError for a logit lens, which has nothing to keep.
    """
    if lens.weight is None or lens.bias is None:
        raise LensError(f"{lens} has no translators to keep; make it again with logit_lens(model).")
    told = json.dumps({"kind": lens.kind, "provenance": lens.provenance})
    metadata = {"format": FORMAT, "version": VERSION, "lens": told}
    return write_tensor_file(path, {"weight": lens.weight, "bias": lens.bias}, metadata)


def load_lens(path: str | Path) -> Lens:
    """Read what `save_lens` wrote; `load_published` reads the format of the tuned-lens package.

    Raises FileFormatError: not such a file, of another version, or damaged.
    """
    with open_tensor_file(path, way_out=WAY_OUT) as file:
        file.require(FORMAT, VERSION)
        told, tensors = file.told("lens"), file.tensors()
        if sorted(tensors) != ["bias", "weight"]:
            raise file.broken("its tensors are not weight and bias")
        for name, tensor in tensors.items():
            if (why := misfit_of(tensor)) is not None:
                raise file.broken(f"{name} {why}")
        try:
            return fitted(Lens, **told, **tensors)
        except (LookupError, ValueError, TypeError, LensError) as error:
            raise file.broken(error) from error
