"""`interp verify` measures published facts on the weights at hand."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from interp.heads import gpt2_facts
from interp.heads.gpt2_facts import GPT2_SMALL
from tests.heads.test_facts import random_gpt2
from tests.shell.conftest import Shell


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory in the format of GPT-2, with random weights."""
    folder, model = tmp_path_factory.mktemp("models") / "gpt2", random_gpt2()
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return str(folder)


SOME = replace(GPT2_SMALL, facts=(GPT2_SMALL.facts[0], GPT2_SMALL.facts[6]))


@pytest.fixture(autouse=True)
def two_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gpt2_facts.SHEETS, "gpt2", SOME)


def test_facts_that_do_not_hold_end_with_code_1(inside: Shell, weights: str) -> None:
    ended = inside("verify", weights, "--facts", "gpt2")
    assert ended.returncode == 1
    assert ended.stderr == ""
    assert f"0 of 2 facts hold in {weights}" in ended.stdout
    for column in ("holds", "fact", "source", "expected", "measured"):
        assert column in ended.stdout
    for fact in SOME.facts:
        assert f"{fact.text}: {fact.tolerance}." in ended.stdout
    assert "\x1b" not in ended.stdout


def test_json_has_every_number(inside: Shell, weights: str) -> None:
    ended = inside("verify", weights, "--facts", "gpt2", "--json")
    assert ended.returncode == 1
    told = json.loads(ended.stdout)
    assert told["holds"] is False
    first, second = told["facts"]
    assert {"4.11", "2.2", "average head"} < first["measured"].keys()
    assert (first["holds"], first["error"]) == (False, "")
    assert second["measured"].keys() == {"mean", "from", "to"}
    assert told["provenance"]["weights_hash"] == random_gpt2().weights_hash


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("gtp2",), "There are no facts about 'gtp2': did you mean gpt2?"),
        (("polymath", "--facts", "gpt2"), "polymath has 6 layers of 8 heads and the facts are"),
        (("./nowhere", "--facts", "gpt2"), "there is no directory './nowhere'"),
    ],
)
def test_what_cannot_be_verified_ends_in_one_line(
    inside: Shell, arguments: tuple[str, ...], message: str
) -> None:
    ended = inside("verify", *arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert message in line


def test_the_weights_of_gpt2_are_looked_for_on_the_hub(inside: Shell, tmp_path: Path) -> None:
    ended = inside("verify", "gpt2")
    if ended.returncode == 1 and not ended.stdout:  # no network and no cache
        assert "'gpt2' is not in the local hub cache" in ended.stderr
