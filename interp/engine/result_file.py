"""The file of a sweep: one safetensors file, with everything but the numbers as JSON in it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from interp.errors import FileFormatError, SiteError, one_line
from interp.sites import Site, parse, validate
from interp.tensor_file import NUMBERS as FORMATS
from interp.tensor_file import open_tensor_file, write_tensor_file

FORMAT = {"format": "interp.SweepResult", "version": 2}
NUMBERS = ("values", "clean", "corrupt", "exact")  # the last two where there are any


def write(path: str | Path, sweep: Mapping[str, Any]) -> Path:
    """Write the attributes of a sweep; a file that is already there is replaced in one step."""
    header = {
        **FORMAT,
        "sites": [str(site) for site in sweep["sites"]],
        "metric": sweep["metric"],
        "method": sweep["method"],
        "provenance": sweep["provenance"],
    }
    numbers = {name: sweep[name] for name in NUMBERS if sweep[name] is not None}
    return write_tensor_file(path, numbers, {"interp": json.dumps(header)})


def read(path: str | Path) -> dict[str, Any]:
    """The attributes of a sweep that `write` wrote.

    Raises FileFormatError for a file that is truncated, malformed, of another kind or version.
    """
    header, tensors = _opened(path)
    try:
        sites = _checked_sites(header)
        denoises = header["provenance"].get("direction") == "denoise"
        _check_tensors(tensors, len(sites), needs_corrupt=denoises)
    except ValueError as error:
        raise FileFormatError(
            f"{path} is not a whole sweep: {one_line(error)}; run the sweep again."
        ) from error
    return {
        "sites": sites,
        "metric": header["metric"],
        "method": header["method"],
        "provenance": header["provenance"],
        **{name: tensors.get(name) for name in NUMBERS},
    }


def _opened(path: str | Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Header and tensors of a file that says that it is a sweep of this version."""
    with open_tensor_file(path, way_out="run the sweep again") as file:
        header = file.told("interp") if "interp" in file.metadata else {}
        if header.get("format") != FORMAT["format"]:
            raise FileFormatError(
                f"{path} is not a sweep; give a file that SweepResult.save wrote."
            )
        if header.get("version") != FORMAT["version"]:
            raise FileFormatError(
                f"{path} is written in version {header.get('version')!r:.80} of the format and "
                f"this interp reads version {FORMAT['version']}; run the sweep again."
            )
        return header, file.tensors()


def _checked_sites(header: dict[str, Any]) -> tuple[Site, ...]:
    """The sites of a header in which nothing is missing. Raises ValueError."""
    match header:
        case {
            "sites": list(texts),
            "metric": str(),
            "method": str(),
            "provenance": {
                "model": str(),
                "geometry": {"n_layers": int(), "n_heads": int(), "n_kv_heads": int()} as sizes,
            },
        }:
            geometry = SimpleNamespace(**sizes)
        case _:
            raise ValueError(
                "its header has no full list of sites, metric, method, and provenance with model "
                "and geometry"
            )
    sites = []
    for text in texts:
        try:
            site = parse(text if isinstance(text, str) else "")
            validate(site, geometry)
        except (SiteError, ValueError) as error:  # ValueError: a number of too many digits
            raise ValueError(f"its model has no site {text!r:.80}") from error
        sites.append(site)
    return tuple(sites)


def _check_tensors(tensors: dict[str, Tensor], n_sites: int, *, needs_corrupt: bool) -> None:
    """Raise ValueError unless the tensors are those of a sweep, and fit each other."""
    needed = {"values", "clean"} | ({"corrupt"} if needs_corrupt else set())
    if not needed <= set(tensors) <= set(NUMBERS):
        raise ValueError(f"its tensors are {', '.join(sorted(tensors)) or 'missing'}")
    prompts = tensors["clean"].numel()
    for name, tensor in tensors.items():
        shape = {"values": (n_sites, prompts), "exact": (n_sites,)}.get(name, (prompts,))
        if tensor.shape != shape:
            raise ValueError(
                f"{name} has shape {tuple(tensor.shape)} where {n_sites} sites and {prompts} "
                f"prompts make {shape}"
            )
        if tensor.dtype not in ((torch.bool,) if name == "exact" else FORMATS):
            raise ValueError(f"{name} holds {tensor.dtype}")
