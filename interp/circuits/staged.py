"""Path patching in stages, from the logits backward: which heads write what the last ones read?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.circuits.circuit import Circuit
from interp.circuits.select import count_of, importance, top_n
from interp.circuits.shape import Shape
from interp.display import Displayed, as_html
from interp.engine.paths import patch_paths
from interp.engine.result import SweepResult
from interp.errors import CircuitError
from interp.models import Model
from interp.plots import head_grids
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved, register
from interp.sites import Head, K, Q, Site, V
from interp.sites import heads as all_heads

READS = ("q", "k", "v")


@register
@dataclass(frozen=True, eq=False)
class Stage:
    """The heads that reach some receivers.

    Attributes:
        number: 1 for paths to the logits, 2 for those to the heads found by stage 1, and so on.
        reads: What of the receivers is patched: "logits", "q", "k" or "v".
        receivers: Their queries, keys or values, all patched together; none for the logits.
        sweep: The metric with each sender patched along its paths to the receivers.
        kept: The senders that are in the circuit.
    """

    number: int
    reads: str
    receivers: tuple[Site, ...]
    sweep: SweepResult
    kept: tuple[Head, ...]

    @property
    def name(self) -> str:
        """Such as "stage 2: 9.9.q, 9.6.q"."""
        return f"stage {self.number}: {', '.join(map(str, self.receivers)) or 'logits'}"

    @property
    def scores(self) -> Float[Tensor, " senders"]:
        """(patched - clean) / (corrupt - clean), a ratio of means over the prompts."""
        return self.sweep.normalized()

    def ci(self) -> tuple[Float[Tensor, " senders"], Float[Tensor, " senders"]]:
        """95% bootstrap interval of each score, given the mean gap between clean and corrupt."""
        gap = self._gap
        low, high = (end / gap for end in self.sweep.ci())
        return (low, high) if gap > 0 else (high, low)

    @property
    def _gap(self) -> float:
        assert self.sweep.corrupt is not None
        return float((self.sweep.corrupt - self.sweep.clean).mean())


@dataclass(frozen=True, eq=False)
class Stages(Saved, Displayed):
    """What path patching found, stage by stage.

    Attributes:
        stages: One for the logits, then up to three (queries, keys, values) a step backward.
        shape: The shape of the model.
        provenance: Model, weights hash, prompts, share, versions.
    """

    stages: tuple[Stage, ...]
    shape: Shape
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def heads(self) -> tuple[Head, ...]:
        """The union of the heads that the stages keep, in the order of the model."""
        return tuple(sorted({head for stage in self.stages for head in stage.kept}))

    def circuit(self) -> Circuit:
        """These heads with all MLPs; the score of a head is its largest in size, over the stages.

        Every head that was tried has a score.
        """
        scores = torch.full((len(self.shape.nodes),), torch.nan)
        for stage in self.stages:
            for sender, score in zip(stage.sweep.sites, stage.scores.tolist(), strict=True):
                row = self.shape.node_index[sender]
                if not abs(score) <= abs(scores[row]):  # also where there is none yet
                    scores[row] = score
        return Circuit.from_nodes(
            self.shape, self.heads, mlps=True, scores=scores, provenance=self.provenance
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a sender in a stage, those with the largest scores first.

        Columns: stage, receivers, sender, score, ci_low, ci_high (95%, of the score), effect (on
        the metric), n (prompts), kept. The senders that are not kept are the control.
        """
        frames = []
        for stage in self.stages:
            low, high = stage.ci()
            frame = pd.DataFrame(
                {
                    "stage": stage.number,
                    "receivers": ", ".join(map(str, stage.receivers)) or "logits",
                    "sender": [str(sender) for sender in stage.sweep.sites],
                    "score": stage.scores.tolist(),
                    "ci_low": low.tolist(),
                    "ci_high": high.tolist(),
                    "effect": stage.sweep.effects.mean(dim=-1).tolist(),
                    "n": stage.sweep.values.shape[1],
                    "kept": [sender in stage.kept for sender in stage.sweep.sites],
                }
            )
            frames.append(frame.sort_values("score", key=abs, ascending=False, kind="stable"))
        return pd.concat(frames, ignore_index=True)

    def plot(self) -> go.Figure:
        """A heatmap of scores for each stage, side by side; grey where no path leads."""
        grids = {}
        for stage in self.stages:
            grid = torch.full((self.shape.n_layers, self.shape.n_heads), torch.nan)
            for sender, score in zip(stage.sweep.sites, stage.scores.tolist(), strict=True):
                # senders are heads
                grid[sender.layer, sender.head] = score  # type: ignore[attr-defined]
            grids[_shortened(stage.name)] = grid
        return head_grids(
            grids,
            title=f"Path patching of {self.provenance['model']}, stage by stage",
            colorbar="share of clean to corrupt",
            diverging=True,
        )

    def __repr__(self) -> str:
        told = "; ".join(
            f"{_shortened(stage.name)} from {', '.join(map(str, stage.kept)) or 'none'}"
            for stage in self.stages
        )
        return f"Stages({len(self.heads)} heads: {told})"

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return as_html(self, frame[frame["kept"]].drop(columns="kept"))


