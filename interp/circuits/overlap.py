"""How much do the circuits of several tasks share, and is it more than chance?

High overlap can go with no faithfulness at all, so overlap alone is not a finding: with prompts the
circuits are also run on each other's tasks (`cross_task`) and ablated (`dissociate`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.controls import Relabelling
from interp.circuits.cross_task import CrossTask, cross_task, task_heatmap
from interp.circuits.dissociation import Dissociation, dissociate
from interp.circuits.shape import Shape
from interp.circuits.shared import Shared, by_chance, shared_edges, shared_nodes
from interp.display import Displayed
from interp.errors import CircuitError, did_you_mean
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import MLP, Head

KINDS = ("heads", "nodes", "edges")


@dataclass(frozen=True, eq=False)
class Overlap(Saved, Displayed):
    """What the circuits of several tasks share; `overlap` makes one.

    Attributes:
        circuits: Task -> circuit.
        shared: "heads", "nodes" (heads and MLPs) or "edges" -> what each two tasks share.
        cross: The circuits run on each other's prompts; None without prompts.
        dissociation: What ablating them does to each other's prompts; None without prompts.
        provenance: Model, weights hash, permutations, seed, versions.
    """

    circuits: dict[str, Circuit]
    shared: dict[str, dict[tuple[str, str], Shared]]
    cross: CrossTask | None
    dissociation: Dissociation | None
    provenance: dict[str, Any]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks, in the order in which they were given."""
        return tuple(self.circuits)

    def to_frame(self) -> pd.DataFrame:
        """One row a pair of tasks.

        Columns: task_a, task_b; for heads, nodes and edges each heads_a, heads_b, heads_shared,
        heads_iou, heads_chance, heads_p, heads_strict_chance, heads_strict_p (see `Shared`); and
        with prompts a_on_b and b_on_a (faithfulness of one circuit on the other task) with their
        95% intervals, `reuse` (what follows from them), and the verdict of ablating all heads of
        each, `dissociation`, and only those
        that the other circuit lacks, `dissociation_unique`.
        """
        rows = []
        for a, b in combinations(self.tasks, 2):
            row: dict[str, Any] = {"task_a": a, "task_b": b}
            for what, pairs in self.shared.items():
                row |= {f"{what}_{name}": value for name, value in vars(pairs[a, b]).items()}
            if self.cross is not None and self.dissociation is not None:
                for name, circuit, task in (("a_on_b", a, b), ("b_on_a", b, a)):
                    row[name] = self.cross.faithfulness(circuit, task)
                    row[f"{name}_low"], row[f"{name}_high"] = self.cross.ci(circuit, task)
                row["reuse"] = self.reuse(a, b)
                row["dissociation"] = self.dissociation.verdict(a, b, "all")
                row["dissociation_unique"] = self.dissociation.verdict(a, b, "unique")
            rows.append(row)
        return pd.DataFrame(rows)

    def reuse(self, a: str, b: str) -> str:
        """Whether a circuit does the other's task alone: "both", one of their names, "neither".

        It does if the interval of its faithfulness there lies above one half, and does not if it
        lies below; "unclear" if one of them contains one half.

        Raises CircuitError without prompts.
        """
        cross, does = self._needed_cross(), []
        for circuit, task in ((a, b), (b, a)):
            low, high = cross.ci(circuit, task)
            if low <= 0.5 <= high or math.isnan(low):
                return "unclear"
            does += [circuit] if low > 0.5 else []
        return "both" if len(does) == 2 else (does or ["neither"])[0]

    def matrix(self, what: str = "heads") -> pd.DataFrame:
        """Task x task: IoU of "heads", "nodes" or "edges"; or "faithfulness" of row on column.

        Raises CircuitError for anything else, and for faithfulness without prompts.
        """
        if what == "faithfulness":
            return self._needed_cross().matrix()
        pairs = self._pairs(what)
        grid = pd.DataFrame(np.eye(len(self.tasks)), index=self.tasks, columns=self.tasks)
        for (a, b), shared in pairs.items():
            grid.loc[a, b] = grid.loc[b, a] = shared.iou
        return grid

    def chance(self, what: str = "heads", *, strict: bool = False) -> pd.DataFrame:
        """Task x task: the IoU that is expected by chance; NaN on the diagonal.

        Raises CircuitError unless `what` is "heads", "nodes" or "edges".
        """
        grid = pd.DataFrame(math.nan, index=self.tasks, columns=self.tasks)
        for (a, b), shared in self._pairs(what).items():
            level = shared.strict_chance if strict else shared.chance
            grid.loc[a, b] = grid.loc[b, a] = level
        return grid

    def sweep(self, what: str = "heads", sizes: Sequence[int] | None = None) -> pd.DataFrame:
        """IoU of the n heads, nodes or edges with the largest scores in size, for several n.

        `sizes` are 1, 2, 5, 10, 20, ... by default. One row a pair of tasks and size: task_a,
        task_b, n, share (n of all that both have scores of, K), shared, iou, chance, p.

        Raises CircuitError for circuits without scores, and for sizes that do not fit.
        """
        self._pairs(what)
        rows = []
        for a, b in combinations(self.tasks, 2):
            first, second = (self._scores(task, what) for task in (a, b))
            known = ~(first.isnan() | second.isnan())
            total = int(known.sum())
            ranks = [each[known].abs().argsort(descending=True, stable=True).tolist()
                     for each in (first, second)]  # fmt: skip
            for n in _sizes(total) if sizes is None else sizes:
                if not 0 < n <= total:
                    raise CircuitError(
                        f"There is no top {n} of {total} {what} that {a} and {b} have scores of; "
                        f"give sizes from 1 to {total}."
                    )
                shared = len({*ranks[0][:n]} & {*ranks[1][:n]})
                chance, p = by_chance([(total, n, n)], shared)
                rows.append(
                    {
                        **{"task_a": a, "task_b": b, "n": n, "share": n / total},
                        **{"shared": shared, "iou": shared / (2 * n - shared)},
                        **{"chance": chance, "p": p},
                    }
                )
        return pd.DataFrame(rows)

    def plot(self, what: str = "heads") -> go.Figure:
        """Task x task heatmap of `matrix(what)`, with chance levels in the hover.

        Raises CircuitError as `matrix` does.
        """
        if what == "faithfulness":
            return self._needed_cross().plot()
        hover = pd.DataFrame("", index=self.tasks, columns=self.tasks)
        for (a, b), shared in self._pairs(what).items():
            hover.loc[a, b] = hover.loc[b, a] = (
                f"{a} and {b}: {shared.shared} of {shared.a} and {shared.b} {what}"
                f"<br>IoU {shared.iou:.2f}"
                f"<br>by chance {shared.chance:.2f}, p = {shared.p:.2g}"
                f"<br>layer by layer {shared.strict_chance:.2f}, p = {shared.strict_p:.2g}"
            )
        return task_heatmap(
            self.matrix(what),
            hover,
            title=f"Shared {what} in {self.provenance['model']}",
            colorbar="intersection over union",
        )

    def plot_sweep(self, what: str = "heads") -> go.Figure:
        """Lines of `sweep(what)`, one a pair of tasks, over the chance level (dotted).

        Raises CircuitError as `sweep` does.
        """
        frame, figure = self.sweep(what), go.Figure()
        for (a, b), rows in frame.groupby(["task_a", "task_b"], sort=False):
            figure.add_scatter(x=rows["n"], y=rows["iou"], name=f"{a}, {b}", mode="lines+markers")
        chance = frame.groupby("n")["chance"].mean()
        figure.add_scatter(
            x=chance.index, y=chance, name="chance", mode="lines", line={"dash": "dot"}
        )
        figure.update_layout(
            title=f"{what.capitalize()} shared by the top n", template="plotly_white"
        )
        figure.update_xaxes(type="log", title_text=f"top n {what}")
        return figure.update_yaxes(range=[0, 1.02], title_text="intersection over union")

    def _pairs(self, what: str) -> dict[tuple[str, str], Shared]:
        if what not in KINDS:
            known = (*KINDS, "faithfulness")
            raise CircuitError(f"Circuits do not share {what!r}: {did_you_mean(what, known)}")
        return self.shared[what]

    def _needed_cross(self) -> CrossTask:
        if self.cross is None:
            raise CircuitError(
                "These circuits were compared without prompts, so that none was run; give each as "
                "(circuit, prompts)."
            )
        return self.cross

    def _scores(self, task: str, what: str) -> Float[Tensor, " members"]:
        circuit = self.circuits[task]
        if what == "edges":
            scores = circuit.scores
        else:
            kinds = (Head,) if what == "heads" else (Head, MLP)
            mine = [isinstance(node, kinds) for node in circuit.shape.nodes]
            scores = circuit.node_scores[torch.tensor(mine)]
        if scores.isnan().all():
            raise CircuitError(
                f"The circuit of {task} has no scores of its {what}, so that they have no order; "
                "give scores when it is made."
            )
        return scores

    def __repr__(self) -> str:
        (a, b), most = max(self.shared["heads"].items(), key=lambda item: item[1].iou)
        return (
            f"Overlap({len(self.tasks)} tasks of {self.provenance['model']}; most heads shared by "
            f"{a} and {b}: IoU {most.iou:.2f}, by chance {most.chance:.2f})"
        )


