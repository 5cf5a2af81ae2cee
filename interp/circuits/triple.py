"""Is a circuit faithful, complete and minimal? The three criteria of Wang et al. (2023).

With F the mean of the metric over prompts, C the circuit, M the whole model, and C - K or M - K
either of them with the nodes of K ablated at the places at which the circuit keeps them:

- faithfulness: |F(M) - F(C)| is small;
- completeness: |F(C - K) - F(M - K)| is small for every K in C, so that nothing outside C does the
  work of K when K is gone;
- minimality: for every node v of C there is a K in C without v such that
  |F(C - K - v) - F(C - K)| is large.

There are too many K to try them all. Tried are none, the classes of nodes with one label, random
ones, and greedy ones, which grow by the node that makes the difference largest. Wang et al. draw
some candidates for each step, and search several times over; here every node is a candidate at
every step and all of a step run side by side, so that the search has no chance in it and is not
begun again.

What it costs: a step of the greedy search runs two circuits for each node that is left, each from
the first column in which prompts and ablation can differ, through all layers. For n nodes
completeness takes up to 2 n `steps` circuits and minimality up to 2 n^2 `minimality_steps`; none is
run twice.

Greedy K are chosen on the prompts that they are reported on, as in the paper: theirs is the largest
difference that was found, and its interval does not include the choice. Compare it with random K.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from plotly.subplots import make_subplots
from torch import Tensor

from interp.circuits.ablations import ablation_of, where_kept
from interp.circuits.circuit import Circuit
from interp.circuits.evaluate import Evaluation, evaluate
from interp.circuits.knockouts import Knockouts, Nodes, greedy
from interp.display import Displayed, as_html
from interp.engine.subgraph import Subgraphs, run_subgraphs
from interp.errors import CircuitError
from interp.models import Model
from interp.plots import site_bars
from interp.plots.colors import DIVERGING, MISSING
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Site, parse
from interp.stats import bootstrap_ci

KINDS = {"none": MISSING, "class": "#1b7837", "random": DIVERGING[-3], "greedy": DIVERGING[1]}


@dataclass(frozen=True, eq=False)
class Triple(Saved, Displayed):
    """Faithfulness, completeness and minimality of one circuit.

    Attributes:
        circuit: The circuit.
        evaluation: Its faithfulness, with random circuits of its size as the control.
        sets: Every K of completeness: none, each class, random ones, and the greedy ones as they
            grow.
        kinds: What kind of K each is: "none", "class", "random" or "greedy".
        circuit_without: The metric of the circuit without each K.
        model_without: The metric of the whole model without each K.
        nodes: The nodes whose minimality was measured.
        best: For each of them the K that shows best that it is needed.
        best_kinds: What kind of K each is.
        before: The metric of the circuit without that K.
        after: The metric of the circuit without that K and the node.
        provenance: Where it comes from.
    """

    circuit: Circuit
    evaluation: Evaluation
    sets: tuple[tuple[Site, ...], ...]
    kinds: tuple[str, ...]
    circuit_without: Float[Tensor, "sets prompts"]
    model_without: Float[Tensor, "sets prompts"]
    nodes: tuple[Site, ...]
    best: tuple[tuple[Site, ...], ...]
    best_kinds: tuple[str, ...]
    before: Float[Tensor, "nodes prompts"]
    after: Float[Tensor, "nodes prompts"]
    provenance: dict[str, Any]

    def completeness(self) -> pd.DataFrame:
        """One row a K.

        Columns: kind, size, nodes, circuit F(C - K), model F(M - K), difference (circuit minus
        model) with ci_low and ci_high (95%, over prompts), score (its size), share (of F(M)), n.
        """
        frame = pd.DataFrame(
            {
                "kind": self.kinds,
                "size": [len(some) for some in self.sets],
                "nodes": [" ".join(map(str, some)) for some in self.sets],
                "circuit": self.circuit_without.mean(dim=-1).tolist(),
                "model": self.model_without.mean(dim=-1).tolist(),
            }
        )
        return frame.assign(**self._scores(self.circuit_without - self.model_without))

    def minimality(self) -> pd.DataFrame:
        """One row a node.

        Columns: node, label, kind and nodes of its best K, before F(C - K), after F(C - K - v),
        difference (after minus before) with ci_low and ci_high (95%, over prompts), score (its
        size), share (of F(M)), n.
        """
        frame = pd.DataFrame(
            {
                "node": [str(node) for node in self.nodes],
                "label": [", ".join(self.circuit.labels.get(node, ())) for node in self.nodes],
                "kind": self.best_kinds,
                "nodes": [" ".join(map(str, some)) for some in self.best],
                "before": self.before.mean(dim=-1).tolist(),
                "after": self.after.mean(dim=-1).tolist(),
            }
        )
        return frame.assign(**self._scores(self.after - self.before))

    def to_frame(self) -> pd.DataFrame:
        """One row a criterion: criterion, difference, ci_low, ci_high, score, share, of, n.

        The criteria are "faithfulness"; "completeness, KIND", the largest score of the K of each
        kind; and "minimality", the smallest score of a node. `of` names that K or node.
        """
        complete, minimal = self.completeness(), self.minimality()
        named = [("faithfulness", complete[complete["kind"] == "none"].iloc[0], "")]
        for kind, some in complete[complete["kind"] != "none"].groupby("kind", sort=False):
            worst = some.loc[some["score"].idxmax()]
            named.append((f"completeness, {kind}", worst, worst["nodes"]))
        least = minimal.loc[minimal["score"].idxmin()]
        named.append(("minimality", least, least["node"]))
        columns = ["difference", "ci_low", "ci_high", "score", "share"]
        return pd.DataFrame(
            [
                {"criterion": name, **row[columns], "of": of, "n": row["n"]}
                for name, row, of in named
            ]
        )

    def plot(self) -> go.Figure:
        """Left: circuit against model without each K, equal on the line. Right: minimality."""
        complete, minimal = self.completeness(), self.minimality()
        figure = make_subplots(cols=2, subplot_titles=("completeness", "minimality"))
        for kind, some in complete.groupby("kind", sort=False):
            figure.add_scatter(
                x=some["model"],
                y=some["circuit"],
                mode="markers",
                marker={"color": KINDS[kind], "line": {"color": "#444444", "width": 1}},
                name=f"{kind} K",
                hovertext=some["nodes"],
                row=1,
                col=1,
            )
        ends = [complete[["model", "circuit"]].to_numpy().min(), self.evaluation.clean.mean()]
        ends = [float(each) for each in ends]
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line_color=MISSING, showlegend=False, row=1, col=1
        )
        bars = site_bars(
            minimal["difference"].tolist(),
            low=minimal["ci_low"].tolist(),
            high=minimal["ci_high"].tolist(),
            names=minimal["node"].tolist(),
            title="",
            across="",
            hover=[f"{row.node} with K = {row.nodes or 'none'}" for row in minimal.itertuples()],
        )
        figure.add_trace(bars.data[0].update(showlegend=False), row=1, col=2)
        metric, model = self.evaluation.metric, self.provenance["model"]
        figure.update_layout(
            title=f"A circuit of {model} ({self.evaluation.ablation} ablation)",
            template="plotly_white",
            height=max(420, 160 + 18 * len(minimal)),
        )
        figure.update_xaxes(title_text=f"{metric} of the model without K", row=1, col=1)
        figure.update_yaxes(title_text=f"{metric} of the circuit without K", row=1, col=1)
        figure.update_xaxes(title_text=f"change of {metric} without the node", row=1, col=2)
        figure.update_yaxes(type="category", autorange="reversed", dtick=1, row=1, col=2)
        return figure

    def __repr__(self) -> str:
        found = self.to_frame()
        told = ", ".join(
            f"{row.criterion} {row.score:.3f} ({row.share:.1%})" for row in found.itertuples()
        )
        return f"Triple({self.circuit!r}; {told}; n = {len(self.evaluation.clean)} prompts)"

    def _repr_html_(self) -> str:
        return as_html(self, self.to_frame(), self.minimality())

    def _scores(self, differences: Float[Tensor, "rows prompts"]) -> dict[str, Any]:
        mean = differences.mean(dim=-1)
        low, high = bootstrap_ci(differences)
        return {
            "difference": mean.tolist(),
            "ci_low": low.tolist(),
            "ci_high": high.tolist(),
            "score": mean.abs().tolist(),
            "share": (mean.abs() / self.evaluation.clean.mean()).tolist(),
            "n": differences.shape[-1],
        }


def triple(
    model: Model,
    prompts: PromptSet,
    circuit: Circuit,
    *,
    nodes: Iterable[Site | str] | None = None,
    ablation: str = "counterfactual-mean",
    over: str = "template",
    fit: PromptSet | None = None,
    metric: str | Callable[..., Any] = "logit_diff",
    steps: int = 10,
    minimality_steps: int = 2,
    sets: int = 20,
    random: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Triple:
    """The three criteria of a circuit, with the ablation of the paper: means over p_ABC.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> circuit = Circuit.from_nodes(model, ["2.1", "4.0", "5.3@END"], mlps=True)
    >>> found = triple(model, prompts, circuit, steps=1, sets=2, random=0, progress=False)
    >>> found.completeness()["kind"].tolist()
    ['none', 'random', 'random', 'greedy']

    Args:
        model: In eval mode.
        prompts: What it is judged on: others than those the circuit was found on.
        circuit: Best one of nodes; of a circuit of edges, all that leaves a node is taken out.
        nodes: What K is drawn from and minimality measured of; the circuit's heads by default.
        ablation: One of ABLATIONS; see `ablation_of`, also for `over` and `fit`.
        over: Over which tokens means are taken.
        fit: Prompts that optimal constants are learned on.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        steps: Nodes that the greedy K of completeness grows to.
        minimality_steps: Nodes that the greedy K of each node's minimality grows to.
        sets: Random K of completeness; each node is in each of them with probability 1/2.
        random: Random circuits of the same size, the control of faithfulness.
        seed: Of random K, random circuits and resampling.
        progress: Show bars.

    Raises:
        CircuitError: Another shape, a circuit without such nodes, nodes outside it, or an unknown
            ablation.
        PromptError, MetricError, InterventionError, ModelError: What their names say.
    """
    some = _nodes_of(circuit, nodes)
    evaluation = evaluate(
        model,
        prompts,
        circuit,
        ablation=ablation,
        over=over,
        fit=fit,
        metric=metric,
        random=random,
        seed=seed,
        progress=progress,
    )
    operation = ablation_of(
        model, prompts, ablation, over=over, fit=fit, seed=seed, progress=progress
    )

    def run(kept: Bool[Tensor, "circuits edges"], places: Tensor) -> Subgraphs:
        return run_subgraphs(
            model, prompts, kept, operation, places=places, metric=metric, progress=progress
        )

    knockouts = Knockouts(circuit, where_kept(circuit, prompts), run)
    classes = _classes(circuit, some)
    drawn = torch.rand(sets, len(some), generator=torch.Generator().manual_seed(seed)) < 0.5
    tried: list[tuple[str, Nodes]] = [
        ("none", frozenset()),
        *(("class", each) for each in classes),
        *(("random", frozenset(some[i] for i in row.nonzero()[:, 0].tolist())) for row in drawn),
        *(("greedy", each) for each in greedy(some, knockouts.incompleteness, steps)),
    ]
    outs = [out for _, out in tried]
    needed = [_needed(node, some, classes, knockouts, minimality_steps) for node in some]
    best = [out for _, out in needed]
    return Triple(
        circuit=circuit,
        evaluation=evaluation,
        sets=tuple(tuple(sorted(out)) for out in outs),
        kinds=tuple(kind for kind, _ in tried),
        circuit_without=knockouts.of_circuit(outs),
        model_without=knockouts.of_model(outs),
        nodes=some,
        best=tuple(tuple(sorted(out)) for out in best),
        best_kinds=tuple(kind for kind, _ in needed),
        before=knockouts.of_circuit(best),
        after=knockouts.of_circuit([out | {v} for v, out in zip(some, best, strict=True)]),
        provenance=provenance(
            model,
            prompts,
            ablation=ablation,
            over=over,
            metric=evaluation.metric,
            steps=steps,
            minimality_steps=minimality_steps,
            sets=sets,
            random_seed=seed,
        ),
    )


def _nodes_of(circuit: Circuit, nodes: Iterable[Site | str] | None) -> tuple[Site, ...]:
    """The nodes that are taken out. Raises CircuitError for none, and for some outside it."""
    if nodes is None:
        found: tuple[Site, ...] = circuit.heads
    else:
        found = tuple(parse(node) if isinstance(node, str) else node for node in nodes)
    if not found:
        raise CircuitError(
            "The circuit has no heads to take out; give nodes=, such as its MLPs, or another "
            "circuit."
        )
    for node in found:
        if node not in circuit.nodes:
            raise CircuitError(f"{node} is not in the circuit; give some of circuit.nodes.")
    return found


def _classes(circuit: Circuit, nodes: Sequence[Site]) -> list[Nodes]:
    """The nodes of each label."""
    labels = dict.fromkeys(label for node in nodes for label in circuit.labels.get(node, ()))
    return [
        frozenset(node for node in nodes if label in circuit.labels.get(node, ()))
        for label in labels
    ]


def _needed(
    node: Site, nodes: Sequence[Site], classes: list[Nodes], knockouts: Knockouts, steps: int
) -> tuple[str, Nodes]:
    """The K without which a node matters most, and what kind of K it is."""
    others = [other for other in nodes if other != node]
    tried: list[tuple[str, Nodes]] = [
        ("none", frozenset()),
        *(("class", own - {node}) for own in classes if node in own),
        *(("greedy", out) for out in greedy(others, partial(knockouts.need, node), steps)),
    ]
    size = knockouts.need(node, [out for _, out in tried]).mean(dim=-1).abs()
    return tried[int(size.argmax())]
