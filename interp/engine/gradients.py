"""One run forward and one backward: the gradient of a metric at any part of a model.

Runs are on prompts of one length, without padding. The model is run as it is, with hooks; its
parameters take no part in the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from transformers.pytorch_utils import Conv1D

from interp.engine.anatomy import Anatomy, Part
from interp.engine.groups import Group
from interp.engine.metrics import METRICS, Metric
from interp.engine.replay import Replay
from interp.errors import InterventionError, MetricError
from interp.models import Model
from interp.models.memory import free_bytes
from interp.models.placement import held
from interp.models.quantised import is_matrix
from interp.prompts import PromptSet

Address = tuple[str, int]
"""A part by its kind and its layer."""

Logits = Float[Tensor, "prompts vocab"]
Values = Float[Tensor, " prompts"]
Spread = Float[Tensor, "prompts units pos d_model"]

BUDGET = 2**30
"""Most bytes that one run and its graph may take on a CPU: larger batches are not faster."""


@dataclass(frozen=True, eq=False)
class Run:
    """What one run left behind: logits at END, copies of parts, and where gradients come out."""

    logits: Logits
    kept: dict[Address, Tensor]
    edges: dict[Address, GradientEdge]


@dataclass(frozen=True)
class Point:
    """Where a gradient is taken: the clean run with one part on its way from corrupt to clean.

    `share` is 1 at the clean end and 0 at the corrupt end.
    """

    address: Address
    share: float


@dataclass(frozen=True, eq=False)
class Contrast:
    """The clean and the corrupt run on prompts of one length.

    Attributes:
        group: The prompts.
        clean: What parts hold in the clean run, `[prompts, pos, features]`.
        change: The same in the corrupt run, minus clean.
        logits: At END of the clean run.
        corrupt: Those of the corrupt run.
    """

    group: Group
    clean: dict[Address, Tensor]
    change: dict[Address, Tensor]
    logits: Logits
    corrupt: Logits

    def at(self, point: Point) -> Float[Tensor, "prompts pos features"]:
        """What the part of a point holds there."""
        return self.clean[point.address] + (1 - point.share) * self.change[point.address]


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric on the prompts of one group.

    `ends` are the clean logits of the whole set, for a function of the user's, which is given all
    prompts in their order whatever the group; the others are then clean.
    """

    metric: Metric
    prompts: PromptSet
    rows: Int[Tensor, " group"]
    ends: Float[Tensor, "prompts vocab"] | None

    def __call__(self, logits: Logits, clean: Logits) -> Values:
        """The value of each prompt of the group."""
        if self.ends is None:
            return self.metric(logits, self.prompts[self.rows], clean=clean)
        whole = self.ends.index_copy(0, self.rows.to(logits.device), logits)
        return self.metric(whole, self.prompts, clean=self.ends)[self.rows]


def path(address: Address, steps: int) -> list[Point]:
    """The points k/steps, k = 1..steps, of the straight way from corrupt to clean."""
    return [Point(address, k / steps) for k in range(1, steps + 1)]


@torch.no_grad()
def contrast(replay: Replay, group: Group, addresses: Iterable[Address]) -> Contrast:
    """Both runs, with what the parts at these addresses hold."""
    wanted = list(dict.fromkeys(addresses))
    inner = [*wanted, *(each for address in wanted for each in _summands(address))]
    assert group.corrupt is not None
    clean = forward(replay, group.tokens, keep=inner)
    corrupt = forward(replay, group.corrupt, keep=inner)
    change = {each: corrupt.kept[each] - held for each, held in clean.kept.items()}
    for address in wanted:
        if summands := _summands(address):
            change[address] = change[summands[0]] + change[summands[1]]
    return Contrast(group, clean.kept, change, clean.logits, corrupt.logits)


def gradients(
    replay: Replay,
    both: Contrast,
    measure: Measure,
    point: Point,
    wanted: Iterable[Address],
    keep: Iterable[Address] = (),
) -> tuple[dict[Address, Tensor], dict[Address, Tensor]]:
    """Gradients of the metric at the wanted parts behind a point, and what other parts hold there.

    Parts that the point does not reach are left out. Raises MetricError for a metric without a
    gradient.
    """
    leaf = both.at(point).requires_grad_()
    with torch.enable_grad():
        run = forward(replay, both.group.tokens, keep, wanted, replaced=(point.address, leaf))
        values = measure(run.logits, both.logits)
        if not values.requires_grad:
            raise MetricError(
                f"The metric {measure.metric.name} has no gradient: it counts, or leaves the graph "
                "of torch; use a smooth one such as logit_diff or log_prob, or patch exactly."
            )
        found = torch.autograd.grad(values.sum(), list(run.edges.values()), allow_unused=True)
    shape = both.group.columns.shape
    slopes = zip(run.edges, found, strict=True)
    home = leaf.device
    return {each: s.reshape(*shape, -1).to(home) for each, s in slopes if s is not None}, run.kept


