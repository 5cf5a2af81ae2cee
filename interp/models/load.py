"""load: from a name, a directory or a module to a checked Model."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from interp.errors import FileFormatError, ModelError, UnknownModel, did_you_mean
from interp.models import hub, native, pretrained
from interp.models.bridge import NATIVE
from interp.models.embedded import (
    READ_NUMBERS,
    checkpoints,
    embedded_folder,
    embedded_names,
)
from interp.models.files import check_file, check_weights, read_json
from interp.models.model import Model
from interp.models.placement import MAPS
from interp.models.pretrained import Request, Spread
from interp.models.supported import require_decoder
from interp.models.trust import require_harmless

DTYPES = ("float32", "float64", "bfloat16", "float16")


def load(
    source: str | Path | nn.Module | Model,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    max_memory: Mapping[int | str, int | str] | None = None,
    offload_folder: str | Path | None = None,
    revision: str | None = None,
    check: bool = True,
    trust_remote_code: bool = False,
) -> Model:
    """Load a decoder-only language model, and check that its hooks tell the truth.

    Args:
        source: An embedded name, a directory, a hub name, a `transformers` model, a TransformerLens
            NativeModel or a bridge from `boot_native`. Files that are local need no network.
        tokenizer: Needed with a module; it may be built in memory. Replaces that of a directory.
        device: For names and directories: cuda, else mps, else cpu. A module stays where it is.
            A word of `device_map`, such as "auto", is taken here too.
        dtype: For names and directories: float32. A module keeps its own.
        device_map: In the place of `device`, for what no single one holds: "auto" (as evenly as it
            goes over all GPUs, then memory, then disk), "balanced", "sequential", or a device for
            each part by name, "cpu" and "disk" among them. Weights go straight to their devices.
        max_memory: With `device_map`: what each may take, such as {0: "70GB", "cpu": "200GB"}.
        offload_folder: With `device_map`: where weights for the disk are written, if the files of
            the model do not hold them as they are used.
        revision: A checkpoint of an embedded model or directory (see `revisions`), or a branch, tag
            or commit of a hub repository.
        check: Run `Model.check()`, a few forwards on 8 tokens.
        trust_remote_code: Allow code that the repository brings to run.

    Returns:
        The model in eval mode; a Model is returned as it is.

    Raises:
        UnknownModel: no such name, directory or revision.
        UnsupportedModel: not a decoder-only language model.
        FileFormatError: a directory that is half-written or damaged.
        ModelError: no tokenizer, no network, no login, not enough memory, an impossible option.
        CheckFailed: bridge, module or padding disagree.
    """
    placement: dict[str, object] = {"device=": device, "dtype=": dtype, "revision=": revision}
    placement |= {"device_map=": device_map, "max_memory=": max_memory}
    placement |= {"offload_folder=": offload_folder}
    if isinstance(source, Model):
        _refuse({"tokenizer=": tokenizer, **placement}, source, "load its source again")
        return source
    if isinstance(source, nn.Module):
        _refuse(placement, source, "move or cast the object first")
        model = _from_module(source, tokenizer)
    else:
        spread = _spread(device, device_map, max_memory, offload_folder)
        where = _device(None if spread else device)
        request = Request(
            str(source), tokenizer, where, _dtype(dtype), revision, trust_remote_code, spread
        )
        with _collector_at_rest():
            model = _from_folder(request, _folder(source, request))
    if check:
        model.check()
    return model


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep Python from looking for garbage among what is imported and read, all of which stays.

    It would do so again and again, for a third of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _refuse(options: Mapping[str, object], source: object, way_out: str) -> None:
    if given := [name for name, value in options.items() if value is not None]:
        raise ModelError(
            f"{' '.join(given)} cannot be applied to a {type(source).__name__} in memory; "
            f"{way_out}."
        )


def _from_module(source: nn.Module, tokenizer: PreTrainedTokenizerBase | None) -> Model:
    module = native.unwrap(source) if native.is_native(source) else source
    require_decoder(module)
    if tokenizer is None:
        raise ModelError(
            f"a {type(source).__name__} in memory comes without a tokenizer; pass tokenizer= "
            f"(AutoTokenizer.from_pretrained(...), or one built in memory)."
        )
    return Model(module.eval(), tokenizer, id=type(module).__name__)


def _folder(source: str | Path, request: Request) -> Path:
    """The local directory that a source names, downloaded if it has to be."""
    name, path = request.name, Path(source).expanduser()
    if name in embedded_names():
        return embedded_folder(name)
    if _is_folder(path):
        return path
    if path.is_file():
        raise UnknownModel(f"{name!r} is a file; pass the directory that holds it and config.json.")
    if name in READ_NUMBERS:
        raise UnknownModel(
            f"{name!r} reads numbers and is no language model; use {READ_NUMBERS[name]}."
        )
    if isinstance(source, Path) or name.startswith((".", "/", "~")):
        raise UnknownModel(f"there is no directory {name!r}; pass one that holds a config.json.")
    folder = hub.cached(name, request.revision, tokenizer=request.tokenizer is None)
    if folder is None:
        pretrained.skeleton(hub.download(name, request.revision, config_only=True), request)
        folder = hub.download(name, request.revision)
    return folder


def _is_folder(path: Path) -> bool:
    """Whether there is a directory. Raises FileFormatError for one that may not be entered."""
    try:
        if not path.is_dir():
            return False
        any(each.exists() for each in path.iterdir())  # raises where that may not be seen
    except OSError as error:
        raise FileFormatError(
            f"{path} cannot be read ({error.strerror}); ask its owner, or load a copy of it."
        ) from error
    return True


def _from_folder(request: Request, folder: Path) -> Model:
    config = read_json(folder / "config.json")
    require_harmless(folder, request.name, trust_remote_code=request.trust_remote_code)
    checkpoint = _checkpoint(request, folder)
    if checkpoint is None:
        check_weights(folder)
    else:
        check_file(folder, f"checkpoints/{checkpoint.name}")
    tokenizer = request.tokenizer or pretrained.tokenizer(folder, request)
    if config.get("architecture") == NATIVE:
        if request.spread is not None:
            raise ModelError(
                f"{request.name!r} is a {NATIVE} model, which device_map= does not spread; "
                f"pass device=."
            )
        module: nn.Module = native.load(folder, checkpoint)
        module = module.to(request.device, request.dtype)
    else:
        module = pretrained.module(folder, checkpoint, request)
    return Model(module.eval(), tokenizer, id=request.name, revision=request.revision)


def _checkpoint(request: Request, folder: Path) -> Path | None:
    """The file of a revision that is kept beside the model; on the hub it chose the directory."""
    known = checkpoints(folder)
    if request.revision is None or (not known and folder.parent.name == "snapshots"):
        return None
    if request.revision not in known:
        raise UnknownModel(
            f"{request.name!r} has no revision {request.revision!r}; "
            f"{did_you_mean(request.revision, known)}"
        )
    return folder / "checkpoints" / f"{request.revision}.safetensors"


def _spread(
    device: str | torch.device | None,
    device_map: str | Mapping[str, Any] | None,
    max_memory: Mapping[int | str, int | str] | None,
    offload_folder: str | Path | None,
) -> Spread | None:
    """How a model is spread, None for one device. Raises ModelError for options at odds."""
    if device is not None and device_map is not None:
        raise ModelError(
            f"device={str(device)!r} puts the whole model in one place and device_map= spreads it "
            f"over several; pass one of them."
        )
    if isinstance(device, str) and device in MAPS:
        device_map = device
    if device_map is None:
        if max_memory is not None or offload_folder is not None:
            raise ModelError(
                "max_memory= and offload_folder= say how a model is spread; pass device_map='auto' "
                "with them."
            )
        return None
    if isinstance(device_map, str) and device_map not in MAPS:
        raise ModelError(
            f"device_map {device_map!r} is unknown; {did_you_mean(device_map, MAPS)} Or pass a "
            f"device for each part by name; one device for all is device=."
        )
    named = device_map if isinstance(device_map, Mapping) else {}
    is_a_map = isinstance(device_map, str | Mapping)
    if not is_a_map or not all(isinstance(part, str) for part in named):
        raise ModelError(
            f"device_map is {device_map!r:.60}; give one of {', '.join(MAPS)}, or a device for "
            "each part by the part's name, such as {'transformer.h.0': 0}."
        )
    if isinstance(device_map, Mapping):
        for place in {str(each) for each in device_map.values()} - {"disk"}:
            _device(f"cuda:{place}" if place.isdecimal() else place)
    return Spread(device_map, max_memory, offload_folder)


def _device(device: str | torch.device | None) -> torch.device:
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built with CUDA
        raise ModelError(
            f"device {str(device)!r} cannot be used here ({str(error).splitlines()[0]}); "
            f"pass 'cpu', or leave it out to take the best there is."
        ) from error
    return torch.device(device)


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype:
    if dtype is None:
        return torch.float32
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ModelError(f"dtype {name!r} cannot hold weights; {did_you_mean(name, DTYPES)}")
    return getattr(torch, name)
