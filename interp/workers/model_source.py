"""How a worker elsewhere gets the driver's model: by its name, else its weights are sent."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from interp.errors import ClusterError, InterpError
from interp.models import Model, embedded_names, hub, load
from interp.models.placement import require_whole
from interp.models.quantised import quantisation
from interp.workers.versions import versions


@dataclass(frozen=True)
class Source:
    """What a worker is told of a model.

    Attributes:
        place: The embedded name, hub name or directory that it was loaded from, if it was.
        print: What its copy must have in common with it.
        versions: What the worker must have in common with the driver.
    """

    id: str
    place: str
    revision: str | None
    dtype: torch.dtype
    tokenizer: PreTrainedTokenizerBase
    print: str
    versions: dict[str, str]

    @classmethod
    def of(cls, model: Model) -> Source:
        """Raises ModelError for a model that is spread over several devices."""
        require_whole(model.hf, "A worker of a cluster", "load it on one, or use no cluster")
        folder = Path(model.id).expanduser()
        place = str(folder.resolve()) if folder.is_dir() else model.id
        revision, tokenizer = model.revision, model.tokenizer
        alike = (fingerprint(model), versions())
        return cls(model.id, place, revision, model.dtype, tokenizer, *alike)

    def by_name(self, device: str) -> Model | None:
        """The model from this machine's own files; None if they are not there, or are others."""
        try:
            if not self._is_here():
                return None
            model = load(
                self.place,
                self.tokenizer,
                device=device,
                dtype=self.dtype,
                revision=self.revision,
                check=False,
            )
        except InterpError:
            return None
        model.id = self.id
        return model if fingerprint(model) == self.print else None

    def from_weights(self, sent: Weights, device: str) -> Model:
        """The model out of what was sent."""
        module = sent.module(device)
        model = Model(module, self.tokenizer, id=self.id, revision=self.revision)
        if fingerprint(model) != self.print:
            raise ClusterError(
                f"{self.id} arrived at a worker with other weights than it was sent with; save it "
                "into a directory that all nodes can read, and load it from there."
            )
        return model

    def _is_here(self) -> bool:
        if self.place in embedded_names() or Path(self.place).is_dir():
            return True
        return hub.cached(self.place, self.revision, tokenizer=False) is not None


@dataclass(frozen=True)
class Weights:
    """A module without its tensors, and their bytes, which the workers of a node share.

    The module is sent whole and not built again from its config: buffers that no state dict holds
    then keep their precision, and what was changed in memory is changed there too.
    """

    hollow: nn.Module
    empty: tuple[Tensor, ...]
    data: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, model: Model) -> Weights:
        """Raises ClusterError for a quantised model, whose tensors are more than their bytes."""
        if (method := quantisation(model.hf)) is not None:
            raise ClusterError(
                f"{model.id} is quantised ({method}), so a worker must find it by its name; load "
                "it from the hub, or from a directory that every node can read."
            )
        tensors = [*model.hf.parameters(), *model.hf.buffers()]
        empty = [_like(tensor, torch.empty_like(tensor, device="meta")) for tensor in tensors]
        pairs = zip(tensors, empty, strict=True)
        hollow = copy.deepcopy(model.hf, {id(tensor): each for tensor, each in pairs})
        data = [
            tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            for tensor in tensors
        ]
        return cls(hollow, tuple(empty), tuple(data))

    def module(self, device: str) -> nn.Module:
        """The module, filled."""
        memo: dict[int, Any] = {}
        for each, data in zip(self.empty, self.data, strict=True):
            full = torch.empty_like(each, device="cpu")
            full.flatten().view(torch.uint8).numpy()[:] = data
            memo[id(each)] = _like(each, full.to(device))
        return copy.deepcopy(self.hollow, memo)


def fingerprint(model: Model) -> str:
    """What two models have in common that compute the same bits."""
    return f"{model.weights_hash} {json.dumps(model.settings, sort_keys=True)}"


def _like(tensor: Tensor, made: Tensor) -> Tensor:
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(made, requires_grad=tensor.requires_grad)
    return made
