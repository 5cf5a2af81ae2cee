"""Interventions as they act on one group of prompts: where each enters the model, and its hooks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from interp.engine.anatomy import ORDER, Anatomy

EARLY = ORDER[: ORDER.index("z")]
"""Parts before the output of the heads: a change there needs its block's attention again."""
LATE = ORDER[ORDER.index("neurons") :]
"""Parts of the MLP and behind it: a change there leaves its block's attention as it was."""

Rows = Float[Tensor, "prompts pos features"]


@dataclass(frozen=True, eq=False)
class Change:
    """One edit of one part.

    Attributes:
        layer: The block.
        kind: The part.
        span: Which of its features.
        columns: At which columns of each prompt; None for all.
        action: "set", "scale", "add", or "attend" (put a pattern in the place of the model's).
        value: Gives a number, a vector, or values for `[prompts, pos, features]`; a pattern
            `[prompts, queries, keys]` for "attend".
        group: Of "attend": whose values the head reads.
    """

    layer: int
    kind: str
    span: slice
    columns: Bool[Tensor, "prompts pos"] | None
    action: str
    value: Callable[[], Tensor | float]
    group: int = 0

    def apply(self, rows: Rows, start: int, values: Tensor | None = None) -> None:
        """Make the change in place, in rows that begin at column `start`.

        `values` are those of every column, `[prompts, kv_head, pos, d_head]`, for "attend".
        """
        rows[..., self.span] = self.after(rows[..., self.span], start, values)

    def after(self, old: Rows, start: int = 0, values: Tensor | None = None) -> Tensor | float:
        """What stands in the place of the old features."""
        value, stop = self.value(), start + old.shape[1]
        if isinstance(value, Tensor):
            value = (value[:, start:stop] if value.ndim == 3 else value).to(old.device)
        if self.action == "attend":
            assert isinstance(value, Tensor)
            assert values is not None
            new: Tensor | float = value @ values[:, self.group]
        elif self.action == "set":
            new = value
        else:
            new = old * value if self.action == "scale" else old + value
        if self.columns is None:
            return new
        here = self.columns[:, start:stop, None].to(old.device)
        return torch.where(here, _like(new, old), old)


def _like(new: Tensor | float, old: Tensor) -> Tensor:
    return new if isinstance(new, Tensor) else old.new_tensor(new)


@dataclass(eq=False)
class Job:
    """One intervention on one group: its changes by layer and part, and where they begin.

    `start` is the first column that any of them touches, `prompts` how many there are.
    """

    index: int
    changes: dict[tuple[int, str], list[Change]]
    start: int
    prompts: int
    layer: int = field(init=False)
    first: str = field(init=False)

    def __post_init__(self) -> None:
        self.layer, step = min((layer, ORDER.index(kind)) for layer, kind in self.changes)
        self.first = ORDER[step]

    def at(self, layer: int, kind: str) -> list[Change]:
        """Its changes of one part."""
        return self.changes.get((layer, kind), [])

    def prepare(self) -> None:
        """Run what its values come from: within a hook of this job that would run into the hook."""
        for changes in self.changes.values():
            for change in changes:
                change.value()


def changed(
    jobs: Sequence[Job],
    layer: int,
    kind: str,
    whole: Tensor,
    start: int,
    values: Tensor | None = None,
) -> Tensor:
    """A part of all jobs side by side, `[jobs * prompts, pos, features]`, with their changes made.

    The tensor that comes in is left as it is; it is returned where no job changes this part.
    `values` are those of every column, `[jobs * prompts, kv_head, pos, d_head]`.
    """
    if not any((layer, kind) in job.changes for job in jobs):
        return whole
    edited = whole.clone(memory_format=torch.contiguous_format)
    by_job = edited.view(len(jobs), -1, *edited.shape[-2:])
    seen = None if values is None else values.unflatten(0, (len(jobs), -1))
    for number, job in enumerate(jobs):
        for change in job.at(layer, kind):
            change.apply(by_job[number], start, None if seen is None else seen[number])
    return edited


