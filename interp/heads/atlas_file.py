"""An atlas as a file: JSON, or Parquet with one row for each head and sample."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import FileFormatError, InterpError, one_line
from interp.heads.atlas_rows import digest, read_rows, write_rows
from interp.heads.claims import Claim
from interp.heads.kinds import kind_of
from interp.heads.score import Score
from interp.json_file import read_json, to_text, unseal, write_json
from interp.json_values import all_of, numbers, required, table
from interp.sites import Head

FORMAT: dict[str, Any] = {"format": "interp.HeadAtlas", "version": 2}
ENTRIES = ("scores", "claims", "missing", "provenance")
WAY_OUT = "write one with HeadAtlas.save or `interp scan MODEL --out atlas.json`"


class Parts(NamedTuple):
    """What an atlas consists of."""

    scores: dict[str, Score]
    claims: dict[str, Claim]
    missing: dict[str, str]
    provenance: dict[str, Any]


def write(path: Path, parts: Parts) -> Path:
    """Write Parquet if the name ends so, else JSON, making folders as needed."""
    if path.suffix == ".parquet":
        values = {kind: digest(score.values) for kind, score in parts.scores.items()}
        write_rows(path, parts.scores, to_text(path.name, _data(parts, values), **FORMAT))
        return path
    numbers = {kind: _numbers(score.values) for kind, score in parts.scores.items()}
    return write_json(path, _data(parts, numbers), **FORMAT)


def read(path: Path) -> Parts:
    """Read what `write` wrote.

    Raises:
        FileFormatError: Not a file, of another kind or version, damaged or incomplete.
    """
    if path.suffix == ".parquet":
        rows, told = read_rows(path, way_out=WAY_OUT)
    else:
        rows, told = None, read_json(path, way_out=WAY_OUT)
    data = unseal(told, path, **FORMAT, entries=ENTRIES, way_out=WAY_OUT)
    try:
        return _parts(data, rows)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError, InterpError) as error:
        why = one_line(error)
        raise FileFormatError(f"{path} has a missing or broken part ({why}); {WAY_OUT}.") from error


def _data(parts: Parts, values: dict[str, Any]) -> dict[str, Any]:
    """The whole atlas as plain values, the scores' own numbers given."""
    return {
        "scores": {
            kind: {
                "samples": score.samples,
                "chance": _numbers(torch.tensor(score.chance, dtype=torch.float64)),
                "notes": score.notes,
                "values": values.get(kind),
            }
            for kind, score in parts.scores.items()
        },
        "claims": {
            kind: {
                "heads": [str(head) for head in claim.heads],
                "metric": claim.metric,
                "clean": _numbers(claim.clean),
                "without": _numbers(claim.without),
                "random": _numbers(claim.random),
                "provenance": claim.provenance,
            }
            for kind, claim in parts.claims.items()
        },
        "missing": parts.missing,
        "provenance": parts.provenance,
    }


def _parts(data: dict[str, Any], rows: dict[str, Tensor] | None) -> Parts:
    scores = {
        kind: _score(kind, score, rows)
        for kind, score in table(data["scores"], dict, "score").items()
    }
    shapes = {score.values.shape[:2] for score in scores.values()}
    if len(shapes) != 1:
        raise ValueError("its scores are not of one model")
    if rows is not None and rows.keys() != scores.keys():
        raise ValueError("its rows are not of the kinds that it tells of")
    layers, heads = shapes.pop()
    every = [Head(layer, head) for layer in range(layers) for head in range(heads)]
    names = {str(head): head for head in every}
    claims = {
        kind: _claim(kind, claim, names)
        for kind, claim in table(data["claims"], dict, "claim").items()
    }
    missing = table(data["missing"], str, "missing")
    return Parts(scores, claims, missing, required(data["provenance"], dict, "provenance"))


def _score(kind: str, data: dict[str, Any], rows: dict[str, Tensor] | None) -> Score:
    if rows is None:
        values = numbers(data["values"], f"values of {kind}", dims=3)
    else:
        values = rows[kind]
        if data["values"] not in (None, digest(values)):  # no hash in files from before it
            raise ValueError(f"the rows of {kind!r} are not those that were written")
    chance = numbers(data["chance"], "chance", dims=0, dtype=torch.float64).item()
    samples = required(data["samples"], str, "samples")
    return Score(kind, values, samples, chance, required(data["notes"], dict, "notes"))


def _claim(kind: str, data: dict[str, Any], names: dict[str, Head]) -> Claim:
    kind_of(kind)
    heads = all_of(data["heads"], str, "heads")
    if not heads or len(set(heads)) < len(heads) or not names.keys() >= set(heads):
        raise ValueError(f"{heads!r:.80} are no different heads of this model")
    clean, without = (numbers(data[name], name, dims=1) for name in ("clean", "without"))
    random = numbers(data["random"], "random", dims=2)
    if not clean.shape == without.shape == random.shape[1:] or not clean.numel():
        raise ValueError(f"the claim of {kind} has other prompts with its heads than without")
    return Claim(
        kind,
        heads=tuple(names[name] for name in heads),
        metric=required(data["metric"], str, "metric"),
        clean=clean,
        without=without,
        random=random,
        provenance=required(data["provenance"], dict, "provenance"),
    )


def _numbers(tensor: Float[Tensor, "*any"]) -> Any:
    """Nested lists for JSON: NaN becomes null, and a float32 keeps its 9 telling digits."""
    digits = 17 if tensor.dtype == torch.float64 else 9

    def written(value: Any) -> Any:
        if isinstance(value, list):
            return [written(entry) for entry in value]
        if not math.isfinite(value):
            return None
        short = float(f"{value:.{digits}g}")
        return int(short) if short in (0.0, 1.0) else short  # most scores of words are 0 or 1

    return written(tensor.tolist())
