"""`interp report`, and the folders that `--save` fills for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import interp
from interp import results
from interp.circuits import Circuit, Overlap
from tests.report.results import atlas, untrained
from tests.shell.conftest import Shell
from tests.shell.test_commands import one_line

MODEL = interp.load("polymath", check=False)


def test_a_report_is_made_of_files_and_folders(inside: Shell):
    results.save_all("heads", atlas=atlas(), untrained=untrained())
    prompts = interp.tasks.get("ioi").sample(MODEL, n=2, seed=0)
    interp.ablate(MODEL, prompts, ["5.1", "3.2"]).save("ioi.safetensors")
    ended = inside("report", "heads", "ioi.safetensors", "--title", "A < B")
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "Wrote report.html\n")
    page = Path("report.html").read_text(encoding="utf-8")
    assert "A &lt; B" in page
    assert "untrained" in page
    assert page.count("<section") >= 2


def test_json_is_printed_and_written_only_where_it_is_asked_for(inside: Shell):
    atlas().save("atlas.json")
    printed = inside("report", "atlas.json", "--json")
    assert printed.returncode == 0, printed.stderr
    assert json.loads(printed.stdout)["title"] == "Inside toy"
    assert not Path("report.html").exists()
    both = inside("report", "atlas.json", "--json", "--out", "told/report.md")
    assert both.stdout == printed.stdout
    assert Path("told/report.md").read_text(encoding="utf-8").startswith("# ")


def test_what_is_no_result_is_one_line(inside: Shell):
    Path("notes.txt").write_text("hello", encoding="utf-8")
    assert "does not exist" in one_line(inside("report", "nowhere"))
    assert "this release reads interp.Activations" in one_line(inside("report", "notes.txt"))
    atlas().save("atlas.json")
    assert "end the name in .html" in one_line(inside("report", "atlas.json", "--out", "r.txt"))


COMMANDS = {
    "scan": ("polymath", "--kinds", "previous-token,induction", "--n", "4", "--no-check"),
    "circuit": ("polymath", "--task", "ioi", "--n", "2", "--method", "eap"),
    "lens": ("polymath", "When Mary and John went"),
    "probe": ("polymath", "--task", "coin_flip", "--n", "20"),
    "consistency": ("polymath", "--n", "2", "--calibration", "2", "--paths", "2"),
    "vectors": ("polymath", "--task", "antonym", "--n", "4", "--shots", "2"),
}
WRITTEN = {
    "scan": ["atlas.json", "untrained.json"],
    "circuit": ["circuit.json", "evaluation.safetensors"],
    "lens": ["reading.json"],
    "probe": ["probes.json"],
    "consistency": ["consistency.json"],
    "vectors": ["found.safetensors", "judged.safetensors", "vector.safetensors"],
}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_command_keeps_all_its_results(inside: Shell, command: str):
    ended = inside(command, *COMMANDS[command], "--save", "kept", "--json")
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout)
    assert sorted(path.name for path in Path("kept").iterdir()) == WRITTEN[command]
    found = results.load_all("kept")
    assert len(found) == len(WRITTEN[command])
    for one in found:
        assert one.provenance["command"].startswith(f"interp {command} polymath")
    last = inside("report", "kept", "--json")
    shown = last.returncode == 0
    assert shown or "A report needs a result" in one_line(last)  # all of them left out, and told


def test_circuits_are_kept_compared_and_reported(inside: Shell):
    for task in ("ioi", "retrieval"):
        circuit = Circuit.from_nodes(MODEL, ["5.1", "3.2"], provenance={"task": task})
        circuit.save(f"{task}.json")
    ended = inside("overlap", "polymath", "ioi.json", "retrieval.json", "--no-run", "--save", "o")
    assert ended.returncode == 0, ended.stderr
    (found,) = results.load_all("o")
    assert isinstance(found, Overlap)
    command = found.provenance["command"]
    assert command == "interp overlap polymath ioi.json retrieval.json --no-run --seed 0"
    assert inside("report", "o").returncode == 0
    assert command in Path("report.html").read_text(encoding="utf-8")
