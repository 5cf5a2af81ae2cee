"""A scan in a run, and on another engine: the atlas of one that was never stopped nor sent."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from interp import runs
from interp.errors import MetricError, OutOfMemory, RunError
from interp.heads import HeadAtlas, scan
from interp.heads.scan_work import DETECTORS, packed, unpacked
from interp.heads.score import Score
from interp.models import Model
from interp.results import load
from interp.runs import Run
from interp.zoo import handmade
from tests.engines import Noted, Shuffled
from tests.stopped import a_scan, killed


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many as the children of `tests.stopped` have."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def whole() -> HeadAtlas:
    torch.set_num_threads(1)
    return a_scan()


@pytest.fixture
def model() -> Model:
    return handmade.ALL["induction"]().model


def assert_same(found: HeadAtlas, expected: HeadAtlas) -> None:
    """Bit by bit, NaN too, and in the same order."""
    assert list(found.scores) == list(expected.scores)
    assert list(found.claims) == list(expected.claims)
    assert found.missing == expected.missing
    assert found.provenance | {"device": ""} == expected.provenance | {"device": ""}
    for kind, score in found.scores.items():
        other = expected.scores[kind]
        assert bits(score.values) == bits(other.values)
        assert (score.samples, str(score.chance), score.notes) == (
            other.samples,
            str(other.chance),
            other.notes,
        )
    for kind, claim in found.claims.items():
        for name, value in vars(claim).items():
            other = getattr(expected.claims[kind], name)
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, (kind, name)


def bits(values: torch.Tensor) -> bytes:
    return values.contiguous().numpy().tobytes()


def test_the_scan_that_is_tested_has_scores_claims_and_reasons(whole: HeadAtlas) -> None:
    assert len(whole.scores) > 5
    assert len(whole.claims) == 3
    assert "claim of " not in "".join(whole.missing)
    assert len(whole.missing) > 5


def test_a_scan_that_is_killed_goes_on_and_repeats_nothing(
    whole: HeadAtlas, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    attempts = killed("scan", folder)
    assert [each["ended"] for each in attempts] == [-9] * (len(attempts) - 1) + [0]
    assert len(attempts) == 5
    for attempt in attempts:
        assert not set(attempt["known"]) & set(attempt["computed"])
    known = runs.info(folder)
    assert (known.state, known.done, known.chunks) == ("done", 13, 13)
    assert runs.verify(folder) == []
    again = Noted()
    assert_same(a_scan(folder, engine=again), whole)
    assert again.computed == []
    assert_same(load(folder), HeadAtlas.load(whole.save(tmp_path / "whole.json")))


def test_other_options_are_refused_with_the_difference_named(model: Model, tmp_path: Path) -> None:
    about: dict[str, Any] = {"kinds": ["induction"], "n": 2, "check": False, "run": tmp_path}
    scan(model, progress=False, **about)
    for changed, told in (
        ({"n": 3}, "n was 2 and is 3"),
        ({"seed": 1}, "seed was 0 and is 1"),
        ({"check": True}, "check was False and is True"),
        ({"kinds": "copying"}, r"kinds was \['induction'\] and is \['copying'\]"),
    ):
        with pytest.raises(RunError, match=f"is another run: {told}; resume it"):
            scan(model, progress=False, **{**about, **changed})
    with pytest.raises(RunError, match="weights_hash was"):
        scan(model.untrained(), progress=False, **about)
    with pytest.raises(RunError, match="kind was 'atlas' and is 'test'"):
        Run(tmp_path, kind="test", result="x", identity={})


def test_a_kind_that_does_not_exist_leaves_no_folder(model: Model, tmp_path: Path) -> None:
    with pytest.raises(MetricError, match="is not a kind of head"):
        scan(model, "inducton", run=tmp_path / "run")
    assert not any(tmp_path.iterdir())


def test_a_damaged_chunk_is_computed_again(whole: HeadAtlas, tmp_path: Path) -> None:
    a_scan(tmp_path)
    held = {path.name: path for path in (tmp_path / "chunks").iterdir()}
    last = held[max(held)]
    last.write_bytes(last.read_bytes()[:-1])
    again = Noted()
    with pytest.warns(UserWarning, match=rf"{last.name} has .* computed again"):
        assert_same(a_scan(tmp_path, engine=again), whole)
    assert again.computed
    assert runs.verify(tmp_path) == []


def test_a_chunk_of_something_else_is_refused(model: Model, tmp_path: Path) -> None:
    about: dict[str, Any] = {"n": 2, "check": False, "progress": False}
    scan(model, ["induction"], run=tmp_path / "a", **about)
    identity = runs.info(tmp_path / "a").identity
    kind = identity.pop("kind")
    for chunk in (
        {"values": torch.zeros(3)},
        {"bytes": torch.zeros(9, dtype=torch.uint8)},
        packed({"induction": 1}),
    ):
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        with Run(folder, kind=kind, result="atlas.json", identity=identity) as run:
            run.keep(0, chunk)
        with pytest.raises(RunError, match=r"Chunk 0 of .* holds something else"):
            scan(model, ["induction"], run=folder, **about)


def test_a_run_does_not_keep_that_memory_ran_out(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(model: Model, **how: Any) -> Score:
        raise OutOfMemory("One prompt does not fit in memory; give fewer.")

    ask = partial(scan, model, ["induction", "copying"], n=2, check=False, progress=False)
    plain = ask()
    with monkeypatch.context() as small:
        small.setitem(DETECTORS, ("copying",), full)
        found = ask(run=tmp_path)
    assert found.missing == {"copying": "One prompt does not fit in memory; give fewer."}
    assert (runs.info(tmp_path).state, runs.info(tmp_path).done) == ("stopped", 1)
    assert not (tmp_path / "atlas.json").exists()
    again = Noted()
    assert_same(ask(run=tmp_path, engine=again), plain)
    assert len(again.computed) == 1
    assert runs.info(tmp_path).state == "done"


def test_threads_are_as_when_it_was_begun(model: Model, tmp_path: Path) -> None:
    about: dict[str, Any] = {"n": 2, "check": False, "run": tmp_path, "progress": False}
    first, second = Noted(), Noted()
    scan(model, ["induction"], engine=first, **about)
    for file in (tmp_path / "chunks").iterdir():
        file.unlink()
    torch.set_num_threads(2)
    with pytest.warns(UserWarning, match="computed again"):
        scan(model, ["induction"], engine=second, **about)
    assert first.with_threads == second.with_threads == {1}
    assert torch.get_num_threads() == 2


def test_an_engine_that_sends_and_shuffles_gives_the_same_bits(
    whole: HeadAtlas, tmp_path: Path
) -> None:
    engine = Shuffled()
    assert_same(a_scan(tmp_path, engine=engine), whole)
    assert engine.computed != sorted(engine.computed) == list(range(13))


def test_every_detector_is_named_by_kinds_that_can_be_sent(whole: HeadAtlas) -> None:
    assert {kind for kinds in DETECTORS for kind in kinds} == {*whole.scores, *whole.missing}


def test_what_is_packed_comes_back_with_its_bits_and_its_nan() -> None:
    values = torch.tensor([[[0.1, torch.nan, -0.0, torch.inf]]])
    score = Score("induction", values, "words", torch.nan, {"n": 3, "of": ("a", 1.5)})
    (found,) = unpacked(packed([score]), list[Score])
    assert bits(found.values) == bits(values)
    assert (found.kind, found.samples, str(found.chance)) == ("induction", "words", "nan")
    assert found.notes == score.notes
    assert unpacked(packed("why not"), list[Score] | str) == "why not"
    with pytest.raises(ValueError, match="bytes"):
        unpacked({}, str)
    with pytest.raises(ValueError, match="is not what it must be"):
        unpacked(packed("why not"), list[Score])
