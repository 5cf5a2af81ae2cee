"""Where are the parts of a model? Read from the adapter of TransformerLens, for any architecture.

Every intervention acts on a `Part`: the input or the output of one module of a block. Parts are
those of `model.hf` or of a structural copy of it, never of the bridge, so the model's own fused
kernels run.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from interp.errors import SiteError, UnsupportedModel
from interp.models import Model
from interp.models.placement import runs_on
from interp.sites import MLP, Attn, Head, K, Neuron, Pattern, Q, Resid, Site, V

KIND: dict[type[Site], str] = {
    Head: "z",
    Q: "q",
    K: "k",
    V: "v",
    Pattern: "pattern",
    Attn: "attn_out",
    MLP: "mlp_out",
    Neuron: "neurons",
}
"""The part that each type of site lies in; a residual stream's is its point."""

ORDER = (
    *("resid_pre", "q", "k", "v", "pattern", "z", "attn_out"),
    *("resid_mid", "neurons", "mlp_out", "resid_post"),
)
"""Parts of a block in the order of their computation."""

WORDS = {
    "q": "separate queries",
    "k": "separate keys",
    "v": "separate values",
    "z": "output projection of heads",
    "mlp_out": "MLP",
    "neurons": "single hidden layer in its MLP",
    "resid_mid": "residual stream between attention and MLP, to which each adds its output (they "
    "run in parallel, it has none, or what they add is scaled or normed)",
}


def kind_of(site: Site) -> str:
    """The part that a site lies in."""
    return f"resid_{site.point}" if isinstance(site, Resid) else KIND[type(site)]


