"""How a sweep is cut up: which rows of the result are computed together, on which prompts."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Int
from torch import Tensor

BLOCK = 2**14
"""Interventions that are looked at together when a sweep is cut up: what bounds its memory."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Some rows of a sweep's result on some prompts.

    Attributes:
        group: Number of the group of prompts; None for all prompts.
        sites: The rows; none for the metric of the runs that nothing is changed in.
        kinds: The parts of the group's clean run that its batches begin from.
    """

    group: int | None
    sites: Int[Tensor, " sites"]
    kinds: frozenset[str]


class Batches:
    """The batches of a sweep by number; each group begins with one that has no rows.

    A few numbers are held for each, since there may be a million.

    >>> cut = Batches()
    >>> cut.add(0, [[4, 2], [3]], kinds=["z"])
    >>> len(cut), [batch.sites.tolist() for batch in cut]
    (3, [[], [4, 2], [3]])
    """

    def __init__(self) -> None:
        self.groups: list[int | None] = []
        self.kinds: list[frozenset[str]] = []
        self.sites: list[Tensor] = []  # of each group, those of its batches one after another
        self.ends: list[Tensor] = []  # where each of its batches ends among them
        self.first: list[int] = []  # the number of its first batch
        self._count = 0

    def add(
        self, group: int | None, sites: Iterable[Sequence[int]], *, kinds: Collection[str] = ()
    ) -> None:
        """The batches of the next group, by their rows."""
        parts = [torch.tensor(each, dtype=torch.int32) for each in sites]
        sizes = accumulate(map(len, parts), initial=0)
        self.groups.append(group)
        self.kinds.append(frozenset(kinds))
        self.sites.append(torch.cat(parts) if parts else torch.empty(0, dtype=torch.int32))
        self.ends.append(torch.tensor(list(sizes)))
        self.first.append(self._count)
        self._count += 1 + len(parts)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> Batch:
        at = bisect_right(self.first, number) - 1
        ends, inside = self.ends[at], number - self.first[at]
        start = int(ends[inside - 1]) if inside else 0
        some = self.sites[at][start : int(ends[inside])].long()
        return Batch(self.groups[at], some, self.kinds[at])

    @property
    def hash(self) -> str:
        """16 hexadecimal digits that change with the rows of any batch."""
        digest = hashlib.sha256()
        for group, sites, ends in zip(self.groups, self.sites, self.ends, strict=True):
            digest.update(f"{group} ".encode() + sites.numpy().tobytes() + ends.numpy().tobytes())
        return digest.hexdigest()[:16]
