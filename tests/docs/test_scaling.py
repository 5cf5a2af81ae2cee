"""docs/scaling.md is what docs/scaling.py makes, and what it counts is what is done."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from types import ModuleType
from typing import Any

import pytest

import interp
from interp.engine.plan import Costs
from interp.engine.precision import in_dtype
from interp.engine.replay import replay_of
from interp.heads.needles.last_row import greedy, read
from tests.docs.pages import ROOT
from tests.engine.operations import Counted

PUBLISHED = {"1B": 1.24, "8B": 8.03, "70B": 70.6, "405B": 405.9}
"""Billions of parameters."""


@pytest.fixture(scope="module")
def scaling() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        yield import_module("scaling")
    for name in ("scaling", "counted"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def rates(scaling: ModuleType) -> dict[str, Any]:
    return scaling.read(scaling.CPU_RATES).found


@pytest.mark.slow
def test_the_page_is_what_the_script_makes() -> None:
    code = "import sys, scaling; sys.stdout.write(scaling.page(scaling.read(scaling.CPU_RATES)))"
    # a process of its own, since it makes more jobs than can be checked one by one
    made = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "docs",
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        check=True,
    )
    kept = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")
    assert made.stdout == kept, "run python docs/scaling.py"


def test_the_shapes_have_as_many_parameters_as_is_published(scaling: ModuleType) -> None:
    for name, billions in PUBLISHED.items():
        assert scaling.weights(name) / 2e9 == pytest.approx(billions, rel=5e-3)


def test_models_lie_on_as_many_gpus_as_their_weights_need(scaling: ModuleType) -> None:
    held = {name: scaling.gpus_of_a_copy(name, scaling.H200) for name in scaling.SHAPES}
    assert held == {"1B": 1, "8B": 1, "70B": 2, "405B": 6}
    assert scaling.gpus_of_a_copy("405B", scaling.H100) is None
    assert [scaling.copies("8B", gpus) for gpus in (1, 8, 64)] == [1, 8, 64]
    assert [scaling.copies("70B", gpus) for gpus in (1, 8, 64)] == [0, 4, 32]
    assert [scaling.copies("405B", gpus) for gpus in (1, 8, 64)] == [0, 1, 8]


def test_the_operations_of_reading_and_writing_are_those_that_torch_counts(
    scaling: ModuleType,
) -> None:
    model = in_dtype(interp.load("polymath-llama", check=False), "float64")
    tokens = interp.tasks.get("retrieval").sample(model, n=1, seed=0).clean[0]
    replay, steps = replay_of(model), 4
    read(model, tokens[:2])  # what it allows is tried before
    with Counted() as counted:
        text = read(model, tokens[:-1])
        list(greedy(text, int(tokens[-1]), steps=steps))
    foretold = import_module("counted").reading(
        Costs.of(replay), replay.n_layers, len(tokens), steps
    )
    assert foretold == pytest.approx(counted.flops, rel=0.05)


def test_rates_of_a_gpu_take_the_place_of_published_ones(
    scaling: ModuleType, rates: dict[str, Any]
) -> None:
    measured = {**rates, "device": "some-gpu", "dtype": "bfloat16", "flops_a_second": 7e14}
    source = "\n".join(scaling._source(scaling.Rates(measured)))
    assert "Rates are measured on" in source
    assert "do 700 TFLOP/s there" in source
    assert "none was measured" not in source
    work, half = (
        scaling.Work(1, 7e14),
        {**measured, "widths": {"64": {"head sweep": {"share": 0.5}, "writing": {"share": 0.1}}}},
    )
    assert scaling.Rates(half).seconds(work, "head sweep") == pytest.approx(2.0)


def test_numbers_are_rounded_to_two_digits(scaling: ModuleType) -> None:
    assert [scaling.two_digits(x) for x in (0.0456, 1.26, 34.7, 1234.0)] == [
        "0.046",
        "1.3",
        "35",
        "1,200",
    ]
    assert scaling.times(30.0) == "< 1 min"
    assert scaling.times(7200.0, 14400.0) == "2.0–4.0 h"
    assert scaling.amount(1.41e11) == "140 GB"
