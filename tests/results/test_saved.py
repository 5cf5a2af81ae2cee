"""Every class that a file may hold comes back to the last bit, and nothing else comes out."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jaxtyping import Float
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

import interp
from interp import results
from interp.errors import FileFormatError
from interp.heads.facts import Fact, Verdict, Verification
from interp.saved import Saved, known, register
from interp.tensor_file import signature
from tests.results.contents import ANYTHING, FLOATS, instances, same

# The checks of shapes under test look at random entries of containers; nothing depends on which.
pytestmark = pytest.mark.filterwarnings("ignore:Do not use the `random` module")

OURS = {name: cls for name, cls in known().items() if cls.__module__.startswith("interp.")}
SAVED = {name: cls for name, cls in OURS.items() if issubclass(cls, Saved)}
shared_folder = settings(
    max_examples=4, deadline=None, suppress_health_check=list(HealthCheck), database=None
)


@register
@dataclass(frozen=True, eq=False)
class Inner:
    numbers: dict[int, tuple[float, ...]]
    anything: Any


@dataclass(frozen=True, eq=False)
class Outer(Saved):
    inner: tuple[Inner, ...]
    values: Float[Tensor, "rows columns"] | None
    weights: Float[Tensor, " columns"]
    named: dict[tuple[str, int], Inner | None]
    table: pd.DataFrame
    function: Any = field(default=None, metadata={"saved": False})


def outer(**changes: Any) -> Outer:
    inner = Inner({1: (1.5, math.nan), -2: ()}, [None, True, "five", {"a": frozenset({1})}])
    told: dict[str, Any] = {
        "inner": (inner,),
        "values": torch.eye(2)[:, :1],
        "weights": torch.ones(1),
        "named": {("x", 1): inner, ("y", 2): None},
        "table": pd.DataFrame({"n": [1, 2], "word": ["a", None], "share": [0.5, math.inf]}),
    }
    return Outer(**told | changes)


@pytest.mark.parametrize("name", sorted(SAVED))
@given(data=st.data())
@shared_folder
def test_any_contents_come_back_to_the_last_bit(name: str, data: st.DataObject, tmp_path: Path):
    one = data.draw(instances(SAVED[name]))
    again = SAVED[name].load(one.save(tmp_path / "x.safetensors"))
    assert same(one, again)


@given(inner=st.lists(instances(Inner), max_size=3), anything=ANYTHING)
@settings(shared_folder, max_examples=100)
def test_nested_dataclasses_come_back(inner: list[Inner], anything: Any, tmp_path: Path):
    one = outer(inner=tuple(inner), named={("", 0): Inner({}, anything)})
    assert same(one, Outer.load(one.save(tmp_path / "x.safetensors")))


@pytest.mark.parametrize("dtype", [*FLOATS, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_every_number_format_comes_back(dtype: torch.dtype, tmp_path: Path):
    tensor = torch.tensor([[0, 1, 2], [3, 4, 5]]).to(dtype)
    one = outer(inner=(Inner({}, [tensor, tensor.T, tensor[0, 0], tensor[:0], np.eye(3)]),))
    assert same(one, Outer.load(one.save(tmp_path / "x.safetensors")))


def test_a_file_tells_of_itself_without_this_package(tmp_path: Path):
    path = outer().save(tmp_path / "deep" / "x.safetensors")
    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["interp"])
        assert {"values", "weights"} <= set(file.keys())
    assert told["result"]["object"] == "tests.Outer"
    assert [each.name for each in path.parent.iterdir()] == ["x.safetensors"]


def test_what_no_file_can_hold_is_refused_and_nothing_is_written(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    for odd, told in (
        (print, "is a builtin_function_or_method"),
        (object(), "is a object"),
        (pd.DataFrame({"a": [1]}, index=["x"]), "index of its own"),
        (torch.eye(2).to_sparse(), "sparse"),
    ):
        with pytest.raises(FileFormatError, match=told):
            outer(inner=(Inner({}, odd),)).save(path)
    assert not any(tmp_path.iterdir())
    assert Outer.load(outer(function=print).save(path)).function is None


def test_a_verdict_keeps_the_fact_and_not_its_function(tmp_path: Path):
    fact = Fact("5.5 is an induction head", "a paper", "5.5", "none", lambda model: ({}, True))
    found = Verification((Verdict(fact, {"score": 0.9}, held=True),), {"model": "gpt2"})
    again = Verification.load(found.save(tmp_path / "x.safetensors"))
    pd.testing.assert_frame_equal(again.to_frame(), found.to_frame())
    assert again.verdicts[0].fact.measure is None


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return outer().save(tmp_path_factory.mktemp("whole") / "x.safetensors")


@given(data=st.data())
@settings(shared_folder, max_examples=300)
def test_a_damaged_file_is_refused_or_says_the_same(data: st.DataObject, whole: Path):
    bytes_ = bytearray(whole.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(bytes_) * 8 - 1), max_size=4)):
        bytes_[at // 8] ^= 1 << at % 8
    damaged = whole.with_name("damaged.safetensors")
    damaged.write_bytes(bytes_[: data.draw(st.just(len(bytes_)) | st.integers(0, len(bytes_)))])
    for read in (Outer.load, results.load):
        try:
            again = read(damaged)
        except FileFormatError as error:
            assert str(damaged) in str(error)  # noqa: PT017
        else:
            assert same(again, outer())


def _forged(path: Path, change: Any, **tensors: Tensor) -> Path:
    """The file of `outer()` with its header changed, and a hash that fits."""
    outer().save(path)
    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["interp"])
        kept = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    change(told)
    header, kept = json.dumps(told), kept | tensors
    save_file(kept, path, {"interp": header, "sha256": signature({"interp": header}, kept)})
    return path


def _put(value: Any, name: str = "function") -> Any:
    def change(told: dict[str, Any]) -> None:
        told["result"]["fields"][name] = value

    return change


DEEP: list[Any] = []
for _ in range(900):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_put({"object": "os.system", "fields": {"command": "true"}}, "named"), "no class of this"),
        (_put({"object": "builtins.eval", "fields": {}}, "named"), "no class of this"),
        (_put({"site": "rm -rf"}, "named"), "not a site"),
        (_put(1), "has the fields inner, values, weights, named, table, not"),
        (_put("words", "weights"), "Outer.weights is not what it must be"),
        (_put({"tensor": "nowhere"}, "weights"), "nowhere"),
        (_put({"tuple": []}, "weights"), "Outer.weights is not what it must be"),
        (_put({"tuple": [7]}, "inner"), "Outer.inner is not what it must be"),
        (_put({"strange": 1}, "inner"), "nothing that this release writes"),
        (_put({"dict": [1]}, "named"), "missing or broken part"),
        (_put({"dict": [[{"dict": []}, None]]}, "named"), "unhashable"),
        (_put({"frame": {"rows": 10**12}}, "table"), "missing or broken part"),
        (_put({"tuple": DEEP}, "inner"), "nested more than 100 deep"),
        (lambda told: told.update(result=None), "holds a"),
        (lambda told: told.pop("result"), "broken part"),
        (lambda told: told.update(version=2), "written in version 2"),
        (lambda told: told.update(format="other"), "does not hold a Outer"),
    ],
)
def test_a_forged_file_is_refused_with_one_sentence(change: Any, why: str, tmp_path: Path):
    path = _forged(tmp_path / "x.safetensors", change)
    with pytest.raises(FileFormatError, match=why) as refused:
        Outer.load(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tensors_of_other_shapes_are_refused(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    for shape in ((2,), (1, 1), ()):
        with pytest.raises(FileFormatError, match=r"Outer\.weights is not what it must be"):
            Outer.load(_forged(path, lambda told: None, weights=torch.ones(shape)))
    with pytest.raises(FileFormatError, match="nothing names its tensor more"):
        Outer.load(_forged(path, lambda told: None, more=torch.ones(1)))


def test_a_circuit_in_a_file_cannot_claim_a_giant_model(tmp_path: Path):
    from interp.circuits import Circuit, Evaluation
    from interp.circuits.shape import Shape

    circuit = Circuit.from_nodes(Shape(2, 2, 2), ["0.1"])
    one = torch.ones(1)
    evaluation = Evaluation({"ioi": circuit}, one[None], one, one, one[None, None], "m", "zero", {})
    path = evaluation.save(tmp_path / "x.safetensors")
    with safe_open(path, framework="pt") as file:
        header = file.metadata()["interp"].replace('"n_layers": 2', '"n_layers": 1000000000')
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    save_file(tensors, path, {"interp": header, "sha256": signature({"interp": header}, tensors)})
    with pytest.raises(FileFormatError, match=r"give \d+ numbers"):
        Evaluation.load(path)


def test_another_class_is_named(tmp_path: Path):
    path = outer().save(tmp_path / "x.safetensors")
    with pytest.raises(FileFormatError, match=r"a tests\.Outer, not a heads\.Verification"):
        Verification.load(path)
    assert same(results.load(path), outer())


def test_two_classes_of_one_name_are_a_bug():
    with pytest.raises(TypeError, match=r"Two classes would be tests\.Inner"):
        register(type("Inner", (), {"__module__": "tests.other"}))


def test_all_classes_are_known_wherever_a_file_is_read():
    """What reads a file imports every class that it may name."""
    code = "import interp.results; from interp.saved import known; print(*known())"
    ended = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    asked = re.compile(
        r"^class (\w+)\([^)]*\bSaved\b|^@register\n@dataclass[^\n]*\nclass (\w+)", re.MULTILINE
    )
    root = Path(interp.__file__).parent
    written = {
        f"{path.relative_to(root).parts[0]}.{one or other}"
        for path in root.rglob("*.py")
        for one, other in asked.findall(path.read_text(encoding="utf-8"))
    }
    assert set(ended.stdout.split()) == written
    assert len(written) > 100
