"""A measurement as a file: JSON, or Parquet with one row a path."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from interp.consistency.layer_weights import LayerWeights
from interp.consistency.questions import Question
from interp.consistency.thresholds import Thresholds
from interp.errors import FileFormatError, one_line
from interp.saved import BROKEN, fitted
from interp.table_file import read_table, write_table

FORMAT, VERSION = "interp.Consistency", 1
ENTRIES = ("questions", "thresholds", "tuned", "transferred", "provenance", "paths")
WAY_OUT = "write one with Consistency.save or `interp consistency MODEL --out ic.json`"
Made = TypeVar("Made")


def write(path: Path, parts: Mapping[str, Any]) -> Path:
    """Write the attributes of a measurement, making folders as needed."""
    told = _about(parts) | {"paths": _columns(parts)}
    return write_table(path, told, columns="paths", format=FORMAT, version=VERSION)


def read(path: Path, cls: type[Made]) -> Made:
    """The measurement in a file, as an instance of its class.

    Raises:
        FileFormatError: Not a file, of another kind or version, or incomplete.
    """
    data = read_table(
        path, columns="paths", format=FORMAT, version=VERSION, entries=ENTRIES, way_out=WAY_OUT
    )
    try:
        return fitted(cls, **_parts(data))
    except BROKEN as error:
        raise FileFormatError(
            f"{path} has a missing or broken part ({one_line(error)}); {WAY_OUT}."
        ) from error


def _about(parts: Mapping[str, Any]) -> dict[str, Any]:
    """All but the paths, as plain values."""
    thresholds: Thresholds = parts["thresholds"]
    return {
        "questions": [asdict(question) for question in parts["questions"]],
        "thresholds": {
            "values": thresholds.values.tolist(),
            "labels": list(thresholds.labels),
            "fitted_on": sorted(thresholds.fitted_on),
            "n": thresholds.n,
        },
        "tuned": _weights_data(parts["tuned"]),
        "transferred": _weights_data(parts["transferred"]),
        "provenance": parts["provenance"],
    }


def _columns(parts: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The paths, one column for each thing known of them; `p` is layers x labels in one list."""
    latents = parts["latents"].flatten(0, 1).flatten(1)
    untrained = parts["untrained"]
    return {
        "text": list(parts["texts"]),
        "given": parts["given"].flatten().tolist(),
        "log_prob": parts["log_probs"].flatten().tolist(),
        "tokens": parts["lengths"].flatten().tolist(),
        "p": [None if math.isnan(row[0]) else row for row in latents.tolist()],
        **(
            {}
            if untrained is None
            else {"untrained": [None if math.isnan(v) else v for v in untrained.flatten().tolist()]}
        ),
    }


def _parts(data: dict[str, Any]) -> dict[str, Any]:
    questions = tuple(
        fitted(Question, **{**each, "labels": tuple(each["labels"])}) for each in data["questions"]
    )
    paths, told = data["paths"], data["thresholds"]
    thresholds = fitted(
        Thresholds,
        values=torch.tensor(told["values"], dtype=torch.float64),
        labels=tuple(told["labels"]),
        fitted_on=frozenset(told["fitted_on"]),
        n=told["n"],
    )
    given = torch.tensor(paths["given"]).view(len(questions), -1)
    if not bool(((given >= -1) & (given < len(thresholds.labels))).all()):
        raise ValueError("a path gives a label that is none")
    if len(paths["text"]) != given.numel():
        raise ValueError(f"it has {len(paths['text'])} texts of {given.numel()} paths")
    size = thresholds.values.numel()
    latents = _numbers([[None] * size if row is None else row for row in paths["p"]])
    latents = latents.view(*given.shape, *thresholds.values.shape)
    thresholds.score(latents, questions)  # raises for other labels, layers, or their own questions
    tuned, transferred = _weights(data["tuned"]), _weights(data["transferred"])
    for weights in (tuned, transferred):
        if weights is not None:
            weights.require_fit(latents.shape[2], questions)
    return {
        "questions": questions,
        "texts": tuple(paths["text"]),
        "given": given,
        "log_probs": _numbers(paths["log_prob"]).view(given.shape),
        "lengths": torch.tensor(paths["tokens"]).view(given.shape),
        "latents": latents,
        "untrained": _numbers(paths["untrained"]).view(given.shape)
        if "untrained" in paths
        else None,
        "thresholds": thresholds,
        "tuned": tuned,
        "transferred": transferred,
        "provenance": data["provenance"],
    }


def _weights_data(weights: LayerWeights | None) -> dict[str, Any] | None:
    if weights is None:
        return None
    return {
        "weights": weights.weights.tolist(),
        "bias": weights.bias,
        "fitted_on": sorted(weights.fitted_on),
        "n": weights.n,
    }


def _weights(data: dict[str, Any] | None) -> LayerWeights | None:
    if data is None:
        return None
    weights = torch.tensor(data["weights"], dtype=torch.float64)
    told = {**data, "weights": weights, "fitted_on": frozenset(data["fitted_on"])}
    return fitted(LayerWeights, **told)


def _numbers(values: list[Any]) -> Float[Tensor, "*any"]:
    """A tensor in float64 of nested lists, in which null is NaN."""

    def number(value: Any) -> Any:
        if isinstance(value, list):
            return [number(each) for each in value]
        return math.nan if value is None else value

    return torch.tensor(number(values), dtype=torch.float64)
