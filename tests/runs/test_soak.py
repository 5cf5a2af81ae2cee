"""The soak: an hour of faults, or SOAK_MINUTES, left out unless asked for with -m soak."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.runs.soak import soaked


@pytest.mark.soak
@pytest.mark.slow
def test_nothing_is_lost_or_wrong_after_an_hour_of_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    minutes = float(os.environ.get("SOAK_MINUTES", "60"))
    seed = int(os.environ.get("SOAK_SEED", random.SystemRandom().randrange(10**6)))
    with capsys.disabled():
        print(f"\n{minutes:g} minutes of faults, SOAK_SEED={seed}", flush=True)
        tally = soaked(tmp_path, minutes, seed)
    assert (tally.recomputed, tally.wrong) == (0, 0)
