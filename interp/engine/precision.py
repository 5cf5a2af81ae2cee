"""The same model in another precision, and what that costs in accuracy."""

from __future__ import annotations

from dataclasses import replace

import torch

from interp.engine.result import SweepResult
from interp.errors import InterventionError, did_you_mean
from interp.models import Model

DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def in_dtype(model: Model, dtype: str | torch.dtype) -> Model:
    """The model with its weights in `dtype`: itself if they are, else a copy that it keeps.

    Raises InterventionError for an unknown precision.
    """
    if isinstance(dtype, str):
        if dtype not in DTYPES:
            raise InterventionError(f"There is no dtype {dtype!r}: {did_you_mean(dtype, DTYPES)}")
        dtype = DTYPES[dtype]
    if dtype == model.dtype:
        return model
    copies = model.derived.setdefault("precisions", {})
    made_for = (model.hf, model.device, model.weights_hash)
    if dtype not in copies or copies[dtype][0] != made_for:
        module = model.own_copy(f"dtype={str(dtype).removeprefix('torch.')!r}").to(dtype)
        other = Model(module, model.tokenizer, id=model.id, revision=model.revision)
        copies[dtype] = (made_for, other)
    return copies[dtype][1]


def with_error(found: SweepResult, own: SweepResult, rows: list[int]) -> SweepResult:
    """A sweep in another precision, with its error against rows of it in the model's own.

    The error is that of the effects: root mean square and largest, in units of the metric, and the
    correlation over all these values.
    """
    error = found.effects[rows].double() - own.effects.double()
    pairs = torch.stack([found.effects[rows].double().flatten(), own.effects.double().flatten()])
    measured = {
        "against": own.provenance["dtype"],
        "sites": len(rows),
        "rms": error.square().mean().sqrt().item(),
        "max": error.abs().max().item(),
        "correlation": torch.corrcoef(pairs)[0, 1].item() if pairs.shape[1] > 1 else None,
    }
    exact = torch.zeros(len(found.sites), dtype=torch.bool)
    return replace(found, provenance={**found.provenance, "error": measured}, exact=exact)