def overlap(
    model: Model,
    circuits: Mapping[str, Circuit] | Mapping[str, tuple[Circuit, PromptSet]],
    *,
    ablation: str = "counterfactual",
    over: str = "template",
    metric: str | Callable[..., Any] = "logit_diff",
    permutations: int = 1000,
    random: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> Overlap:
    """What the circuits of two or more tasks share: all pairs in one call.

    Args:
        model: Whose circuits they are.
        circuits: Task -> its circuit, which compares nodes and edges alone; or task -> its circuit
            and prompts, which also runs every circuit on every task and ablates each.
        ablation: Of what is not in a circuit, and of a circuit's heads: see `ablation_of`;
            "optimal" is not one here.
        over: Of means.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        permutations: Random relabellings for the stricter null of edges.
        random: Random circuits and sets of heads that stand beside each faithfulness and damage; 0
            for none, and then there is no verdict on dissociation.
        seed: Of everything that is drawn.
        progress: Show a bar.

    Roles at which a circuit keeps its nodes do not count in the overlap, but they do when it runs.

    Raises:
        CircuitError: Fewer than two circuits, circuits of another model, or prompts for only some.
        InterventionError, PromptError, MetricError: As `run_subgraphs` and `engine.run` do.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> one = Circuit.from_nodes(model, ["1.1", "2.1", "2.6"])
    >>> other = Circuit.from_nodes(model, ["2.1", "2.6", "3.5"])
    >>> overlap(model, {"one": one, "other": other}).matrix("nodes").loc["one", "other"].item()
    0.5
    """
    alone = {
        task: each if isinstance(each, Circuit) else each[0] for task, each in circuits.items()
    }
    given = {task: each for task, each in circuits.items() if not isinstance(each, Circuit)}
    _require_alike(Shape.of(model), alone, len(given))
    relabelling = Relabelling(Shape.of(model))
    generator = torch.Generator().manual_seed(seed)
    cross, dissociation = None, None
    if given:
        how: dict[str, Any] = {"ablation": ablation, "over": over, "metric": metric}
        how |= {"random": random, "seed": seed, "progress": progress}
        cross, dissociation = cross_task(model, given, **how), dissociate(model, given, **how)
    couples = list(combinations(alone.items(), 2))
    return Overlap(
        circuits=alone,
        shared={
            "heads": {(a, b): shared_nodes(x, y, (Head,)) for (a, x), (b, y) in couples},
            "nodes": {(a, b): shared_nodes(x, y, (Head, MLP)) for (a, x), (b, y) in couples},
            "edges": {
                (a, b): shared_edges(x, y, relabelling, permutations, generator)
                for (a, x), (b, y) in couples
            },
        },
        cross=cross,
        dissociation=dissociation,
        provenance=provenance(model, permutations=permutations, seed=seed, tasks=list(alone)),
    )


def _sizes(total: int) -> list[int]:
    """1, 2, 5, 10, 20, ... and all of them."""
    powers = range(len(str(total)))
    return sorted({min(step * 10**power, total) for power in powers for step in (1, 2, 5)})


def _require_alike(shape: Shape, circuits: Mapping[str, Circuit], with_prompts: int) -> None:
    if len(circuits) < 2:
        raise CircuitError(
            f"An overlap is between circuits and {len(circuits)} was given; give two or more."
        )
    if with_prompts not in (0, len(circuits)):
        raise CircuitError(
            f"{with_prompts} of {len(circuits)} circuits have prompts; give them for all, as "
            "(circuit, prompts), or for none."
        )
    for task, circuit in circuits.items():
        if circuit.shape != shape:
            raise CircuitError(
                f"The circuit of {task} is of a model with {circuit.shape.n_layers} layers of "
                f"{circuit.shape.n_heads} heads and this one has {shape.n_layers} of "
                f"{shape.n_heads}; compare circuits of one model."
            )
