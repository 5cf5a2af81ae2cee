"""What the shell promises of every command: help, options, JSON, exit codes, signals, silence."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interp import tasks
from interp.circuits import ABLATIONS
from interp.circuits.discover import BASES, SELECTIONS
from interp.cli import app, names
from interp.engine.metrics import METRICS
from interp.heads import KINDS
from interp.heads.gpt2_facts import SHEETS
from interp.lens.reading import STATISTICS
from interp.probes.states import KINDS as STREAMS
from interp.tasks.registry import TASKS
from interp.training.recipes import RECIPES
from interp.training.train import READ_NUMBERS
from tests.shell.commands import leaves, options, parse
from tests.shell.conftest import Shell
from tests.shell.terminal import COLOR, ESCAPE, on_a_terminal

COMMANDS = leaves()
SLOW_LOOP = """
import time
from interp.progress import track
for _ in track(range(2), "Outer"):
    for _ in track(range(3), "Inner [red]"):
        time.sleep(0.6)
"""


# Help


def test_help_is_in_groups_and_says_how_to_go_on(inside: Shell) -> None:
    told = inside("--help").stdout
    groups = ("Begin", "Look into a model", "Find what does a task", "Keep and share", "Models")
    assert [told.index(f" {group} ") for group in groups] == sorted(
        told.index(f" {group} ") for group in groups
    )
    for part in ("How to go on:", "interp COMMAND --help", "NO_COLOR=1", "Exit codes:"):
        assert part in told
    for code in ("0    done", "1    an error", "2    wrong usage", "130  stopped", "143 by SIG"):
        assert code in told


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_in_one_line_what_it_is_for(name: str) -> None:
    purpose = COMMANDS[name].help.split("\n\n")[0]
    assert purpose.endswith(".")
    assert len(purpose) <= 80


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_of_a_command_ends_with_examples_of_it(name: str) -> None:
    title, *examples = COMMANDS[name].epilog.splitlines()
    assert title == "Examples:"
    assert name in [parse(example) for example in examples]


# Options


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_can_print_json(name: str) -> None:
    assert "--json" in options(COMMANDS[name])


def test_an_option_means_the_same_wherever_it_stands() -> None:
    shared = ("--seed", "--device", "--dtype", "--revision", "--json", "--metric", "--ablation")
    for option in shared:
        meanings = {each[option].help for each in map(options, COMMANDS.values()) if option in each}
        assert len(meanings) == 1, (option, meanings)
    defaults = {
        each["--seed"].default for each in map(options, COMMANDS.values()) if "--seed" in each
    }
    assert defaults == {0}


def test_whatever_loads_a_model_takes_it_first_and_says_where_and_how_to_load_it() -> None:
    loading = {
        name: command
        for name, command in COMMANDS.items()
        if any(param.metavar == "MODEL" for param in command.params)
    }
    assert {"scan", "circuit", "overlap", "vectors make", "lens", "probe", "verify"} <= set(loading)
    for name, command in loading.items():
        assert command.params[0].metavar == "MODEL", name
        assert {"--device", "--dtype", "--revision"} <= set(options(command)), name


def test_options_that_checkpoints_do_not_know_are_refused(inside: Shell) -> None:
    for option in ("threshold", "workers", "gpus", "address"):
        ended = inside("scan", "x", "--checkpoints", "run", f"--{option}", "1")
        assert ended.returncode == 2
        assert f"--{option} means nothing with --checkpoints" in " ".join(ended.stderr.split())


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("sweep x --task ioi --method zero --over position", "zero is not taken over tokens"),
        ("circuit x --task ioi --threshold 0.5 --size 20", "--size means nothing with --threshold"),
        ("circuit x --task ioi --method acdc --select greedy", "--select means nothing with"),
    ],
)
def test_options_that_do_not_go_together_are_refused(inside: Shell, line: str, told: str) -> None:
    ended = inside(*line.split())
    assert ended.returncode == 2
    assert told in " ".join(ended.stderr.split())


# Completion


def test_the_names_that_are_completed_are_those_that_are_known() -> None:
    assert tuple(TASKS) == names.TASKS
    assert [*names.TASKS, *names.relations()] == tasks.names()
    assert tuple(KINDS) == names.KINDS
    assert tuple(METRICS) == names.METRICS
    assert names.ABLATIONS == ABLATIONS
    assert names.SELECTIONS == SELECTIONS
    assert names.STREAMS == STREAMS
    assert tuple(STATISTICS) == names.STATISTICS
    assert tuple(SHEETS) == names.FACTS
    assert (*RECIPES, *READ_NUMBERS) == names.RECIPES
    assert sorted(names.CIRCUIT_METHODS) == sorted(BASES)


def test_the_embedded_models_are_completed(inside: Shell) -> None:
    listed = json.loads(inside("models", "--json").stdout)
    assert names.models() == [model["name"] for model in listed]


def tab(line: str) -> dict[str, str]:
    """What bash puts into the environment when Tab is pressed at the end of a line."""
    at = str(len(line.split(" ")) - 1)
    return {"_INTERP_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": at}


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("interp scan pol", ["polymath", "polymath-llama"]),
        ("interp scan polymath --kinds successor,na", ["name-copying", "name-suppressing"]),
        ("interp circuit polymath --task cap", ["capital"]),
        ("interp circuit polymath --task ioi --metric lo", ["logit_diff", "log_prob", "loss"]),
        ("interp circuit polymath --task ioi --method eap-", ["eap-ig-inputs"]),
        ("interp vectors ", ["make", "apply", "polymath"]),
        ("interp vectors polymath --method f", ["function"]),
        ("interp lens polymath Hi --value max", ["max_prob"]),
        ("interp over", ["overlap"]),
    ],
)
def test_tab_offers_what_fits(line: str, offered: list[str]) -> None:
    ended = CliRunner().invoke(app, env=tab(line), prog_name="interp")
    assert ended.exit_code == 0, ended.output
    found = ended.stdout.split()
    before = line.rpartition(" ")[2].rpartition(",")[0]
    assert {f"{before},{each}" if before else each for each in offered} <= set(found)
    assert all(each.startswith(line.rpartition(" ")[2]) for each in found)


def modules_after(**environment: str) -> set[str]:
    """What `interp` has imported when it ends: that is what a person waits for."""
    code = (
        "import atexit, sys; atexit.register(lambda: print(*sys.modules)); "
        "from interp.cli import app; app(prog_name='interp')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return set(ended.stdout.split())


def test_completion_and_help_wait_for_no_torch() -> None:
    helped, completed = modules_after(), modules_after(**tab("interp circuit polymath --task io"))
    assert "ioi" in completed
    assert not {"torch", "numpy", "transformers"} & (helped | completed)
    assert len(completed) <= len(helped), "completion imports no more than help does"


# Errors and pipes


def test_an_error_is_told_in_json_too(inside: Shell) -> None:
    ended = inside("scan", "./nowhere", "--json")
    assert ended.returncode == 1
    told = json.loads(ended.stdout)
    assert set(told) == {"error", "kind"}
    assert told["kind"] == "UnknownModel"
    assert ended.stderr == f"Error: {told['error']}\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("scan x --top 0 --json", "Invalid value for '--top'"),
        ("scan x --workers 2 --json", "--workers means nothing without --engine ray"),
        ("sweep x --json", "Missing option '--task'"),
        ("scna --json", "No such command 'scna'"),
    ],
)
def test_wrong_usage_is_told_in_json_too(inside: Shell, line: str, told: str) -> None:
    ended = inside(*line.split())
    assert ended.returncode == 2
    said = json.loads(ended.stdout)
    assert said["kind"] == "UsageError"
    assert told in said["error"]


@pytest.mark.parametrize("arguments", [("models",), ("models", "--json"), ("--help",)])
def test_a_pipe_whose_reader_has_gone_ends_quietly(
    arguments: tuple[str, ...], tmp_path: Path
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "interp", *arguments],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


# Terminals


def test_a_terminal_has_colours_unless_it_or_its_owner_wants_none() -> None:
    command = ("-m", "interp", "models")
    assert COLOR.search(on_a_terminal("-m", "interp", "--help").screen)
    assert ESCAPE in on_a_terminal(*command).screen
    assert not COLOR.search(on_a_terminal("-m", "interp", "--help", NO_COLOR="1").screen)
    dumb = on_a_terminal(*command, TERM="dumb")
    assert ESCAPE not in dumb.screen
    assert dumb.code == 0


def test_a_bar_says_how_many_are_done_and_how_long_the_rest_takes() -> None:
    screen = on_a_terminal("-c", SLOW_LOOP).screen
    for part in ("Outer", "1/2", "Inner [red]", "2/3", "0:00:0", "left"):
        assert part in screen
    assert screen.endswith("\x1b[?25h\r"), "the cursor is back, and the bars are gone"


@pytest.mark.parametrize("environment", [{"TERM": "dumb"}, {"INTERP_PROGRESS": "0"}])
def test_no_bar_where_none_can_be_drawn_or_is_wanted(environment: dict[str, str]) -> None:
    assert on_a_terminal("-c", SLOW_LOOP, **environment).screen == ""


def test_a_loop_that_is_over_in_a_second_writes_nothing() -> None:
    quick = SLOW_LOOP.replace("0.6", "0.01")
    assert on_a_terminal("-c", quick).screen == ""


# Signals


def test_ctrl_c_ends_a_scan_with_the_cursor_back_and_a_line(tmp_path: Path) -> None:
    atlas = tmp_path / "atlas.json"
    command = ("-m", "interp", "scan", "polymath", "--kinds", "retrieval", "--out", str(atlas))
    ended = on_a_terminal(*command, until=" left")  # the first bar
    assert ended.code == 130
    assert ended.screen.endswith("Stopped: nothing is kept.\r\n")
    assert ended.screen.count("\x1b[?25l") == ended.screen.count("\x1b[?25h") > 0
    assert "Traceback" not in ended.screen
    assert not atlas.exists()


def test_sigterm_ends_training_with_what_is_kept(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(
        [sys.executable, "-m", "interp", "train", "induction", "--out", str(run), "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        while process.poll() is None and not run.exists():
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (143, ""), stderr
    (line,) = stderr.splitlines()
    assert line.startswith("Stopped: ")
    assert " is kept " in line
    assert str(run) in line


def test_what_was_written_before_a_stop_is_named(
    inside: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("interp.report.build", stop)
    options = ("--kinds", "first-token", "--n", "2", "--no-control", "--no-check")
    ended = inside("scan", "polymath", *options, "--out", "atlas.json", "--html", "atlas.html")
    assert ended.returncode == 130
    assert ended.stderr.splitlines() == [
        "Wrote atlas.json",
        "Stopped: atlas.json had been written; nothing else is kept.",
    ]
