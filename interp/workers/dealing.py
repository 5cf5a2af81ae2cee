"""Which items are next? A few neighbours at a time, so that a batch takes about half a second."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from interp.workers.work import Item

Batch = list[Item]

AHEAD = 2
"""Batches that a worker has at once: one that it computes, and one that waits for it."""
BATCH_SECONDS = 0.5
"""What a batch takes, about: an age to send it, and not much to wait for at the end."""


class Dealer:
    """Deals items in batches that grow until one takes `BATCH_SECONDS`; never holds all of them.

    >>> dealer = Dealer((number, "item") for number in range(10))
    >>> [number for number, _ in dealer.deal()]
    [0]
    >>> dealer.took(1, seconds=0.1)
    >>> [number for number, _ in dealer.deal()]
    [1, 2]
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._returned: deque[Item] = deque()
        self._size = 1
        self._ended = False

    @property
    def has_returned(self) -> bool:
        """Whether the next item is one that was taken back."""
        return bool(self._returned)

    @property
    def is_done(self) -> bool:
        """Whether nothing is left; known once nothing was dealt."""
        return self._ended and not self._returned

    def deal(self) -> Batch:
        """The next few items; none when there are no more. What was taken back comes alone."""
        if self._returned:
            return [self._returned.popleft()]
        batch = list(islice(self._items, self._size))
        self._ended = not batch
        return batch

    def took(self, count: int, *, seconds: float) -> None:
        """Learn from a batch of so many items."""
        fits = int(count * BATCH_SECONDS / max(seconds, 1e-6))
        self._size = max(1, min(fits, 2 * self._size))

    def take_back(self, batch: Batch) -> None:
        """Items of a worker that was lost are dealt again."""
        self._returned.extend(batch)