def forward(
    replay: Replay,
    tokens: Int[Tensor, "prompts pos"],
    keep: Iterable[Address] = (),
    wanted: Iterable[Address] = (),
    replaced: tuple[Address, Tensor] | None = None,
) -> Run:
    """Run the whole model, with one part replaced; logits are computed in the last column alone."""
    body, tokens = replay.body, tokens.to(replay.model.device)
    kept: dict[Address, Tensor] = {}
    edges: dict[Address, GradientEdge] = {}
    with ExitStack() as hooks:
        hooks.enter_context(Part(body.unembed, "in").hook(lambda hidden: hidden[:, -1:]))
        if replaced is not None:  # first, so that the others see what takes its place
            hooks.enter_context(part_at(body, replaced[0]).hook(_give(replaced[1])))
        for address in dict.fromkeys(keep):
            hooks.enter_context(part_at(body, address).hook(partial(_keep, kept, address, tokens)))
        for address in dict.fromkeys(wanted):
            hooks.enter_context(part_at(body, address).hook(partial(_mark, edges, address)))
        logits = replay.call(tokens)[:, -1]
    return Run(logits, kept, edges)


def part_at(body: Anatomy, address: Address) -> Part:
    """The part at an address.

    Beside the parts of a block there are what its norms read ("attn_stream", "mlp_stream"), what
    the projection of queries and the MLP read behind them ("attn_in", "mlp_in"), and what the
    heads add up to before any norm of their sum ("heads_out").
    """
    kind, layer = address
    block = body.blocks[layer]
    if kind == "attn_stream" and block.attn_norm is not None:
        return Part(block.attn_norm, "in")
    if kind == "mlp_stream" and block.mlp_norm is not None:
        return Part(block.mlp_norm, "in")
    if kind == "mlp_in" and block.mlp is not None:
        return Part(block.mlp, "in")
    if kind == "attn_in":
        return Part(block.parts["q"].module, "in")
    return Part(block.after_heads[0], "out") if kind == "heads_out" else block.parts[kind]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient, so that the graph holds nothing for their sake."""
    trainable = [each for each in module.parameters() if each.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def pull_back(norm: nn.Module, at: Float[Tensor, "prompts pos d_model"], slopes: Spread) -> Spread:
    """Gradients in front of a norm, from those behind it: its Jacobian at one point, transposed."""
    with torch.enable_grad():
        point = at[:, None].expand_as(slopes).detach().requires_grad_()
        return torch.autograd.grad(norm(point).to(point.device), point, slopes)[0]


def push_forward(
    norms: Iterable[nn.Module], at: Float[Tensor, "prompts pos d_model"], change: Spread
) -> Spread:
    """A small change behind norms, from that in front of them: their Jacobian at one point."""
    with torch.enable_grad():
        output = point = at[:, None].expand_as(change).detach().requires_grad_()
        for norm in norms:
            output = norm(output)
        output = output.to(point.device)
        dual = torch.zeros_like(output, requires_grad=True)
        (pulled,) = torch.autograd.grad(output, point, dual, create_graph=True)
        return torch.autograd.grad(pulled, dual, change)[0]


@torch.no_grad()
def weight_of(linear: nn.Module) -> Float[Tensor, "outputs inputs"]:
    """The matrix of a linear module.

    Raises InterventionError for a module of another kind, such as a quantised one.
    """
    if is_matrix(linear):
        weight = held(linear, "weight")
        assert weight is not None
        return weight.T if isinstance(linear, Conv1D) else weight
    raise InterventionError(
        f"A projection of this model is a {type(linear).__name__}, not a plain matrix, so its "
        'edges cannot be told apart; use method="atp" or "nap-ig" for nodes.'
    )


def largest_group(model: Model, prompts: PromptSet) -> int:
    """Prompts that run at once with their graph: as many as a quarter of the free memory holds.

    Counted for each prompt: 40 residual streams and 3 attention patterns a layer, and 8 residual
    streams a head for the edges of one layer.
    """
    sizes, pos = model.geometry, int(prompts.mask.sum(dim=-1).max())
    layer = 40 * sizes.d_model + 3 * pos * sizes.n_heads
    numbers = pos * (sizes.n_layers * layer + 8 * sizes.n_heads * sizes.d_model)
    numbers += 4 * sizes.d_vocab
    free = free_bytes(model.device) // 4
    budget = free if model.device.type == "cuda" else min(BUDGET, free)
    return max(1, budget // (numbers * max(model.dtype.itemsize, 4)))


def is_known(metric: Metric) -> bool:
    """Whether a metric is one of METRICS, which can be computed for some of the prompts alone."""
    return any(metric.function is each for each in METRICS.values())


def _summands(address: Address) -> tuple[Address, ...]:
    """The parts whose sum a stream in the middle of a block is; its own part is what is added."""
    kind, layer = address
    return (("resid_pre", layer), ("attn_out", layer)) if kind == "resid_mid" else ()


def _give(value: Tensor) -> Callable[[Tensor], Tensor]:
    # a copy, since blocks may change an activation in place, as Falcon does; so are those below
    return lambda found: value.reshape(found.shape).clone()


def _keep(
    kept: dict[Address, Tensor],
    address: Address,
    tokens: Int[Tensor, "prompts pos"],
    found: Tensor,
) -> None:
    kept[address] = found.detach().clone().reshape(*tokens.shape, -1).to(tokens.device)


def _mark(edges: dict[Address, GradientEdge], address: Address, found: Tensor) -> Tensor:
    own = found.clone()  # what other modules make of the same tensor is not counted
    if own.requires_grad:
        edges[address] = get_gradient_edge(own)
    return own
