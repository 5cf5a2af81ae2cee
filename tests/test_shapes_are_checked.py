"""Canary: under pytest every `interp` function refuses a tensor of the wrong shape or dtype."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from interp import stats
from tests.conftest import CHECKED, ROOT


@pytest.mark.parametrize("package", sorted(each.stem for each in ROOT.glob("interp/*")))
def test_every_package_is_checked_but_those_without_tensors(package: str) -> None:
    files = [*ROOT.glob(f"interp/{package}.py"), *ROOT.glob(f"interp/{package}/**/*.py")]
    has_tensors = any("Tensor" in file.read_text(encoding="utf-8") for file in files)
    assert not has_tensors or f"interp.{package}" in CHECKED


def test_the_right_shape_passes() -> None:
    low, high = stats.bootstrap_ci(torch.ones(3, 4), resamples=10)
    assert low.shape == high.shape == (3,)


def test_a_scalar_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="values"):
        stats.bootstrap_ci(torch.tensor(1.0), resamples=10)


def test_a_wrong_dtype_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="values"):
        stats.bootstrap_ci(torch.ones(3, 4, dtype=torch.int64), resamples=10)
