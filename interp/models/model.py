"""Model: a language model, its tokenizer, and its hooks over one set of weights."""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from interp.errors import ModelError
from interp.models import native
from interp.models.bridge import NATIVE, build_bridge
from interp.models.check import LIMITS, CheckReport, check_model
from interp.models.geometry import Geometry
from interp.models.placement import is_spread, require_whole, runs_on, spread_alike, weights
from interp.models.quantised import floating_dtype, plain_tensors, quantisation

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
else:
    TransformerBridge = Any  # imported when a bridge is built: it takes a second


NAMING = (
    "_name_or_path",
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "device",
)
"""Settings of a config that say where a model comes from and lies, and not how it computes."""


class Model:
    """A decoder-only language model that can be run fast (`hf`) and hooked (`bridge`).

    `hf` is the module as it was given, `bridge` a TransformerBridge over the same weight tensors.
    """

    hf: Any  # an nn.Module, but mypy takes every attribute of one for a tensor

    def __init__(
        self,
        hf: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        *,
        id: str,
        revision: str | None = None,
    ) -> None:
        self.hf = hf
        self.tokenizer = tokenizer
        self.id = id
        self.revision = revision
        self.derived: dict[str, Any] = {}  # what is made from it once and dies with it
        if hasattr(hf, "config"):
            self.geometry = Geometry.from_config(hf.config, type(hf).__name__)
        else:
            self.geometry = Geometry.from_native(hf.cfg)

    @property
    def device(self) -> torch.device:
        """Where inputs go and logits come out; parts of a model that is spread are elsewhere."""
        if self.geometry.architecture == NATIVE:
            return next(self.hf.parameters()).device
        return runs_on(self.hf.get_input_embeddings())

    @property
    def places(self) -> str:
        """The devices on which its parts compute."""
        if not is_spread(self.hf):
            return str(self.device)
        with_weights = (part for part in self.hf.modules() if part._parameters)
        return ", ".join(sorted({str(runs_on(part)) for part in with_weights}))

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which it computes."""
        return floating_dtype(self.hf)

    @property
    def bos_id(self) -> int | None:
        """The token that starts a sequence: bos, else eos, else None."""
        bos = self.tokenizer.bos_token_id
        return self.tokenizer.eos_token_id if bos is None else bos

    @property
    def pad_id(self) -> int:
        """The token that fills short rows: pad, else eos, else 0. The tokenizer is not changed."""
        for token in (self.tokenizer.pad_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return token
        return 0

    @cached_property
    def bridge(self) -> TransformerBridge:
        """The TransformerBridge over the weights of `hf`, built when first asked for."""
        return build_bridge(self.hf, self.geometry.architecture, self.tokenizer, self.id)

    @property
    def weights_hash(self) -> str:
        """First 16 hex digits of the sha256 over names, shapes and bytes of the weights.

        It is kept until a tensor is changed in place or replaced; changes through `.data`, which
        torch does not count, go unseen.
        """
        state = tuple(map(_state, [*self.hf.parameters(), *self.hf.buffers()]))
        if "weights hash" not in self.derived or self.derived["weights hash"][0] != state:
            self.derived["weights hash"] = (state, self._hashed())
        return self.derived["weights hash"][1]

    def _hashed(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in weights(self.hf):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            for plain in plain_tensors(tensor):
                flat = plain.detach().cpu().contiguous().flatten()
                digest.update(flat.view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    @property
    def settings(self) -> dict[str, Any]:
        """How the weights are used, as plain JSON values: config, attention and modules."""
        config = self.hf.cfg if self.geometry.architecture == NATIVE else self.hf.config
        kept = {name: value for name, value in config.to_dict().items() if name not in NAMING}
        modules = hashlib.sha256(repr(self.hf).encode()).hexdigest()[:16]
        attention = getattr(config, "_attn_implementation", None)
        plain = json.dumps({**kept, "attention": attention, "modules": modules}, default=str)
        return json.loads(plain)

    @torch.no_grad()
    def logits(
        self, tokens: Int[Tensor, "prompts pos"], *, mask: Bool[Tensor, "prompts pos"] | None = None
    ) -> Float[Tensor, "prompts pos vocab"]:
        """Logits at every position, from `hf` and without gradients.

        `mask` is True on real tokens; positions count from each prompt's first real token, so
        padding on either side changes nothing. Values at padding are not meaningful.
        """
        tokens = tokens.to(self.device)
        mask = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask.to(self.device)
        inputs: dict[str, Any] = {"input_ids": tokens, "attention_mask": mask.long()}
        if "position_ids" in inspect.signature(self.hf.forward).parameters:
            inputs["position_ids"] = self.position_ids(mask)
        if self.geometry.architecture == NATIVE:
            return self.hf(**inputs)
        return self.hf(**inputs, use_cache=False).logits

    def position_ids(self, mask: Bool[Tensor, "prompts pos"]) -> Int[Tensor, "prompts pos"]:
        """Positions that count real tokens from 0; padding before the first real token has 0."""
        return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)

    def encode(self, text: str) -> list[int]:
        """Token ids of `text` alone, without special tokens."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def single_token(self, word: str) -> int | None:
        """The id of `word`, given with its leading space, if it is one known token, else None."""
        ids = self.encode(word)
        return ids[0] if len(ids) == 1 and ids[0] != self.tokenizer.unk_token_id else None

    def check(self) -> CheckReport:
        """Compare bridge, module and padding on random tokens; raises CheckFailed."""
        return check_model(self)

    @property
    def dead_hooks(self) -> frozenset[str]:
        """Kinds of hook, such as "attn.hook_pattern", at which an edit is known to do nothing."""
        return frozenset(LIMITS.get(self.geometry.architecture, ()))

    def untrained(self, *, seed: int = 0) -> Model:
        """The control: the same config with fresh random weights. The global RNG is not touched."""
        if self.geometry.architecture == NATIVE:
            fresh: nn.Module = native.build(self.hf.cfg, seed=seed)
        else:
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                fresh = type(self.hf)(_plain(self.hf.config))
        if is_spread(self.hf):
            fresh = spread_alike(fresh.to(self.dtype), self.hf).eval()
        else:
            fresh = fresh.to(self.device, self.dtype).eval()
        return Model(fresh, self.tokenizer, id=f"{self.id} (untrained, seed {seed})")

    def own_copy(self, what: str) -> Any:
        """A copy of `hf` to be changed.

        Raises ModelError, naming `what` it is for, for a model that is spread or quantised.
        """
        require_whole(self.hf, what, "load it with device=, or take a smaller model")
        if (method := quantisation(self.hf)) is not None:
            raise ModelError(
                f"{what} needs weights that can be changed, and those of {self.id} are quantised "
                f"({method}); load the model without quantisation."
            )
        return copy.deepcopy(self.hf)

    def __repr__(self) -> str:
        shape = self.geometry
        return (
            f"Model({self.id!r}, {shape.architecture}, {shape.n_layers} layers x {shape.n_heads} "
            f"heads, d_model {shape.d_model}, {self.dtype}, {self.places})"
        )


def _state(tensor: Tensor) -> tuple[int, int]:
    """What changes with a tensor: itself, and how often it was changed in place."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


def _plain(config: Any) -> Any:
    """A copy of a config that names no quantisation: random weights are not worth one."""
    config = copy.deepcopy(config)
    config.__dict__.pop("quantization_config", None)
    return config
