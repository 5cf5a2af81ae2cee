"""The values of a sweep while it runs: from batches that come in any order to a whole result."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from interp.engine.batches import Batches
from interp.engine.groups import Group
from interp.engine.metrics import Metric
from interp.models import Model
from interp.progress import track
from interp.prompts import PromptSet
from interp.runs import Chunk, Run
from interp.workers.opened import require_shapes


class Table:
    """What is known of a sweep.

    Attributes:
        found: The metric of each row on each prompt, NaN where it has not been run.
        start: The metric of the run that is changed.
        other: The metric of its counterfactual, if there is one.
    """

    def __init__(self, model: Model, prompts: PromptSet, rows: int) -> None:
        dtype = torch.promote_types(model.dtype, torch.float32)
        shape = (rows, len(prompts))
        self.found = torch.full(shape, torch.nan, dtype=dtype, device=model.device)
        self.start = torch.full(shape[1:], torch.nan, dtype=dtype, device=model.device)
        self.other = None if prompts.corrupt is None else self.start.clone()

    def fill(
        self,
        batches: Batches,
        groups: Sequence[Group],
        chunks: Iterable[tuple[int, Chunk]],
        measure: Metric,
        *,
        asked: Tensor,
        run: Run | None = None,
        progress: bool,
    ) -> None:
        """Put in a chunk for every batch, and then what follows from them for the rows `asked`.

        Raises MetricError for NaN, RunError for a chunk of `run` that no sweep has written.
        """
        steps = range(len(batches))
        # the bar has no name here, so that it goes away before an error is told
        for _, (number, chunk) in zip(
            track(steps, "Sweeping", shown=progress), chunks, strict=True
        ):
            batch = batches[number]
            rows = self._rows(batch.group, groups)
            require_shapes(number, chunk, self._shapes(len(batch.sites), len(rows)), run)
            if len(batch.sites):
                sites = batch.sites.to(self.found.device)
                self.found[sites[:, None], rows] = chunk["values"].to(self.found)
                measure.checked(chunk["values"])
            else:
                self.start[rows] = measure.checked(chunk["start"]).to(self.start)
                if self.other is not None:
                    self.other[rows] = measure.checked(chunk["other"]).to(self.start)
        for group, done in zip(batches.groups, batches.sites, strict=True):
            rows = self._rows(group, groups)
            void = asked[~torch.isin(asked, done)].to(self.found.device)
            self.found[void[:, None], rows] = self.start[rows]  # they change nothing there

    def _shapes(self, sites: int, prompts: int) -> dict[str, tuple[int, ...]]:
        """What the chunk of a batch holds."""
        if sites:
            return {"values": (sites, prompts)}
        names = ["start"] if self.other is None else ["start", "other"]
        return dict.fromkeys(names, (prompts,))

    def _rows(self, group: int | None, groups: Sequence[Group]) -> Tensor:
        rows = torch.arange(len(self.start)) if group is None else groups[group].rows
        return rows.to(self.found.device)
