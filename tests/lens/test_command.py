"""`interp lens`: a table, a file, a page; a tuned lens is trained and used again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from interp.cli.lens import lens
from interp.errors import LensError
from interp.lens.lens_file import load_lens
from interp.lens.reading import LensReading

TEXT = r"Q: hot\nA: cold"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The command as an app of its own, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    app = typer.Typer()
    app.command()(lens)

    def invoke(*arguments: str):
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return invoke


def test_a_table_a_file_and_a_page(run):
    ended = run("polymath", TEXT, "--layers", "0,3,6", "--out", "r.json", "--html", "page.html")
    assert ended.exit_code == 0, ended.stderr
    for column in ("at", "token", "layer 0", "layer 3", "layer 6", r"\n"):
        assert column in ended.stdout
    assert ended.stderr.splitlines()[-2:] == ["Wrote r.json", "Wrote page.html"]
    kept = LensReading.load("r.json")
    assert kept.layers == (0, 3, 6)
    page = Path("page.html").read_text(encoding="utf-8")
    assert "Plotly" in page
    assert 'src="http' not in page


def test_a_tuned_lens_is_trained_and_used_again(run):
    options = ("--value", "kl", "--json")
    trained = run("polymath", TEXT, *options, "--train", "1", "--tuned", "lens.safetensors")
    assert trained.exit_code == 0, trained.stderr
    assert load_lens("lens.safetensors").provenance["steps"] == 1
    again = run("polymath", TEXT, *options, "--tuned", "lens.safetensors")
    first, second = json.loads(trained.stdout), json.loads(again.stdout)
    assert first["provenance"].pop("command") != second["provenance"].pop("command")
    assert second == first
    assert {row["statistic"] for row in json.loads(again.stdout)["summary"]} >= {"kl", "rank"}
    with pytest.raises(LensError, match="belongs to polymath"):
        run("polymath-llama", TEXT, "--tuned", "lens.safetensors")


def test_what_makes_no_sense_is_refused(run):
    with pytest.raises(LensError, match="'all' names no layers"):
        run("polymath", TEXT, "--layers", "all")
    with pytest.raises(LensError, match="did you mean rank"):
        run("polymath", TEXT, "--value", "rnk")
