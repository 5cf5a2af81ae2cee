"""The first thing that a newcomer runs."""

from __future__ import annotations

from pathlib import Path

from tests.shell.conftest import Shell


def test_the_demo_ends_with_the_path_of_its_report(interp: Shell, tmp_path: Path) -> None:
    ended = interp("demo", "--out", "somewhere")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    *told, last = ended.stdout.splitlines()
    assert last == str(Path("somewhere") / "report.html")
    html = (tmp_path / last).read_text(encoding="utf-8")
    assert "Inside polymath" in html
    for section in (
        "What each head does",
        "What breaks when a head is removed, on ioi",
        "The circuit of ioi in polymath",
        "What tasks share",
        "Does the task vector of antonym do its task in polymath?",
        "Do the layers of polymath agree when it is right? (coin_flip)",
    ):
        assert section in told
        assert section in html.replace("&#39;", "'")
    assert any(line.startswith("found ") and "induction heads." in line for line in told)
    assert "\x1b" not in ended.stdout
