"""How sweeps are cut up: by number every batch comes back, and blocks change no value."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.engine import Mean, everywhere, run
from interp.engine.batches import Batches
from interp.errors import RunError
from interp.sites import heads, resid
from interp.workers import Here
from tests.activations.samples import model, prompts

GROUPS = st.lists(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=5), max_size=6))


def batches_of(groups: list[list[list[int]]]) -> Batches:
    made = Batches()
    for number, batches in enumerate(groups):
        made.add(number, batches, kinds=[f"kind {number}"])
    return made


@given(GROUPS)
def test_every_batch_comes_back_by_its_number(groups: list[list[list[int]]]) -> None:
    made = batches_of(groups)
    expected = [(number, rows) for number, batches in enumerate(groups) for rows in [[], *batches]]
    assert [(batch.group, batch.sites.tolist()) for batch in made] == expected
    assert len(made) == len(expected)
    assert all(batch.kinds == {f"kind {batch.group}"} for batch in made)


@given(GROUPS, GROUPS)
def test_the_hash_is_that_of_the_cut(
    one: list[list[list[int]]], other: list[list[list[int]]]
) -> None:
    assert (batches_of(one).hash == batches_of(other).hash) == (one == other)


def test_what_is_planned_in_small_blocks_has_the_same_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny, some = model("llama"), prompts()
    made = everywhere([*heads(tiny), *resid(tiny)], Mean())
    whole = run(tiny, some, made, progress=False)
    monkeypatch.setattr("interp.engine.sweep_work.BLOCK", 3)
    torch.testing.assert_close(run(tiny, some, made, progress=False).values, whole.values)


class Foreign(Here):
    """Computes chunks of another shape."""

    def compute(self, *args):  # type: ignore[no-untyped-def]
        for number, chunk in super().compute(*args):
            yield number, {name: tensor[..., :0] for name, tensor in chunk.items()}


def test_a_chunk_of_another_shape_is_refused() -> None:
    tiny = model("gpt2")
    with pytest.raises(RunError, match="holds something else than what is computed here"):
        run(tiny, prompts(), everywhere(heads(tiny), Mean()), engine=Foreign(), progress=False)
