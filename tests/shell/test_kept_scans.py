"""`interp scan --run` and `interp circuit --run`: what they keep, and what `interp runs` says."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from interp import runs
from interp.circuits import Evaluation
from interp.heads import HeadAtlas
from interp.runs import Run
from tests.shell.conftest import Shell

KINDS = "induction,copying,prefix-matching"
CIRCUIT = ("circuit", "polymath", "--task", "ioi", "--n", "2", "--method", "eap", "--run", "run")


@pytest.fixture
def scan(checkpoint: str) -> tuple[str, ...]:
    """Of a small model: three detectors, and no claims."""
    return ("scan", checkpoint, "--kinds", KINDS, "--n", "2", "--run", "my run")


def test_a_scan_is_kept_with_its_twin_and_read_again(inside: Shell, scan: tuple[str, ...]) -> None:
    first = inside(*scan)
    assert (first.returncode, first.stderr) == (0, "Wrote my run/atlas.json\n")
    known = runs.info("my run")
    assert (known.state, known.identity["kind"]) == ("done", "atlas")
    assert known.identity["kinds"] == KINDS.split(",")
    assert runs.info("my run-untrained").state == "done"
    assert known.command is not None
    again = inside(*shlex.split(known.command)[1:])
    assert again.stdout == first.stdout
    assert again.stderr.startswith(f"Resuming: {known.done} of {known.done} chunks are done\n")
    plain = inside(*scan[:-2])
    assert (plain.stdout, plain.stderr) == (first.stdout, "")
    other = inside(*scan, "--seed", "1")
    assert other.returncode == 1
    assert "my run is another run: seed was 0 and is 1" in other.stderr


def test_a_scan_that_is_stopped_says_how_it_goes_on(
    inside: Shell, scan: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = Run.keep

    def stopped(self: Run, number: int, chunk: Any) -> None:
        keep(self, number, chunk)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Run, "keep", stopped)
        ended = inside(*scan, "--no-control")
    assert (ended.returncode, ended.stdout) == (130, "")
    told, line = ended.stderr.strip().split("; go on with: interp ")
    assert told == "Stopped: 1 chunk is kept in my run"
    resumed = inside(*shlex.split(line))
    assert resumed.returncode == 0
    assert "Resuming: 1 chunk is done" in resumed.stderr
    assert not Path("my run-untrained").exists()


def test_a_scan_is_exported_whole_and_as_a_table(inside: Shell, scan: tuple[str, ...]) -> None:
    inside(*scan, "--no-control")
    atlas = HeadAtlas.load("my run/atlas.json")
    for name in ("x.json", "x.parquet", "x.csv"):
        ended = inside("runs", "export", "my run", "--out", name, "--json")
        assert json.loads(ended.stdout) == {"run": "my run", "wrote": name, "heads": 8}
    for name in ("x.json", "x.parquet"):
        found = HeadAtlas.load(name)
        assert found.provenance == atlas.provenance
        for kind in atlas.kinds:
            assert found.grid(kind).equal(atlas.grid(kind))
    table = pd.read_csv("x.csv", dtype={"head": str})
    assert table["head"].tolist() == atlas.to_frame()["head"].tolist()
    refused = inside("runs", "export", "my run", "--out", "x.safetensors")
    assert refused.returncode == 1
    assert "my run is a scan; name a file in .json, .parquet or .csv" in refused.stderr
    line = inside("runs", "list").stdout.splitlines()[2]
    assert line.split()[:4] == ["my", "run", "done", "3"]
    assert " atlas " in line
    assert "induction, copying, prefix-matching" in inside("runs", "show", "my run").stdout
    assert inside("report", "my run", "--out", "x.html").returncode == 0


def test_an_evaluation_is_kept_exported_and_read_again(inside: Shell) -> None:
    first = inside(*CIRCUIT)
    assert (first.returncode, first.stderr) == (0, "Wrote run/evaluation.safetensors\n")
    known = runs.info("run")
    assert (known.state, known.identity["kind"]) == ("done", "evaluation")
    assert known.command is not None
    again = inside(*shlex.split(known.command)[1:])
    assert again.stdout == first.stdout
    assert "chunks are done" in again.stderr
    evaluation = Evaluation.load("run/evaluation.safetensors")
    assert evaluation.provenance["command"] == known.command
    for name in ("x.json", "x.parquet", "x.csv", "x.safetensors"):
        assert inside("runs", "export", "run", "--out", name).returncode == 0
    pd.testing.assert_frame_equal(pd.read_parquet("x.parquet"), evaluation.to_frame())
    told = json.loads(Path("x.json").read_text())
    assert [row["circuit"] for row in told["circuits"]] == ["circuit"]
    assert (told["ablation"], told["provenance"]) == ("counterfactual", evaluation.provenance)
    assert Evaluation.load("x.safetensors").values.equal(evaluation.values)


@pytest.mark.parametrize("options", [("--run", "x"), ("--engine", "ray"), ("--devices", "cpu,cpu")])
def test_scans_of_checkpoints_are_kept_by_no_run(inside: Shell, options: tuple[str, str]) -> None:
    ended = inside("scan", "induction", "--checkpoints", ".", *options)
    assert ended.returncode == 2
    assert f"{options[0]} means nothing with --checkpoints" in " ".join(ended.stderr.split())


def test_two_devices_give_the_atlas_of_one(inside: Shell, scan: tuple[str, ...]) -> None:
    whole = inside(*scan, "--no-control")
    again = inside(*scan[:-2], "--no-control", "--devices", "cpu,cpu")
    assert (again.returncode, again.stdout) == (0, whole.stdout)
