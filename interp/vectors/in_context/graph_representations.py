"""Does a model learn a graph from a walk on it, in what it predicts and in how it lays words out?

- accuracy_t: the probability that the next token is a neighbor of the t-th, summed over neighbors;
- energy of a layer: sum over neighbors |x_i - x_j|^2 / sum over all pairs |x_i - x_j|^2, where x_i
  is the mean residual over the last occurrences of word i. Divided so, it does not fall merely
  because all means collapse. Were words laid out regardless of the graph, it would be the share of
  pairs that are neighbors: the same words with the nodes of the graph permuted are the null.

The two can come apart: taking out induction heads lowers accuracy and leaves the layout, taking out
previous-token heads destroys both, random heads neither (Park et al. 2024, in larger models). An
untrained model of the same shape is run beside: each residual holds its own word, and tokens before
it leak in, which may bring neighbors nearer with nothing learned.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine.groups import groups
from interp.engine.memory import largest_group
from interp.engine.replay import Replay, replay_of
from interp.engine.sweep import require_ready
from interp.errors import VectorError
from interp.models import Model
from interp.plots.colors import MISSING, SEQUENTIAL
from interp.progress import track
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.sites import heads as all_heads
from interp.stats import bootstrap_ci
from interp.vectors.in_context.curves import probability_axes
from interp.vectors.in_context.dirichlet import energies
from interp.vectors.in_context.graph_walks import Walks


@dataclass(frozen=True, eq=False)
class GraphTracing(Saved, Displayed):
    """What a model predicts on walks, and how it lays out their words, with and without heads.

    Attributes:
        walks: The walks.
        conditions: "all heads", the names of the sets of heads taken out, "random heads" and
            "untrained".
        heads: The heads of each set that was given.
        accuracy: Probability that a neighbor follows, at each token of each walk.
        on_graph: The same for any word of the graph.
        energy: At each point of the stream (0 enters the first block, l leaves block l - 1), of the
            words that a walk has visited.
        null: Mean energy with the nodes of the graph permuted.
        p: Share of permutations, the graph itself among them, with an energy as low.
        means: Mean residual of each word at its last occurrences, with all heads.
        provenance: Model, weights hash, walks, options, versions.
    """

    walks: Walks
    conditions: tuple[str, ...]
    heads: dict[str, tuple[Head, ...]]
    accuracy: Float[Tensor, "conditions walks pos"]
    on_graph: Float[Tensor, "conditions walks pos"]
    energy: Float[Tensor, "conditions points walks"]
    null: Float[Tensor, "conditions points walks"]
    p: Float[Tensor, "conditions points walks"]
    means: Float[Tensor, "points walks nodes d_model"]
    provenance: dict[str, Any]

    @property
    def chance(self) -> Float[Tensor, " walks"]:
        """Accuracy of equal probabilities for all words of the graph, mean over tokens."""
        degrees = self.walks.graph.adjacency.double().sum(dim=-1)
        return degrees[self.walks.nodes].mean(dim=-1) / len(self.walks.graph)

    def accuracy_frame(self, *, bins: int = 8) -> pd.DataFrame:
        """Accuracy over context length.

        Columns: condition, tokens (read, mean of the bin), accuracy, ci_low, ci_high (95% over
        walks), on_graph (mean probability of any word of the graph), chance, n (walks).
        """
        rows = []
        for i, condition in enumerate(self.conditions):
            for some in torch.arange(self.accuracy.shape[2]).tensor_split(bins):
                if len(some) == 0:
                    continue
                each = self.accuracy[i][:, some].mean(dim=-1)
                low, high = bootstrap_ci(each)
                rows.append(
                    {
                        "condition": condition,
                        "tokens": 1 + some.double().mean().item(),
                        "accuracy": each.mean().item(),
                        "ci_low": low.item(),
                        "ci_high": high.item(),
                        "on_graph": self.on_graph[i][:, some].mean().item(),
                        "chance": self.chance.mean().item(),
                        "n": len(each),
                    }
                )
        return pd.DataFrame(rows)

    def to_frame(self) -> pd.DataFrame:
        """Energies, one row for each condition and point of the stream.

        Columns: condition, point, energy, ci_low, ci_high (95% over walks), null (permuted graphs),
        p (median over walks), below (share of walks with p at most .05), n (walks).
        """
        low, high = bootstrap_ci(self.energy)
        return pd.DataFrame(
            {
                "condition": condition,
                "point": point,
                "energy": self.energy[i, point].mean().item(),
                "ci_low": low[i, point].item(),
                "ci_high": high[i, point].item(),
                "null": self.null[i, point].mean().item(),
                "p": self.p[i, point].median().item(),
                "below": (self.p[i, point] <= 0.05).double().mean().item(),
                "n": len(self.walks),
            }
            for i, condition in enumerate(self.conditions)
            for point in range(self.energy.shape[1])
        )

    def pca(self, walk: int = 0, *, point: int = -1, k: int = 2) -> pd.DataFrame:
        """Principal components of the means of one walk's words.

        Columns: node, word (token id), pc1 to pc<k>, and share1 to share<k> of the variance.

        Raises VectorError for a walk that does not exist or has not visited every node.
        """
        if not 0 <= walk < len(self.walks):
            raise VectorError(f"Walk {walk} does not exist; there are {len(self.walks)}.")
        means = self.means[point, walk].double()
        if means.isnan().any():
            raise VectorError(f"Walk {walk} has not visited every node; take another one.")
        centered = means - means.mean(dim=0)
        u, s, _ = torch.linalg.svd(centered, full_matrices=False)
        shares = (s**2 / (s**2).sum()).tolist()
        columns = {f"pc{i + 1}": (u[:, i] * s[i]).tolist() for i in range(k)}
        columns |= {f"share{i + 1}": [shares[i]] * len(means) for i in range(k)}
        words = self.walks.words[walk].tolist()
        return pd.DataFrame({"node": range(len(means)), "word": words, **columns})

    def plot(self) -> go.Figure:
        """Accuracy over context length, of each condition."""
        figure = go.Figure()
        frame = self.accuracy_frame()
        for (condition, some), color in zip(
            frame.groupby("condition", sort=False), SEQUENTIAL[::-1], strict=False
        ):
            figure.add_scatter(
                x=some["tokens"],
                y=some["accuracy"],
                error_y={
                    "type": "data",
                    "array": some["ci_high"] - some["accuracy"],
                    "arrayminus": some["accuracy"] - some["ci_low"],
                    "thickness": 1,
                },
                name=condition,
                line_color=color,
            )
        figure.add_hline(
            y=frame["chance"][0], line={"color": MISSING, "dash": "dot"}, annotation_text="chance"
        )
        title = f"{self.provenance['model']} on walks: {self.walks.graph.name}"
        probability_axes(figure, title, "tokens read", up="probability of a neighbor")
        return figure

    def plot_map(self, walk: int = 0, *, point: int = -1) -> go.Figure:
        """The first two principal components of one walk's words, with the edges of the graph."""
        frame, figure = self.pca(walk, point=point), go.Figure()
        for i, j in self.walks.graph.adjacency.triu().nonzero().tolist():
            figure.add_scatter(
                x=frame["pc1"][[i, j]],
                y=frame["pc2"][[i, j]],
                mode="lines",
                line={"color": MISSING, "width": 1},
                showlegend=False,
                hoverinfo="skip",
            )
        figure.add_scatter(
            x=frame["pc1"],
            y=frame["pc2"],
            mode="markers+text",
            text=frame["node"].astype(str),
            textposition="top center",
            marker_color=SEQUENTIAL[6],
            showlegend=False,
        )
        title = f"{self.provenance['model']}: words of a walk on a {self.walks.graph.name}"
        figure.update_layout(title=title, template="plotly_white")
        figure.update_xaxes(title_text=f"PC1 ({frame['share1'][0]:.0%})")
        figure.update_yaxes(title_text=f"PC2 ({frame['share2'][0]:.0%})")
        return figure

    def __repr__(self) -> str:
        quarter = max(1, self.accuracy.shape[2] // 4)
        late = self.accuracy[..., -quarter:].mean(dim=(1, 2)).tolist()
        energies, nulls = self.energy.mean(dim=-1)[:, -1].tolist(), self.null.mean(dim=-1)[:, -1]
        told = "; ".join(
            f"{condition}: accuracy {accuracy:.2f}, energy {energy:.3f} (permuted {null:.3f})"
            for condition, accuracy, energy, null in zip(
                self.conditions, late, energies, nulls.tolist(), strict=True
            )
        )
        return (
            f"GraphTracing({self.walks.graph.name}, {len(self.walks)} walks; in the last quarter, "
            f"chance {self.chance.mean():.2f}, and leaving the last block: {told})"
        )


def trace_graph(
    model: Model,
    walks: Walks,
    *,
    heads: Mapping[str, Sequence[Head]] | None = None,
    last: int = 50,
    draws: int = 5,
    untrained: bool = True,
    seed: int = 0,
    progress: bool = True,
) -> GraphTracing:
    """Run walks with all heads, without some, without random ones, and through an untrained twin.

    Args:
        model: In eval mode.
        walks: What `walks` made with this model.
        heads: Sets to take out (their output is set to zero at every token), by name; those of an
            atlas, such as `atlas.named()["induction"]`, or its top ones.
        last: Occurrences of a word that its mean residual is taken over, at most.
        draws: Random sets of heads, as many as the largest set and none of any set.
        untrained: Run a model of the same shape with random weights too.
        seed: Of random heads, permutations and random weights.
        progress: Show a bar.

    Raises:
        VectorError: Sets that are empty, heads that do not exist, or too few others for a control.
        PromptError: Walks that the model cannot read.
    """
    require_ready(model)
    require_fit(model, walks.prompts)
    sets = {name: tuple(some) for name, some in (heads or {}).items()}
    drawn = _random_sets(model, sets, draws, seed)
    runs: list[tuple[Model, Sequence[Head]]] = [(model, ()), *((model, s) for s in sets.values())]
    runs += [(model, some) for some in drawn]
    runs += [(model.untrained(seed=seed), ())] if untrained else []
    found = [
        _traced(some, walks, out, last, seed)
        for some, out in track(runs, "Walking", shown=progress)
    ]
    first = 1 + len(sets)
    parts = [*([each] for each in found[:first]), found[first : first + len(drawn)]]
    parts += [[each] for each in found[first + len(drawn) :]]
    kept = [part for part in parts if part]
    names = ["all heads", *sets, *(["random heads"] if drawn else [])]

    def joined(field: str) -> Tensor:
        return torch.stack(
            [torch.stack([getattr(each, field) for each in part]).mean(dim=0) for part in kept]
        )

    return GraphTracing(
        walks=walks,
        conditions=tuple(names + (["untrained"] if untrained else [])),
        heads=sets,
        accuracy=joined("accuracy"),
        on_graph=joined("on_graph"),
        energy=joined("energy"),
        null=joined("null"),
        p=joined("p"),
        means=found[0].means,
        provenance=provenance(
            model,
            walks.prompts,
            method="in-context graph representations",
            graph=walks.graph.name,
            tokens=walks.nodes.shape[1],
            last=last,
            draws=len(drawn),
            trace_seed=seed,
        ),
    )


@dataclass(frozen=True, eq=False)
class _Traced:
    accuracy: Float[Tensor, "walks pos"]
    on_graph: Float[Tensor, "walks pos"]
    energy: Float[Tensor, "points walks"]
    null: Float[Tensor, "points walks"]
    p: Float[Tensor, "points walks"]
    means: Float[Tensor, "points walks nodes d_model"]


@torch.no_grad()
def _traced(model: Model, walks: Walks, out: Sequence[Head], last: int, seed: int) -> _Traced:
    replay, graph = replay_of(model), walks.graph
    length, points = walks.nodes.shape[1], model.geometry.n_layers + 1
    shape = (points, len(walks), len(graph), model.geometry.d_model)
    means = torch.empty(shape, dtype=torch.float64)
    near = torch.empty(len(walks), length, dtype=torch.float64)
    any_word = torch.empty_like(near)
    with ExitStack() as hooks:
        for layer in sorted({head.layer for head in out}):
            some = [head.head for head in out if head.layer == layer]
            part = replay.body.blocks[layer].parts["z"]
            hooks.enter_context(part.hook(_without(some, part.heads)))
        for group in groups(walks.prompts, largest_group(replay, walks.prompts)):
            stream = [each[:, -length:] for each in replay.clean(group.tokens).stream]
            for row, walk in enumerate(group.rows.tolist()):
                nodes = walks.nodes[walk]
                words = walks.words[walk].to(model.device)
                probs = _probs(replay, stream[-1][row], words)
                near[walk] = (probs * graph.adjacency[nodes]).sum(dim=-1)
                any_word[walk] = probs.sum(dim=-1)
                each = torch.stack([point[row] for point in stream]).double().cpu()
                means[:, walk] = _means(each, nodes, len(graph), last)
    each_walk = [energies(means[:, walk], graph.adjacency, seed) for walk in range(len(walks))]
    energy, null, p = (torch.stack(each, dim=1) for each in zip(*each_walk, strict=True))
    return _Traced(near, any_word, energy, null, p, means)


def _probs(
    replay: Replay, last: Float[Tensor, "pos d_model"], words: Int[Tensor, " nodes"]
) -> Float[Tensor, "pos nodes"]:
    """Probabilities of the graph's words, among the whole vocabulary."""
    logits = replay.logits(last).double()
    return logits.softmax(dim=-1)[:, words].cpu()


def _means(
    stream: Float[Tensor, "points pos d_model"], nodes: Int[Tensor, " pos"], count: int, last: int
) -> Float[Tensor, "points nodes d_model"]:
    """Mean over the last occurrences of each node; NaN for one that was not visited."""
    found = []
    for node in range(count):
        at = (nodes == node).nonzero()[-last:, 0]
        found.append(stream[:, at].mean(dim=1))
    return torch.stack(found, dim=1)


def _without(heads: list[int], count: int) -> Callable[[Tensor], Tensor]:
    def edit(z: Tensor) -> Tensor:
        split = z.unflatten(-1, (count, -1)).clone()
        split[..., heads, :] = 0
        return split.flatten(-2)

    return edit


def _random_sets(
    model: Model, sets: Mapping[str, Sequence[Head]], draws: int, seed: int
) -> list[list[Head]]:
    every = all_heads(model)
    for name, some in sets.items():
        if not some or not set(some) <= set(every):
            raise VectorError(
                f"The set {name!r} holds {[str(head) for head in some]}, which are no heads of "
                f"{model.id}; it has {model.geometry.n_layers} layers of {model.geometry.n_heads}."
            )
    if not sets:
        return []
    k = max(len(set(some)) for some in sets.values())
    others = [head for head in every if not any(head in some for some in sets.values())]
    if draws < 1 or len(others) < k:
        raise VectorError(
            f"{draws} draws of {k} random heads from the {len(others)} that are in no set are no "
            "control; use smaller sets, and one draw or more."
        )
    rng = random.Random(f"walk heads {seed}")
    return [rng.sample(others, k) for _ in range(draws)]
