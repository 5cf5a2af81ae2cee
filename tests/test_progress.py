from __future__ import annotations

import time

import pytest

from interp.progress import track


def test_nothing_is_written_where_nobody_watches(capfd: pytest.CaptureFixture[str]):
    assert list(track([1, 2, 3], "Counting")) == [1, 2, 3]
    assert capfd.readouterr() == ("", "")


def test_a_bar_appears_after_a_second_on_standard_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes standard error for a terminal
    for _ in track([1, 2, 3], "Short work"):
        pass
    for item in track([1, 2], "Long work"):
        time.sleep(1.2 if item == 1 else 0.3)
    for _ in track([1], "One item"):
        time.sleep(0.01)
    out, err = capfd.readouterr()
    assert out == ""
    assert "Long work" in err
    assert "Short work" not in err
    assert "One item" not in err