def stages(
    model: Model,
    prompts: PromptSet,
    *,
    share: float = 0.02,
    depth: int = 4,
    metric: str | Callable[..., Any] = "logit_diff",
    through_mlps: bool = True,
    progress: bool = True,
) -> Stages:
    """Path patching from the logits backward, in stages (Wang et al. 2023; Merullo et al. 2024).

    Stage 1 patches every head along its paths to the logits: its output comes from the corrupt run,
    all other heads give what they gave, and the logits see the difference. The `share` of all heads
    with the largest scores is kept. Each next stage does the same with the queries, then the keys,
    then the values of the heads that the last stage added as receivers, until nothing is added.

    A score is (patched - clean) / (corrupt - clean). A head is kept only if the 95% interval of its
    score excludes 0, so that a stage without senders adds none; the papers stop by eye. They also
    choose by hand which input of a head to follow; here queries, keys and values are all followed.

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=8, seed=0)
    >>> stages(model, prompts, depth=1, progress=False).stages[0].name
    'stage 1: logits'

    Args:
        model: In eval mode.
        prompts: Two or more pairs of clean and corrupt prompts.
        share: Of all heads of the model, kept from each set of receivers: at least one head.
        depth: Stages at most.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        through_mlps: Paths go through MLPs; False leaves the direct paths alone.
        progress: Show a bar.

    Raises:
        CircuitError: A share outside (0, 1], a depth below 1, or a single prompt.
        InterventionError, PromptError, MetricError: As `patch_paths`.
    """
    heads = all_heads(model)
    count = count_of(float(share), len(heads))
    if depth < 1:
        raise CircuitError(f"depth is {depth}; path patching needs at least one stage.")
    if len(prompts) < 2:
        raise CircuitError(
            "A single prompt has no interval to choose heads by; give two or more prompts."
        )

    def run(number: int, reads: str, receivers: tuple[Site, ...]) -> Stage | None:
        senders = [head for head in heads if not receivers or head.layer < receivers[-1].layer]
        if not senders:
            return None
        sweep = patch_paths(
            model,
            prompts,
            senders,
            receivers or None,
            metric=metric,
            through_mlps=through_mlps,
            progress=False,
        )
        return Stage(number, reads, receivers, sweep, _chosen(sweep, count))

    found: list[Stage] = []
    inside: set[Head] = set()
    added: list[Head] = []
    for number in track(range(1, depth + 1), "Stages", shown=progress):
        wanted: list[tuple[str, tuple[Site, ...]]] = [("logits", ())]
        if number > 1:
            wanted = [(reads, _read_by(model, reads, added)) for reads in READS]
        made = [stage for each in wanted if (stage := run(number, *each))]
        found += made
        added = sorted({head for stage in made for head in stage.kept} - inside)
        inside |= set(added)
        if not added:
            break
    about = provenance(
        model, prompts, method="path-patching in stages", metric=found[0].sweep.metric,
        share=share, depth=depth, through_mlps=through_mlps, sign="corrupt - clean",
    )  # fmt: skip
    return Stages(tuple(found), Shape.of(model), about)


def _read_by(model: Model, reads: str, heads: Sequence[Head]) -> tuple[Site, ...]:
    """The queries, keys or values of some heads; a shared key or value once."""
    size = model.geometry.n_heads // model.geometry.n_kv_heads
    if reads == "q":
        return tuple(Q(head.layer, head.head) for head in heads)
    kind = {"k": K, "v": V}[reads]
    return tuple(dict.fromkeys(kind(head.layer, head.head // size) for head in heads))


def _chosen(sweep: SweepResult, count: int) -> tuple[Head, ...]:
    """The senders with the largest mean effects whose interval excludes 0."""
    low, high = sweep.ci()
    best = top_n(importance(sweep.effects.mean(dim=-1)), count)
    rows = (best & (low * high > 0)).nonzero()[:, 0].tolist()
    return tuple(site for row in rows if isinstance(site := sweep.sites[row], Head))


def _shortened(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:37]}..."
