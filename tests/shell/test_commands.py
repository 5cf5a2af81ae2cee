"""What a person at a terminal, and a script behind a pipe, get."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from interp.heads import KINDS, HeadAtlas
from tests.shell.conftest import Shell


def one_line(ended: subprocess.CompletedProcess[str]) -> str:
    """The error of a run that failed as it should: one line on stderr, nothing on stdout."""
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    return line


def test_help_teaches_and_names_every_command(interp: Shell, inside: Shell) -> None:
    ended = interp("--help")
    assert ended.returncode == 0
    assert "Find, test and compare the mechanisms inside transformer" in ended.stdout
    for command in (
        *("models", "scan", "circuit", "overlap", "vectors", "consistency", "lens", "probe"),
        *("verify", "demo", "train"),
    ):
        assert f" {command} " in ended.stdout
        told = inside(command, "-h")
        assert told.returncode == 0
        assert "Usage:" in told.stdout


def test_the_version_is_that_of_the_package(interp: Shell) -> None:
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    assert interp("--version").stdout == f"interp {project['version']}\n"


def test_models_are_listed(inside: Shell) -> None:
    table, data = inside("models"), inside("models", "--json")
    assert (table.returncode, data.returncode) == (0, 0)
    found = json.loads(data.stdout)
    assert f"{len(found)} embedded models" in table.stdout
    for model in found:
        assert model["name"] in table.stdout
        assert model["parameters"] > 1000


def test_scan_prints_a_table(interp: Shell, checkpoint: str) -> None:
    ended = interp("scan", checkpoint, "--top", "2")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    for kind in KINDS:
        assert kind in ended.stdout
    assert "Not measured: name-mover. " in ended.stdout
    assert "10 prompts" in ended.stdout
    assert "untrained" in ended.stdout
    assert "\x1b" not in ended.stdout, "no escape codes in a pipe"


def test_scan_prints_json_and_nothing_else(inside: Shell, checkpoint: str) -> None:
    options = ("--n", "3", "--kinds", "induction, first-token", "--top", "2")
    ended = inside("scan", checkpoint, *options, "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert list(told["kinds"]) == ["induction", "first-token"]
    induction = told["kinds"]["induction"]
    assert len(induction["top"]) == 2
    assert list(induction["top"][0]) == ["head", "score", "ci_low", "ci_high", "n"]
    assert induction["top"][0]["n"] == 3
    assert 0 < induction["chance"] < induction["untrained_max"] < 0.2
    assert told["provenance"]["command"].startswith(f"interp scan {checkpoint} --kinds induction,")


def test_scan_tells_what_follows_without_the_heads(inside: Shell, tmp_path: Path) -> None:
    options = ("--kinds", "induction", "--no-control")
    ended = inside("scan", "polymath", *options, "--out", "atlas.json")
    assert "Change of logit_diff when they are taken out together" in ended.stdout
    assert "repeated_tokens" in ended.stdout
    assert "yes" in ended.stdout
    claim = HeadAtlas.load(tmp_path / "atlas.json").claims_frame().iloc[0]
    assert claim["confirmed"]
    assert claim["effect"] < claim["random"] < 0


def test_the_command_of_a_scan_repeats_it(inside: Shell, checkpoint: str) -> None:
    options = ("--n", "2", "--kinds", "induction,copying", "--seed", "5")
    first = inside("scan", checkpoint, *options, "--json")
    command = json.loads(first.stdout)["provenance"]["command"].removeprefix("interp ").split()
    assert inside(*command, "--json").stdout == first.stdout


def test_one_prompt_gives_null_for_the_interval(inside: Shell, checkpoint: str) -> None:
    options = ("--n", "1", "--kinds", "induction", "--no-control", "--json")
    told = json.loads(inside("scan", checkpoint, *options).stdout)["kinds"]["induction"]
    assert told["top"][0]["ci_low"] is None
    assert told["untrained_max"] is None


def test_scan_writes_an_atlas_and_a_report(inside: Shell, checkpoint: str, tmp_path: Path) -> None:
    files = ("--out", "new/atlas.json", "--html", "new/atlas.html")
    ended = inside("scan", checkpoint, "--kinds", "induction", *files)
    assert ended.stderr == "Wrote new/atlas.json\nWrote new/atlas.html\n"
    atlas = HeadAtlas.load(tmp_path / "new" / "atlas.json")
    assert atlas.scores["induction"].values.shape == (2, 4, 10)
    assert "<h1" in (tmp_path / "new" / "atlas.html").read_text(encoding="utf-8")


def test_scan_puts_what_formed_into_a_model_card(inside: Shell, tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text("# polymath\n\n## What its heads do\n\nearlier\n\n## Licence\n\nfree\n")
    options = ("--kinds", "induction,previous-token", "--no-control", "--card", "README.md")
    inside("scan", "polymath", *options)
    text = card.read_text()
    assert "| induction | 2.6, 2.5, 2.1 | 0.83" in text
    assert "| previous-token | none reaches 0.4; best 1.6 |" in text
    assert "confirmed |" in text
    assert "earlier" not in text
    assert text.startswith("# polymath\n\n## What its heads do\n")
    assert text.endswith("\n\n## Licence\n\nfree\n")


def test_checkpoints_are_scanned_in_a_row(inside: Shell, checkpoint: str, tmp_path: Path) -> None:
    for step in range(1, 8):
        shutil.copytree(checkpoint, tmp_path / "run" / f"checkpoint-{step}")
    options = ("--checkpoints", "run", "--kinds", "induction", "--n", "2")
    ended = inside("scan", "tiny", *options, "--html", "run.html", "--out", "run.json")
    assert "tiny, 7 checkpoints" in ended.stdout
    assert "no change" in ended.stdout
    assert "What forms over training" in (tmp_path / "run.html").read_text(encoding="utf-8")
    told = json.loads(inside("scan", "tiny", *options, "--json").stdout)
    assert [row["curve"] for row in told["phase_changes"]] == [
        "loss",
        "in-context learning",
        "induction",
    ]
    assert "is no directory of checkpoints" in one_line(
        inside("scan", "tiny", "--checkpoints", "nowhere")
    )


def test_circuits_are_found_judged_and_compared(inside: Shell, tmp_path: Path) -> None:
    for task in ("ioi", "retrieval"):
        options = ("--task", task, "--n", "4", "--size", "100", "--out", f"{task}.json")
        told = json.loads(inside("circuit", "polymath", *options, "--json").stdout)
        assert 0 < told["edges"] <= 100
        assert told["evaluation"]["n"] == 4
        assert f"interp circuit polymath --task {task}" in told["provenance"]["command"]
    files = ("ioi.json", "retrieval.json")
    (pair,) = json.loads(inside("overlap", "polymath", *files, "--no-run", "--json").stdout)[
        "pairs"
    ]
    assert (pair["task_a"], pair["task_b"]) == ("ioi", "retrieval")
    assert 0 < pair["heads_chance"] < 1
    shown = inside("overlap", "polymath", *files, "--n", "4", "--html", "both.html")
    assert "1st on 2nd" in shown.stdout
    assert "What tasks share" in (tmp_path / "both.html").read_text(encoding="utf-8")
    twice = inside("overlap", "polymath", "ioi.json", "ioi.json", "--no-run")
    assert "each file must name a task of its own" in one_line(twice)
    wrong = inside("circuit", "polymath", "--task", "ioi", "--size", "many")
    assert "'many' is no size; give a number such as 200" in one_line(wrong)


def test_help_names_every_kind(inside: Shell) -> None:
    told = " ".join(inside("scan", "--help").stdout.split())
    for kind in KINDS:
        assert kind in told


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("scan", "polymat"), "Error: 'polymat' "),
        (("scan", "./nowhere"), "Error: there is no directory './nowhere'"),
        (("train", "inducton"), "Error: No recipe is called 'inducton': did you mean induction?"),
        (("train", "induction", "--steps", "0"), "Error: steps=0 trains nothing; use 1 or more."),
    ],
)
def test_wrong_names_end_in_one_line(
    inside: Shell, arguments: tuple[str, ...], message: str
) -> None:
    assert one_line(inside(*arguments)).startswith(message)


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    inside: Shell, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    assert "File exists: 'taken'" in one_line(inside("demo", "--out", "taken"))


def test_a_process_ends_with_the_same_line(interp: Shell) -> None:
    assert one_line(interp("scan", "./nowhere")).startswith("Error: there is no directory")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kinds", "inducton"), "'inducton' is not a kind of head: did you mean induction"),
        (("--device", "gpu7"), "device 'gpu7' cannot be used here"),
        (("--dtype", "int8"), "dtype 'int8' cannot hold weights"),
        (("--revision", "step-1"), "has no revision 'step-1'"),
    ],
)
def test_impossible_options_end_in_one_line(
    inside: Shell, checkpoint: str, options: tuple[str, ...], message: str
) -> None:
    assert message in one_line(inside("scan", checkpoint, *options))


@pytest.mark.parametrize(
    "arguments", [("scan",), ("scna",), ("scan", "x", "--n", "many"), ("scan", "x", "--top", "0")]
)
def test_wrong_usage_has_its_own_code(inside: Shell, arguments: tuple[str, ...]) -> None:
    ended = inside(*arguments)
    assert ended.returncode == 2
    assert "Usage:" in ended.stderr
    assert ended.stdout == ""


def test_a_traceback_is_shown_when_asked_for(interp: Shell) -> None:
    ended = interp("scan", "./nowhere", INTERP_DEBUG="1")  # what --debug sets too
    assert ended.returncode == 1
    assert "Traceback" in ended.stderr
    assert "UnknownModel" in ended.stderr


def test_training_ends_with_the_folder(interp: Shell, tmp_path: Path) -> None:
    ended = interp("train", "induction", "--steps", "2", "--out", "run", "--device", "cpu")
    assert ended.returncode == 0, ended.stderr
    assert (ended.stdout, ended.stderr) == ("run\n", "")
    assert (tmp_path / "run" / "config.json").is_file()
