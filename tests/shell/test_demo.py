"""The first thing that a newcomer runs."""

from __future__ import annotations

from pathlib import Path

from tests.shell.conftest import Shell


def test_the_demo_ends_with_the_path_of_its_report(interp: Shell, tmp_path: Path) -> None:
    ended = interp("demo", "--out", "somewhere")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    *table, last = ended.stdout.splitlines()
    assert last == str(Path("somewhere") / "report.html")
    html = (tmp_path / last).read_text(encoding="utf-8")
    assert "Inside polymath" in html
    assert "induction heads." in html
    assert "On ioi, removing head" in html
    assert any(line.startswith("induction ") for line in table)
    assert "\x1b" not in ended.stdout
