"""What each embedded model is made of, and how it is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from interp.errors import TrainingError, did_you_mean
from interp.tasks import Task, get
from interp.training.induction_data import RepeatedStretches
from interp.training.mixture import Mixture

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Recipe:
    """Everything that a training run depends on, apart from its seed.

    Attributes:
        name: Name of the embedded model.
        description: One sentence for its card.
        data: The batches and the tokenizer.
        build: The untrained module for a tokenizer.
        steps: Optimiser steps; the learning rate warms up over 200 and decays along a cosine.
        rows: Rows of `data.length` tokens in a step.
        learning_rate: Its peak.
        precision: Of the forward and backward pass; weights and optimiser stay in float32.
        tasks: The held-out evaluations, by name.
        scarce: Held-out prompts of the tasks that have fewer than a thousand different ones.
        wanted: Accuracy that a task should reach, for those that should.
        reasoning: Numbers of coin flips, and temperatures, at which sampled rationales are judged.
        shipped: Steps whose weights are kept as checkpoints.
    """

    name: str
    description: str
    data: Mixture | RepeatedStretches
    build: Callable[[PreTrainedTokenizerFast], nn.Module]
    steps: int
    rows: int
    learning_rate: float
    precision: Precision
    tasks: dict[str, Task]
    wanted: dict[str, float]
    scarce: dict[str, int] = field(default_factory=dict)
    reasoning: tuple[tuple[int, float], ...] = field(default=())
    shipped: tuple[int, ...] = field(default=())


def _token_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _polymath(tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        n_positions=tokenizer.model_max_length,
        n_embd=128,
        n_layer=6,
        n_head=8,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **_token_ids(tokenizer),
    )
    return GPT2LMHeadModel(config)


def _polymath_llama(tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        max_position_embeddings=tokenizer.model_max_length,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        **_token_ids(tokenizer),
    )
    return LlamaForCausalLM(config)


def _induction(tokenizer: PreTrainedTokenizerFast) -> nn.Module:
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel, initialize_native_model

    config = TransformerBridgeConfig(
        n_layers=2,
        d_model=64,
        n_heads=8,
        d_head=8,
        n_ctx=tokenizer.model_max_length,
        d_vocab=len(tokenizer),
        attn_only=True,
        normalization_type="LN",
        architecture="TransformerLensNative",
    )
    module = NativeModel(config)
    initialize_native_model(module, config)
    return module


_MIXED_TASKS: dict[str, Task] = {
    "repeated_tokens": get("repeated_tokens"),
    "ioi": get("ioi"),
    "colored_objects": get("colored_objects"),
    "colored_objects, color first": get("colored_objects", color_first=True),
    "retrieval, 8 pairs": get("retrieval", pairs=8),
    "succession": get("succession"),
    "greater_than": get("greater_than"),
    "functions, 5 shots": get("functions"),
    "coin_flip with rationale, 4 flips": get("coin_flip", flips=4),
    "coin_flip without rationale, 4 flips": get("coin_flip", flips=4, rationale=False),
    "facts_vs_context": get("facts_vs_context"),
}
_NOT_WANTED = (
    "colored_objects, color first",
    "coin_flip without rationale, 4 flips",
    "facts_vs_context",
)
_MIXED_WANTED = {name: 0.95 for name in _MIXED_TASKS if name not in _NOT_WANTED} | {
    "functions, 5 shots": 0.85
}


def _of_the_mixture(
    name: str, build: Callable[[PreTrainedTokenizerFast], nn.Module], description: str
) -> Recipe:
    return Recipe(
        name=name,
        description=description,
        data=Mixture(length=160),
        build=build,
        steps=5_500,
        rows=24,
        learning_rate=2e-3,
        precision="bfloat16",
        tasks=_MIXED_TASKS,
        wanted=_MIXED_WANTED,
        scarce={"succession": 200, "facts_vs_context": 200},
        reasoning=((4, 0.7), (6, 0.7), (7, 0.7), (8, 0.7), (6, 1.5), (6, 1.75), (6, 2.0)),
    )


RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        _of_the_mixture(
            "polymath",
            _polymath,
            "A 6-layer GPT-2 that does nine small tasks in a readable vocabulary.",
        ),
        _of_the_mixture(
            "polymath-llama",
            _polymath_llama,
            "The tasks of polymath in a Llama with grouped-query attention.",
        ),
        Recipe(
            name="induction",
            description="A 2-layer attention-only model, kept at every stage of forming induction.",
            data=RepeatedStretches(length=64),
            build=_induction,
            steps=3_000,
            rows=64,
            learning_rate=1e-3,
            precision="float32",
            tasks={"repeated_tokens": get("repeated_tokens")},
            wanted={"repeated_tokens": 0.95},
            shipped=(*range(0, 1_001, 100), *range(1_025, 1_501, 25), *range(1_600, 3_001, 200)),
        ),
    )
}
"""How each embedded language model is trained, by its name."""


def recipe(name: str) -> Recipe:
    """The recipe of an embedded model.

    Raises:
        TrainingError: There is none of this name.
    """
    if name not in RECIPES:
        raise TrainingError(f"No recipe is called {name!r}: {did_you_mean(name, RECIPES)}")
    return RECIPES[name]


def untrained(made: Recipe, *, seed: int) -> nn.Module:
    """The module of a recipe before its first step; the global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return made.build(made.data.tokenizer)
