"""Tuned lenses in the format of the tuned-lens package: config.json and params.pt.

Their translator l reads the stream that enters block l (`hidden_states[l]`), so it is that of our
layer l: 0 is the embedding there too, and what leaves the last block is not translated.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from interp.engine.replay import replay_of
from interp.errors import FileFormatError, LensError
from interp.json_file import read_json
from interp.lens.lens import Lens, made_for
from interp.models import Model
from interp.torch_file import read_torch_file

KIND = "linear_tuned_lens"
SLACK = 2**20
"""Bytes that a file may hold beside its numbers."""


def load_published(folder: str | Path, model: Model, *, check_hash: bool = True) -> Lens:
    """Read a lens that the tuned-lens package wrote.

    The tensors are read without running any code that the file may hold. The package warns where
    the hash of the unembedding differs; here that is an error. The hash covers the printed corners
    of the unembedding alone, and the files say nothing of the other weights.

    Args:
        folder: Holds config.json and params.pt.
        model: What the lens belongs to.
        check_hash: False reads a lens whose unembedding has another hash.

    Raises:
        FileFormatError: Missing or broken files, another type of lens, or tensors that the
            configuration does not announce.
        LensError: A lens of another model.
    """
    folder = Path(folder)
    config = _config(folder / "config.json")
    layers, d_model = model.geometry.n_layers, model.geometry.d_model
    base = f"{config['base_model_name_or_path']!r:.80}"
    if (config["num_hidden_layers"], config["d_model"]) != (layers, d_model):
        raise LensError(
            f"The lens in {folder} is of {base} with {config['num_hidden_layers']!r:.80} layers of "
            f"width {config['d_model']!r:.80}, and {model.id} has {layers} of {d_model}; load the "
            "model that it was trained on."
        )
    told = config.get("unembed_hash")
    if check_hash and told and told != published_hash(model):
        raise LensError(
            f"The lens in {folder} is of {base}, whose unembedding has another hash than that of "
            f"{model.id}; load the model and revision that it was trained on, or pass "
            "check_hash=False if you know that they are."
        )
    parts = {"weight": (d_model, d_model), "bias": (d_model,)}
    if config.get("bias", True) is False:
        del parts["bias"]
    path = folder / "params.pt"
    state = read_torch_file(
        path,
        most=8 * layers * d_model * (d_model + 1) + SLACK,
        way_out="save the lens again with the tuned-lens package",
    )
    names = [f"{layer}.{part}" for layer in range(layers) for part in parts]
    if not isinstance(state, dict) or set(state) != set(names):
        raise FileFormatError(
            f"{path} does not hold the translators of {layers} layers ({names[0]}, ...); save the "
            "lens again with the tuned-lens package."
        )
    for name in names:
        _require_numbers(path, name, state[name], parts[name.split(".")[1]])
    stacked = {
        part: torch.stack([state[f"{layer}.{part}"].float() for layer in range(layers)])
        for part in parts
    }
    return Lens(
        "tuned",
        made_for(model, method="tuned lens", source="tuned-lens", config=config),
        stacked["weight"],
        stacked.get("bias", torch.zeros(layers, d_model)),
    )


def published_hash(model: Model) -> str:
    """The hash of the unembedding that the tuned-lens package keeps: of its print, one decimal."""
    weight = replay_of(model).body.unembed.get_parameter("weight")
    printed = np.array_str(weight.detach().cpu().float().numpy(), precision=1)
    return hashlib.sha256(printed.encode()).hexdigest()


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path, way_out="give the folder of a tuned lens, copied in whole")
    needed = ("base_model_name_or_path", "d_model", "num_hidden_layers")
    if not isinstance(config, dict) or any(name not in config for name in needed):
        raise FileFormatError(f"{path} does not name {', '.join(needed)}; copy it again.")
    if config.get("lens_type", KIND) != KIND:
        raise FileFormatError(f"{path} is of a {config['lens_type']!r:.80}; only {KIND!r} is read.")
    return config


def _require_numbers(path: Path, name: str, tensor: Any, shape: tuple[int, ...]) -> None:
    plain = isinstance(tensor, Tensor) and tensor.layout == torch.strided
    if not plain or tensor.shape != shape or not tensor.is_floating_point():
        found = tuple(tensor.shape) if isinstance(tensor, Tensor) else f"{tensor!r:.80}"
        raise FileFormatError(f"{path}: {name} is {found} and not numbers of shape {shape}.")
    if not tensor.isfinite().all():
        raise FileFormatError(f"{path}: {name} holds numbers that are not finite.")
