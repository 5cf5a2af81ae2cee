"""ACDC: remove edge after edge, from the logits backward, while the model does not mind."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.circuits.ablations import ablation_of
from interp.circuits.circuit import Circuit
from interp.circuits.select import owners_of
from interp.circuits.shape import Shape
from interp.engine.metrics import kl
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.subgraph import run_subgraphs
from interp.errors import CircuitError, FileFormatError, one_line
from interp.json_file import read_json_file, write_json
from interp.json_values import numbers, required, table, whole
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.sites import Logits, Site

FORMAT: dict[str, Any] = {"format": "interp.acdc", "version": 1}
ENTRIES = ("run", "done", "value", "edges")
WAY_OUT = (
    "it is not the state of a pruning: give another file as resume, or remove it to begin anew"
)
AT_ONCE = 16
"""Removals that are tried side by side at most."""

Measure = Callable[[Bool[Tensor, "circuits edges"]], list[float]]


def acdc(
    model: Model,
    prompts: PromptSet,
    *,
    tau: float,
    metric: str | Callable[..., Any] = "kl",
    ablation: str = "counterfactual",
    over: str = "template",
    seed: int = 0,
    resume: str | Path | None = None,
    progress: bool = True,
) -> Circuit:
    """The edges that are left when every edge that can go is gone (Conmy et al. 2023).

    Readers are visited from the logits backward, and of each the edges from its latest source to
    its first. An edge is removed, for good, if that moves the metric by less than `tau`; with "kl",
    if the divergence from the whole model rises by less. The score of an edge is what its removal
    changed, or would have changed, in the graph that was left at that moment.

    Several removals are tried in one batch, each on top of those before it, as if all of these were
    made. At the first one that is not, the rest of the batch is thrown away: so the decisions are
    those of one removal after another. Edges into a reader that nothing is left to read from are
    removed without a run, since they change nothing.

    Args:
        model: In eval mode.
        prompts: What it is run on.
        tau: The smallest change that matters, in units of the metric.
        metric: A name in METRICS, or a function from logits `[prompts, vocab]` at END.
        ablation: What an edge carries when it is removed, a name in `ablations.ABLATIONS`.
        over: Tokens that the ablation "mean" averages.
        seed: Of the ablation "resample".
        resume: A file that the state is written to after each reader, and read from if it exists.
        progress: Show a bar.

    Raises:
        CircuitError: A tau that is not positive, or a file of another run.
        FileFormatError: A file that is no such state, or not a whole one.
        InterventionError, PromptError, MetricError: As `run_subgraphs`.
    """
    if not (0 < tau < math.inf):
        raise CircuitError(f"tau is {tau}; give a positive number, such as 0.01.")
    shape, measured = Shape.of(model), resolve_metric(metric)
    how = {"metric": measured.name, "tau": tau, "ablation": ablation, "over": over, "seed": seed}
    about = provenance(model, prompts, method="acdc", sign="removed - kept", **how)
    run = {name: about[name] for name in ("weights_hash", "prompts_hash", "dtype", *how)}
    operation = ablation_of(model, prompts, ablation, over=over, seed=seed, progress=progress)

    def measure(circuits: Bool[Tensor, "circuits edges"]) -> list[float]:
        found = run_subgraphs(model, prompts, circuits, operation, metric=metric, progress=False)
        return found.values.double().mean(dim=-1).tolist()

    state = _State.read(Path(resume), run, shape) if resume and Path(resume).exists() else None
    if state is None:
        whole = torch.ones(len(shape.edges), dtype=torch.bool)
        state = _State(
            0, whole, torch.full(whole.shape, math.nan).double(), measure(whole[None])[0]
        )
    pruner = _Pruner(shape, measure, tau, rises=measured.function is kl)
    for reader in track(pruner.readers[state.done :], "ACDC", shown=progress):
        pruner.visit(reader, state)
        if resume:
            state.write(Path(resume), run, shape)
    return Circuit.from_edges(shape, [], scores=state.changes, provenance=about).keeping(state.kept)


@dataclass
class _State:
    """How far the pruning is; it is changed as it goes on.

    Attributes:
        done: Readers that have been visited.
        kept: What is left of the graph.
        changes: What the removal of each edge changed; NaN where it has not been tried.
        value: The metric of what is left.
    """

    done: int
    kept: Bool[Tensor, " edges"]
    changes: Float[Tensor, " edges"]
    value: float

    def write(self, path: Path, run: dict[str, Any], shape: Shape) -> None:
        """Write it as JSON; a file that is already there is replaced in one step."""
        tried = (~self.changes.isnan()).nonzero()[:, 0].tolist()
        edges = {
            str(shape.edges[i]): {"kept": bool(self.kept[i]), "change": float(self.changes[i])}
            for i in tried
        }
        data = {"run": run, "done": self.done, "value": self.value, "edges": edges}
        write_json(path, data, **FORMAT)

    @classmethod
    def read(cls, path: Path, run: dict[str, Any], shape: Shape) -> _State:
        """Read what `write` wrote.

        Raises FileFormatError for another file, CircuitError for that of another run.
        """
        data = read_json_file(path, **FORMAT, entries=ENTRIES, way_out=WAY_OUT)
        try:
            _require_same(path, required(data["run"], dict, "run"), run)
            index = {str(edge): i for i, edge in enumerate(shape.edges)}
            kept = torch.ones(len(index), dtype=torch.bool)
            changes = torch.full((len(index),), math.nan, dtype=torch.float64)
            for name, edge in table(data["edges"], dict, "edges").items():
                kept[index[name]] = required(edge["kept"], bool, name)
                changes[index[name]] = _finite(edge["change"], name)
            done = whole(data["done"], "done", below=len(index) + 1)
            return cls(done, kept, changes, _finite(data["value"], "value"))
        except (ValueError, KeyError, TypeError) as error:
            raise FileFormatError(
                f"{path} has a missing or broken part ({one_line(error)}); {WAY_OUT}."
            ) from error


def _finite(value: Any, what: str) -> float:
    number = numbers(value, what, dims=0, dtype=torch.float64).item()
    if math.isnan(number):
        raise ValueError(f"{what:.80} is null")
    return number


def _require_same(path: Path, before: dict[str, Any], run: dict[str, Any]) -> None:
    for name, value in run.items():
        if before.get(name) != value:
            raise CircuitError(
                f"{path} holds a pruning with {name}={before.get(name)!r:.80} and not {value!r}; "
                "resume it with what it was begun with, or give another file."
            )


class _Pruner:
    """Decides on the edges of one reader after another.

    Attributes:
        readers: All readers, the last of the model first.
    """

    def __init__(self, shape: Shape, measure: Measure, tau: float, *, rises: bool) -> None:
        self.shape, self.measure, self.tau, self.rises = shape, measure, tau, rises
        self.owners, self.at_once = owners_of(shape), AT_ONCE
        self.into: dict[Site, list[int]] = {}
        self.out_of: dict[Site, list[int]] = {}
        for index, edge in enumerate(shape.edges):
            self.into.setdefault(edge.dst, []).insert(0, index)
            self.out_of.setdefault(edge.src, []).append(index)
        self.readers = list(self.into)[::-1]

    def visit(self, reader: Site, state: _State) -> None:
        """Decide on all edges into a reader, from its latest source to its first."""
        edges = self.into[reader]
        if not self._is_read(reader, state):
            state.kept[edges], state.changes[edges] = False, 0.0
            edges = []
        while edges:
            edges = edges[self._try(edges[: self.at_once], state) :]
        state.done += 1

    def _is_read(self, reader: Site, state: _State) -> bool:
        owners = self.owners[reader]
        return Logits() in owners or any(
            bool(state.kept[self.out_of[owner]].any()) for owner in owners
        )

    def _try(self, edges: Sequence[int], state: _State) -> int:
        """Remove these edges one by one, up to the first that must stay; how many are decided."""
        circuits = state.kept.repeat(len(edges), 1)
        for row, edge in enumerate(edges):
            circuits[row:, edge] = False
        for row, value in enumerate(self.measure(circuits)):
            change = value - state.value
            state.changes[edges[row]] = change
            if (change if self.rises else abs(change)) >= self.tau:
                self.at_once = max(1, self.at_once // 2)
                return row + 1
            state.kept[edges[row]], state.value = False, value
        self.at_once = min(AT_ONCE, 2 * self.at_once)
        return len(edges)
