"""Files of circuits, atlases, curves and probes that are damaged, forged or made to do harm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp.json_file import decode
from interp.resources import circuits_dir, data_dir
from interp.results import FORMATS as FORMATS_OF_RESULTS
from interp.results import load
from interp.saved import FORMAT as SAVED
from tests.fuzz.hostile import (
    BOMBS,
    EACH_TYPE,
    FUZZ,
    assert_harmless,
    assert_refused,
    changed_json,
    mutations,
)
from tests.fuzz.originals import FORMATS
from tests.fuzz.tensors import signed

JSON = [name for name, kind in FORMATS.items() if kind.ending == ".json"]


def original(name: str, folder: Path) -> Path:
    path = folder / f"file{FORMATS[name].ending}"
    FORMATS[name].write(path)
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_a_whole_file_is_read(name: str, tmp_path: Path) -> None:
    outcome = assert_harmless(FORMATS[name].read, original(name, tmp_path))
    assert outcome.refused is None


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_what_was_written_or_refused(name: str, tmp_path: Path) -> None:
    path, kind = original(name, tmp_path), FORMATS[name]
    whole, was = path.read_bytes(), assert_harmless(kind.read, path).result

    @FUZZ
    @given(mutations(whole))
    def damaged(data: bytes) -> None:
        path.write_bytes(data)
        outcome = assert_harmless(kind.read, path)
        assert outcome.refused or not kind.signed or outcome.result == was

    damaged()


@pytest.mark.parametrize("name", JSON)
def test_odd_values_are_read_or_refused(name: str, tmp_path: Path) -> None:
    path, kind = original(name, tmp_path), FORMATS[name]

    @FUZZ
    @given(changed_json(json.loads(path.read_text())))
    def odd(text: bytes) -> None:
        path.write_bytes(text)
        assert_harmless(kind.read, path)

    odd()


@pytest.mark.parametrize("name", JSON)
def test_each_part_may_be_anything(name: str, tmp_path: Path) -> None:
    path, kind = original(name, tmp_path), FORMATS[name]
    whole = json.loads(path.read_text())
    whole.pop("sha256", None)
    for key in whole:
        for value in EACH_TYPE:
            path.write_text(json.dumps(whole | {key: value}))
            assert_harmless(kind.read, path)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", FORMATS)
def test_bombs_are_refused(name: str, bomb: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb{FORMATS[name].ending}"
    BOMBS[bomb](path)
    assert_refused(FORMATS[name].read, path)


@pytest.mark.parametrize("name", FORMATS)
@settings(FUZZ, max_examples=25)
@given(data=st.binary(max_size=300))
def test_noise_is_refused(name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"noise{FORMATS[name].ending}"
    path.write_bytes(data)
    assert_refused(FORMATS[name].read, path)


# What is refused for its sense, and what is still read

SHAPES: list[dict[str, Any]] = [
    {"n_layers": 10**6},
    {"n_heads": 10**6, "n_kv_heads": 10**6},
    {"n_layers": 1, "n_heads": 300_000, "n_kv_heads": 300_000},
    {"n_layers": 10**400},
    {"n_layers": 1_000},
    {"n_layers": -1},
    {"n_heads": 3},
    {"n_layers": True},
]


@pytest.mark.parametrize("change", SHAPES)
@pytest.mark.parametrize("name", ["circuit", "EAP-IG as JSON", "Neuronpedia"])
def test_models_that_cannot_be_are_refused(
    name: str, change: dict[str, Any], tmp_path: Path
) -> None:
    path, kind = original(name, tmp_path), FORMATS[name]
    told = json.loads(path.read_text())
    for block in (told, told.get("interp"), told.get("metadata", {}).get("interp")):
        if isinstance(block, dict):
            block.pop("sha256", None)
            (block.get("shape") or block.get("cfg") or {}).update(change)
    path.write_text(json.dumps(told))
    assert_refused(kind.read, path, match="missing or broken part")


def _graph(told: dict[str, Any]) -> dict[str, Any]:
    return told["metadata"]["interp"]


CHANGES: dict[str, tuple[str, Any]] = {
    "an edge backwards": ("circuit", lambda told: told["edges"].update({"1.0->0.0.q": KEPT})),
    "an edge to itself": ("circuit", lambda told: told["edges"].update({"0.0->0.0.q": KEPT})),
    "an edge of no layer": ("circuit", lambda told: told["edges"].update({"0.0->9.0.q": KEPT})),
    "an edge in other words": (
        "circuit",
        lambda told: told["edges"].update({"input->00.0.q": KEPT}),
    ),
    "a node in other words": ("circuit", lambda told: told["nodes"].update({" 0.1": {"score": 1}})),
    "a node in other digits": ("circuit", lambda told: told["nodes"].update({"٠.١": {"score": 1}})),
    "a list of edges": ("circuit", lambda told: told.update(edges=[["0.0->1.0.q", KEPT]])),
    "pairs for provenance": ("circuit", lambda told: told.update(provenance=[["a", 1]])),
    "a label that is none": ("circuit", lambda told: told["labels"].update({"0.0": [None]})),
    "a node drawn twice": ("Neuronpedia", lambda told: told["nodes"].append(told["nodes"][0])),
    "a link drawn twice": ("Neuronpedia", lambda told: told["links"].append(told["links"][0])),
    "another circuit inside": ("Neuronpedia", lambda told: _graph(told)["edges"].popitem()),
    "a score that is text": ("atlas", lambda told: _first(told, "scores").update(chance="0.5")),
    "scores that are true": (
        "atlas",
        lambda told: _first(told, "scores").update(values=[[[True]]]),
    ),
    "scores of unlike rows": ("atlas", lambda told: _first(told, "scores")["values"][0].pop()),
    "no prompts": ("atlas", lambda told: _first(told, "claims").update(clean=[], without=[])),
    "a head of no layer": ("atlas", lambda told: _first(told, "claims").update(heads=["2.0"])),
    "a head before the first": (
        "atlas",
        lambda told: _first(told, "claims").update(heads=["-1.0"]),
    ),
    "a head twice": ("atlas", lambda told: _first(told, "claims").update(heads=["1.0", "1.0"])),
    "an unknown kind": ("atlas", lambda told: told["claims"].update(x=_first(told, "claims"))),
    "steps that fall": ("training curves", lambda told: told["steps"].reverse()),
    "a huge shape": ("training curves", lambda told: told["low"].update(shape=[2**40, 1, 1, 1])),
    "a shape to be guessed": (
        "training curves",
        lambda told: told["low"].update(shape=[-1, 1, 2, 2]),
    ),
    "a leader of no layer": (
        "training curves",
        lambda told: told["leaders"].update(induction=[2, 0]),
    ),
    "a leader before": ("training curves", lambda told: told["leaders"].update(induction=[-1, 0])),
    "a curve too many": ("training curves", lambda told: told["curves"].update(x=told["scores"])),
    "a step less": ("grokking curves", lambda told: told["steps"].pop()),
    "a loss less": ("grokking curves", lambda told: told["losses"].pop("test_loss")),
    "no model": ("grokking curves", lambda told: told["provenance"].clear()),
    "no control": ("probe result", lambda told: told["judged"].pop("control")),
    "a class of none": (
        "probe result",
        lambda told: told["judged"]["task"].update(truth=[0, 1, 2]),
    ),
    "classes too large": ("probe result", lambda told: told.update(classes=[2**63, 1])),
    "chance above one": ("probe result", lambda told: told.update(chance=1.5)),
    "half a step done": ("state of a pruning", lambda told: told.update(done=0.5)),
    "more done than there is": ("state of a pruning", lambda told: told.update(done=10**6)),
    "kept, in a number": ("state of a pruning", lambda told: _first(told, "edges").update(kept=1)),
}
KEPT = {"kept": True, "score": 1.0}


def _first(told: dict[str, Any], entry: str) -> Any:
    return next(iter(told[entry].values()))


@pytest.mark.parametrize("what", CHANGES)
def test_what_makes_no_sense_is_refused(what: str, tmp_path: Path) -> None:
    name, change = CHANGES[what]
    path = original(name, tmp_path)
    told = json.loads(path.read_text())
    told.pop("sha256", None)
    change(told)
    path.write_text(json.dumps(told))
    assert_refused(FORMATS[name].read, path)


ALIKE = [number * (2**61 - 1) for number in range(1, 200)]
"""Numbers that Python gives one hash."""


@pytest.mark.parametrize(
    "held",
    [
        {"set": ALIKE},
        {"frozenset": [{"tuple": [number, "x"]} for number in ALIKE]},
        {"dict": [[number, None] for number in ALIKE]},
    ],
    ids=lambda held: next(iter(held)),
)
def test_sets_that_take_for_ever_are_refused(held: Any, tmp_path: Path) -> None:
    told = {**SAVED, "result": held}
    path = tmp_path / "alike.safetensors"
    path.write_bytes(signed({"__metadata__": {"interp": json.dumps(told)}}, b""))
    assert_refused(read_anything, path, match="have the same hash")


COMMITTED = sorted([*circuits_dir().rglob("*.json"), *data_dir().rglob("*.json")])


def read_anything(path: Path) -> str:
    return type(load(path)).__name__


@pytest.mark.parametrize("path", COMMITTED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_files_that_were_shipped_before_are_still_read(path: Path) -> None:
    told = decode(path.read_bytes())
    if isinstance(told, dict) and told.get("format") in FORMATS_OF_RESULTS:
        assert "sha256" not in told
        assert assert_harmless(read_anything, path).refused is None