@dataclass(frozen=True, eq=False)
class Part:
    """A tensor in a block: the first input or the first output of a module.

    Attributes:
        module: Whose input or output it is.
        side: "in" or "out".
        columns: Which features of a fused projection belong to it; None for all.
        heads: Into how many heads the features are divided; 0 if they are not.
    """

    module: nn.Module
    side: str
    columns: Int[Tensor, " features"] | None = None
    heads: int = 0

    @contextmanager
    def hook(self, function: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """Call `function` on the tensor whenever the module runs; what it returns takes its place.

        The function sees the features of this part alone, `[..., features]`, on the device of the
        module; what it returns may be on another.
        """
        if self.side == "in":
            handle = self.module.register_forward_pre_hook(
                lambda _, args, kwargs: self._on_input(function, args, kwargs), with_kwargs=True
            )
        else:
            handle = self.module.register_forward_hook(
                lambda _, args, output: self._on_output(function, output)
            )
        try:
            yield
        finally:
            handle.remove()

    def _changed(self, function: Callable[[Tensor], Tensor | None], whole: Tensor) -> Tensor | None:
        if self.columns is None:
            changed = function(whole)
            return None if changed is None else changed.to(whole.device)
        columns = self.columns.to(whole.device)
        changed = function(whole[..., columns])
        return None if changed is None else whole.index_copy(-1, columns, changed.to(whole.device))

    def _on_input(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            changed = self._changed(function, args[0])
            return None if changed is None else ((changed, *args[1:]), kwargs)
        changed = self._changed(function, kwargs["hidden_states"])
        return None if changed is None else (args, {**kwargs, "hidden_states": changed})

    def _on_output(self, function: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return self._changed(function, output)
        changed = self._changed(function, output[0])
        return None if changed is None else (changed, *output[1:])


@dataclass(frozen=True, eq=False)
class Block:
    """One block and its parts.

    `after_heads` are the modules between z and what attention adds to the stream, `after_neurons`
    those between the hidden layer and what the MLP adds; `attn_norm` and `mlp_norm` stand between
    the stream and its readers (None: they read it as it is). `mlp` is where the MLP is entered.
    """

    module: nn.Module
    attn: nn.Module
    parts: dict[str, Part]
    after_heads: tuple[nn.Module, ...]
    after_neurons: tuple[nn.Module, ...]
    attn_norm: nn.Module | None
    mlp_norm: nn.Module | None
    mlp: nn.Module | None


@dataclass(frozen=True, eq=False)
class Anatomy:
    """The blocks of a module and what follows them.

    `parallel`: whether attention and MLP of a block read the same stream.
    """

    module: nn.Module
    blocks: tuple[Block, ...]
    final_norm: nn.Module | None
    unembed: nn.Module
    parallel: bool

    def part(self, site: Site) -> Part:
        """The part that a site lies in. Raises SiteError if this architecture has none."""
        kind = kind_of(site)
        parts = self.blocks[site.layer].parts
        for needed in ("v", "z") if kind == "pattern" else (kind,):
            if needed not in parts:
                raise SiteError(f"{site} does not exist in this model: it has no {WORDS[needed]}.")
        return parts[needed]


def anatomy(
    model: Model,
    module: nn.Module | None = None,
    *,
    like: Model | None = None,
    parallel: bool | None = None,
) -> Anatomy:
    """The anatomy of `model.hf`, or of `module`, a structural copy of it.

    For a model without weights, `like` is another of its architecture that has some, and `parallel`
    what is known of that one.

    Raises UnsupportedModel for blocks that are not all alike, such as those without attention.
    """
    try:
        bridge = (like or model).bridge
        return _anatomy(model, model.hf if module is None else module, bridge, parallel)
    except AttributeError as error:
        raise UnsupportedModel(
            f"{model.id} has blocks in which the parts that TransformerLens names cannot be found "
            f"({error}); use a model whose blocks all have attention."
        ) from error


def _anatomy(model: Model, module: nn.Module, bridge: Any, parallel: bool | None) -> Anatomy:
    mapping = bridge.adapter.component_mapping
    layers: Any = module.get_submodule(mapping["blocks"].name)
    names = mapping["blocks"].submodules
    first = _block(model, layers[0], names, bridge.blocks[0], parallel=True)
    if parallel is None:
        parallel = first.mlp is not None and _runs_in_parallel(model, module, first)
    blocks = tuple(
        _block(model, block, names, bridged, parallel=parallel)
        for block, bridged in zip(layers, cycle(bridge.blocks), strict=False)
    )
    final = mapping["ln_final"].name if "ln_final" in mapping else ""
    owner, _, name = final.rpartition(".")
    return Anatomy(
        module=module,
        blocks=blocks,
        final_norm=getattr(module.get_submodule(owner), name) if final else None,
        unembed=module.get_submodule(mapping["unembed"].name),
        parallel=parallel,
    )


def _block(
    model: Model, block: nn.Module, names: dict[str, Any], bridge: Any, *, parallel: bool
) -> Block:
    attn = block.get_submodule(names["attn"].name)
    inside = names["attn"].submodules
    o = attn.get_submodule(inside["o"].name)
    after_heads = (o, *_named(block, names, "ln1_post"))
    mlp, after_neurons, of_mlp = _mlp(block, names)
    parts = {"resid_pre": Part(block, "in")}
    parts |= _projections(model, attn, inside, bridge)
    parts["z"] = Part(o, "in", heads=model.geometry.n_heads)
    parts["attn_out"] = Part(after_heads[-1], "out")
    if mlp is not None and not parallel:
        parts["resid_mid"] = parts["attn_out"]  # changed by what attention adds to the stream
    parts |= of_mlp
    parts["resid_post"] = Part(block, "out")
    attn_norm = _named(block, names, "ln1")
    mlp_norm = _named(block, names, "ln2") or (attn_norm if parallel else ())
    return Block(
        module=block,
        attn=attn,
        parts=parts,
        after_heads=after_heads,
        after_neurons=after_neurons,
        attn_norm=attn_norm[0] if attn_norm else None,
        mlp_norm=mlp_norm[0] if mlp_norm else None,
        mlp=mlp,
    )


def _mlp(
    block: nn.Module, names: dict[str, Any]
) -> tuple[nn.Module | None, tuple[nn.Module, ...], dict[str, Part]]:
    """Where the MLP is entered, the modules behind its hidden layer, and its parts."""
    if "mlp" not in names:
        return None, (), {}
    whole = block.get_submodule(names["mlp"].name) if names["mlp"].name else None
    inside, scope = names["mlp"].submodules, block if whole is None else whole
    entry = scope.get_submodule(inside["in"].name) if whole is None else whole
    post = _named(block, names, "ln2_post")
    if "out" not in inside:  # experts: no single hidden layer
        return entry, (), {"mlp_out": Part((entry, *post)[-1], "out")}
    after = (scope.get_submodule(inside["out"].name), *post)
    return entry, after, {"neurons": Part(after[0], "in"), "mlp_out": Part(after[-1], "out")}


@torch.no_grad()
def _runs_in_parallel(model: Model, module: nn.Module, block: Block) -> bool:
    """Whether the MLP does not read what attention adds: noise there leaves its input as it is."""
    seen: list[Tensor] = []
    noise = torch.randn(model.geometry.d_model, generator=torch.Generator().manual_seed(0))
    noise = noise.to(model.device, model.dtype)
    tokens = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    assert block.mlp is not None
    with Part(block.mlp, "in").hook(lambda x: seen.append(x.clone())):
        module(input_ids=tokens)
        with block.parts["attn_out"].hook(lambda x: x + noise.to(x.device)):
            module(input_ids=tokens)
    return torch.equal(seen[0], seen[1])


def _named(block: nn.Module, names: dict[str, Any], name: str) -> tuple[nn.Module, ...]:
    return (block.get_submodule(names[name].name),) if name in names else ()


def _projections(
    model: Model, attn: nn.Module, inside: dict[str, Any], bridge: Any
) -> dict[str, Part]:
    """Queries, keys and values, each the output of its own projection or a share of a fused one."""
    heads = {"q": model.geometry.n_heads, "k": model.geometry.n_kv_heads}
    heads["v"] = heads["k"]
    if "qkv" not in inside:
        present = {each for each in heads if each in inside and hasattr(attn, inside[each].name)}
        return {
            each: Part(attn.get_submodule(inside[each].name), "out", heads=heads[each])
            for each in heads
            if each in present
        }
    fused = attn.get_submodule(inside["qkv"].name)
    columns = _fused_columns(attn, inside["qkv"].name, bridge.attn)
    return {
        each: Part(fused, "out", columns[each].to(runs_on(fused)), heads[each]) for each in columns
    }


def _fused_columns(attn: nn.Module, name: str, bridge: Any) -> dict[str, Int[Tensor, " features"]]:
    """Which output features of a fused projection are queries, keys and values.

    TransformerLens knows how to split the weight; it is given one whose rows hold their own number.
    """
    fused = attn.get_submodule(name)
    weight = getattr(fused, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim != 2:
        return {}
    numbered = copy.copy(attn)  # shallow: only the fused projection is replaced
    numbered._modules = dict(attn._modules)
    stand_in = copy.copy(fused)
    stand_in._parameters = dict(fused._parameters)
    transposed = type(fused).__name__ == "Conv1D"
    other, size = weight.shape if transposed else weight.shape[::-1]
    rows = torch.arange(size, dtype=torch.float64)[:, None].expand(size, other)
    stand_in._parameters["weight"] = nn.Parameter(rows.T if transposed else rows)
    if stand_in._parameters.get("bias") is not None:
        stand_in._parameters["bias"] = nn.Parameter(torch.zeros(size, dtype=torch.float64))
    numbered._modules[name] = stand_in
    split = bridge.split_qkv_matrix(numbered)
    return {
        each: linear.weight[:, 0].round().long() for each, linear in zip("qkv", split, strict=True)
    }
