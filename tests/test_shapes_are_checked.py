"""Canary: under pytest every `interp` function refuses a tensor of the wrong shape or dtype."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

from interp import stats


def test_the_right_shape_passes() -> None:
    low, high = stats.bootstrap_ci(torch.ones(3, 4), resamples=10)
    assert low.shape == high.shape == (3,)


def test_a_scalar_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="values"):
        stats.bootstrap_ci(torch.tensor(1.0), resamples=10)


def test_a_wrong_dtype_is_refused() -> None:
    with pytest.raises(TypeCheckError, match="values"):
        stats.bootstrap_ci(torch.ones(3, 4, dtype=torch.int64), resamples=10)
