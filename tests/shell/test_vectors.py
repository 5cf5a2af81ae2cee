"""`interp vectors`: a vector is found, judged, kept, and put into a model again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from interp.vectors.vector import Vector
from tests.shell.conftest import Shell
from tests.shell.test_commands import one_line

STEER = ("vectors", "polymath", "--task", "past", "--against", "gerund", "--method", "steering")


@pytest.fixture
def steering(inside: Shell) -> Path:
    """The file of a steering vector from gerunds to past tenses."""
    ended = inside(*STEER, "--layer", "5", "--out", "past.safetensors")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == "Wrote past.safetensors\n"
    for column in ("strength", "positive", "negative", "other", "verdict", "random_toward"):
        assert column in ended.stdout
    assert "other tokens" in ended.stdout
    return Path("past.safetensors")


def test_a_steering_vector_is_made_and_applied(inside: Shell, steering: Path):
    kept = Vector.load(steering)
    assert kept.provenance["command"].startswith("interp vectors polymath --task past --method")
    assert list(kept.layers) == [5]
    options = ("--max-new-tokens", "1", "--json")
    ended = inside("vectors", "apply", "polymath", str(steering), r"Q: go\nA:", *options)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert [text["prompt"] for text in told["texts"]] == ["Q: go\nA:"]
    assert (told["texts"][0]["without"].strip(), told["texts"][0]["with"].strip()) == (
        "going",
        "went",
    )
    assert told["vector"]["weights_hash"] == told["provenance"]["weights_hash"]
    options = ("--scale", "-2", "--paths", "2", "--temperature", "1", "--max-new-tokens", "3")
    table = inside("vectors", "apply", "polymath", str(steering), r"Q: eat\nA:", *options)
    assert table.returncode == 0, table.stderr
    assert table.stdout.count(r"Q: eat\nA:") == 2
    assert "scale -2" in table.stdout
    other = inside("vectors", "apply", "polymath-llama", str(steering), "Q: go")
    assert "was made with polymath" in one_line(other)


def test_a_task_vector_is_judged_beside_its_controls(inside: Shell):
    options = ("--task", "plural", "--shots", "2", "--n", "4", "--json", "--out", "v.safetensors")
    ended = inside("vectors", *options, "polymath")  # options may come first
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["kind"], told["operation"], told["position"]) == ("task", "set", "END")
    conditions = [row["condition"] for row in told["judged"]]
    assert {"baseline", "regular", "hypothesis", "random_vector"} <= set(conditions)
    assert told["provenance"]["command"].endswith("--method task --shots 2 --n 4 --seed 0")
    ended = inside("vectors", "apply", "polymath", "v.safetensors", "Q: cat", "--max-new-tokens=2")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    ("method", "options", "column"),
    [
        ("function", ("--against", "continent", "--shots", "2"), "context"),
        ("learned", ("--steps", "1", "--shots", "2"), "setting"),
    ],
)
def test_other_methods_judge_in_their_own_tables(
    inside: Shell, method: str, options: tuple[str, ...], column: str
):
    base = ("vectors", "make", "polymath", "--task", "capital", "--method", method, "--n", "3")
    ended = inside(*base, *options, "--json")
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert told["kind"] == method
    assert column in told["judged"][0]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ("polymath", "--task", "antonym", "--method", "tasks"),
            "No method is called 'tasks': did",
        ),
        (("polymath", "--task", "antonym", "--against", "past"), "for function, steering"),
        (("polymath", "--task", "none"), "none"),
        (("polymath", "--task", "antonym", "--layer", "9"), "layer is 9"),
        (("nowhere", "--task", "antonym"), "nowhere"),
        (("apply", "polymath", "none.safetensors", "Q:"), "none.safetensors cannot be read"),
    ],
)
def test_an_error_is_one_line(inside: Shell, arguments: tuple[str, ...], says: str):
    assert says in one_line(inside("vectors", *arguments))


def test_help_shows_both_commands(inside: Shell):
    for arguments in (("vectors", "-h"), ("vectors", "--help"), ("vectors",)):
        ended = inside(*arguments)
        told = " ".join((ended.stdout + ended.stderr).split())
        for part in ("make", "apply", "`interp vectors MODEL ...` is"):
            assert part in told
    for command in ("make", "apply"):
        assert "Usage: " in inside("vectors", command, "-h").stdout
    assert inside("vectors", "polymath").returncode == 2  # --task is missing