@contextmanager
def hooked(
    body: Anatomy,
    layer: int,
    jobs: Sequence[Job],
    start: int,
    stream: Tensor,
    values: Values | None = None,
    kinds: Collection[str] = ORDER,
) -> Iterator[None]:
    """Hooks that make the jobs' changes while a block runs on `stream`, from column `start`.

    What enters and what leaves the block is left to the caller. `values` collects the values of
    all columns where patterns are replaced. Only parts named in `kinds` are changed.
    """
    parts = body.blocks[layer].parts
    shape = stream.shape[:2]
    here = {kind for job in jobs for at, kind in job.changes if at == layer} & {*kinds}

    with ExitStack() as hooks:
        for kind in ("q", "k", "v", "neurons", "mlp_out"):
            if kind in here:
                edit = partial(changed, jobs, layer, kind, start=start)
                hooks.enter_context(parts[kind].hook(partial(_in_rows, shape, edit)))
        if values is not None and not values.complete:
            hooks.enter_context(parts["v"].hook(values.keep))
        if "z" in here or values is not None:
            attend = partial(_attended, jobs, layer, start, values)
            hooks.enter_context(parts["z"].hook(partial(_in_rows, shape, attend)))
        if here & {"attn_out", "resid_mid"}:
            add = partial(_added, jobs, layer, start, stream if "resid_mid" in here else None)
            hooks.enter_context(parts["attn_out"].hook(partial(_in_rows, shape, add)))
        yield


def _in_rows(shape: torch.Size, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    # OPT's MLP sees all tokens in one row
    return function(x.reshape(*shape, -1)).reshape(x.shape)


def _attended(
    jobs: Sequence[Job], layer: int, start: int, values: Values | None, z: Tensor
) -> Tensor:
    """The outputs of all heads, with what is changed in the patterns and in them."""
    if values is not None:
        z = values.attend(z, start)
        z = changed(jobs, layer, "pattern", z, start, values.all)
    return changed(jobs, layer, "z", z, start)


def _added(
    jobs: Sequence[Job], layer: int, start: int, stream: Tensor | None, attended: Tensor
) -> Tensor:
    """What attention adds; with the `stream` that it is added to, what is changed in the sum."""
    attended = changed(jobs, layer, "attn_out", attended, start)
    if stream is None:
        return attended
    return changed(jobs, layer, "resid_mid", stream + attended, start) - stream


@dataclass(eq=False)
class Values:
    """The values of every column in a block that is running, for patterns that are put in.

    Attributes:
        clean: Values of the clean run, which hold before `start`; `[prompts, pos, features]`.
        groups: Number of key/value heads.
        start: The column at which the block that gives the others begins.
        frozen: Patterns of all heads, `[prompts, head, queries, keys]`, where all are kept.
    """

    clean: Tensor
    groups: int
    start: int
    frozen: Tensor | None = None
    all: Tensor | None = None

    @property
    def complete(self) -> bool:
        """Whether the values are known."""
        return self.all is not None

    def keep(self, new: Tensor) -> None:
        """Note the new values, `[rows, pos, features]`, behind the clean ones."""
        rows = len(new) // len(self.clean)
        before = self.clean[:, : self.start].repeat(rows, 1, 1)
        joined = torch.cat([before, new], dim=1)
        self.all = joined.unflatten(-1, (self.groups, -1)).transpose(1, 2)

    def attend(self, z: Tensor, start: int) -> Tensor:
        """The outputs of all heads, from the frozen patterns if there are any."""
        if self.frozen is None:
            return z
        assert self.all is not None
        heads, stop = self.frozen.shape[1], start + z.shape[1]
        rows = len(z) // len(self.frozen)
        weights = self.frozen[:, :, start:stop].repeat(rows, 1, 1, 1)
        seen = self.all.repeat_interleave(heads // self.groups, dim=1)
        return (weights @ seen).transpose(1, 2).reshape(z.shape)
