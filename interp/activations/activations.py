"""`Activations`: what a capture returns."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from jaxtyping import Bool, Int, Shaped
from torch import Tensor

from interp.activations import folder as files
from interp.display import as_html
from interp.errors import SiteError, did_you_mean

if TYPE_CHECKING:
    TensorMapping = Mapping[str, Tensor]
else:
    TensorMapping = Mapping  # a check of the item type at run time would read a tensor from disk


@dataclass(frozen=True, eq=False)
class Activations(TensorMapping):
    """A mapping from hook names to tensors; make one with `interp.capture`.

    Shapes are `[prompts, pos, ...]`: `[..., d_model]` for residual streams and outputs,
    `[..., head, d_head]` for q and z, `[..., kv_head, d_head]` for k and v, `[..., head, d_model]`
    for per-head results; attention patterns are `[prompts, head, pos, pos]`, queries before keys.

    Attributes:
        tensors: Hook name -> tensor, in memory or read from a folder when asked for.
        mask: True at real tokens, in the columns of these tensors; values at padding mean nothing.
        roles: Half-open spans of the roles in the columns of these tensors.
        provenance: Model, weights hash, prompts, positions, dtype, device and versions.
    """

    tensors: dict[str, Tensor] | files.Shards
    mask: Bool[Tensor, "prompts pos"]
    roles: dict[str, Int[Tensor, "prompts 2"]]
    provenance: dict[str, Any]

    def __getitem__(self, name: str) -> Shaped[Tensor, "prompts ..."]:
        """The activation of a hook.

        Raises SiteError (also a KeyError) for a hook that was not captured.
        """
        if name not in self.tensors:
            raise _NotCaptured(f"{name} was not captured: {did_you_mean(str(name), self.tensors)}")
        return self.tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self.tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)

    def stack(self, hook: str) -> Shaped[Tensor, "layer prompts ..."]:
        """The same hook of every captured block: `stack("attn.hook_z")[5]` is that of the sixth.

        Raises SiteError if no block was captured at that hook.
        """
        found = [name for name in self if re.fullmatch(rf"blocks\.\d+\.{re.escape(hook)}", name)]
        if not found:
            known = {re.sub(r"blocks\.\d+\.", "", name) for name in self}
            raise SiteError(f"No block was captured at {hook!r}: {did_you_mean(hook, known)}")
        found.sort(key=lambda name: int(name.split(".")[1]))
        return torch.stack([self[name] for name in found])

    def save(self, folder: str | Path) -> Path:
        """Write the activations as a folder of safetensors that `load` reads; returns the folder.

        Raises FileFormatError for a folder that holds anything else.
        """
        folder = Path(folder)
        files.write(folder, [dict(self)], pack(self.mask, self.roles), self.provenance)
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> Activations:
        """Open a folder; each tensor is read when it is asked for.

        Raises FileFormatError for a folder that is truncated or was written by something else.
        """
        shards, layout = files.read(Path(folder))
        mask = layout.pop("mask")
        roles = {name.removeprefix("role "): spans for name, spans in layout.items()}
        return cls(shards, mask, roles, shards.index["provenance"])

    def __repr__(self) -> str:
        names = list(self) if len(self) < 4 else [*list(self)[:2], "...", list(self)[-1]]
        return (
            f"Activations({len(self)} hooks: {', '.join(names)}; {len(self.mask)} prompts, "
            f"model {self.provenance['model']})"
        )

    def _repr_html_(self) -> str:
        hooks = [
            {"hook": name, "shape": str(shape), "dtype": dtype}
            for name, (shape, dtype) in self._described().items()
        ]
        return as_html(self, pd.DataFrame(hooks))

    def _described(self) -> dict[str, tuple[list[int], str]]:
        """Shape and dtype of each hook, without reading tensors from disk."""
        if isinstance(self.tensors, files.Shards):
            hooks = self.tensors.index["hooks"]
            return {name: (entry["shape"], entry["dtype"]) for name, entry in hooks.items()}
        return {
            name: (list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
            for name, tensor in self.tensors.items()
        }


class _NotCaptured(SiteError, KeyError):
    """A missing hook: a KeyError too, so that `get` and `in` behave as for any mapping."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


def pack(
    mask: Bool[Tensor, "prompts pos"], roles: Mapping[str, Int[Tensor, "prompts 2"]]
) -> dict[str, Shaped[Tensor, "prompts ..."]]:
    """Mask and roles as the tensors of a layout file."""
    return {"mask": mask, **{f"role {name}": spans for name, spans in roles.items()}}
