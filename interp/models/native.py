"""TransformerLens-native models on disk: config.json, model.safetensors, tokenizer files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from interp.atomic import replacing
from interp.errors import FileFormatError, InterpError, UnsupportedModel, one_line
from interp.models.bridge import NATIVE
from interp.models.files import read_json
from interp.models.headers import require_floats
from interp.models.memory import buffer_bytes, free_bytes, require_small_buffers

if TYPE_CHECKING:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel
else:  # imported where they are used: it takes a second
    TransformerBridgeConfig = NativeModel = Any


def save(module: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: str | Path) -> Path:
    """Write a NativeModel as a directory that `interp.load` reads back, and return the directory.

    The weights are written last, so that a killed save is seen as one without weights.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").unlink(missing_ok=True)
    tokenizer.save_pretrained(folder)
    config = {"architecture": NATIVE, "config": config_to_json(cast("NativeModel", module).cfg)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    weights = {name: tensor.contiguous() for name, tensor in module.state_dict().items()}
    with replacing(folder / "model.safetensors") as partial:
        save_file(weights, partial)
    return folder


def load(folder: Path, weights: Path | None = None) -> NativeModel:
    """Read a directory that `save` wrote, with the weights of another safetensors file if given.

    Raises FileFormatError unless config and weights fit each other.
    """
    path = weights or folder / "model.safetensors"
    told = folder / "config.json"
    config = config_from_json(read_json(told).get("config", {}), file=told)
    _require_fit(config, path, told)
    module = build(config)
    try:
        module.load_state_dict(load_file(path), strict=True)
    except Exception as error:  # a broken or hostile file fails anywhere in what reads it
        raise _misfit(path, error) from error
    return module


def _require_fit(config: TransformerBridgeConfig, path: Path, told: Path) -> None:
    """Raise FileFormatError unless a config describes the tensors of a file, before it is built."""
    with safe_open(path, framework="pt") as file:
        # an open file is no mapping: without keys() it cannot be gone through
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    require_floats([path], found)
    try:
        if config.n_layers > len(found):
            raise ValueError(f"{config.n_layers!r:.30} layers and {len(found)} tensors")
        with torch.device("meta"):
            empty = build(config)
        described = {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}
        if odd := sorted(set(described.items()) ^ set(found.items())):
            raise ValueError(f"{odd[0][0]} has not the shape {list(odd[0][1])} in both")
        require_small_buffers(told, empty, torch.float32)
        if (mask := buffer_bytes(empty)) > free_bytes(torch.device("cpu")):
            raise ValueError(f"its masks take {mask:,} bytes")
    except InterpError:
        raise
    except Exception as error:  # whatever a library makes of a config of nothing
        raise _misfit(path, error) from error


def _misfit(path: Path, why: Exception) -> FileFormatError:
    return FileFormatError(
        f"{path} does not fit the config.json beside it ({one_line(why)}); save both again from "
        "one model."
    )


def build(config: TransformerBridgeConfig, seed: int | None = None) -> NativeModel:
    """A NativeModel of this config, weights drawn from `seed` (left unspecified for None)."""
    from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

    config = copy.deepcopy(config)
    with torch.random.fork_rng(devices=[]):
        module = NativeModel(config)
    if seed is not None:
        initialize_native_model(module, config, seed=seed)
    return module


def config_to_json(config: TransformerBridgeConfig) -> dict[str, Any]:
    """The fields of a config, but for those that say where and in what precision it runs."""
    return {name: value for name, value in vars(config).items() if name not in ("device", "dtype")}


def config_from_json(
    fields: dict[str, Any], *, file: str | Path = "config.json"
) -> TransformerBridgeConfig:
    """The inverse of `config_to_json`; raises FileFormatError, naming `file`, for other fields."""
    from transformer_lens.config import TransformerBridgeConfig

    try:
        config = TransformerBridgeConfig.from_dict({**fields, "device": "cpu"})
    except Exception as error:  # whatever a library makes of a config of nothing
        raise FileFormatError(
            f"{file} does not describe a {NATIVE} model ({one_line(error)}); write it with "
            "native.save."
        ) from error
    if unknown := fields.keys() - vars(config).keys():
        raise FileFormatError(
            f"{file} has fields that a {NATIVE} config does not: "
            f"{one_line(', '.join(sorted(unknown)))}."
        )
    return config


def is_native(module: nn.Module) -> bool:
    """Whether this is a NativeModel, or a TransformerBridge around one."""
    inner = module.__dict__.get("original_model", module)
    return type(inner).__name__ == "NativeModel" and "transformer_lens" in type(inner).__module__


def unwrap(module: nn.Module) -> NativeModel:
    """A NativeModel as it was before a bridge rewired it, over the same weight tensors."""
    inner = module.__dict__.get("original_model", module)
    parameters = {
        name.replace("_original_component.", ""): tensor
        for name, tensor in inner.named_parameters()
    }
    if parameters.keys() == dict(inner.named_parameters()).keys():
        return inner  # never rewired
    if module.__dict__.get("_weights_processed", False):
        raise UnsupportedModel(
            "the weights of this bridge have been processed (enable_compatibility_mode), so they "
            "are no longer the model's; pass a bridge fresh from boot_native."
        )
    weight = next(iter(parameters.values()))
    fresh = build(inner.cfg).to(weight.device, weight.dtype)
    fresh.load_state_dict(parameters, assign=True)
    return fresh
