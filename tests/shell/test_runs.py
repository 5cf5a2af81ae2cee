"""`interp runs`: what it lists, shows, exports, verifies and removes."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from interp.engine import SweepResult
from tests.runs.conftest import refill
from tests.shell.conftest import Shell

SWEEP = ("sweep", "polymath", "--task", "ioi", "--n", "8", "--sites", "mlps", "--out", "run")


@pytest.fixture
def done(inside: Shell) -> str:
    """A sweep of a few sites that is done, in the folder `run`."""
    ended = inside(*SWEEP)
    assert ended.returncode == 0
    return "run"


def test_a_run_is_listed_shown_and_verified(inside: Shell, done: str) -> None:
    refill(Path("unfinished"), 3)
    (Path("broken")).mkdir()
    (Path("broken") / "ledger.sqlite").write_bytes(b"?" * 5000)
    listed = {each["run"]: each for each in json.loads(inside("runs", "list", "--json").stdout)}
    states = {name: each["state"] for name, each in listed.items()}
    assert states == {"broken": "damaged", done: "done", "unfinished": "stopped"}
    assert listed["unfinished"]["done"] == 3
    lines = inside("runs", "list").stdout.splitlines()
    assert lines[0] == "3 runs in ."
    assert [line.split()[:2] for line in lines[2:]] == [
        ["broken", "damaged"],
        ["run", "done"],
        ["unfinished", "stopped"],
    ]
    shown = inside("runs", "show", done).stdout
    assert "interp sweep polymath --task ioi" in shown
    assert "2a6bbce800420c99" in shown
    told = json.loads(inside("runs", "show", done, "--json").stdout)
    assert told == listed[done]
    assert told["done"] == told["chunks"]
    assert [each["what"] for each in told["history"]] == ["begun", "done"]
    assert inside("runs", "verify", done).stdout.startswith("run is whole: ")


def test_the_result_is_exported_in_every_format(inside: Shell, done: str) -> None:
    sweep = SweepResult.load(Path(done) / "sweep.safetensors")
    frame = sweep.to_frame()
    for name in ("x.parquet", "x.csv", "x.json", "deep/er/x.safetensors"):
        ended = inside("runs", "export", done, "--out", name)
        assert (ended.returncode, ended.stderr) == (0, f"Wrote {name}\n")
    pd.testing.assert_frame_equal(pd.read_parquet("x.parquet"), frame)
    assert pd.read_csv("x.csv")["effect"].tolist() == pytest.approx(frame["effect"].tolist())
    told = json.loads(Path("x.json").read_text())
    assert [row["site"] for row in told["sites"]] == [f"m{layer}" for layer in range(6)]
    assert told["provenance"] == sweep.provenance
    assert torch.equal(SweepResult.load("deep/er/x.safetensors").values, sweep.values)
    assert "name a file in .parquet" in inside("runs", "export", done, "--out", "x.xlsx").stderr
    refill(Path("unfinished"), 3)
    refused = inside("runs", "export", "unfinished", "--out", "x.csv")
    assert refused.returncode == 1
    assert "unfinished is not done, with 3 of 12 chunks" in refused.stderr


def test_runs_are_found_two_folders_down(inside: Shell, tmp_path: Path) -> None:
    for name in ("run", "runs/heads", "a/b/too deep"):
        refill(tmp_path / name, 1)
    listed = json.loads(inside("runs", "list", "--json").stdout)
    assert [each["run"] for each in listed] == ["run", "runs/heads"]


def test_damage_is_named_and_ends_with_an_error(inside: Shell, done: str) -> None:
    file = sorted((Path(done) / "chunks").iterdir())[0]
    file.write_bytes(file.read_bytes()[:-1])
    ended = inside("runs", "verify", done)
    assert ended.returncode == 1
    assert str(file) in ended.stdout
    told = json.loads(inside("runs", "verify", done, "--json").stdout)
    assert len(told["damaged"]) == 1
    mended = inside(*SWEEP)
    assert f"Warning: {file} has " in mended.stderr
    assert inside("runs", "verify", done).returncode == 0


def test_a_run_is_removed_when_that_is_meant(inside: Shell, tmp_path: Path) -> None:
    refill(tmp_path / "run", 2)
    for asked in (inside("runs", "rm", "run"), inside("runs", "rm", "run", "--json")):
        assert asked.returncode == 1
        assert asked.stderr == (
            "Error: run is not removed, since nobody can be asked here; add --yes.\n"
        )
        assert (tmp_path / "run").is_dir()
    assert json.loads(asked.stdout)["kind"] == "RunError"
    ended = inside("runs", "rm", "run", "--yes", "--json")
    assert json.loads(ended.stdout) == {"removed": "run"}
    assert not (tmp_path / "run").exists()
    (tmp_path / "mine").mkdir()
    ended = inside("runs", "rm", "mine", "--yes")
    assert ended.returncode == 1
    assert "mine has no ledger.sqlite, so it is no run" in ended.stderr
    assert (tmp_path / "mine").is_dir()
