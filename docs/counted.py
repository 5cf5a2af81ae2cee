"""What scans of large models do, counted by the engine's own plans on shapes without weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
import transformers

import interp
from interp.engine import Mean, everywhere, explain
from interp.engine.explain_edges import explain_attribution, explain_edges
from interp.engine.outline import laid_out
from interp.engine.plan import Costs
from interp.engine.replay import Replay
from interp.models import Model
from interp.prompts import PromptSet

SHAPES = {  # layers, width, heads, heads of keys and values, width of the MLP, tied embeddings
    "1B": (16, 2048, 32, 8, 8192, True),
    "8B": (32, 4096, 32, 8, 14336, False),
    "70B": (80, 8192, 64, 8, 28672, False),
    "405B": (126, 16384, 128, 8, 53248, False),
}
VOCAB, CONTEXT = 128_256, 131_072
SWEEP, EDGES, SCORED, LENGTH = 1000, 10, 100, 32
TEXTS, LONGEST, LENGTHS, STEPS = 60, 8142, 20, 50
AT_ONCE = {"prompts_at_once": 1, "tokens_at_once": 2**16}  # not what fits on this machine


@dataclass(frozen=True)
class Work:
    """What a scan of a model does.

    `flops` are operations in bfloat16, `products` those in float32, `read` the bytes of weights
    that are read to write tokens one by one, `saved` how many times more a loop does.
    """

    sites: int
    flops: float
    products: float = 0.0
    read: float = 0.0
    saved: float | None = None


@cache
def small() -> Model:
    """A model with weights, of the architecture of all shapes."""
    return interp.load("polymath-llama", check=False)


@cache
def shape(name: str) -> Model:
    """A model of a published shape, without weights."""
    layers, width, heads, kv_heads, mlp, tied = SHAPES[name]
    config = transformers.LlamaConfig(
        num_hidden_layers=layers,
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        intermediate_size=mlp,
        tie_word_embeddings=tied,
        vocab_size=VOCAB,
        max_position_embeddings=CONTEXT,
    )
    with torch.device("meta"):
        module = transformers.LlamaForCausalLM(config)
    return Model(module.to(torch.bfloat16).eval(), small().tokenizer, id=name)


@cache
def outline(name: str) -> Replay:
    """What is counted on."""
    return laid_out(shape(name), small())[0]


def pair() -> PromptSet:
    """One pair of prompts that differ from the first column on: work grows with their number."""
    clean = torch.randint(1000, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    return PromptSet.from_tokens(clean, clean + 1, answer=[0], wrong=[1])


def head_sweep(name: str) -> Work:
    """Every head replaced by its mean."""
    model, alone = shape(name), replace(pair(), corrupt=None)
    means = everywhere(interp.sites.heads(model), Mean())
    plan = explain(model, alone, means, like=small(), **AT_ONCE)
    return Work(plan.interventions, SWEEP * plan.flops, saved=plan.saved)


def edge_sweep(name: str) -> Work:
    """Every edge patched exactly."""
    plan = explain_edges(shape(name), pair(), like=small(), **AT_ONCE)
    return Work(plan.interventions, EDGES * plan.flops, saved=plan.saved)


def edge_attribution(name: str) -> Work:
    """Every edge by EAP-IG."""
    plan = explain_attribution(shape(name), pair(), like=small())
    return Work(plan.edges, SCORED * plan.flops, products=SCORED * plan.products)


def retrieval(name: str) -> Work:
    """Texts of many lengths read, and answers written."""
    sizes = shape(name).geometry
    each = [LONGEST * (i + 1) // LENGTHS for i in range(LENGTHS)] * (TEXTS // LENGTHS)
    costs = Costs.of(outline(name))
    return Work(
        sizes.n_layers * sizes.n_heads,
        sum(reading(costs, sizes.n_layers, length, STEPS) for length in each),
        read=sum(STEPS * bytes_read(costs, shape(name), length) for length in each),
    )


def reading(costs: Costs, layers: int, length: int, steps: int) -> float:
    """Operations to read a text but for its last token, and that and others one by one."""
    whole = layers * costs.span(length - 1, 0)
    return whole + steps * (layers * (costs.block + length * costs.square) + costs.unembed)


def bytes_read(costs: Costs, model: Model, length: int) -> float:
    """Bytes of weights, keys and values that are read to write one token."""
    sizes = model.geometry
    weights = (sizes.n_layers * costs.block + costs.unembed) / 2  # two operations for each
    kept = 2 * sizes.n_layers * sizes.n_kv_heads * sizes.d_head * length
    return (weights + kept) * model.dtype.itemsize


SCANS: dict[str, tuple[str, str, Callable[[str], Work]]] = {
    "Every head": (
        "head sweep",
        f"Each head in turn is replaced by its mean, at every position; {SWEEP:,} prompts of "
        f"{LENGTH} tokens, each with one number for each head.",
        head_sweep,
    ),
    "Every edge, one after another": (
        "edge sweep",
        f"`interp.engine.patch_edges`, exactly; {EDGES} pairs of {LENGTH} tokens that differ from "
        "the first one on. Pairs that differ later cost less.",
        edge_sweep,
    ),
    "Every edge, by EAP-IG": (
        "edge attribution",
        f"`interp.attribute` with five steps, an estimate; {SCORED} pairs of {LENGTH} tokens. The "
        "products of all components with all readers are done in float32, and are counted at that "
        "rate.",
        edge_attribution,
    ),
    "Retrieval heads": (
        "reading",
        f"`interp.heads.retrieval`: {TEXTS} texts of {LENGTHS} lengths up to {LONGEST:,} tokens "
        f"are read, and {STEPS} tokens are written after each, the most that it asks for. Reading "
        "is counted in operations, writing in bytes: all weights are read for each token.",
        retrieval,
    ),
}
