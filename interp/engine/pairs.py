"""Sweeps that carry what one run of a pair computed into the other: their runs and values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.engine.groups import Group, groups
from interp.engine.memory import largest_group
from interp.engine.metrics import Metric
from interp.engine.metrics import resolve as resolve_metric
from interp.engine.replay import CleanRun, Replay, replay_of
from interp.engine.result import SweepResult
from interp.engine.score import Scorer
from interp.engine.sweep import DIRECTIONS, KEPT_ENDS, require_ready, swapped
from interp.errors import InterpError, InterventionError, PromptError, did_you_mean
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.sites import Site

WRITTEN = {"z", "mlp_out"}
"""What is kept of the run that values are taken from: the outputs of heads and MLPs."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Both runs on the prompts of one group.

    Attributes:
        clean: The run that is changed.
        corrupt: The run that values are taken from: its `WRITTEN` parts, and of its stream what
            enters the first block and what leaves the last.
        start: The first column in which they can differ; 0 for models without a cache.
    """

    clean: CleanRun
    corrupt: CleanRun
    start: int

    @classmethod
    def of(cls, replay: Replay, group: Group, kinds: Iterable[str]) -> Pair:
        """Run both, keeping the named parts of the clean one where the model has them."""
        assert group.corrupt is not None
        clean = replay.clean(group.tokens, [kind for kind in kinds if replay.has(kind)])
        corrupt = replay.clean(group.corrupt, [kind for kind in WRITTEN if replay.has(kind)])
        corrupt.keys.clear()
        del corrupt.stream[1:-1]
        differs = (group.tokens != group.corrupt).any(dim=0)
        return cls(clean, corrupt, int(differs.int().argmax()) if replay.cached else 0)

    @property
    def end(self) -> Float[Tensor, "prompts d_model"]:
        """What leaves the last block in the last column when nothing is changed."""
        return self.clean.stream[-1][:, -1]

    @property
    def other_end(self) -> Float[Tensor, "prompts d_model"]:
        """The same of the run that values are taken from."""
        return self.corrupt.stream[-1][:, -1]


Ends = Iterator[tuple[list[int], Float[Tensor, "rows prompts d_model"]]]
"""Some rows of the result, and what leaves the last block in the last column for each of them."""
Rides = Callable[[Pair, range], Ends]
"""Gives the ends of a range of rows on one group, in any order."""


@torch.no_grad()
def sweep_pairs(
    model: Model,
    prompts: PromptSet,
    sites: Sequence[Site],
    rides: Rides,
    kinds: Iterable[str],
    *,
    metric: str | Callable[..., Any],
    method: str,
    direction: str,
    progress: bool,
    **how: Any,
) -> SweepResult:
    """The metric on each prompt for each site, from what `rides` makes of pairs of runs.

    `kinds` are the parts of the clean run that it wants, `how` is for the provenance. What was
    finished before an error or an interrupt is its attribute `partial`.
    """
    measure = resolve_metric(metric)
    base = swapped(prompts) if direction == "denoise" else prompts
    table = _Table(replay_of(model), base, measure, len(sites), rides, list(kinds))
    source = provenance(
        model,
        prompts,
        method=method,
        metric=measure.name,
        direction=direction,
        effect="total",
        engine="replay",
        **how,
    )

    def result() -> SweepResult:
        runs = table.start.cpu(), table.other.cpu()
        clean, corrupt = runs[::-1] if direction == "denoise" else runs
        values = table.found.cpu()
        return SweepResult(tuple(sites), values, clean, measure.name, method, source, corrupt)

    try:
        table.compute(progress=progress)
    except (InterpError, KeyboardInterrupt) as error:
        # an attribute that these errors have only here
        error.partial = result()  # type: ignore[union-attr]
        raise
    return result()


def require_pairs(model: Model, prompts: PromptSet, direction: str) -> Replay:
    """The replay of a model whose blocks can be taken apart.

    Raises InterventionError if they cannot be, for a model that is not ready and for an unknown
    direction; PromptError for prompts without counterfactuals, or that do not fit the model.
    """
    if direction not in DIRECTIONS:
        raise InterventionError(
            f"direction is {direction!r}: {did_you_mean(direction, DIRECTIONS)}"
        )
    require_ready(model)
    require_fit(model, prompts)
    if prompts.corrupt is None:
        raise PromptError(
            "Edges and paths are patched from the counterfactual of each prompt and these have "
            "none; make them with corrupt=."
        )
    replay = replay_of(model)
    if not (replay.works and replay.splits):
        raise InterventionError(
            f"Edges and paths need blocks that can be entered behind their attention and whose "
            f"output is a sum, and those of {model.id} are not; patch its heads and MLPs whole, "
            "with interp.patch."
        )
    return replay


class _Table:
    """The values as they come in; NaN where they are not known yet."""

    def __init__(
        self,
        replay: Replay,
        prompts: PromptSet,
        measure: Metric,
        count: int,
        rides: Rides,
        kinds: list[str],
    ) -> None:
        self.replay, self.prompts, self.measure = replay, prompts, measure
        self.rides, self.kinds = rides, kinds
        self.groups = groups(prompts, largest_group(replay, prompts))
        dtype = torch.promote_types(replay.model.dtype, torch.float32)
        shape, device = (count, len(prompts)), replay.model.device
        self.found = torch.full(shape, torch.nan, dtype=dtype, device=device)
        self.start = torch.full(shape[1:], torch.nan, dtype=dtype, device=device)
        self.other = self.start.clone()

    def compute(self, *, progress: bool) -> None:
        """Fill in all values. Raises MetricError if one is NaN."""
        steps = len(self.found) * len(self.groups)
        ticks = track(range(steps), "Patching", shown=progress)
        if self.measure.is_ours or len(self.groups) == 1:
            for group in self.groups:
                self._one_group(group, ticks)
        else:
            self._all_groups(ticks)
        _advance(ticks, steps)

    def _one_group(self, group: Group, ticks: Iterator[int]) -> None:
        """Score each ride of a group as it ends."""
        pair, rows = self._opened(group)
        scorer = Scorer(self.replay, self.measure, self.prompts[group.rows], pair.end)
        self.start[rows] = self.measure.checked(scorer(pair.end[None])[0])
        self.other[rows] = scorer(pair.other_end[None])[0]
        for numbers, ends in self.rides(pair, range(len(self.found))):
            self.found[self._index(numbers), rows] = scorer(ends)
            _advance(ticks, len(numbers))
        self.measure.checked(self.found[:, rows])

    def _all_groups(self, ticks: Iterator[int]) -> None:
        """Score with a metric that wants all prompts at once, some rows after others."""
        model = self.replay.model
        width = len(self.prompts) * model.geometry.d_model
        size = max(1, KEPT_ENDS // width)
        shape = (len(self.prompts), model.geometry.d_model)
        end = torch.empty(shape, dtype=model.dtype, device=model.device)
        other = end.clone()
        for first in range(0, len(self.found), size):
            block = range(first, min(first + size, len(self.found)))
            ends = end.repeat(len(block), 1, 1)
            for group in self.groups:
                pair, rows = self._opened(group)
                end[rows], other[rows] = pair.end, pair.other_end
                for numbers, some in self.rides(pair, block):
                    ends[self._index(numbers) - block.start, rows] = some
                    _advance(ticks, len(numbers))
            scorer = Scorer(self.replay, self.measure, self.prompts, end)
            self.start[:], self.other[:] = scorer(torch.stack([end, other]))
            self.found[block.start : block.stop] = scorer(ends)

    def _opened(self, group: Group) -> tuple[Pair, Tensor]:
        return Pair.of(self.replay, group, self.kinds), group.rows.to(self.found.device)

    def _index(self, numbers: list[int]) -> Tensor:
        return torch.tensor(numbers, device=self.found.device)[:, None]


def _advance(ticks: Iterator[int], count: int) -> None:
    """Count so many rows as done."""
    for _ in zip(range(count), ticks, strict=False):
        pass
