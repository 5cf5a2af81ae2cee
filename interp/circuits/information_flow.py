"""Information-flow routes: how much of what a reader sees comes from each source, in one run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations.batches import require_fit
from interp.circuits.shape import Shape
from interp.engine.clean import CleanRun
from interp.engine.gradients import weight_of
from interp.engine.groups import groups
from interp.engine.memory import largest_group
from interp.engine.replay import Replay, replay_of
from interp.engine.sources import patterns_of
from interp.engine.sweep import require_ready
from interp.errors import CircuitError
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.sites import MLP, Head, Input, K, Logits, Q, Site, V

HELD = 2**26
"""Numbers that what the sources add on some prompts may take."""
TINY = 1e-300
"""Keeps 0 / 0 at 0."""

Sources = Float[Tensor, "sources prompts pos"]
Stream = Float[Tensor, "prompts pos d_model"]


@torch.no_grad()
def information_flow(
    model: Model, prompts: PromptSet, *, progress: bool = True
) -> Float[Tensor, "edges prompts"]:
    """The importance of every edge on every prompt (Ferrando and Voita 2024).

    A source adds u to the stream v that a reader sees at a token. Its importance there is

        max(|v|_1 - |v - u|_1, 0), divided by the sum of this over all sources of the stream.

    So the importances of the edges into a reader add up to 1, unless no source comes near the
    stream: then they are 0, and the flow ends there. They are averaged over tokens with
    weights that say how much of the reader is used: all of the flow begins at the logits of the
    last token and goes backward, from a reader to its sources by their importance; from an MLP to
    its own token; from a head, a third each, to the query of its own token and to the keys and
    values of the tokens that it attends to, by its attention. A reader that no flow comes to has
    edges of importance 0. No counterfactual is needed, and the sign is never negative.

    The paper cuts a graph over tokens out of one prompt, where attention carries information along
    values alone, and leaves open how edges between heads are averaged over tokens. Readers of
    queries and keys, the thirds and the weights are ours. The queries, keys and values of a layer
    see one stream: their edges differ by these weights alone.

    Returns values between 0 and 1, in the order of `Shape.edges`.

    Raises:
        CircuitError: A model in which a norm stands behind the sum of all heads.
        InterventionError, PromptError: A model in training mode, prompts that do not fit.
    """
    require_ready(model)
    require_fit(model, prompts)
    replay, shape = replay_of(model), Shape.of(model)
    if any(len(block.after_heads) != 1 for block in replay.body.blocks):
        raise CircuitError(
            f"A norm stands behind the heads of {model.id}, so that they do not each add to the "
            'stream; use method="eap-ig-inputs".'
        )
    longest = int(prompts.mask.sum(dim=-1).max())
    fitting = max(1, HELD // (len(shape.nodes) * longest * model.geometry.d_model))
    found = torch.zeros(len(shape.edges), len(prompts), dtype=torch.float64)
    some = groups(prompts, min(fitting, largest_group(replay, prompts)))
    for group in track(some, "Information flow", shown=progress):
        found[:, group.rows] = _Flow(replay, shape, group.tokens).scores().cpu()
    return found


class _Flow:
    """The flow through the readers of some prompts of one length.

    Attributes:
        flow: What has come to each node, by token; it adds up to 1 in front of every reader.
    """

    def __init__(self, replay: Replay, shape: Shape, tokens: Int[Tensor, "prompts pos"]) -> None:
        self.replay, self.shape = replay, shape
        tokens = tokens.to(replay.model.device)
        kinds = [kind for kind in ("z", "attn_out", "mlp_out") if replay.has(kind)]
        self.run = replay.clean(tokens, kinds)
        self.patterns = patterns_of(replay, tokens)
        self.added = dict(_added(replay, self.run))
        self.group = shape.n_heads // shape.n_kv_heads
        none = torch.zeros(self.run.tokens.shape, dtype=torch.float64, device=tokens.device)
        self.flow = {node: none.clone() for node in shape.nodes}
        self.into: dict[Site, dict[Site, int]] = {}
        for index, edge in enumerate(shape.edges):
            self.into.setdefault(edge.dst, {})[edge.src] = index

    def scores(self) -> Float[Tensor, "edges prompts"]:
        """The importance of every edge."""
        end = self.flow[Logits()]
        end[:, -1] = 1.0
        found = end.new_zeros(len(self.shape.edges), len(end))
        for readers, stream in self._backward():
            sources = list(self.into[next(iter(readers))])
            shares = importances(stream, [self.added[source] for source in sources])
            for reader, used in readers.items():
                weights = used / used.sum(dim=-1, keepdim=True).clamp(min=TINY)
                found[list(self.into[reader].values())] = (shares * weights).sum(dim=-1)
            used = torch.stack(list(readers.values())).sum(dim=0)
            for source, share in zip(sources, shares, strict=True):
                self.flow[source] += share * used
        return found

    def _backward(self) -> Iterator[tuple[dict[Site, Float[Tensor, "prompts pos"]], Stream]]:
        """Readers of one stream with the flow that comes to each, from the logits to the input."""
        run, last = self.run, self.replay.n_layers
        yield {Logits(): self.flow[Logits()]}, run.stream[last]
        for layer in reversed(range(last)):
            if self.shape.has_mlp:
                before = "resid_pre" if self.shape.parallel else "resid_mid"
                yield {MLP(layer): self.flow[MLP(layer)]}, run.at(layer, before)
            yield self._attention(layer), run.stream[layer]

    def _attention(self, layer: int) -> dict[Site, Float[Tensor, "prompts pos"]]:
        """A third of each head's flow for its query, its key and its value."""
        readers: dict[Site, Tensor] = {}
        for head in range(self.shape.n_heads):
            own = self.flow[Head(layer, head)] / 3
            pattern = self.patterns[layer][:, head].to(own)
            attended = (own[:, None] @ pattern)[:, 0]
            readers[Q(layer, head)] = own
            for kind in (K, V):
                shared = kind(layer, head // self.group)
                readers[shared] = readers.get(shared, 0.0) + attended
        return readers


def importances(v: Stream, added: list[Stream]) -> Sources:
    """Of each u that is added into v; at every token they add up to 1, or all are 0.

    >>> v, u = torch.tensor([[[2.0, -1.0]]]), torch.tensor([[[2.0, 0.0]]])
    >>> importances(v, [u, v - u])[:, 0, 0].tolist()
    [0.6666666666666666, 0.3333333333333333]
    """
    size = v.double().norm(p=1, dim=-1)
    close = torch.stack([size - (v - u).double().norm(p=1, dim=-1) for u in added]).clamp(min=0)
    return close / close.sum(dim=0).clamp(min=TINY)


def _added(replay: Replay, run: CleanRun) -> Iterator[tuple[Site, Stream]]:
    """What the input, each head and each MLP adds to the stream."""
    yield Input(), run.stream[0]
    heads = replay.model.geometry.n_heads
    for layer, block in enumerate(replay.body.blocks):
        weight = weight_of(block.after_heads[0]).unflatten(1, (heads, -1))
        z = run.parts["z"][layer].unflatten(-1, (heads, -1))
        for head in range(heads):
            yield Head(layer, head), z[..., head, :] @ weight[:, head].T
        if block.mlp is not None:
            yield MLP(layer), run.parts["mlp_out"][layer]
