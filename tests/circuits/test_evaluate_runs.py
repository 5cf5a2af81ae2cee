"""An evaluation in a run, and on another engine: the bits of one never stopped nor sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

from interp import runs
from interp.circuits import Circuit, Evaluation, evaluate
from interp.circuits.random_circuits import random_circuits
from interp.engine.subgraph_walk import SubgraphRunner
from interp.errors import CircuitError, InterventionError, OutOfMemory, RunError
from interp.results import load
from interp.runs import Run
from interp.sites import Head
from tests.engines import Noted, Shuffled
from tests.parity.compare import model, pairs
from tests.stopped import Small, an_evaluation, killed

CHUNKS = 16
"""Of `an_evaluation`: eight batches of 22 circuits on two groups of prompts."""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many as the children of `tests.stopped` have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole() -> Evaluation:
    torch.set_num_threads(1)
    return an_evaluation()


def assert_same(found: Evaluation, expected: Evaluation) -> None:
    for name in ("values", "random", "clean", "empty"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    assert found.provenance | {"device": ""} == expected.provenance | {"device": ""}
    assert list(found.circuits) == list(expected.circuits)


def test_an_evaluation_that_is_killed_goes_on_and_repeats_nothing(
    whole: Evaluation, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    attempts = killed("evaluation", folder)
    assert [each["ended"] for each in attempts] == [-9, -9, -9, -9, 0]
    for attempt in attempts:
        assert not set(attempt["known"]) & set(attempt["computed"])
    known = runs.info(folder)
    assert (known.state, known.done, known.chunks) == ("done", CHUNKS, CHUNKS)
    assert runs.verify(folder) == []
    again = Noted()
    assert_same(an_evaluation(folder, engine=again), whole)
    assert again.computed == []
    assert_same(load(folder), whole)


def test_other_calls_are_refused_with_the_difference_named(tmp_path: Path) -> None:
    some, prompts = model("gpt2"), pairs()
    circuit = Circuit.from_nodes(some, [Head(0, 1), Head(1, 2)])
    about: dict[str, Any] = {"random": 1, "run": tmp_path, "progress": False}
    evaluate(some, prompts, circuit, **about)
    for changed, told in (
        ({"random": 2}, "random was 1 and is 2"),
        ({"ablation": "zero"}, "ablation was 'counterfactual' and is 'zero'"),
        ({"metric": "prob"}, "metric was 'logit_diff' and is 'prob'"),
        ({"metric": mine}, "metric was 'logit_diff' and is '.*mine, source "),
        ({"control": some.untrained()}, "control was nothing and is "),
    ):
        with pytest.raises(RunError, match=f"is another run: {told}"):
            evaluate(some, prompts, circuit, **{**about, **changed})
    with pytest.raises(RunError, match=r"prompts_hash was .*; n was 4 and is 2"):
        evaluate(some, prompts[:2], circuit, **about)
    at_s = replace(circuit, places={Head(0, 1): ("S",)})
    for other in (Circuit.from_nodes(some, [Head(0, 1)]), at_s):
        with pytest.raises(RunError, match=r"circuits\.circuit was '\w+' and is '\w+'; resume"):
            evaluate(some, prompts, other, **about)
    labelled = replace(circuit, labels={Head(0, 1): ("induction",)})
    again = Noted()
    found = evaluate(some, prompts, labelled, engine=again, **about)
    assert again.computed == []
    assert found.circuits["circuit"].labels == labelled.labels


def mine(logits: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(dim=-1)[:, 5]


def test_calls_that_cannot_be_leave_no_folder(tmp_path: Path) -> None:
    some, run = model("gpt2"), tmp_path / "run"
    circuit = Circuit.from_nodes(some, [Head(0, 1)])
    with pytest.raises(CircuitError, match="There is no ablation"):
        evaluate(some, pairs(), circuit, ablation="zeor", run=run)
    with pytest.raises(CircuitError, match="give fit="):
        evaluate(some, pairs(), circuit, ablation="optimal", run=run)
    with pytest.raises(InterventionError, match="not taken over 'x'"):
        evaluate(some, pairs(), circuit, ablation="counterfactual-mean", over="x", run=run)
    assert not any(tmp_path.iterdir())


def test_a_damaged_chunk_is_computed_again(whole: Evaluation, tmp_path: Path) -> None:
    an_evaluation(tmp_path)
    for file in (tmp_path / "chunks").iterdir():  # one, or more on a slow day
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    again = Noted()
    with pytest.warns(UserWarning, match="computed again"):
        assert_same(an_evaluation(tmp_path, engine=again), whole)
    assert again.computed == list(range(CHUNKS))


def test_a_chunk_of_another_shape_is_refused(tmp_path: Path) -> None:
    an_evaluation(tmp_path / "a")
    identity = runs.info(tmp_path / "a").identity
    kind = identity.pop("kind")
    for number, chunk in ((0, {"ends": torch.zeros(2)}), (99, {"ends": torch.zeros(2)}), (1, {})):
        folder = tmp_path / str(number)
        with Run(folder, kind=kind, result="evaluation.safetensors", identity=identity) as run:
            run.keep(number, {"other": torch.zeros(1), **chunk})
        with pytest.raises(RunError, match=f"Chunk {number} of .* holds something else"):
            an_evaluation(folder)


def test_free_memory_and_threads_are_as_when_it_was_begun(
    whole: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    an_evaluation(tmp_path)
    for file in (tmp_path / "chunks").iterdir():
        file.unlink()
    monkeypatch.setattr(import_module("interp.engine.subgraph"), "train_tokens", lambda _: 1)
    monkeypatch.setattr(import_module("interp.engine.subgraph"), "largest_group", lambda *_: 1)
    torch.set_num_threads(2)
    again = Noted()
    with pytest.warns(UserWarning, match="computed again"):
        assert_same(an_evaluation(tmp_path, engine=again), whole)
    assert again.with_threads == {1}
    assert len(again.computed) == CHUNKS
    assert torch.get_num_threads() == 2


def test_circuits_that_do_not_fit_together_are_run_in_halves(
    whole: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, sizes = SubgraphRunner.__call__, []

    def small(self: SubgraphRunner, circuits: torch.Tensor, where: Any) -> torch.Tensor:
        sizes.append(len(circuits))
        if len(circuits) > most:
            raise torch.OutOfMemoryError("no room")
        return ran(self, circuits, where)

    monkeypatch.setattr(SubgraphRunner, "__call__", small)
    most = 1
    found = an_evaluation()
    assert max(sizes) > 1
    assert torch.allclose(found.values, whole.values, atol=1e-5)
    most = 0
    with pytest.raises(OutOfMemory, match=r"One circuit on .* does not fit in memory \(no room\)"):
        an_evaluation()


def test_a_run_that_was_cut_otherwise_is_refused(tmp_path: Path) -> None:
    an_evaluation(tmp_path)
    with pytest.raises(RunError, match=r"cut into 16 chunks and is now cut into \d+, by another"):
        circuits_of(tmp_path)


def circuits_of(folder: Path) -> None:
    """The same evaluation by an engine that runs more side by side."""
    before, Small.__enter__ = Small.__enter__, lambda _: None  # type: ignore[method-assign]
    after, Small.__exit__ = Small.__exit__, lambda *_: None  # type: ignore[method-assign]
    try:
        an_evaluation(folder)
    finally:
        Small.__enter__, Small.__exit__ = before, after  # type: ignore[method-assign]


@pytest.mark.parametrize("ablation", ["mean", "counterfactual", "counterfactual-mean", "resample"])
def test_an_engine_that_sends_and_shuffles_gives_the_same_bits(ablation: str) -> None:
    engine = Shuffled()
    assert_same(an_evaluation(engine=engine, ablation=ablation), an_evaluation(ablation=ablation))
    assert engine.computed != sorted(engine.computed)


def test_roles_and_a_metric_of_the_user_are_the_same_on_another_engine() -> None:
    some, prompts = model("gpt2"), pairs("left")
    circuit = Circuit.from_nodes(some, ["0.1@S", "1.2", "m0@END"])
    options: dict[str, Any] = {"random": 5, "progress": False}
    options["metric"] = lambda logits: logits.log_softmax(dim=-1)[:, 5]  # stays where it is
    with Small():
        here = evaluate(some, prompts, circuit, **options)
        sent = evaluate(some, prompts, circuit, engine=Shuffled(), **options)
    assert_same(sent, here)


def test_the_control_is_kept_beside(tmp_path: Path) -> None:
    some, prompts = model("gpt2"), pairs()
    circuit = Circuit.from_nodes(some, [Head(0, 1), Head(1, 2)])
    options: dict[str, Any] = {"random": 2, "control": some.untrained(), "progress": False}
    plain = evaluate(some, prompts, circuit, **options)
    assert plain.control is not None
    for engine in (Noted(), again := Noted()):
        found = evaluate(some, prompts, circuit, run=tmp_path / "run", engine=engine, **options)
        assert_same(found, plain)
        assert found.control is not None
        assert_same(found.control, plain.control)
    assert again.computed == []
    assert [path.name for path in runs.find(tmp_path)] == ["run", "run-control"]
    assert_same(load(tmp_path / "run-control"), plain.control)
    assert len(random_circuits(circuit, 2)) == plain.random.shape[1]


def test_the_command_is_told(tmp_path: Path) -> None:
    found = an_evaluation(tmp_path, command="interp circuit toy")
    assert found.provenance["command"] == runs.info(tmp_path).command == "interp circuit toy"
