"""Clusters for the tests: one of our own, and one of two nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from interp.models import Model
from interp.runs import Chunk
from interp.workers import Here, Item, Ray, Work
from tests.families import tiny, tiny_tokenizer


@pytest.fixture(scope="session")
def model() -> Model:
    """In memory: a worker cannot find it by name."""
    return Model(tiny("gpt2"), tiny_tokenizer(), id="tiny")


@pytest.fixture(scope="session")
def cluster() -> Iterator[Ray]:
    """A cluster of our own with two workers."""
    with Ray(workers=2, cpus=0.5) as engine:
        yield engine


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As many as the workers have, for equal bits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def here(model: Model, work: Work, items: list[Item]) -> dict[int, Chunk]:
    """What this process computes."""
    return dict(Here().compute(model, work, items))


def same(found: dict[int, Chunk], other: dict[int, Chunk]) -> bool:
    """Whether these are the same chunks, bit for bit."""
    return found.keys() == other.keys() and all(
        found[number].keys() == chunk.keys()
        and all(torch.equal(found[number][name], chunk[name]) for name in chunk)
        for number, chunk in other.items()
    )
