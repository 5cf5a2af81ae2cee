"""A directory in the format of `transformers`: its config, tokenizer and weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from interp.errors import FileFormatError, ModelError, UnsupportedModel
from interp.models.files import has_tokenizer, read_json
from interp.models.memory import require_memory, weight_bytes
from interp.models.supported import require_decoder_config

SLOW_BYTES = 1e9  # weights that take more than about a second to read


@dataclass(frozen=True)
class Request:
    """What was asked of `load`, with device and dtype resolved."""

    name: str
    tokenizer: PreTrainedTokenizerBase | None
    device: torch.device
    dtype: torch.dtype
    revision: str | None
    trust_remote_code: bool


def skeleton(folder: Path, request: Request) -> Any:
    """The model that a config.json describes, on the meta device, where weights take no memory.

    Refused, before any weight is read, where it is not a decoder or its weights would not fit.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = {"trust_remote_code": request.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(folder, **trust)
        require_decoder_config(config, request.name)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, **trust)
    except ValueError as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{request.name!r} runs code from its own repository; read it, then pass "
                f"trust_remote_code=True."
            ) from error
        raise UnsupportedModel(
            f"the installed transformers cannot build a language model from the config.json of "
            f"{request.name!r} ({str(error).split('. ')[0]}); upgrade it, or pass the object."
        ) from error
    needed = weight_bytes(empty, request.dtype)
    require_memory(request.name, needed, request.dtype, request.device)
    return empty


def tokenizer(folder: Path, request: Request) -> PreTrainedTokenizerBase:
    """The tokenizer of a directory; `transformers` would invent an empty one where it has none."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not has_tokenizer(folder):
        raise ModelError(f"{request.name!r} has no tokenizer files in {folder}; pass tokenizer=.")
    options: dict[str, Any] = {
        "trust_remote_code": request.trust_remote_code,
        "local_files_only": True,
    }
    try:
        # AutoTokenizer puts the class of the model family (Qwen2, ...) over a plain tokenizer.json,
        # and its pre-tokenizer with it: another vocabulary then gives no tokens at all.
        settings = folder / "tokenizer_config.json"
        said = read_json(settings).get("tokenizer_class") if settings.exists() else None
        plain = said in ("PreTrainedTokenizerFast", "TokenizersBackend")
        return (PreTrainedTokenizerFast if plain else AutoTokenizer).from_pretrained(
            folder, **options
        )
    except Exception as error:  # the tokenizers library raises bare Exception
        raise ModelError(
            f"the tokenizer files in {folder} cannot be read ({str(error).splitlines()[0]}); "
            f"pass tokenizer=."
        ) from error


def module(folder: Path, checkpoint: Path | None, request: Request) -> nn.Module:
    """The model of a directory, with the weights of the directory or of one of its checkpoints.

    Raises FileFormatError unless weights and config name the same tensors, of the same shapes.
    """
    from safetensors.torch import load_file

    empty = skeleton(folder, request)
    options: dict[str, Any] = {"config": empty.config, "dtype": request.dtype}
    if checkpoint is not None:
        options["state_dict"] = load_file(checkpoint)
    if request.device.type != "cpu":
        options["device_map"] = {"": request.device}
    where = checkpoint or folder
    try:
        with _quiet(bars=weight_bytes(empty, request.dtype) > SLOW_BYTES):
            loaded, report = type(empty).from_pretrained(
                None if checkpoint else folder,
                local_files_only=True,
                weights_only=True,
                output_loading_info=True,
                **options,
            )
    except RuntimeError as error:
        raise FileFormatError(
            f"the weights in {where} do not have the shapes that config.json says; save both again "
            f"from one model."
        ) from error
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, report[kind])):
            raise FileFormatError(
                f"{where} has {len(keys)} {kind.replace('_', ' ')} for its config.json "
                f"({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}), so weights would be "
                f"random or ignored; save both again, or pass the object if that is meant."
            )
    return loaded


@contextmanager
def _quiet(*, bars: bool) -> Iterator[None]:
    """Without what `transformers` says about keys, an error here, or bars over in an instant."""
    from transformers.utils import logging

    level, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not bars:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
