"""Every result shows itself in a notebook, and nothing that it holds is markup there."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from interp import results
from interp.circuits import Circuit
from interp.circuits.shape import Shape
from interp.circuits.shared_roles import shared_roles
from interp.consistency.votes import Votes
from interp.display import ROWS, Displayed, as_html
from interp.heads import Score
from interp.heads.facts import Fact, Verdict, Verification
from interp.saved import Saved, known
from interp.vectors.vector import Vector

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
RESULTS = {
    f"{cls.__module__}.{cls.__name__}": cls
    for cls in known().values()
    if cls.__module__.startswith("interp.") and hasattr(cls, "to_frame")
}


@pytest.mark.parametrize("name", sorted(RESULTS))
def test_a_result_shows_itself_and_has_a_line_and_a_file(name: str):
    cls = RESULTS[name]
    assert hasattr(cls, "_repr_html_")
    assert issubclass(cls, Saved) or hasattr(cls, "save")
    assert "__create_fn__" not in cls.__repr__.__qualname__


def test_the_results_with_formats_of_their_own_show_themselves():
    for load in results.FORMATS.values():
        cls = getattr(load, "__self__", None)  # load_lens is a function
        assert cls is None or cls is Saved or hasattr(cls, "_repr_html_"), cls


def test_words_columns_indices_and_lines_are_escaped():
    frame = pd.DataFrame({HOSTILE: [HOSTILE, 0.5]}, index=[HOSTILE, "b"])
    frame.index.name = HOSTILE
    shown = as_html([HOSTILE], frame, HOSTILE)
    assert "<script" not in shown
    assert "<img" not in shown
    assert shown.count("&lt;script&gt;") == 6


def test_hostile_names_in_results_are_escaped():
    shape = Shape(2, 2, 2)
    circuit = Circuit.from_nodes(shape, ["0.1"], labels={shape.nodes[1]: (HOSTILE,)})
    fact = Fact(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    for hostile in (
        circuit,
        shared_roles({HOSTILE: circuit, "b": circuit}),
        Verification((Verdict(fact, {HOSTILE: 1.0}, held=True),), {"model": HOSTILE}),
        Vector({1: torch.ones(2)}, "add", HOSTILE, {"model": HOSTILE}),
        Votes((HOSTILE,), (1,), torch.ones(1, 1, 2)),
    ):
        shown = hostile._repr_html_()
        assert "<script" not in shown
        assert "<img" not in shown
        assert "&lt;script&gt;" in shown


def test_a_long_table_shows_its_ends_and_says_how_long_it_is():
    shown = as_html(0, pd.DataFrame({"number": range(10_000)}))
    assert "10000 rows" in shown
    assert shown.count("<tr") <= ROWS + 2
    assert ">9999<" in shown


def test_rows_are_numbered_nowhere_and_named_where_they_have_names():
    rows = pd.DataFrame({"a": [10, 20, 30]})
    assert "<th>2</th>" not in as_html(0, rows[rows["a"] > 15])
    assert "<th>ioi</th>" in as_html(0, rows.set_axis(["ioi", "b", "c"]))
    assert "<th>2</th>" in as_html(0, rows.rename_axis("layer"))


def test_a_result_without_a_table_is_its_line():
    class Line(Displayed):
        def __repr__(self) -> str:
            return "Line(<5>)"

    assert Line()._repr_html_() == "<p><b>Line(&lt;5&gt;)</b></p>"


def test_a_score_is_drawn_as_its_heads():
    assert Score("induction", torch.rand(2, 3, 4)).plot().data[0].z[1][2] > 0
