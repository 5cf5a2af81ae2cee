"""Which tasks go together, by how much their circuits share?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from scipy.cluster.hierarchy import cophenet, dendrogram, fcluster, linkage
from scipy.spatial.distance import squareform

from interp.circuits.overlap import Overlap
from interp.display import Displayed
from interp.errors import CircuitError
from interp.saved import Saved


@dataclass(frozen=True, eq=False)
class Clusters(Saved, Displayed):
    """A tree of tasks; `clusters` makes one.

    Attributes:
        tasks: In alphabetical order: the rows of `tree` count them so.
        tree: Linkage as SciPy writes it: two members, their distance 1 - IoU, tasks below.
        at: The mean IoU from which tasks are one cluster.
        distances: 1 - IoU of each two tasks.
        chance: Mean IoU of random circuits of the same sizes; NaN if it is not known.
    """

    tasks: tuple[str, ...]
    tree: Float[np.ndarray, "merges 4"]
    at: float
    distances: Float[np.ndarray, "tasks tasks"] = field(repr=False)
    chance: float

    @property
    def order(self) -> tuple[str, ...]:
        """The tasks as they stand under the tree: near ones side by side."""
        leaves = dendrogram(self.tree, no_plot=True)["leaves"]
        return tuple(self.tasks[leaf] for leaf in leaves)

    @property
    def labels(self) -> dict[str, int]:
        """Task -> the number of its cluster, from 1, in the order of the tree."""
        found = fcluster(self.tree, 1 - self.at + 1e-12, criterion="distance")
        cluster = dict(zip(self.tasks, found, strict=True))
        numbers = {old: new for new, old in enumerate(dict.fromkeys(map(cluster.get, self.order)))}
        return {task: 1 + numbers[cluster[task]] for task in self.order}

    @property
    def fit(self) -> float:
        """Correlation of the distances in the tree with the given ones (cophenetic); 1 is best.

        NaN for fewer than three tasks, or where all distances are equal.
        """
        given, drawn = squareform(self.distances, checks=False), cophenet(self.tree)
        if given.std() == 0 or drawn.std() == 0:
            return float("nan")
        return float(np.corrcoef(given, drawn)[0, 1])

    def to_frame(self) -> pd.DataFrame:
        """One row a task, in the order of the tree: task, cluster."""
        return pd.DataFrame(list(self.labels.items()), columns=["task", "cluster"])

    def plot(self) -> go.Figure:
        """The tree, with the cut (dashed) and the distance of random circuits (dotted)."""
        drawn = dendrogram(self.tree, no_plot=True)
        figure = go.Figure()
        for across, up in zip(drawn["icoord"], drawn["dcoord"], strict=True):
            figure.add_scatter(
                x=across,
                y=up,
                mode="lines",
                line={"color": "#28559f"},
                hovertext=f"mean IoU {1 - max(up):.2f}",
                hoverinfo="text",
                showlegend=False,
            )
        figure.add_hline(1 - self.at, line_dash="dash", annotation_text=f"IoU {self.at:.2f}")
        if not np.isnan(self.chance):
            figure.add_hline(1 - self.chance, line_dash="dot", annotation_text="chance")
        ticks = [5 + 10 * place for place in range(len(self.tasks))]
        figure.update_layout(title="Tasks by shared circuit", template="plotly_white")
        figure.update_xaxes(tickvals=ticks, ticktext=self.order, showgrid=False)
        return figure.update_yaxes(title_text="1 - mean IoU", range=[0, 1.02])

    def __repr__(self) -> str:
        groups: dict[int, list[str]] = {}
        for task, cluster in self.labels.items():
            groups.setdefault(cluster, []).append(task)
        return f"Clusters({' | '.join(', '.join(each) for each in groups.values())})"


def clusters(given: Overlap | pd.DataFrame, *, what: str = "heads", at: float = 0.5) -> Clusters:
    """Join the tasks whose circuits share most, step by step (average linkage on 1 - IoU).

    Args:
        given: An Overlap, or a task x task table of IoUs.
        what: Of an Overlap: "heads", "nodes" or "edges".
        at: Clusters are cut where tasks share less than this mean IoU.

    The order of the tasks makes no difference to the tree.

    Raises:
        CircuitError: A table that is no symmetric one of IoUs, or `at` outside 0 to 1.

    >>> table = pd.DataFrame(np.eye(3) / 2 + 0.5, index=list("bac"), columns=list("bac"))
    >>> table.loc["a", "c"] = table.loc["c", "a"] = 0.9
    >>> clusters(table, at=0.8)
    Clusters(b | c, a)
    """
    if not 0 <= at <= 1:
        raise CircuitError(f"Clusters are cut at an IoU of {at}; give one from 0 to 1.")
    chance = float("nan")
    if isinstance(given, Overlap):
        if what == "faithfulness":
            raise CircuitError(
                "Faithfulness has no distances, since it is not symmetric; cluster by heads, "
                "nodes or edges."
            )
        chance = float(np.nanmean(given.chance(what).to_numpy()))
        given = given.matrix(what)
    tasks = tuple(sorted(given.index))
    if len(tasks) < 2 or {*given.columns} != {*tasks} or len({*tasks}) < len(tasks):
        raise CircuitError(
            f"A table of {len(given.index)} rows and {len(given.columns)} columns is clustered if "
            "both are the same two or more tasks; give Overlap.matrix()."
        )
    shared = given.loc[list(tasks), list(tasks)].to_numpy(dtype=float)
    if not (np.allclose(shared, shared.T) and ((shared >= 0) & (shared <= 1)).all()):
        raise CircuitError(
            "A table of IoUs is symmetric with values from 0 to 1 and this one is not; give "
            "Overlap.matrix() of heads, nodes or edges, of circuits that are not both empty."
        )
    distances = 1 - shared
    np.fill_diagonal(distances, 0)
    tree = linkage(squareform(distances, checks=False), method="average", optimal_ordering=True)
    return Clusters(tasks, tree, at, distances, chance)
