"""What all edges will cost, patched exactly or scored by gradients, before anything runs.

Edges are counted by the part that reads them, never listed: a model of 405 billion parameters has
147 million.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from math import ceil

from interp.engine.edges import heads_apart
from interp.engine.explain import Plan
from interp.engine.groups import groups
from interp.engine.jobs import Job
from interp.engine.memory import bytes_kept, bytes_per_token, largest_group, train_tokens
from interp.engine.outline import laid_out
from interp.engine.plan import Costs, cost, floor
from interp.engine.replay import Replay
from interp.errors import PromptError
from interp.models import Model
from interp.prompts import PromptSet

BACKWARD = 2.5
"""Operations on scores and weighted values in a run backward, of those in one forward."""


@dataclass(frozen=True)
class Readers:
    """The edges into one part of one layer.

    Attributes:
        layer: The layer; for the logits, the one behind the last.
        kind: "q", "k", "v", "mlp_out" or "logits".
        units: Readers: heads, groups of heads, or 1.
        sources: Components that each of them reads.
    """

    layer: int
    kind: str
    units: int
    sources: int

    @property
    def edges(self) -> int:
        """How many there are."""
        return self.units * self.sources


def readers(replay: Replay) -> Iterator[Readers]:
    """All edges of a model, by the part that reads them, as `interp.sites.edges` lists them."""
    shape, block = replay.model.geometry, replay.body.blocks[0]
    has_mlp = block.mlp is not None
    each = shape.n_heads + has_mlp
    for layer in range(shape.n_layers):
        before = 1 + layer * each
        yield Readers(layer, "q", shape.n_heads, before)
        yield Readers(layer, "k", shape.n_kv_heads, before)
        yield Readers(layer, "v", shape.n_kv_heads, before)
        if has_mlp:
            own = 0 if replay.body.parallel else shape.n_heads
            yield Readers(layer, "mlp_out", 1, before + own)
    yield Readers(shape.n_layers, "logits", 1, 1 + shape.n_layers * each)


def explain_edges(
    model: Model,
    prompts: PromptSet,
    *,
    like: Model | None = None,
    prompts_at_once: int | None = None,
    tokens_at_once: int | None = None,
) -> Plan:
    """Plan the exact patching of every edge, `interp.engine.patch_edges`, without running it.

    The loop that it is compared with runs one whole forward for each edge.

    >>> import interp
    >>> from interp.engine.explain_edges import explain_edges
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> explain_edges(model, prompts).interventions
    3628

    Args:
        model: As for `interp.engine.explain`; so are `like` and what is done at once.
        prompts: Pairs of clean and corrupt prompts.
        like: Of a model without weights.
        prompts_at_once: Prompts of one length that share their clean runs.
        tokens_at_once: Tokens that ride at once.

    Raises PromptError for prompts without counterfactuals, ModelError as `interp.engine.explain`.
    """
    if prompts.corrupt is None:
        raise PromptError(
            "Edges are patched from the counterfactual of each prompt and these have none; make "
            "them with corrupt=."
        )
    replay, tried = laid_out(model, like)
    every = list(readers(replay))
    changed = {kind: "z" if heads_apart(tried, kind) else kind for kind in "qkv"}
    costs, layers = Costs.of(replay), replay.n_layers
    edges = sum(some.edges for some in every)
    tokens = tokens_at_once or train_tokens(replay)
    done = naive = least = clean = 0.0
    count = peak = 0
    for group in groups(prompts, prompts_at_once or largest_group(replay, prompts)):
        size, length, start = len(group), group.length, 0
        if replay.cached:
            assert group.corrupt is not None
            start = int((group.tokens != group.corrupt).any(dim=0).int().argmax())
        columns = length - start
        clean += 2 * size * layers * costs.span(length, 0)
        naive += size * edges * costs.forward(layers, length)
        moved = layers * model.geometry.n_heads * columns * (costs.tail - costs.mlp)
        done += size * moved
        for some in every:
            if some.kind == "logits":
                continue
            job = Job(0, {(some.layer, changed.get(some.kind, some.kind)): []}, start, size)
            done += size * some.sources * _reading(replay, costs, some, length, start)
            done += size * some.edges * cost(job, replay, costs, length, start)
            least += size * some.edges * floor(job, replay, costs, length)
        at_once = max(1, tokens // (size * columns))
        count += ceil((edges - every[-1].edges) / at_once)
        streams = model.geometry.d_model * model.dtype.itemsize + bytes_per_token(replay)
        riding = at_once * size * columns * streams
        peak = max(peak, riding + 2 * size * length * bytes_kept(replay))
    return Plan(
        model=model.id,
        interventions=edges,
        prompts=len(prompts),
        trains=count,
        cached=replay.cached,
        splits=replay.splits,
        replayed=replay.works,
        flops=done + clean,
        naive_flops=naive,
        floor_flops=least + clean,
        clean_flops=clean,
        peak_bytes=peak,
    )


def _reading(replay: Replay, costs: Costs, some: Readers, length: int, start: int) -> float:
    """Operations for one prompt to see what the readers make of one source."""
    last = some.layer == replay.n_layers - 1
    if last and replay.cached and some.kind in ("q", "mlp_out"):
        start = length - 1
    if some.kind == "mlp_out":
        return (length - start) * costs.mlp
    squares = costs.span(length, start) - (length - start) * costs.block
    return (length - start) * costs.queries + squares


@dataclass(frozen=True)
class AttributionPlan:
    """What scoring every edge by gradients will cost (`interp.engine.attribute`).

    Attributes:
        edges: How many.
        flops: Operations of matrix products in the model's own precision: the runs forward and
            backward, and what is made of them layer by layer.
        products: Those of sources with readers, which are done in float32 at least.
    """

    edges: int
    flops: float
    products: float


def explain_attribution(
    model: Model, prompts: PromptSet, *, steps: int = 5, like: Model | None = None
) -> AttributionPlan:
    """Plan the scores of every edge by "eap-ig-inputs" without computing them; "eap" has one step.

    Raises ModelError as `interp.engine.explain`.
    """
    replay, _ = laid_out(model, like)
    every = list(readers(replay))
    stages = [list(some) for _, some in groupby(every, key=lambda some: some.layer)]
    has_mlp = replay.body.blocks[0].mlp is not None
    costs, layers = Costs.of(replay), replay.n_layers
    output, width = costs.tail - costs.mlp, model.geometry.d_model
    flops = products = 0.0
    for length in prompts.mask.sum(dim=-1).tolist():
        whole = costs.span(length, 0)
        squares = whole - length * costs.block
        forward = layers * whole + costs.unembed
        backward = forward + layers * (BACKWARD - 1) * squares
        spread = pairs = 0.0
        for layer, stage in enumerate(stages):
            into_readers = costs.queries if layer < layers else 0.0
            from_heads = min(layer + has_mlp, layers) * output
            spread += length * (into_readers + from_heads)
            units = sum(some.units for some in stage)
            pairs += 2 * length * width * units * stage[-1].sources
        flops += 2 * forward + steps * (forward + backward + spread)
        products += steps * pairs
    return AttributionPlan(sum(some.edges for some in every), flops, products)
