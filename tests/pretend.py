"""Pretend devices: a machine without a GPU shows where a tensor was not moved.

Tensors on "pretend:0" and "pretend:1" hold their values in memory of the CPU. As between real
devices, an operation on tensors of two of them is an error, and only `.to` and `copy_` cross; a
number, and an index on the CPU, are taken everywhere.

>>> with pretend_devices():
...     here, there = torch.ones(2, device="pretend:0"), torch.ones(2, device="pretend:1")
...     print((here.to("pretend:1") + there).tolist())
[2.0, 2.0]
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from accelerate import dispatch_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

CPU = torch.device("cpu")
ATEN = torch.ops.aten
INDEXED = {ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default}
COPIES = {ATEN._to_copy.default, ATEN.copy_.default}


class Mixed(RuntimeError):
    """An operation was given tensors of two devices."""


class Memory:
    """Bytes that tensors of the pretend devices take, and the most that they took."""

    def __init__(self) -> None:
        self.users: Counter[int] = Counter()
        self.now = self.peak = 0

    def note(self, tensor: Tensor, content: Tensor) -> None:
        """Count a tensor until it is gone; those that share values count once."""
        storage = content.untyped_storage()
        where, size = storage.data_ptr(), storage.nbytes()
        self.users[where] += 1
        self.now += size if self.users[where] == 1 else 0
        self.peak = max(self.peak, self.now)
        weakref.finalize(tensor, self._gone, where, size)

    def _gone(self, where: int, size: int) -> None:
        self.users[where] -= 1
        self.now -= size if self.users[where] == 0 else 0


_MEMORY: list[Memory] = []


class _Elsewhere(Tensor):
    """A tensor that says it is on a pretend device."""

    content: Tensor

    @staticmethod
    def __new__(cls, content: Tensor, device: torch.device) -> _Elsewhere:
        return Tensor._make_wrapper_subclass(
            cls,
            content.shape,
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=device,
        )

    def __init__(self, content: Tensor, device: torch.device) -> None:
        self.content = content
        for memory in _MEMORY:
            memory.note(self, content)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})

    def data_ptr(self) -> int:
        return self.content.data_ptr()

    def tolist(self) -> Any:
        return self.content.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert a tensor of a pretend device to numpy; call .cpu() first")


class _Machine(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _computed(func, args, kwargs or {})


@contextmanager
def pretend_devices() -> Iterator[None]:
    """While this lasts the machine has the devices "pretend:0" and "pretend:1"."""
    with _Machine():
        yield


@contextmanager
def measured() -> Iterator[Memory]:
    """The memory that tensors made from here on take."""
    _MEMORY.append(Memory())
    try:
        yield _MEMORY[-1]
    finally:
        _MEMORY.clear()


def spread(module: Any, devices: Sequence[str] = ("pretend:0", "pretend:1")) -> nn.Module:
    """A `transformers` model as accelerate spreads it, with its blocks on one device after another.

    The embedding is on the first, what follows the blocks on the last. (The CPU can be one of them;
    for gradients it has to be, since torch runs no more than one pretend device backwards.)
    """
    names = {part: name for name, part in module.named_modules()}
    blocks = next(part for part in names if isinstance(part, nn.ModuleList))
    owner = names[blocks].rpartition(".")[0]
    first, last = devices[0], devices[-1]
    embedding, head = module.get_input_embeddings(), module.get_output_embeddings()
    tied = head.weight is embedding.weight  # tied weights have one place, as accelerate plans it
    places = {name: first if tied else last for name, _ in module.named_children()}
    del places[owner.partition(".")[0]]
    behind = False
    for name, part in module.get_submodule(owner).named_children():
        behind = behind or part is blocks
        places[f"{owner}.{name}"] = last if behind and "rotary" not in name else first
    del places[names[blocks]]
    for number in range(len(blocks)):
        places[f"{names[blocks]}.{number}"] = devices[number * len(devices) // len(blocks)]
    # with the CPU as its main device accelerate runs there what lies there
    main, skipped = "cpu" if "cpu" in devices else first, module._skip_keys_device_placement
    return dispatch_model(module, places, main_device=main, skip_keys=skipped)


def _computed(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What an operation gives, on the device that it says or on that of its tensors."""
    where = kwargs.get("device")
    device = _common(func, args, kwargs) if where is None else torch.device(where)
    held = {
        name: _each(lambda x: getattr(x, "content", x), value) for name, value in kwargs.items()
    }
    if where is not None:
        held["device"] = CPU
    found = func(*_each(lambda x: getattr(x, "content", x), args), **held)
    if device == CPU:
        return found
    found = _each(lambda x: _Elsewhere(x, device), found)
    return return_and_correct_aliasing(func, args, kwargs, found)


def _each(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Something with its tensors changed, which may lie in lists and tuples."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)(_each(change, each) for each in value)
    return value


def _common(func: Any, args: Any, kwargs: Any) -> torch.device:
    """The device of an operation. Raises Mixed if there are two."""
    if func in COPIES:
        return args[0].device
    if func in INDEXED:
        whole, indices, *values = args
        if any(x is not None and x.device not in (whole.device, CPU) for x in indices):
            raise Mixed(f"{func}: a tensor on {whole.device} is indexed by one elsewhere")
        args, kwargs = (whole, values), {}
    tensors: list[Tensor] = []
    _each(lambda x: tensors.append(x) or x, (*args, *kwargs.values()))
    devices = {x.device for x in tensors if x.ndim or x.device != CPU}
    if len(devices) > 1:
        raise Mixed(f"{func} was given tensors on {' and '.join(sorted(map(str, devices)))}")
    return devices.pop() if devices else CPU


# Once a process, and before its first backward pass, which counts the devices.
_setup_privateuseone_for_python_backend("pretend")
_LIBRARY = torch.library.Library("aten", "IMPL")
for _func in (ATEN.empty_strided.default, ATEN.copy_.default):  # what indexing by a list calls
    _LIBRARY.impl(
        _func, partial(lambda f, *args, **kwargs: _computed(f, args, kwargs), _func), "PrivateUse1"
    )
