"""Writing and finding the states that a killed training run resumes from."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from interp.errors import FileFormatError, TrainingError
from interp.json_file import read_json

KEPT = 2
"""States kept on disk: if the newest is broken, the one before it serves."""


def save_state(
    folder: Path, step: int, module: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write weights and optimiser moments as one folder that appears whole or not at all."""
    target, writing = folder / f"step-{step:06}", folder / f".writing-{step:06}"
    shutil.rmtree(writing, ignore_errors=True)
    writing.mkdir(parents=True)
    save_file(_own_tensors(module), writing / "weights.safetensors")
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    moments = {
        f"{names[id(parameter)]}/{key}": value.contiguous()
        for parameter, state in optimizer.state.items()
        for key, value in state.items()
    }
    save_file(moments, writing / "optimizer.safetensors")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(writing, target)
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def load_newest(folder: Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Load the newest whole state; the step after which it was written, or 0 if there is none."""
    for state in sorted(folder.glob("step-*"), reverse=True):
        try:
            weights = load_file(state / "weights.safetensors")
            moments = load_file(state / "optimizer.safetensors")
        except (SafetensorError, OSError):
            continue  # a state cut short by the machine's end: the one before it is whole
        own = _own_tensors(module)
        for name, tensor in own.items():
            tensor.copy_(weights[name])
        for name, parameter in module.named_parameters():
            optimizer.state[parameter] = {
                key.rsplit("/", 1)[1]: value
                if key.endswith("/step")
                else value.to(parameter.device)
                for key, value in moments.items()
                if key.rsplit("/", 1)[0] == name
            }
        return int(state.name.removeprefix("step-"))
    return 0


def _own_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters by name, tied ones once."""
    return {name: parameter.detach() for name, parameter in module.named_parameters()}


def claim(folder: Path, run: dict[str, Any]) -> None:
    """Make `folder` the folder of this run, or check that it already is.

    Raises:
        TrainingError: It belongs to a run with other settings; the message names the first that
            differs.
        FileFormatError: What it says of its run is damaged.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "run.json"
    if not file.exists():
        if any(folder.iterdir()):
            raise TrainingError(
                f"{folder} holds files that are no training run; give another folder as out."
            )
        file.write_text(json.dumps(run, indent=2) + "\n")
        return
    before = read_json(file, way_out="give another folder as out")
    if not isinstance(before, dict):
        raise FileFormatError(f"{file} holds no settings of a run; give another folder as out.")
    for key, value in run.items():
        if before.get(key) != value:
            raise TrainingError(
                f"{folder} holds a run with {key}={before.get(key)!r:.80} and not {value!r}; "
                "resume it with its own settings, or give another folder as out."
            )
