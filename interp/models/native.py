"""TransformerLens-native models on disk: config.json, model.safetensors, tokenizer files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import PreTrainedTokenizerBase

from interp.errors import FileFormatError, UnsupportedModel
from interp.models.bridge import NATIVE
from interp.models.files import read_json

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
    save_file(weights, folder / "model.safetensors")
    return folder


def load(folder: Path, weights: Path | None = None) -> NativeModel:
    """Read a directory that `save` wrote, with the weights of another safetensors file if given.

    Raises FileFormatError unless config and weights fit each other.
    """
    weights = weights or folder / "model.safetensors"
    module = build(config_from_json(read_json(folder / "config.json").get("config", {})))
    try:
        module.load_state_dict(load_file(weights), strict=True)
    except RuntimeError as error:
        raise FileFormatError(
            f"{weights} does not fit the config.json beside it "
            f"({' '.join(str(error).split())}); save both again from one model."
        ) from error
    return module


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


def config_from_json(fields: dict[str, Any]) -> TransformerBridgeConfig:
    """The inverse of `config_to_json`; raises FileFormatError for fields that do not fit."""
    from transformer_lens.config import TransformerBridgeConfig

    try:
        config = TransformerBridgeConfig.from_dict({**fields, "device": "cpu"})
    except (TypeError, ValueError) as error:
        raise FileFormatError(
            f"config.json does not describe a {NATIVE} model ({error}); write it with native.save."
        ) from error
    if unknown := fields.keys() - vars(config).keys():
        raise FileFormatError(
            f"config.json has fields that a {NATIVE} config does not: {', '.join(sorted(unknown))}."
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
