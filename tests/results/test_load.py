"""One function reads whatever a result wrote."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import interp
from interp import results
from interp.circuits import Circuit, Evaluation, evaluate
from interp.circuits.stability import stability
from interp.errors import FileFormatError
from interp.grokking.curves import shipped_curves
from interp.heads import HeadAtlas
from interp.lens.lens import Lens
from interp.lens.lens_file import save_lens
from interp.lens.read import read
from interp.runs import Run
from interp.vectors.vector import Vector
from interp.vectors.weights.weight_vector import WeightVector
from tests.closed import closed_folder
from tests.report.results import atlas

MODEL = interp.load("polymath", check=False)
PROMPTS = interp.tasks.get("ioi").sample(MODEL, n=4, seed=0)
SWEEP = interp.ablate(MODEL, PROMPTS, method="zero")


@pytest.fixture(scope="module")
def evaluation() -> Evaluation:
    circuit = Circuit.from_nodes(MODEL, ["5.1", "3.2"], mlps=True)
    return evaluate(MODEL, PROMPTS, circuit, random=2, progress=False)


def _looks(result: object) -> tuple[str, str]:
    frame = getattr(result, "to_frame", None)
    return repr(result), repr(result) if frame is None else frame().to_json()


def test_every_format_of_its_own_is_read_by_its_header(tmp_path: Path):
    saved = [
        (atlas(), "a.json"),
        (atlas(), "a.parquet"),
        (SWEEP, "s.safetensors"),
        (Circuit.from_nodes(MODEL, ["5.1"]), "c"),
        (shipped_curves(), "g.json"),
        (read(MODEL, ["When Mary and John"], k=2), "l.json"),
        (read(MODEL, ["When Mary and John"], k=2), "l.parquet"),
        (Vector({2: torch.ones(4)}, "add", "task", {"model": "m"}), "v"),
        (WeightVector({"w": torch.ones(2)}, "hash", "past", {"model": "m"}), "w"),
    ]
    for one, name in saved:
        one.save(tmp_path / name)
        again = results.load(tmp_path / name)
        assert type(again) is type(one)
        assert _looks(again) == _looks(one)
    lens = Lens("tuned", {"model": "m"}, torch.ones(1, 2, 2), torch.ones(1, 2))
    assert repr(results.load(save_lens(lens, tmp_path / "lens"))) == repr(lens)


def test_activations_in_a_folder_are_read(tmp_path: Path):
    kept = interp.capture(MODEL, PROMPTS, ["blocks.0.attn.hook_z"], to=tmp_path / "acts")
    assert repr(results.load(tmp_path / "acts")) == repr(kept)


def test_results_of_a_model_come_back_with_equal_tables(evaluation: Evaluation, tmp_path: Path):
    for one in (evaluation, stability(SWEEP, sizes=(2, 5), pairs=10, progress=False)):
        again = results.load(one.save(tmp_path / "x.safetensors"))
        pd.testing.assert_frame_equal(again.to_frame(), one.to_frame())
        assert repr(again) == repr(one)
        assert again.provenance == one.provenance
        assert again.plot().to_json() == one.plot().to_json()


def test_a_folder_gives_all_its_results_by_name(evaluation: Evaluation, tmp_path: Path):
    paths = results.save_all(tmp_path / "all", scan=atlas(), judged=evaluation)
    assert [path.name for path in paths] == ["scan.json", "judged.safetensors"]
    assert [type(each) for each in results.load_all(tmp_path / "all")] == [Evaluation, HeadAtlas]
    both = results.load_all(paths[0], tmp_path / "all")
    assert [type(each) for each in both] == [HeadAtlas, Evaluation, HeadAtlas]
    with pytest.raises(FileFormatError, match=r"interp\.results\.load_all"):
        results.load(tmp_path / "all")


def test_the_folder_of_a_run_gives_its_result_when_it_is_done(tmp_path: Path):
    def begin() -> Run:
        return Run(tmp_path / "r", kind="sweep", result="sweep.safetensors", identity={"a": 1})

    with begin():
        pass
    with pytest.raises(FileFormatError, match=r"not done; `interp runs show .*r` tells more"):
        results.load(tmp_path / "r")
    with begin() as run:
        run.settle("chunks", 0)
        run.finish(SWEEP.save)
    assert repr(results.load(tmp_path / "r")) == repr(SWEEP)
    assert len(results.load_all(tmp_path / "r", tmp_path / "r")) == 2


def test_the_command_of_a_run_is_not_repeated(tmp_path: Path):
    command = "rm -r ~\n\x1b[2Jinterp sweep"
    with Run(tmp_path / "r", kind="sweep", result="s", identity={"a": 1}, command=command):
        pass
    with pytest.raises(FileFormatError, match="is a run that is not done") as refused:
        results.load(tmp_path / "r")
    assert str(refused.value).isprintable()
    assert "rm -r" not in str(refused.value)


def test_a_folder_that_may_not_be_entered_is_refused():
    with closed_folder() as folder:
        for place in (folder, folder / "index.json"):
            for read in (results.load, results.load_all, results.place_of):
                with pytest.raises(FileFormatError, match=r"cannot be read \(Permission denied\)"):
                    read(place)


def test_what_is_unknown_is_refused_with_what_is_known(tmp_path: Path):
    unknown = tmp_path / "x"
    for contents in (b"", b"hello", b"{}", b'{"format": "interp.acdc"}', b"PAR1", b"[" * 9000):
        unknown.write_bytes(contents)
        with pytest.raises(FileFormatError, match=r"interp\.Circuit, interp\.Consistency"):
            results.load(unknown)
    with pytest.raises(FileFormatError, match="does not exist"):
        results.load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileFormatError, match="empty folder"):
        results.load_all(tmp_path / "empty")


@given(st.binary(max_size=60), st.sampled_from([b"", b"PAR1", b'\x08\0\0\0\0\0\0\0{"a":{}}', b"{"]))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), database=None)
def test_no_bytes_lead_to_another_error(tmp_path: Path, contents: bytes, start: bytes):
    (tmp_path / "x").write_bytes(start + contents)
    with pytest.raises(FileFormatError):
        results.load(tmp_path / "x")
