"""Scans and evaluations over a real Ray cluster: the bits of one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from interp import runs
from interp.heads import scan
from interp.workers import Ray
from interp.zoo import handmade
from tests.circuits.test_evaluate_runs import assert_same as assert_same_evaluation
from tests.engines import Noted
from tests.heads.test_scan_runs import assert_same as assert_same_atlas
from tests.stopped import an_evaluation


@pytest.mark.slow
def test_a_scan_is_that_of_one_process(cluster: Ray, tmp_path: Path) -> None:
    model = handmade.ALL["induction"]().model
    kinds, run = ["induction", "copying", "name-mover"], tmp_path / "run"
    whole = scan(model, kinds, n=3, progress=False)
    assert list(whole.claims) == ["induction"]
    assert list(whole.missing) == ["name-mover"]
    found = scan(model, kinds, n=3, run=run, engine=cluster, progress=False)
    assert_same_atlas(found, whole)
    assert found.provenance["device"] == "cpu (Ray)"
    again = Noted()
    assert_same_atlas(scan(model, kinds, n=3, run=run, engine=again, progress=False), whole)
    assert again.computed == []


@pytest.mark.slow
@pytest.mark.parametrize("ablation", ["mean", "counterfactual-mean"])
def test_an_evaluation_is_that_of_one_process(cluster: Ray, ablation: str, tmp_path: Path) -> None:
    whole = an_evaluation(ablation=ablation)
    assert_same_evaluation(an_evaluation(tmp_path, engine=cluster, ablation=ablation), whole)
    assert runs.info(tmp_path).done == 16
    again = Noted()
    assert_same_evaluation(an_evaluation(tmp_path, engine=again, ablation=ablation), whole)
    assert again.computed == []
