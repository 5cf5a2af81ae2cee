"""Bars on a terminal are looked at in tests/shell/test_shell.py."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

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


def in_a_notebook(source: str) -> list[dict[str, Any]]:
    """Run one cell in a kernel; every message about its output, in order."""
    messages: list[dict[str, Any]] = []

    class Client(NotebookClient):
        def process_message(self, msg: dict[str, Any], *rest: Any) -> Any:
            messages.append(msg)
            return super().process_message(msg, *rest)

    Client(new_notebook(cells=[new_code_cell(source)]), timeout=60).execute()
    told = ("display_data", "update_display_data", "stream")
    return [message["content"] for message in messages if message["msg_type"] in told]


def test_a_notebook_shows_a_line_that_is_renewed_and_then_goes_away() -> None:
    lines = in_a_notebook(
        "import time\n"
        "from interp.progress import track\n"
        "for item in track(range(4), 'Following <b>'):\n"
        "    time.sleep(0.6)\n"
        "for item in track(range(4), 'Short'):\n"
        "    pass\n"
    )
    assert len({line["transient"]["display_id"] for line in lines}) == 1
    *shown, last = [line["data"] for line in lines]
    assert shown[0]["text/html"].startswith('<progress value="2" max="4"></progress> Following ')
    assert "Following &lt;b&gt; 2/4" in shown[0]["text/html"]
    assert re.fullmatch(r"Following <b> 2/4, 0:00:0\d left", shown[0]["text/plain"])
    assert last == {"text/html": "", "text/plain": ""}


def test_a_notebook_that_is_executed_for_keeps_shows_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INTERP_PROGRESS", "0")  # what the kernel inherits
    assert in_a_notebook("from interp.progress import track; list(track(range(2), 'x'))") == []
