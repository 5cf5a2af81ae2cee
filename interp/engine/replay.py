"""Running parts of a model: any block, from any column, on any batch.

The model's own blocks run, with the arguments that the model itself gives them for that batch and
those columns. No architecture is written down here: what a model allows is tried once, on a few
tokens, against its own forward pass.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interp.engine.anatomy import anatomy
from interp.engine.clean import CleanRun, Layers, outgrows
from interp.engine.frames import Frame, moved, replaced
from interp.engine.fused import fuse
from interp.engine.keys import (
    KeysComputed,
    KeyValues,
    Pair,
    answering,
    behind,
    prepend,
    recording,
    stopping,
)
from interp.models import Model
from interp.models.bridge import share_weights
from interp.models.placement import held, runs_on
from interp.models.quantised import is_matrix

_HELD = {"resid_pre": "stream", "resid_post": "stream", "resid_mid": "attn_out"}
"""Where a clean run holds what is no activation of its own."""

FRAMES = 4
"""Frames that a clean run keeps: their masks may take more memory than the run."""

Stream = Float[Tensor, "rows pos d_model"]


def replay_of(model: Model) -> Replay:
    """The Replay of a model, made when first asked for, and again when its weights have moved."""
    known = model.derived.get("replay")
    if known is None or known.made_for != (model.hf, model.device, model.dtype):
        known = model.derived["replay"] = Replay(model)
    return known


class Replay:
    """Runs the blocks of a model on their own.

    A block runs on its own device. What it is given may be anywhere, and what it gives is where its
    input was.

    Attributes:
        body: The anatomy of a structural copy of `model.hf` that shares its weights.
        cached: Whether blocks take keys and values of earlier columns.
        splits: Whether a block can be entered between its attention and its MLP, and whether its
            output is the sum of its input and what both add.
        works: Whether blocks give on their own what they give in the model.
        weighs: Whether heads give their patterns times their values; None if nobody has asked.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.made_for = (model.hf, model.device, model.dtype)
        module = share_weights(model.hf).eval()
        fuse(module)
        self.body = anatomy(model, module)
        self._wrapped, self._attn_wrapped = self._outputs()
        self._keeps_residual = False
        self.weighs: bool | None = None
        self.cached = self._accepts("past_key_values")
        self._widths: dict[str, list[int]] = {}
        self._widths = self._measure_parts()
        self.works = self.tried(self._blocks_agree)
        self.cached = self.cached and self.tried(self._continuation_agrees)
        if not self.tried(self._stream_is_a_sum):
            for block in self.body.blocks:
                block.parts.pop("resid_mid", None)
        self.splits = self.tried(self._tails_agree)

    @cached_property
    def devices(self) -> tuple[torch.device, ...]:
        """Where each block runs."""
        return tuple(runs_on(block.module) for block in self.body.blocks)

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.body.blocks)

    def width(self, layer: int, kind: str) -> int:
        """Features of a part of a block."""
        return self._widths[kind][layer]

    def has(self, kind: str) -> bool:
        """Whether blocks have such a part."""
        return kind in self._widths

    def clean(self, tokens: Int[Tensor, "prompts pos"], kinds: Iterable[str] = ()) -> CleanRun:
        """Run prompts of one length and keep what the named parts held."""
        home = self.model.device
        tokens = tokens.to(home)
        names = {_HELD.get(kind, kind) for kind in kinds} - {"stream"}
        on_host = outgrows(self.devices, tokens.numel() * self._bytes_kept(names))
        stream, keys, values = (Layers(home, on_host=on_host) for _ in range(3))
        parts = {kind: Layers(home, on_host=on_host) for kind in names}
        recorder = KeyValues(self.n_layers, 0, recording((keys, values)))
        append = partial(_append, tokens.shape)
        with ExitStack() as hooks:
            for block in self.body.blocks:
                hooks.enter_context(block.parts["resid_pre"].hook(partial(append, stream)))
                for kind, kept in parts.items():
                    if kind in block.parts:
                        hooks.enter_context(block.parts[kind].hook(partial(append, kept)))
            last = self.body.blocks[-1].parts["resid_post"]
            hooks.enter_context(last.hook(partial(append, stream)))
            hooks.enter_context(replaced({self.body.unembed: lambda x: x[..., :1]}))
            self.call(tokens, recorder if self.cached else None)
        return CleanRun(tokens, self.devices, stream, keys, values, parts)

    def block(
        self, run: CleanRun, layer: int, hidden: Stream, start: int, keys: Any = None
    ) -> Stream:
        """The output of a block for a batch of streams that begin at column `start`.

        `keys` answers for the keys and values; by default those of the clean run stand before.
        """
        origin, hidden = hidden.device, hidden.to(self.devices[layer])
        arguments, named = self._frame(run, len(hidden) // len(run.tokens), start)[layer]
        if keys is None and start:
            keys = behind(run.cache(layer), start)
        cache = KeyValues(self.n_layers, start, keys) if keys else None
        arguments = tuple(_swap(value, cache) for value in arguments)
        named = {name: _swap(value, cache) for name, value in named.items()}
        output = self.body.blocks[layer].module(hidden, *arguments, **named)
        return (output if isinstance(output, Tensor) else output[0]).to(origin)

    def keys_of(self, run: CleanRun, layer: int, hidden: Stream, start: int) -> Pair:
        """Keys and values of a layer for all columns: clean ones first, then those of `hidden`.

        They are on the device of the block.
        """
        kept: list[Tensor] = []
        with suppress(KeysComputed):
            self.block(run, layer, hidden, start, stopping(kept))
        keys, values = kept
        if start:
            clean = run.cache(layer)
            return prepend(clean[0], keys, start), prepend(clean[1], values, start)
        return keys, values

    def last_column(
        self, run: CleanRun, layer: int, hidden: Stream, pair: Pair
    ) -> Float[Tensor, "rows 1 d_model"]:
        """The output of a block in the last column alone, its keys and values known."""
        return self.block(run, layer, hidden[:, -1:], run.length - 1, answering(pair))

    def after_attention(self, layer: int, z: Float[Tensor, "rows pos heads"]) -> Stream:
        """What attention adds to the stream, from the outputs of all heads side by side."""
        return self._through(self.body.blocks[layer].after_heads, layer, z)

    def after_neurons(self, layer: int, neurons: Float[Tensor, "rows pos neurons"]) -> Stream:
        """What the MLP adds to the stream, from its hidden layer."""
        return self._through(self.body.blocks[layer].after_neurons, layer, neurons)

    def _through(self, modules: Iterable[nn.Module], layer: int, found: Tensor) -> Tensor:
        origin, found = found.device, found.to(self.devices[layer])
        for module in modules:
            found = module(found)
        return found.to(origin)

    def tail(self, run: CleanRun, layer: int, middle: Stream, start: int) -> Stream:
        """The rest of a sequential block, from the stream between its attention and its MLP."""
        block = self.body.blocks[layer]
        if block.mlp is None:
            return middle
        origin, middle = middle.device, middle.to(self.devices[layer])
        nothing = middle.new_zeros(()).expand_as(middle)
        attended = middle if self._keeps_residual else nothing
        stubs: dict[nn.Module, Callable[..., Any]] = {
            block.attn: lambda *args, **kwargs: self._like_attention(attended)
        }
        for module in block.after_heads[1:]:
            stubs[module] = lambda *args, **kwargs: nothing
        if block.attn_norm is not None:
            stubs[block.attn_norm] = lambda x: x
        with replaced(stubs):
            return self.block(run, layer, middle, start, answering((nothing, nothing))).to(origin)

    def logits(
        self,
        hidden: Float[Tensor, "rows d_model"],
        vocabulary: Int[Tensor, " words"] | None = None,
    ) -> Float[Tensor, "rows words"]:
        """Logits from what leaves the last block, of some words of the vocabulary or of all."""
        tokens = torch.zeros(len(hidden), 1, dtype=torch.long, device=hidden.device)
        blocks = [block.module for block in self.body.blocks]
        stubs: dict[nn.Module, Callable[..., Any]] = {
            block: lambda *args, **kwargs: self._like_block(hidden[:, None]) for block in blocks
        }
        unembed = self.body.unembed
        if vocabulary is not None and isinstance(unembed, nn.Linear) and is_matrix(unembed):
            whole, biases = held(unembed, "weight"), held(unembed, "bias")
            assert whole is not None
            weight = whole[vocabulary.to(whole.device)]
            bias = None if biases is None else biases[vocabulary.to(whole.device)]
            stubs[unembed] = lambda x: nn.functional.linear(x.to(weight.device), weight, bias)
            with replaced(stubs):
                return self.call(tokens)[:, 0].to(hidden.device)
        with replaced(stubs):
            logits = self.call(tokens)[:, 0].to(hidden.device)
        return logits if vocabulary is None else logits[:, vocabulary]

    def _frame(self, run: CleanRun, interventions: int, start: int) -> Frame:
        """The arguments that the model gives its blocks on this batch, from column `start`.

        Each is on the device of its block; blocks of one device share their masks.
        """
        if (interventions, start) not in run.frames:
            frame: Frame = []
            known: dict[tuple[int, torch.device], tuple[Tensor, Tensor]] = {}

            def record(*args: Any, **kwargs: Any) -> Any:
                hidden = args[0] if args else kwargs.pop("hidden_states")
                frame.append(moved((args[1:], kwargs), self.devices[len(frame)], known))
                return self._like_block(hidden)

            stubs = {block.module: record for block in self.body.blocks}
            cache = KeyValues(self.n_layers, start, _unasked) if self.cached else None
            with replaced({**stubs, self.body.unembed: lambda x: x[..., :1]}):
                self.call(run.tokens[:, start:].repeat(interventions, 1), cache)
            if len(run.frames) == FRAMES:
                del run.frames[next(iter(run.frames))]
            run.frames[interventions, start] = frame
        return run.frames[interventions, start]

    def call(self, tokens: Int[Tensor, "rows pos"], cache: Any = None) -> Tensor:
        """The whole module; its logits."""
        options: dict[str, Any] = {}
        if self._accepts("use_cache"):
            options["use_cache"] = cache is not None
        if cache is not None:
            options["past_key_values"] = cache
        output = self.body.module(input_ids=tokens, **options)
        return output if isinstance(output, Tensor) else output.logits

    def _accepts(self, name: str) -> bool:
        return name in inspect.signature(self.body.module.forward).parameters

    def _like_block(self, hidden: Tensor) -> Any:
        return (hidden, *[None] * (self._wrapped - 1)) if self._wrapped else hidden

    def _like_attention(self, attended: Tensor) -> Any:
        wrapped = self._attn_wrapped
        return (attended, *[None] * (wrapped - 1)) if wrapped else attended

    def _outputs(self) -> tuple[int, int]:
        """Of how many values blocks and attentions return a tuple; 0 for a bare tensor."""
        seen: dict[nn.Module, int] = {}

        def note(module: nn.Module, args: Any, output: Any) -> None:
            seen[module] = len(output) if isinstance(output, tuple | list) else 0  # GPT-1: a list

        block = self.body.blocks[0]
        handles = [each.register_forward_hook(note) for each in (block.module, block.attn)]
        try:
            with torch.no_grad():
                self.call(self.sample()[:, :1])
        finally:
            for handle in handles:
                handle.remove()
        return seen[block.module], seen[block.attn]

    def sample(self) -> Int[Tensor, "2 pos"]:
        """Two short random prompts, on which the model is tried."""
        length = min(6, self.model.geometry.n_ctx)
        random = torch.Generator().manual_seed(0)
        tokens = torch.randint(self.model.geometry.d_vocab, (2, length), generator=random)
        return tokens.to(self.model.device)

    def _bytes_kept(self, kinds: Iterable[str]) -> int:
        """Bytes that a clean run with these parts keeps of one token."""
        shape = self.model.geometry
        numbers = (self.n_layers + 1) * shape.d_model
        numbers += 2 * self.n_layers * shape.n_kv_heads * shape.d_head
        numbers += sum(sum(self._widths.get(kind, ())) for kind in kinds)
        return numbers * self.model.dtype.itemsize

    @torch.no_grad()
    def _measure_parts(self) -> dict[str, list[int]]:
        kinds = [kind for kind in self.body.blocks[0].parts if kind not in _HELD]
        run = self.clean(self.sample()[:, :1], kinds)
        return {kind: [each.shape[-1] for each in kept] for kind, kept in run.parts.items()}

    @torch.no_grad()
    def tried(self, question: Callable[[], bool]) -> bool:
        """The answer to a question about the model; what raises an error is a no."""
        try:
            return question()
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, IndexError):
            return False

    def _blocks_agree(self) -> bool:
        run = self.clean(self.sample())
        if self.cached and len(run.keys) != self.n_layers:
            self.cached = False
            run = self.clean(self.sample())
        return all(
            close(self.block(run, layer, run.stream[layer], 0), run.stream[layer + 1])
            for layer in range(self.n_layers)
        )

    def _continuation_agrees(self) -> bool:
        run = self.clean(self.sample())
        start = run.length // 2
        layers = {0, self.n_layers - 1}
        return all(
            close(
                self.block(run, layer, run.stream[layer][:, start:], start),
                run.stream[layer + 1][:, start:],
            )
            and close(
                self.last_column(
                    run,
                    layer,
                    run.stream[layer],
                    self.keys_of(run, layer, run.stream[layer][:, start:], start),
                ),
                run.stream[layer + 1][:, -1:],
            )
            for layer in layers
        )

    def _stream_is_a_sum(self) -> bool:
        run = self._parted()
        return all(
            close(run.at(layer, "resid_mid") + self._added(run, layer), run.stream[layer + 1])
            for layer in range(self.n_layers)
        )

    def _parted(self) -> CleanRun:
        kinds = [kind for kind in ("z", "attn_out", "mlp_out") if kind in self.body.blocks[0].parts]
        return self.clean(self.sample(), kinds)

    def _added(self, run: CleanRun, layer: int) -> Tensor | float:
        return run.parts["mlp_out"][layer] if "mlp_out" in run.parts else 0.0

    def _tails_agree(self) -> bool:
        run = self._parted()
        for self._keeps_residual in (False, True):
            if all(self._tail_agrees(run, layer) for layer in range(self.n_layers)):
                return True
        return False

    def _tail_agrees(self, run: CleanRun, layer: int) -> bool:
        attended = run.parts["attn_out"][layer]
        middle = run.stream[layer] + attended
        after = run.stream[layer + 1]
        sums = close(self.after_attention(layer, run.parts["z"][layer]), attended)
        sums = sums and close(middle + self._added(run, layer), after)
        return sums and (self.body.parallel or close(self.tail(run, layer, middle, 0), after))


def _append(shape: torch.Size, kept: Layers, activation: Tensor) -> None:
    # a copy, since blocks may add to an activation in place, as Falcon does
    kept.append(activation.clone().view(*shape, -1))


def close(found: Tensor, expected: Tensor) -> bool:
    """Equal but for rounding: within the root of the precision, as a share of the spread."""
    precision = max(torch.finfo(found.dtype).eps, torch.finfo(torch.float32).eps)
    error = (found - expected).double().square().mean().sqrt()
    return bool(error <= precision**0.5 * expected.double().std())


def _unasked(keys: Tensor, values: Tensor) -> Pair:
    return keys, values  # of a cache that only says where it stands


def _swap(value: Any, cache: KeyValues | None) -> Any:
    return cache if isinstance(value, KeyValues) else value
