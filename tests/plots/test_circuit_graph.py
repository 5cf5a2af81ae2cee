"""What a graph is drawn from follows from the numbers that it was given."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.circuits import Circuit, Shape
from interp.plots.circuit_graph import Explained, circuit_graph
from interp.sites import Head

SHAPE = Shape(2, 2, 2)


def scored(scores: list[float], kept: list[int]) -> Circuit:
    """A circuit of two layers of two heads; edges beyond the given ones have no score."""
    some = torch.full((len(SHAPE.edges),), math.nan)
    some[: len(scores)] = torch.tensor(scores)
    return Circuit.from_edges(SHAPE, [SHAPE.edges[i] for i in kept], scores=some)


def test_the_circuit_comes_first_and_each_part_by_strength() -> None:
    data = scored([0.1, -3.0, 2.0, -5.0, 0.5], kept=[0, 2]).graph().data
    assert data["score"] == [2, 0.1, -5, -3, 0.5]
    assert data["kept"] == 2
    assert data["scored"] == 5
    assert data["total"] == 10.6


@given(
    st.lists(st.floats(-9, 9, width=32), min_size=1, max_size=20),
    st.sets(st.integers(0, 19)),
    st.integers(0, 30),
)
def test_no_edge_of_the_circuit_is_left_out(scores: list[float], kept: set[int], most: int) -> None:
    circuit = scored(scores, sorted(kept))
    data = circuit.graph(most=most).data
    assert data["kept"] == len(kept)
    assert len(data["score"]) <= max(most, len(kept))
    strengths = [abs(score or 0) for score in data["score"]]
    for part in (strengths[: len(kept)], strengths[len(kept) :]):
        assert part == sorted(part, reverse=True)


def test_an_edge_is_told_by_its_source_reader_and_way() -> None:
    circuit = Circuit.from_edges(SHAPE, ["0.1->1.0.k", "input->m0", "m1->logits"])
    data = circuit.graph().data
    names = [name for name, *_ in data["nodes"]]
    told = {
        (names[source], names[reader], ("query", "key", "value", "")[way])
        for source, reader, way in zip(data["source"], data["reader"], data["way"], strict=True)
    }
    assert told == {("0.1", "1.0", "key"), ("input", "m0", ""), ("m1", "logits", "")}
    assert data["score"] == [None] * 3


def test_a_shared_key_is_read_by_its_whole_group() -> None:
    data = Circuit.from_edges(Shape(1, 4, 2), ["input->0.1.k"]).graph().data
    assert data["group"] == 2
    assert data["nodes"][data["reader"][0]][0] == "0.2"  # and the head after it


def test_rows_go_from_the_input_over_the_layers_to_the_logits() -> None:
    data = Circuit.from_nodes(SHAPE, ["0.1", "m1"]).graph().data
    assert [(name, row) for name, row, *_ in data["nodes"]] == [
        ("input", 0), ("0.0", 1), ("0.1", 1), ("m0", 1),
        ("1.0", 2), ("1.1", 2), ("m1", 2), ("logits", 3),
    ]  # fmt: skip


def test_nodes_carry_their_label_places_and_score() -> None:
    scores = torch.arange(len(SHAPE.nodes)) / 3
    circuit = Circuit.from_nodes(SHAPE, ["1.0@END"], scores=scores)
    circuit = circuit.labelled({Head(1, 0): ("mover", "<b>")})
    nodes = {name: rest for name, *rest in circuit.graph().data["nodes"]}
    assert nodes["1.0"] == [2, "head", "mover, <b>", "END", 1.333]


def test_signs_are_named_where_it_is_known_what_they_mean() -> None:
    assert scored([1.0], [0]).graph().data["signs"] == ["below zero", "above zero"]
    about = {"sign": "corrupt - clean", "metric": "logit_diff"}
    circuit = Circuit.from_edges(SHAPE, [], provenance=about)
    assert circuit.graph().data["signs"][0] == "logit_diff falls without the edge"


def test_what_is_explained_is_passed_on_and_no_interval_is_none() -> None:
    whole = Explained(edges=2, f=0.91234, low=math.nan, high=math.nan, random=0.0, n=1)
    told = scored([1.0], [0]).graph(whole=whole).data["whole"]
    assert told == {"edges": 2, "f": 0.9123, "low": None, "high": None, "random": 0, "n": 1}


def test_a_graph_of_nothing_is_a_graph() -> None:
    nodes = Circuit.from_edges(SHAPE, []).graph().data["nodes"]
    assert len(nodes) == 8
    assert circuit_graph.__doc__


def test_a_notebook_shows_the_table_and_the_graph_in_a_frame() -> None:
    shown = scored([1.0, 2.0], [1])._repr_html_()
    assert "<table" in shown
    assert '<iframe srcdoc="' in shown
    assert "sandbox=" in shown
