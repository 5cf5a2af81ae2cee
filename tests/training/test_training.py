"""Training is deterministic, survives a kill, and ships what it measured."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import interp
from interp.errors import FileFormatError, TrainingError
from interp.training import RECIPES, loop, release, train
from interp.training.checkpoint import claim
from interp.training.recipes import untrained

STEPS = "110"


def command(folder: Path) -> list[str]:
    call = [sys.executable, "-m", "interp", "train", "induction"]
    return [*call, "--steps", STEPS, "--out", str(folder)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the shell command from start to end."""
    folder = tmp_path_factory.mktemp("training") / "whole"
    subprocess.run(command(folder), check=True, capture_output=True, timeout=300)
    return folder


def test_a_killed_run_resumes_to_the_same_weights(whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    running = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (folder / "state" / "step-000100").exists():
        assert running.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    assert not (folder / "model.safetensors").exists()

    subprocess.run(command(folder), check=True, capture_output=True, timeout=300)
    expected, resumed = (load_file(f / "model.safetensors") for f in (whole, folder))
    assert expected.keys() == resumed.keys()
    assert all(torch.equal(expected[name], resumed[name]) for name in expected)
    logs = [(f / "log.jsonl").read_text() for f in (whole, folder)]
    assert logs[0] == logs[1]


def test_the_folder_loads_and_is_the_model_that_was_measured(whole: Path) -> None:
    model = interp.load(str(whole), check=False)
    assert (model.geometry.n_layers, model.geometry.n_heads) == (2, 8)
    card = (whole / "README.md").read_text()
    assert "| repeated_tokens |" in card
    assert f"interp train induction --seed 0 --steps {STEPS}" in card
    assert "Did not reach the accuracy wanted: repeated_tokens" in card  # after so few steps
    training = json.loads((whole / "training.json").read_text())
    assert training["settings"]["steps"] == int(STEPS)
    losses = [record["loss"] for record in training["log"] if "loss" in record]
    assert losses[-1] < losses[0]


def test_checkpoints_are_kept_and_load_by_revision_name(whole: Path) -> None:
    kept = sorted(path.stem for path in (whole / "checkpoints").glob("*.safetensors"))
    assert kept == ["step-000000", "step-000100"]
    first = load_file(whole / "checkpoints" / "step-000000.safetensors")
    fresh = untrained(RECIPES["induction"], seed=0).state_dict()
    assert all(torch.equal(first[name], fresh[name].half()) for name in first)


def test_a_finished_run_started_again_changes_nothing(whole: Path) -> None:
    before = (whole / "model.safetensors").read_bytes()
    train("induction", steps=int(STEPS), out=whole)
    assert (whole / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("name", ["polymath", "polymath-llama"])
def test_a_short_run_of_the_mixture_ships_a_loadable_model(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "PROMPTS", 16)  # the numbers of its card do not matter here
    monkeypatch.setattr(release, "SAMPLES", 4)
    monkeypatch.setattr(loop, "EVALUATION_PROMPTS", 8)
    folder = train(name, steps=2, out=tmp_path / name)
    model = interp.load(str(folder), check=False)
    assert model.tokenizer.decode(model.encode(" Mary")) == "Mary"
    assert model.dtype == torch.float32
    kv_heads = {"polymath": 8, "polymath-llama": 2}[name]
    assert (model.geometry.n_heads, model.geometry.n_kv_heads) == (8, kv_heads)


def test_batches_depend_on_seed_and_step_alone() -> None:
    data = RECIPES["polymath"].data
    first = data.batch(3, 2, seed=0)
    random.seed(99)
    assert torch.equal(first, data.batch(3, 2, seed=0))
    assert not torch.equal(first, data.batch(4, 2, seed=0))
    assert not torch.equal(first, data.batch(3, 2, seed=1))
    assert first.shape == (2, 160)
    assert (first[:, 0] == data.tokenizer.bos_token_id).all()
    assert not (first == data.tokenizer.unk_token_id).any()


def test_building_a_model_leaves_the_random_state_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    untrained(RECIPES["polymath"], seed=0)
    assert torch.equal(before, torch.get_rng_state())


def test_bad_input_gets_one_clear_sentence(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="No recipe is called 'polymat': did you mean polymath"):
        train("polymat")
    with pytest.raises(TrainingError, match="steps=0 trains nothing; use 1 or more"):
        train("induction", steps=0)
    with pytest.raises(TrainingError, match=f"holds a run with steps={STEPS} and not 170"):
        train("induction", steps=170, out=whole)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(TrainingError, match="holds files that are no training run"):
        train("induction", steps=1, out=tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("damaged", [b"[]", b"{", b"\xff", b"3", b"[" * 100_000])
def test_a_damaged_folder_gets_one_clear_sentence(damaged: bytes, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(damaged)
    with pytest.raises(FileFormatError, match=r"run\.json .*give another folder as out\.$"):
        claim(tmp_path, {"steps": 1})
    assert (tmp_path / "run.json").read_bytes() == damaged
