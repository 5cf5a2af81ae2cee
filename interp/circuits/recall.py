"""Does a ranking find a circuit that is known? ROC AUC, precision and recall."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float
from scipy.stats import rankdata
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.evaluate import interval
from interp.circuits.select import importance
from interp.display import Displayed
from interp.engine.result import SweepResult
from interp.errors import CircuitError, did_you_mean
from interp.plots.colors import DIVERGING, MISSING
from interp.saved import Saved
from interp.sites import Input, Logits, Site

KINDS = ("edges", "nodes")


@dataclass(frozen=True, eq=False)
class Recall(Saved, Displayed):
    """How a ranking of edges or nodes finds those of a known circuit.

    Attributes:
        sites: What is ranked.
        importances: The larger, the earlier; NaN is last.
        known: Whether each is in the known circuit.
        auc: Area under the ROC curve: the chance that a known one comes before another, where a tie
            counts half. 1/2 is chance.
        resampled: The same when prompts are resampled; empty without scores of every prompt.
        provenance: That of the scores.
    """

    sites: tuple[Site, ...]
    importances: Float[Tensor, " sites"]
    known: Bool[Tensor, " sites"]
    auc: float
    resampled: Float[Tensor, " resamples"]
    provenance: dict[str, Any]

    def ci(self) -> tuple[float, float]:
        """95% bootstrap interval of the AUC over prompts; NaN without scores of every prompt."""
        if not len(self.resampled):
            return float("nan"), float("nan")
        low, high = interval(self.resampled)
        return low.item(), high.item()

    def to_frame(self, sizes: Sequence[int] | None = None) -> pd.DataFrame:
        """One row a size, by default each: size, found, precision, recall, chance.

        `found` is how many of the first `size` are known, `precision` their share of these and
        `recall` their share of the known; `chance` is the precision of a random ranking. Ties are
        cut in the order of the model, so that sizes within a tie depend on it.
        """
        total, known = len(self.sites), int(self.known.sum())
        wanted = list(range(1, total + 1)) if sizes is None else list(sizes)
        for size in wanted:
            if not 1 <= size <= total:
                raise CircuitError(f"size is {size}; give numbers from 1 to {total}.")
        hits = self.known[_order(self.importances)].cumsum(dim=0)
        found = [int(hits[size - 1]) for size in wanted]
        return pd.DataFrame(
            {
                "size": wanted,
                "found": found,
                "precision": [n / size for n, size in zip(found, wanted, strict=True)],
                "recall": [n / known for n in found],
                "chance": known / total,
            }
        )

    def plot(self) -> go.Figure:
        """Precision against recall; the line is chance."""
        frame = self.to_frame()
        figure = go.Figure()
        figure.add_scatter(
            x=frame["recall"],
            y=frame["precision"],
            mode="lines",
            line_color=DIVERGING[-2],
            hovertext=[f"first {size}" for size in frame["size"]],
            name="precision",
        )
        figure.add_hline(y=frame["chance"][0], line_color=MISSING, annotation_text="chance")
        figure.update_layout(
            title=f"Recall of a known circuit (AUC {self.auc:.3f})", template="plotly_white"
        )
        figure.update_xaxes(title_text="recall", range=[0, 1])
        figure.update_yaxes(title_text="precision", rangemode="tozero")
        return figure

    def __repr__(self) -> str:
        low, high = self.ci()
        told = f" ({low:.3f} to {high:.3f})" if len(self.resampled) else ""
        return f"Recall(AUC {self.auc:.3f}{told}; {int(self.known.sum())} of {len(self.sites)})"


def recall(
    scored: Circuit | SweepResult,
    known: Circuit,
    *,
    of: str = "edges",
    rank: str = "abs",
    resamples: int = 200,
) -> Recall:
    """How the scores of a circuit, or of a sweep, rank what is in a known circuit.

    Args:
        scored: A circuit with scores; or the sweep of `interp.attribute` or
            `interp.engine.patch_edges`, which keeps those of every prompt and gives an interval.
        known: Of the same shape.
        of: "edges", or "nodes": heads and MLPs, which are in the known circuit if one of its edges
            begins at them. Sites that a sweep leaves out do not count.
        rank: "abs" or "signed"; see `interp.circuits.select.importance`.
        resamples: Bootstrap resamples of the prompts of a sweep.

    Raises:
        CircuitError: Circuits of two shapes, sites of another kind, no scores, an unknown kind or
            rank, and a known circuit with none of these sites or all of them.

    >>> from interp.circuits import Shape
    >>> shape = Shape(1, 2, 2, has_mlp=False)
    >>> known = Circuit.from_edges(shape, ["input->0.1.v", "0.1->logits"])
    >>> scores = -known.kept.float()
    >>> recall(Circuit.from_edges(shape, [], scores=scores), known).auc
    1.0
    """
    if of not in KINDS:
        raise CircuitError(f"There is no recall of {of!r}: {did_you_mean(of, KINDS)}")
    if isinstance(scored, SweepResult):
        sites, effects = scored.sites, scored.effects.double()
    else:
        if scored.shape != known.shape:
            raise CircuitError(
                f"The scores are of {scored.shape} and the known circuit is of {known.shape}; "
                "compare circuits of one model."
            )
        sites, scores = _ranked(scored, of)
        effects = scores.double()[:, None]
    truth = _truth(sites, known, of)
    means = importance(effects.mean(dim=-1), rank)
    if means.isnan().all():
        raise CircuitError(f"There are no scores of {of}; give some that have them.")
    return Recall(
        sites=sites,
        importances=means,
        known=truth,
        auc=roc_auc(means, truth),
        resampled=_resampled(effects, truth, rank, resamples),
        provenance=scored.provenance,
    )


def roc_auc(importances: Float[Tensor, " sites"], known: Bool[Tensor, " sites"]) -> float:
    """The chance that a known site is more important than another, where a tie counts half.

    It is the Mann-Whitney statistic over its largest value, by ranks. NaN ties with NaN, last.

    Raises:
        CircuitError: No site is known, or all are.

    >>> roc_auc(torch.tensor([3.0, 1.0, 1.0]), torch.tensor([True, True, False]))
    0.75
    """
    ones = int(known.sum())
    zeros = len(known) - ones
    if not ones or not zeros:
        raise CircuitError(
            f"{ones} of {len(known)} sites are in the known circuit; the AUC compares those that "
            "are with those that are not, so give a circuit with some and not all of them."
        )
    ranks = torch.from_numpy(rankdata(importances.nan_to_num(nan=-torch.inf).numpy()))
    return float((ranks[known].sum() - ones * (ones + 1) / 2) / (ones * zeros))


def _ranked(circuit: Circuit, of: str) -> tuple[tuple[Site, ...], Float[Tensor, " sites"]]:
    if of == "edges":
        return circuit.shape.edges, circuit.scores
    inner = [i for i, node in enumerate(circuit.shape.nodes) if _is_inner(node)]
    return tuple(circuit.shape.nodes[i] for i in inner), circuit.node_scores[inner]


def _truth(sites: Sequence[Site], known: Circuit, of: str) -> Bool[Tensor, " sites"]:
    """Whether each is in the known circuit. Raises CircuitError for sites of another kind."""
    index = known.shape.edge_index if of == "edges" else known.shape.node_index
    members = set(known.edges if of == "edges" else known.nodes)
    for site in sites:
        if site not in index or (of == "nodes" and not _is_inner(site)):
            raise CircuitError(
                f"{site} is ranked, and is none of the {of} of the known circuit's model; give "
                f"scores of {of} of the same model, or another of=."
            )
    return torch.tensor([site in members for site in sites])


def _is_inner(node: Site) -> bool:
    return not isinstance(node, Input | Logits)


def _resampled(
    scores: Float[Tensor, "sites prompts"], known: Bool[Tensor, " sites"], rank: str, resamples: int
) -> Float[Tensor, " resamples"]:
    """The AUC in resamples of the prompts, one after another; none of a single prompt."""
    count = scores.shape[1]
    found = torch.empty(resamples if count > 1 else 0, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    for i in range(len(found)):
        times = torch.randint(count, (count,), generator=generator).bincount(minlength=count)
        found[i] = roc_auc(importance(scores @ (times / count).double(), rank), known)
    return found


def _order(importances: Float[Tensor, " sites"]) -> Tensor:
    return importances.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
