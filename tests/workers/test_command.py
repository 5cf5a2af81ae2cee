"""`interp sweep` on other engines than this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from typer.testing import CliRunner

from interp import runs
from interp.cli import app
from interp.cli.engines import engine_of
from interp.engine import SweepResult
from interp.workers import Devices, Here, Ray

SWEEP = ["sweep", "polymath", "--task", "ioi", "--n", "8", "--sites", "neurons:3"]


def here(folder: Path, *options: str) -> dict[str, Any]:
    """The sweep in this process."""
    ended = CliRunner().invoke(app, [*SWEEP, "--out", str(folder), "--json", *options])
    assert ended.exit_code == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.slow
def test_a_sweep_on_a_cluster_that_is_killed_goes_on_here(tmp_path: Path) -> None:
    folder = tmp_path / "cluster"
    process = subprocess.Popen(
        [sys.executable, "-m", "interp", *SWEEP, "--out", str(folder), "--engine", "ray"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    while process.poll() is None and not (runs.is_run(folder) and runs.info(folder).done):
        time.sleep(0.02)
    process.kill()
    process.communicate()
    done = runs.recorded(folder)
    assert done
    assert runs.info(folder).state == "stopped"
    resumed = here(folder)
    assert done <= runs.recorded(folder)
    whole = here(tmp_path / "devices", "--devices", "cpu,cpu")
    found, other = (
        SweepResult.load(tmp_path / name / "sweep.safetensors") for name in ("cluster", "devices")
    )
    assert torch.equal(found.values, other.values)
    assert resumed["top"] == whole["top"]
    assert whole["provenance"]["device"] == "cpu, cpu"


def test_options_say_who_computes() -> None:
    assert engine_of("here") == Here()
    assert engine_of("ray", address="auto", workers=3) == Ray("auto", workers=3)
    several = engine_of("here", devices="cpu, cpu")
    assert isinstance(several, Devices)
    assert [str(device) for device in several.devices] == ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("engine", "options", "told"),
    [
        ("rya", {}, "There is no engine 'rya': did you mean ray?"),
        ("here", {"workers": 2}, "--workers means nothing without --engine ray"),
        ("ray", {"devices": "cpu"}, "--devices means nothing with --engine ray"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    engine: str, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(typer.BadParameter, match=told):
        engine_of(engine, **options)
