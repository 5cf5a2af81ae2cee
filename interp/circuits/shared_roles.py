"""Which kind of head do circuits share?

Two circuits may both have induction heads, and the same ones or different ones. For each kind the
heads that both circuits have are counted among the heads of this kind that either has.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import pandas as pd
import plotly.graph_objects as go

from interp.circuits.circuit import Circuit
from interp.circuits.shared import by_chance
from interp.display import Displayed
from interp.errors import CircuitError
from interp.saved import Saved
from interp.sites import Head, Site

Labels = Mapping[Site, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class SharedRoles(Saved, Displayed):
    """Heads of each kind that circuits share; `shared_roles` makes one.

    Attributes:
        circuits: Task -> circuit.
        kinds: Kind -> the heads that are of it.
        whole: Whether these are all such heads of the model, or only those in the circuits.
    """

    circuits: dict[str, Circuit]
    kinds: dict[str, frozenset[Site]]
    whole: bool

    def to_frame(self) -> pd.DataFrame:
        """One row a pair of tasks and kind that either circuit has heads of.

        Columns: task_a, task_b, kind, heads_a, heads_b, shared, iou, chance and p (as many heads
        drawn from all heads of the model), chance_in_kind and p_in_kind (drawn from the heads of
        the kind; missing where they are not all known). Whoever shares no more than the latter
        shares the kind, and not particular heads of it.
        """
        rows = []
        for a, b in combinations(self.circuits, 2):
            shape = self.circuits[a].shape
            everyone = shape.n_layers * shape.n_heads
            for kind, members in self.kinds.items():
                mine, theirs = ({*self.circuits[task].heads} & members for task in (a, b))
                if not mine | theirs:
                    continue
                sizes, shared = (len(mine), len(theirs)), len(mine & theirs)
                chance, p = by_chance([(everyone, *sizes)], shared)
                within = (math.nan, math.nan)
                if self.whole:
                    within = by_chance([(len(members), *sizes)], shared)
                rows.append(
                    {
                        **{"task_a": a, "task_b": b, "kind": kind},
                        **{"heads_a": sizes[0], "heads_b": sizes[1], "shared": shared},
                        "iou": shared / len(mine | theirs),
                        **{"chance": chance, "p": p},
                        **{"chance_in_kind": within[0], "p_in_kind": within[1]},
                    }
                )
        columns = ["task_a", "task_b", "kind", "heads_a", "heads_b", "shared", "iou", "chance"]
        return pd.DataFrame(rows, columns=[*columns, "p", "chance_in_kind", "p_in_kind"])

    def plot(self) -> go.Figure:
        """Bars of the IoU of each kind, one colour a pair of tasks."""
        figure = go.Figure()
        for (a, b), rows in self.to_frame().groupby(["task_a", "task_b"], sort=False):
            figure.add_bar(
                x=rows["kind"],
                y=rows["iou"],
                name=f"{a}, {b}",
                hovertext=[
                    f"{row.kind}: {row.shared} of {row.heads_a} in {a} and {row.heads_b} in {b}"
                    f"<br>IoU {row.iou:.2f}, by chance {row.chance:.2f}, p = {row.p:.2g}"
                    for row in rows.itertuples()
                ],
                hoverinfo="text",
            )
        figure.update_layout(title="Shared heads by kind", template="plotly_white", barmode="group")
        return figure.update_yaxes(range=[0, 1.02], title_text="intersection over union")

    def __repr__(self) -> str:
        return f"SharedRoles({', '.join(self.circuits)}; {len(self.kinds)} kinds)"


def shared_roles(circuits: Mapping[str, Circuit], labels: Labels | None = None) -> SharedRoles:
    """Which kinds of head two or more circuits share, all pairs in one call.

    Args:
        circuits: Task -> its circuit.
        labels: Node -> its kinds, for all heads of the model, such as those that a head atlas names
            turned around. By default the labels that the circuits carry, which leave open how many
            heads of a kind the model has.

    A head of several kinds counts for each. MLPs do not count.

    Raises:
        CircuitError: Fewer than two circuits, circuits of different models, or no labels.

    >>> from interp.circuits import Shape
    >>> one = Circuit.from_nodes(Shape(2, 4, 4), ["0.1", "1.0"])
    >>> other = Circuit.from_nodes(Shape(2, 4, 4), ["1.0", "1.2"])
    >>> labels = {Head(1, 0): ("induction",), Head(1, 2): ("induction",)}
    >>> shared_roles({"one": one, "other": other}, labels).to_frame()["iou"].tolist()
    [0.5]
    """
    if len({circuit.shape for circuit in circuits.values()}) != 1 or len(circuits) < 2:
        raise CircuitError(
            f"Roles are compared between two or more circuits of one model, and got "
            f"{len(circuits)} of {len({each.shape for each in circuits.values()})} models; give "
            "circuits of the same shape."
        )
    given = [labels] if labels is not None else [each.labels for each in circuits.values()]
    kinds = _by_kind(given)
    if not kinds:
        raise CircuitError(
            "No head has a label, so there are no kinds to compare; label the circuits with "
            "`labelled`, or pass labels."
        )
    return SharedRoles(dict(circuits), kinds, whole=labels is not None)


def _by_kind(given: Iterable[Labels]) -> dict[str, frozenset[Site]]:
    kinds: dict[str, set[Site]] = {}
    for labels in given:
        for node, names in labels.items():
            for name in names:
                if isinstance(node, Head):
                    kinds.setdefault(name, set()).add(node)
    return {name: frozenset(kinds[name]) for name in sorted(kinds)}
