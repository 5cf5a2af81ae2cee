"""Where is a model: on one device, on several, or in memory and on disk beside them?

`accelerate` spreads a model by hooks: each submodule takes its inputs to the device on which it
runs, and where its weights are kept elsewhere they are brought for as long as it runs.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from interp.errors import ModelError

MAPS = ("auto", "balanced", "balanced_low_0", "sequential")
"""Ways in which `transformers` spreads a model by itself."""

_MOVERS = ("to", "cuda", "npu", "xpu", "mlu", "sdaa", "musa", "neuron")


def is_spread(module: nn.Module) -> bool:
    """Whether `accelerate` has put its parts on several devices, or keeps weights elsewhere."""
    return any("_hf_hook" in part.__dict__ for part in module.modules())


def is_kept_elsewhere(module: nn.Module) -> bool:
    """Whether some of its weights are in memory or on disk until they are used."""
    return any(parameter.is_meta for parameter in module.parameters())


def runs_on(module: nn.Module) -> torch.device:
    """The device on which a module computes."""
    for part in module.modules():
        for hook in _hooks(part):
            where = getattr(hook, "execution_device", None)
            if where is not None:
                return torch.device(where)
        for tensor in part.parameters(recurse=False):
            return tensor.device
    return torch.device("cpu")


def weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Names and tensors of the state dict, in the order of their names, one after another.

    Weights that are kept elsewhere are read from there.
    """
    if any(_is_packed(part) for part in module.modules()):
        yield from _unpacked(module)
        return
    for name, tensor in sorted(module.state_dict().items()):
        yield name, _kept(module, name) if tensor.is_meta else tensor


def held(module: nn.Module, name: str) -> Tensor | None:
    """A parameter of a module by its name, from where it is kept; None if there is none."""
    tensor = getattr(module, name, None)
    return _kept(module, name) if tensor is not None and tensor.is_meta else tensor


def shared_by_hooks(module: nn.Module) -> list[Any]:
    """What a structural copy must share beside parameters and buffers: weights kept elsewhere."""
    names = ("weights_map", "tied_params_map")
    hooks = (hook for part in module.modules() for hook in _hooks(part))
    return [vars(hook)[name] for hook in hooks for name in names if name in vars(hook)]


def release_movers(module: nn.Module) -> None:
    """Drop the warnings that `accelerate` puts over `.to` and its like: in a copy of a module they
    move the original.
    """
    for name in _MOVERS:
        module.__dict__.pop(name, None)


def bring_inputs(module: nn.Module, device: torch.device) -> None:
    """Take what a module is given to a device, whatever becomes of its own forward."""
    from accelerate.utils import send_to_device

    def bring(_: nn.Module, args: Any, kwargs: Any) -> Any:
        return send_to_device(args, device), send_to_device(kwargs, device)

    module.register_forward_pre_hook(bring, with_kwargs=True)


def spread_alike(module: nn.Module, like: Any) -> nn.Module:
    """Spread a module on the CPU as another of the same architecture is.

    Raises ModelError where that one keeps weights on disk.
    """
    from accelerate import dispatch_model

    places = getattr(like, "hf_device_map", {})
    if not places or "disk" in places.values():
        raise ModelError(
            "A model of fresh weights cannot take the places of one that is kept on disk; load one "
            "that fits into memory."
        )
    return dispatch_model(
        module, places, main_device=runs_on(like), skip_keys=like._skip_keys_device_placement
    )


def require_whole(module: nn.Module, what: str, way_out: str) -> None:
    """Raise ModelError for a model that is spread, from which `what` cannot be made."""
    if is_spread(module):
        places = sorted({str(place) for place in getattr(module, "hf_device_map", {}).values()})
        raise ModelError(
            f"{what} needs a model on one device, and this one is spread by device_map over "
            f"{', '.join(places) or 'several places'}; {way_out}."
        )


def _is_packed(module: nn.Module) -> bool:
    return hasattr(module, "quant_state")


@torch.no_grad()
def _unpacked(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The same of a model in the 4 bits of bitsandbytes, part by part.

    Its layers are packed for the CPU when they first run there, which rounds their scales, and a
    state dict unpacks them in place. So it is taken of a copy of each, which has run.
    """
    for prefix, part in sorted(module.named_modules(), key=lambda each: each[0]):
        found: dict[str, Tensor] = {}
        own: Any = part
        if _is_packed(part):
            own = copy.deepcopy(part)
            own(torch.zeros(1, own.in_features, device=runs_on(part)))
        own._save_to_state_dict(found, f"{prefix}." if prefix else "", keep_vars=False)
        yield from sorted(found.items())


def _hooks(module: nn.Module) -> list[Any]:
    hook = module.__dict__.get("_hf_hook")
    return [] if hook is None else list(getattr(hook, "hooks", [hook]))


def _kept(module: nn.Module, name: str) -> Tensor:
    """A weight from where the hook of its module, or of one around that, finds it."""
    owner, _, own = name.rpartition(".")
    while True:
        for hook in _hooks(module.get_submodule(owner)):
            if getattr(hook, "weights_map", None) is not None:
                return hook.weights_map[own]
        if not owner:
            raise ModelError(f"The weight {name} is on the meta device, where it has no values.")
        owner, _, inner = owner.rpartition(".")
        own = f"{inner}.{own}"
