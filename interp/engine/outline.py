"""A model without weights, laid out as if it could be run, so that its work can be counted.

Sizes come from the modules of the model, on the device "meta". What its blocks allow hangs on the
architecture alone, so it is tried on another model of the same one, which may be tiny.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial

import torch
from jaxtyping import Int
from torch import Tensor

from interp.engine.anatomy import anatomy
from interp.engine.clean import CleanRun, Layers
from interp.engine.replay import Replay, replay_of
from interp.errors import ModelError
from interp.models import Model
from interp.models.placement import is_spread


class Outline(Replay):
    """The Replay of a model without weights, after `like`, which is of one that has some.

    A clean run has shapes and no values; nothing else can be run.
    """

    def __init__(self, model: Model, like: Replay) -> None:
        self.model = model
        self.made_for = (model.hf, model.device, model.dtype)
        self.body = anatomy(model, like=like.model, parallel=like.body.parallel)
        self.works, self.cached, self.splits = like.works, like.cached, like.splits
        if "resid_mid" not in like.body.blocks[0].parts:
            for block in self.body.blocks:
                block.parts.pop("resid_mid", None)
        self._widths = self._measure_parts()

    @torch.no_grad()
    def _measure_parts(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {kind: [] for kind in self.body.blocks[0].parts}
        one_token = torch.zeros(1, 1, dtype=torch.long, device=self.model.device)
        with ExitStack() as hooks:
            for block in self.body.blocks:
                for kind, widths in found.items():
                    hooks.enter_context(block.parts[kind].hook(partial(_note_width, widths)))
            try:
                self.body.module(input_ids=one_token)
            except RuntimeError as error:
                raise ModelError(
                    f"{self.model.id} does not run without weights in {self.model.dtype} "
                    f"({error}); try another dtype, or explain a smaller model with weights."
                ) from error
        return found

    def clean(self, tokens: Int[Tensor, "prompts pos"], kinds: Iterable[str] = ()) -> CleanRun:
        """The shapes of a clean run: of every part, since they take no memory."""
        home, dtype = self.model.device, self.model.dtype

        def shapes(widths: Iterable[int]) -> Layers:
            kept = Layers(home)
            kept.extend(torch.empty(*tokens.shape, w, device=home, dtype=dtype) for w in widths)
            return kept

        stream = shapes([self.model.geometry.d_model] * (self.n_layers + 1))
        parts = {kind: shapes(widths) for kind, widths in self._widths.items()}
        return CleanRun(tokens, self.devices, stream, Layers(home), Layers(home), parts)


def _note_width(widths: list[int], activation: Tensor) -> None:
    widths.append(activation.shape[-1])


def laid_out(model: Model, like: Model | None) -> tuple[Replay, Replay]:
    """The Replay of a model, or its Outline, and the Replay on which its blocks were tried.

    Raises ModelError for a model without weights and without another like it, for another that is
    not like it or not needed, and for a model whose parts cannot be told apart without weights.
    """
    if like is None:
        if _is_weightless(model):
            raise ModelError(
                f"{model.id} has no weights (it is on the device meta), so that what its blocks "
                "allow cannot be tried; pass like=, a model of its architecture that has some."
            )
        known = replay_of(model)
        return known, known
    if not _is_weightless(model):
        raise ModelError(f"{model.id} has weights and is tried itself; leave like= out.")
    architecture = model.geometry.architecture
    if like.geometry.architecture != architecture or _is_weightless(like):
        raise ModelError(
            f"like= is {like!r}, and {model.id} is a {architecture}; pass one that has weights."
        )
    tried = replay_of(like)
    if (queries := tried.body.blocks[0].parts.get("q")) and queries.columns is not None:
        raise ModelError(
            f"{model.id} has one projection for queries, keys and values, which TransformerLens "
            "splits by its weights, and it has none; explain a smaller model with weights."
        )
    known, made_for = model.derived.get("outline", (None, None))
    if made_for is not tried:
        known = Outline(model, tried)
        model.derived["outline"] = (known, tried)
    return known, tried


def _is_weightless(model: Model) -> bool:
    """Whether all weights are on the device meta, and not because they are kept elsewhere."""
    return all(each.is_meta for each in model.hf.parameters()) and not is_spread(model.hf)
