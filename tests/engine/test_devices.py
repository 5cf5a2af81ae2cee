from __future__ import annotations

import pytest
import torch

from interp.engine import Mean, Patch, Zero, ablate, everywhere, patch, run
from interp.errors import InterventionError, ModelError, SiteError
from interp.sites import heads, resid
from interp.workers import Here
from tests.activations.samples import model, prompts


@pytest.mark.parametrize("count", [1, 2, 3, 20])
def test_shards_give_the_same_values_in_the_same_order(count: int) -> None:
    tiny, some = model("gpt2"), prompts()
    whole = ablate(tiny, some, progress=False)
    shared = ablate(tiny, some, devices=["cpu"] * count, progress=False)
    assert torch.equal(shared.values, whole.values)
    assert shared.sites == whole.sites
    assert shared.provenance["device"] == ", ".join(["cpu"] * count)


def test_shards_of_joint_operations_and_other_precisions() -> None:
    tiny, some = model("llama"), prompts()
    made = everywhere(heads(tiny), Zero()) + everywhere(resid(tiny), Mean())
    whole = run(tiny, some, made, dtype="float64", progress=False)
    shared = run(tiny, some, made, dtype="float64", devices=["cpu", "cpu"], progress=False)
    torch.testing.assert_close(shared.values, whole.values)


def test_errors_in_a_shard_reach_the_caller() -> None:
    with pytest.raises(SiteError, match="No prompt has the role 'S3'"):
        ablate(model("gpt2"), prompts(), positions="S3", devices=["cpu", "cpu"], progress=False)
    with pytest.raises(ModelError, match="devices is an empty list"):
        ablate(model("gpt2"), prompts(), devices=[], progress=False)
    with pytest.raises(InterventionError, match="give one of the two"):
        ablate(model("gpt2"), prompts(), devices=["cpu"], engine=Here(), progress=False)


def test_the_source_of_a_patch_is_that_of_its_own_device() -> None:
    tiny, some = model("gpt2"), prompts()
    other = prompts(rows=[[row + 30 for row in rows] for rows in _rows()])
    whole = patch(tiny, some, source=other, progress=False)
    shared = patch(tiny, some, source=other, devices=["cpu", "cpu"], progress=False)
    torch.testing.assert_close(shared.values, whole.values, rtol=1e-5, atol=1e-5)
    assert Patch(other) == Patch(other)


def _rows() -> list[list[int]]:
    from tests.activations.samples import ROWS

    return ROWS
