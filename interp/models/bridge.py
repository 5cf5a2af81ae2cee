"""A TransformerBridge over the weights of a module, without a second copy of them.

TransformerLens splits a fused query-key-value projection. GPT-2, GPT-BigCode and Phi-3 keep views
of the module's weight; GPT-NeoX, BLOOM, CodeGen (interleaved by head, so that no view exists),
Falcon and MPT get a copy of these weights, which an edit in place of the fused weight does not
reach. All other weights are shared. It also adds a zero bias to an unembedding without one.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from interp.errors import UnsupportedModel, one_line
from interp.models.placement import (
    bring_inputs,
    is_spread,
    release_movers,
    runs_on,
    shared_by_hooks,
)
from interp.models.quantised import beside_weights, quantisation

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
else:
    TransformerBridge = Any  # imported when a bridge is built: it takes a second

NATIVE = "TransformerLensNative"


def share_weights(module: nn.Module) -> nn.Module:
    """A structural copy of `module`: new submodules and configs, the same parameters and buffers.

    TransformerLens rewires the module that it is given and switches its config to eager attention;
    the copy takes both, the original keeps its forward and its fused attention.
    """
    kept = [*module.parameters(), *module.buffers()]
    kept += [*shared_by_hooks(module), *beside_weights(module)]
    copied = copy.deepcopy(module, {id(each): each for each in kept})
    release_movers(copied)
    return copied


def build_bridge(
    module: nn.Module, architecture: str, tokenizer: PreTrainedTokenizerBase, name: str
) -> TransformerBridge:
    """Build a `TransformerBridge` over the weights of `module`, which stays as it is.

    Raises UnsupportedModel for an architecture that TransformerLens has no adapter for.
    """
    from transformer_lens.factories.architecture_adapter_factory import SUPPORTED_ARCHITECTURES
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformer_lens.utilities.attn_implementation import force_eager_attention

    if architecture not in SUPPORTED_ARCHITECTURES:
        raise UnsupportedModel(
            f"TransformerLens has no adapter for {architecture}, so its activations have no hooks; "
            f"use one of its {len(SUPPORTED_ARCHITECTURES)} architectures, or register an adapter."
        )
    shared = share_weights(module)
    config: dict[str, Any]
    if architecture == NATIVE:
        config = {"tl_config": module.cfg}
    else:
        force_eager_attention(shared, per_layer=True)  # fused kernels never make the pattern
        config = {"hf_config": shared.config}
    try:
        with torch.random.fork_rng(devices=[]):  # it makes layers, whose weights are then replaced
            bridge = build_bridge_from_module(
                shared, architecture, tokenizer=_for_bridge(tokenizer), model_name=name, **config
            )
    except Exception as error:  # adapters raise anything on a config that they did not foresee
        if (method := quantisation(module)) is not None:
            raise UnsupportedModel(
                f"TransformerLens cannot wrap this {architecture}, whose weights are quantised "
                f"({method}), perhaps in one projection for queries, keys and values that it would "
                f"split ({one_line(error)}); load the model without quantisation."
            ) from error
        raise UnsupportedModel(
            f"TransformerLens cannot wrap this {architecture} ({type(error).__name__}: {error}); "
            f"load it with check=False to run it without hooks."
        ) from error
    if is_spread(module):
        blocks: Any = bridge.blocks
        for block in blocks:  # some are given a forward of their own, which moves nothing (Falcon)
            bring_inputs(block, runs_on(block))
    return bridge.eval()


def _for_bridge(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    # TransformerLens adds special tokens to what it is given, and reloads by name any tokenizer
    # that does not say add_bos_token: an in-memory one has no name. It still detects by trial
    # whether a BOS is prepended.
    own = copy.deepcopy(tokenizer)
    own.init_kwargs = {**own.init_kwargs, "name_or_path": own.name_or_path, "add_bos_token": True}
    return own
