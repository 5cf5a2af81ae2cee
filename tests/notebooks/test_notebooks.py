from __future__ import annotations

import ast
import re
from pathlib import Path

import nbformat
import pytest

from tests.notebooks.outputs import differences, kinds, told

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = (
    "01_first_look",
    "02_head_atlas",
    "03_ablation_sweeps",
    "04_circuits",
    "05_overlap_across_tasks",
    "06_task_vectors",
    "07_internal_consistency",
    "08_induction_over_training",
    "09_export_a_report",
)
LARGEST = 200_000
"""Bytes of a notebook with its outputs."""
PRIVATE = re.compile(r"/(home|root|tmp|Users|opt|usr)/|[A-Z]:\\\\|site-packages|\b0x[0-9a-f]{6}")
"""Paths of a machine, and addresses in its memory."""

each = pytest.mark.parametrize("name", NOTEBOOKS)


def committed(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_tested_and_listed():
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == list(NOTEBOOKS)
    listed = re.findall(r"\((\w+)\.ipynb\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert listed == list(NOTEBOOKS)


@pytest.mark.slow
@each
def test_it_runs_and_gives_what_is_committed(name, execute, tmp_path):
    kept, new = committed(name), execute.executed(FOLDER / f"{name}.ipynb", tmp_path)
    assert len(code(new)) == len(code(kept))
    for cell, again in zip(code(kept), code(new), strict=True):
        assert kinds(again) == kinds(cell), cell.source
        assert differences(told(cell), told(again)) == [], cell.source


@each
def test_it_was_run_from_top_to_bottom_without_errors_or_warnings(name):
    cells = code(committed(name))
    assert [cell.execution_count for cell in cells] == [*range(1, len(cells) + 1)]
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr"


@each
def test_every_cell_that_shows_something_has_its_output(name):
    for cell in code(committed(name)):
        shows = isinstance(ast.parse(cell.source).body[-1], ast.Expr) or "print(" in cell.source
        assert cell.outputs or not shows, cell.source


@each
def test_it_is_small_and_says_nothing_of_the_machine(name, execute):
    path = FOLDER / f"{name}.ipynb"
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < LARGEST
    assert not PRIVATE.search(text)
    assert "plotly.min.js" not in text
    assert committed(name).metadata == execute.METADATA


@each
def test_it_begins_with_its_title_and_its_question(name):
    first, *_ = committed(name).cells
    assert re.match(r"# [^#\n]+\n\n", first.source)
    assert "\n**Question.** " in first.source


@each
def test_its_links_lead_somewhere(name):
    for cell in committed(name).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)]+)\)", cell.source):
                assert (FOLDER / target).exists(), target


def test_a_number_that_moved_and_a_word_that_changed_are_told():
    def cell(text: str) -> nbformat.NotebookNode:
        output = nbformat.v4.new_output("stream", text=text)
        return nbformat.v4.new_code_cell(outputs=[output])

    kept = told(cell("head 3.5 loses -14.84 (n = 64)"))
    assert differences(kept, told(cell("head 3.5 loses -14.85 (n = 64)"))) == []
    assert differences(kept, told(cell("head 3.5 loses -13.84 (n = 64)"))) == ["-14.84 is -13.84"]
    assert differences(kept, told(cell("head 3.6 loses -14.84 (n = 64)"))) == ["3.5 is 3.6"]
    assert differences(kept, told(cell("head 3.5 gains -14.84 (n = 64)"))) != []
    assert differences(kept, told(cell("head 3.5 loses -14.84"))) != []
