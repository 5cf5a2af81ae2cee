"""A directory in the format of `transformers`: its config, tokenizer and weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from interp.errors import (
    FileFormatError,
    InterpError,
    ModelError,
    UnsupportedModel,
    did_you_mean,
    one_line,
)
from interp.models.files import has_tokenizer, read_json
from interp.models.headers import count_tensors, require_floats, weight_files
from interp.models.memory import (
    buffer_bytes,
    require_memory,
    require_memory_of_all,
    require_small_buffers,
    weight_bytes,
)
from interp.models.quantised import bits_of, require_library
from interp.models.supported import require_decoder_config
from interp.models.tokenizer_growth import require_short
from interp.models.trust import require_depth, require_harmless

SLOW_BYTES = 1e9  # weights that take more than about a second to read


@dataclass(frozen=True)
class Spread:
    """How a model is spread, as `load` describes it."""

    device_map: str | Mapping[str, Any]
    max_memory: Mapping[int | str, int | str] | None
    offload_folder: str | Path | None

    @property
    def devices(self) -> list[torch.device]:
        """Those on which it may come to lie."""
        if isinstance(self.device_map, Mapping):
            named = {str(place) for place in self.device_map.values()}
            named = {f"cuda:{place}" if place.isdecimal() else place for place in named}
            return [torch.device(place) for place in sorted(named)]
        gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
        return [*gpus, torch.device("cpu")]

    @property
    def reaches_disk(self) -> bool:
        """Whether what does not fit elsewhere stays on disk."""
        named = self.device_map.values() if isinstance(self.device_map, Mapping) else ()
        return self.offload_folder is not None or "disk" in named

    @property
    def options(self) -> dict[str, Any]:
        """The same for `from_pretrained`."""
        given = {name: value for name, value in vars(self).items() if value is not None}
        return {name: dict(v) if isinstance(v, Mapping) else v for name, v in given.items()}


@dataclass(frozen=True)
class Request:
    """What was asked of `load`, with device and dtype resolved."""

    name: str
    tokenizer: PreTrainedTokenizerBase | None
    device: torch.device
    dtype: torch.dtype
    revision: str | None
    trust_remote_code: bool
    spread: Spread | None = None


def skeleton(folder: Path, request: Request) -> Any:
    """The model that a config.json describes, on the meta device, where weights take no memory.

    Refused, before any weight is read, where it is not a decoder or its weights would not fit.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    trust = {"trust_remote_code": request.trust_remote_code}
    require_harmless(folder, request.name, **trust)
    try:
        config = AutoConfig.from_pretrained(folder, **trust)
        require_decoder_config(config, request.name)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config, **trust)
    except InterpError:
        raise
    except Exception as error:  # whatever a library makes of a config of nothing
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{request.name!r} runs code from its own repository; read it, then pass "
                f"trust_remote_code=True."
            ) from error
        raise UnsupportedModel(
            f"the installed transformers cannot build a language model from the config.json of "
            f"{request.name!r} ({one_line(error).split('. ')[0]}); upgrade it, or pass the object."
        ) from error
    require_library(config, request.name)
    require_small_buffers(folder / "config.json", empty, request.dtype)
    _require_memory(empty, request)
    return empty


def _require_memory(empty: Any, request: Request) -> None:
    if request.spread is not None and isinstance(request.spread.device_map, Mapping):
        _require_places(empty, request.spread.device_map)
    needed = weight_bytes(empty, request.dtype)
    if (bits := bits_of(empty.config)) is not None:
        needed = needed * bits // (8 * request.dtype.itemsize)
    needed += buffer_bytes(empty)
    if request.spread is None:
        require_memory(request.name, needed, request.dtype, request.device)
    elif not request.spread.reaches_disk:
        devices, most = request.spread.devices, request.spread.max_memory
        require_memory_of_all(request.name, needed, request.dtype, devices, most)


def _require_places(empty: nn.Module, places: Mapping[str, Any]) -> None:
    """Raise ModelError unless a map names parts of the model, and every weight lies in one."""
    known = {name for name, _ in empty.named_modules()}
    weights = [name for name, _ in [*empty.named_parameters(), *empty.named_buffers()]]
    if unknown := [name for name in places if name not in known and name not in weights]:
        known = {name for name in known if not any(letter.isdigit() for letter in name)}
        raise ModelError(
            f"device_map names {unknown[0]!r}, which the model does not have; "
            f"{did_you_mean(unknown[0], known)}"
        )
    for weight in weights:
        if not any(not name or f"{weight}.".startswith(f"{name}.") for name in places):
            raise ModelError(
                f"device_map gives no device for {weight}; name a part that holds it, or '' for "
                f"all that is not named."
            )


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
        for path in sorted(folder.glob("*tokenizer*.json")):
            if path != settings:
                require_short(read_json(path), path.name)
        kind = PreTrainedTokenizerFast if plain else AutoTokenizer
        found = kind.from_pretrained(folder, **options)
        found.encode("a")  # settings of no tokenizer fail here, and not in the middle of a sweep
        return found
    except BaseException as error:  # the tokenizers library raises bare Exception, or panics
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise ModelError(
            f"the tokenizer files in {folder} cannot be read ({one_line(error)}); pass tokenizer=."
        ) from error


def module(folder: Path, checkpoint: Path | None, request: Request) -> nn.Module:
    """The model of a directory, with the weights of the directory or of one of its checkpoints.

    Raises FileFormatError unless weights and config name the same tensors, of the same shapes, and
    the weights are numbers.
    """
    from safetensors.torch import load_file

    files = weight_files(folder) if checkpoint is None else [checkpoint]
    require_depth(folder, count_tensors(files))
    empty = skeleton(folder, request)
    if bits_of(empty.config) is None:
        require_floats(files, {name for name, _ in empty.named_parameters()})
    options: dict[str, Any] = {"config": empty.config, "dtype": request.dtype}
    if request.spread is not None:
        options |= request.spread.options
    elif request.device.type != "cpu":
        options["device_map"] = {"": request.device}
    where = checkpoint or folder
    try:
        if checkpoint is not None:
            options["state_dict"] = load_file(checkpoint)
        with _quiet(bars=weight_bytes(empty, request.dtype) > SLOW_BYTES):
            loaded, report = type(empty).from_pretrained(
                None if checkpoint else folder,
                local_files_only=True,
                weights_only=True,
                output_loading_info=True,
                **options,
            )
    except torch.OutOfMemoryError as error:
        raise ModelError(
            f"{request.name!r} does not fit on its devices ({one_line(error)}); pass "
            f"dtype='bfloat16', device_map='auto', or a smaller model."
        ) from error
    except (ValueError, ImportError) as error:
        if "offload_folder" in str(error):
            raise ModelError(
                f"{request.name!r} is used in another form than its files hold, so that what is to "
                f"lie on disk must be written there; pass offload_folder=, a folder with room."
            ) from error
        raise ModelError(
            f"transformers cannot load {request.name!r} as it is asked to ({one_line(error)}); "
            f"mend that, or load the model yourself and pass the object."
        ) from error
    except RuntimeError as error:
        raise FileFormatError(
            f"the weights in {where} do not have the shapes that config.json says; save both again "
            f"from one model."
        ) from error
    except Exception as error:  # a broken or hostile file fails anywhere in what reads it
        code = "weights_only" in str(error)  # what torch says, with a way out that runs the code
        why = "they hold more than weights, and no code is run" if code else one_line(error)
        raise FileFormatError(
            f"the weights in {where} cannot be read ({why}); save or download them again, as "
            f"safetensors."
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
