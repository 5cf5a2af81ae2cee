"""`interp sweep`: its table, its run, and what follows a signal."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import interp
from interp import runs
from tests.shell.conftest import Shell

SWEEP = ("sweep", "polymath", "--task", "ioi", "--n", "8")


def test_a_sweep_prints_the_same_as_python_finds(inside: Shell, tmp_path: Path) -> None:
    ended = inside(*SWEEP, "--sites", "3.5,m1,attns", "--method", "zero", "--json", "--top", "3")
    assert ended.returncode == 0
    assert ended.stderr == ""
    told = json.loads(ended.stdout)
    model = interp.load("polymath", check=False)
    prompts = interp.tasks.get("ioi").sample(model, n=8, seed=0)
    sites = ["3.5", "m1", *interp.sites.attns(model)]
    found = interp.ablate(model, prompts, sites, method="zero", progress=False)
    assert told["top"] == found.top(3).drop(columns="exact").astype(object).to_dict("records")
    assert (told["sites"], told["n"]) == (8, 8)
    assert told["clean"] == pytest.approx(found.clean.mean().item())
    assert told["median_size"] == pytest.approx(found.to_frame()["effect"].abs().median())
    assert not any(tmp_path.iterdir())


def test_patching_at_roles_and_numbers(inside: Shell) -> None:
    places = ("--sites", "resid:mid", "--positions=S2,-1", "--method", "patch")
    told = json.loads(inside(*SWEEP, *places, "--top", "20", "--json").stdout)
    sites = {row["site"] for row in told["top"]}
    assert sites == {f"r{layer}.mid@{place}" for layer in range(6) for place in ("S2", "-1")}
    assert told["provenance"]["direction"] == "denoise"
    assert shlex.split(told["provenance"]["command"])[:3] == ["interp", "sweep", "polymath"]


def test_a_finished_run_is_read_again_and_its_command_reruns_it(inside: Shell) -> None:
    first = inside(*SWEEP, "--out", "my run")
    assert first.stdout.startswith("mean of polymath on ioi: logit_diff ")
    assert "3.5" in first.stdout
    assert first.stderr == "Wrote my run/sweep.safetensors\n"
    command = runs.info("my run").command
    assert command is not None
    again = inside(*shlex.split(command)[1:])
    assert again.stdout == first.stdout
    assert "chunks are done\n" in again.stderr
    other = inside(*SWEEP, "--out", "my run", "--method", "zero")
    assert other.returncode == 1
    assert "method was 'mean' and is 'zero'" in other.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--sites", "headz"], "'headz' is not a site"),
        (["--sites", "neurons:9"], "'neurons:9' is not a site"),
        (["--method", "meen"], "did you mean mean?"),
        (["--positions", "S9"], "No prompt has the role 'S9'"),
    ],
)
def test_what_does_not_exist_is_said(inside: Shell, options: list[str], told: str) -> None:
    ended = inside(*SWEEP, *options)
    assert ended.returncode == 1
    assert told in ended.stderr


def test_only_patch_has_a_direction(inside: Shell) -> None:
    assert inside(*SWEEP, "--direction", "noise").returncode == 2


def test_signals_leave_a_run_that_the_printed_command_resumes(tmp_path: Path) -> None:
    folder = tmp_path / "a run"
    many = ",".join(f"neurons:{layer}" for layer in range(6))
    command = ["sweep", "polymath", "--task", "ioi", "--sites", many, "--out", str(folder)]
    kept = 0
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        before = files(folder)
        with subprocess.Popen(
            [sys.executable, "-m", "interp", *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        ) as process:
            while process.poll() is None and files(folder) <= before:
                time.sleep(0.01)
            process.send_signal(number)
            printed, said = process.communicate()
        assert process.returncode == code, said
        assert printed == ""
        known = runs.info(folder)
        assert known.state == "stopped"
        assert known.done > kept
        *resuming, last = said.splitlines()
        assert resuming == (
            [f"Resuming: {kept:,} of {known.chunks:,} chunks are done"] * bool(kept)
        )
        kept = known.done
        told, line = last.split("; go on with: interp ")
        assert told == f"Stopped: {kept:,} of {known.chunks:,} chunks are kept in {folder}"
        command = shlex.split(line)
    assert runs.verify(folder) == []


def files(folder: Path) -> int:
    """Files of chunks; the ledger itself is left to its writer."""
    return len(list((folder / "chunks").glob("*.safetensors")))
