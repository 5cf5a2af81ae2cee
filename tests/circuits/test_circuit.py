"""A circuit as it is made from edges and nodes, and as it comes back from a file."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from interp import load
from interp.circuits import Circuit, Shape
from interp.circuits.circuit_file import shape_of, to_json
from interp.errors import CircuitError, FileFormatError, InterpError
from interp.sites import MLP, Head, Input, K, Logits, Q, V
from tests.circuits.samples import SHAPES, assert_same, parts

FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
PAIR = Shape(2, 2, 2)


@FEW
@given(parts())
def test_a_circuit_comes_back_from_its_file_as_it_was(tmp_path, some):
    circuit = Circuit(**some)
    scored = circuit.scores.clone()
    assert_same(Circuit.load(circuit.save(tmp_path / "deep" / "c.json")), circuit)
    assert torch.equal(circuit.scores.nan_to_num(), scored.nan_to_num())


@FEW
@given(st.sampled_from(SHAPES), st.data())
def test_from_edges_keeps_those_edges_and_no_others(shape, data):
    some = data.draw(st.lists(st.sampled_from(shape.edges), unique=True))
    circuit = Circuit.from_edges(shape, some)
    assert set(circuit.edges) == set(some)
    assert list(circuit.edges) == sorted(some, key=shape.edges.index)
    as_text = Circuit.from_edges(shape, [str(edge) for edge in some])
    assert torch.equal(as_text.kept, circuit.kept)
    assert set(circuit.nodes) == {edge.src for edge in some} - {Input()}
    assert circuit.scores.isnan().all()
    assert circuit.node_scores.isnan().all()


@FEW
@given(st.sampled_from(SHAPES), st.data())
def test_from_nodes_keeps_the_edges_that_begin_and_end_at_them(shape, data):
    some = data.draw(st.lists(st.sampled_from(shape.nodes[1:-1]), unique=True))
    chosen = {Input(), Logits(), *some}
    size = shape.n_heads // shape.n_kv_heads

    def reads(end):
        if isinstance(end, Q):
            return Head(end.layer, end.head) in chosen
        if isinstance(end, K | V):
            return any(Head(end.layer, end.group * size + i) in chosen for i in range(size))
        return end in chosen

    circuit = Circuit.from_nodes(shape, some)
    kept = {edge for edge in shape.edges if edge.src in chosen and reads(edge.dst)}
    assert set(circuit.edges) == kept
    assert set(circuit.nodes) == set(some)  # each of them reaches the logits


def test_roles_behind_a_node_add_up_and_the_rest_are_everywhere():
    circuit = Circuit.from_nodes(PAIR, ["0.1@S2", "0.1@END", "1.0"])
    assert circuit.places == {Head(0, 1): ("S2", "END")}
    assert circuit.heads == (Head(0, 1), Head(1, 0))
    assert circuit.mlps == ()
    assert Circuit.from_nodes(PAIR, ["0.1"], mlps=True).mlps == (MLP(0), MLP(1))


def test_frames_have_a_row_for_each_edge_and_node():
    names = ["input->0.1.v", "0.1->m1", "m1->logits"]
    scores = torch.arange(len(PAIR.edges), dtype=torch.float32)
    circuit = Circuit.from_edges(
        PAIR, names, scores=scores, labels={Head(0, 1): ("mover",)}, places={MLP(1): ("END",)}
    )
    edges = circuit.to_frame()
    assert list(edges["edge"]) == names
    assert list(edges["score"]) == [PAIR.edge_index[edge] for edge in circuit.edges]
    assert list(edges["src_label"]) == ["", "mover", ""]
    assert list(edges["dst_label"]) == ["mover", "", ""]
    nodes = circuit.nodes_frame().set_index("node")
    assert list(nodes.index) == ["0.1", "m1"]
    assert list(nodes["roles"]) == ["", "END"]
    assert nodes.loc["0.1", ["edges_in", "edges_out"]].tolist() == [1, 1]
    assert math.isnan(nodes.loc["m1", "score"])
    assert list(Circuit.from_edges(PAIR, []).to_frame()) == list(edges)


def test_keeping_other_edges_leaves_the_scores_and_labelling_the_edges():
    scores = torch.rand(len(PAIR.edges))
    circuit = Circuit.from_edges(PAIR, ["0.1->logits"], scores=scores)
    everything = circuit.keeping(torch.ones(len(PAIR.edges), dtype=torch.bool))
    assert len(everything.edges) == len(PAIR.edges)
    assert torch.equal(everything.scores, scores)
    named = circuit.labelled({Head(0, 1): ("mover",), Head(1, 1): ("not in it",), MLP(0): ()})
    assert named.labels == {Head(0, 1): ("mover",)}
    assert torch.equal(named.kept, circuit.kept)


def test_what_is_shown_is_short_and_safe():
    circuit = Circuit.from_nodes(
        PAIR, ["0.1"], labels={Head(0, 1): ("<b>",)}, provenance={"task": "<i>ioi"}
    )
    assert repr(circuit) == "Circuit(<i>ioi: 1 heads, 0 MLPs, 5 of 46 edges)"
    page = circuit._repr_html_()
    assert "&lt;i&gt;ioi" in page
    assert "<i>" not in page
    assert "&lt;b&gt;" in page


@pytest.mark.parametrize("name", ["polymath", "polymath-llama"])
def test_the_shape_of_a_model_has_as_many_edges_as_it_has_reads(name):
    model = load(name)
    layers, heads, groups = (
        model.geometry.n_layers,
        model.geometry.n_heads,
        model.geometry.n_kv_heads,
    )
    shape = Shape.of(model)
    assert shape == Shape(layers, heads, groups)
    sources = [1 + layer * (heads + 1) for layer in range(layers)]
    count = sum(each * (heads + 2 * groups) + each + heads for each in sources)
    assert len(shape.edges) == count + sources[-1] + heads + 1
    assert torch.equal(
        Circuit.from_nodes(model, ["1.1"]).kept, Circuit.from_nodes(shape, ["1.1"]).kept
    )


@pytest.mark.parametrize(
    "edge", ["0.2->logits", "0.1", "m0->0.0.q", "2.0->logits", "input->r0.pre", "nonsense"]
)
def test_edges_that_the_model_lacks_are_refused(edge):
    with pytest.raises(InterpError, match=r"not an edge|backwards|ends at|is not a site"):
        Circuit.from_edges(PAIR, [edge])


@pytest.mark.parametrize("node", ["0.2", "m2", "0.1.q", "r0.pre", Q(0, 0)])
def test_nodes_that_the_model_lacks_are_refused(node):
    with pytest.raises(CircuitError, match=r"not a node of this model \(2 layers of 2 heads\)"):
        Circuit.from_nodes(PAIR, [node])


def test_attention_only_models_have_no_mlps():
    shape = Shape(1, 2, 2, has_mlp=False)
    with pytest.raises(CircuitError, match="m0 is not a node"):
        Circuit.from_nodes(shape, ["m0"])
    assert Circuit.from_nodes(shape, [], mlps=True).nodes == ()


@pytest.mark.parametrize("names", [["kept", "scores"], ["node_scores"]])
def test_tensors_of_another_model_are_refused(names):
    good, other = Circuit.from_edges(PAIR, []), Circuit.from_edges(Shape(1, 2, 2), [])
    tensors = {
        name: getattr(other if name in names else good, name)
        for name in ("kept", "scores", "node_scores")
    }
    with pytest.raises(CircuitError, match=rf"{names[0]} has shape .* 46 edges and 8 nodes"):
        Circuit(PAIR, **tensors)


@pytest.mark.parametrize("about", ["places", "labels"])
def test_places_and_labels_of_what_is_no_node_are_refused(about):
    with pytest.raises(CircuitError, match=r"0\.1\.q is not a node"):
        Circuit.from_edges(PAIR, [], **{about: {Q(0, 1): ("END",)}})


# Files


@pytest.fixture
def saved(tmp_path):
    circuit = Circuit.from_nodes(PAIR, ["0.1@END", "1.0"], labels={Head(0, 1): ("mover",)})
    return circuit.save(tmp_path / "c.json")


def test_a_file_cut_short_anywhere_is_refused(saved):
    whole = saved.read_bytes()
    for size in range(0, len(whole.rstrip()), 37):
        saved.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match="not whole JSON"):
            Circuit.load(saved)


def change(path, *keys, to):
    data = json.loads(path.read_text(encoding="utf-8"))
    del data["sha256"]  # which would be found to be that of other content
    inner = data
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = to
    path.write_text(json.dumps(data), encoding="utf-8")


@pytest.mark.parametrize(
    ("keys", "to", "said"),
    [
        (("version",), 2, "version 2, and this release reads version 1"),
        (("version",), None, "version None"),
        (("format",), "other", "does not hold a Circuit"),
        (("edges",), None, "missing or broken"),
        (("edges", "input->0.1.q", "kept"), 1, "kept is 1"),
        (("edges", "input->0.1.q", "score"), "0.5", "the score '0.5' is no finite number"),
        (("edges", "input->0.1.q", "score"), math.inf, "Infinity is no number of JSON"),
        (("edges", "input->0.1.q", "score"), 1e39, "the score 1e\\+39"),
        (("edges", "input->0.1.q", "score"), True, "the score True"),
        (("edges", "input->0.5.q"), {"kept": True, "score": 1.0}, "missing or broken"),
        (("nodes", "0.7"), {"score": 1.0}, "missing or broken"),
        (("places", "7.7"), ["END"], "'7.7' is no node or edge"),
        (("places", "0.1"), "END", "0.1: 'END' is no list"),
        (("labels",), [], "missing or broken"),
        (("shape", "n_heads"), 0, "not whole numbers above 0"),
        (("shape", "n_heads"), True, "not whole numbers"),
        (("shape", "n_layers"), 10**9, "no model has"),
        (("shape", "n_heads"), 10**6, "no model has"),
        (("shape", "n_kv_heads"), 3, "no model has"),
        (("shape", "parallel"), "no", "parallel and has_mlp"),
    ],
)
def test_files_of_another_kind_or_size_are_refused(saved, keys, to, said):
    change(saved, *keys, to=to)
    with pytest.raises(FileFormatError, match=said):
        Circuit.load(saved)


REAL = {
    "GPT-2 large": (36, 20, 20),
    "Pythia-6.9B": (32, 32, 32),
    "Llama-7B": (32, 32, 32),
    "Llama-8B": (32, 32, 8),
    "Gemma-9B": (42, 16, 8),
    "Qwen-7B": (28, 28, 4),
    "one wide layer": (1, 1_000, 1_000),
}


@pytest.mark.parametrize("name", REAL)
def test_shapes_of_real_models_are_read(name):
    sizes = dict(zip(("n_layers", "n_heads", "n_kv_heads"), REAL[name], strict=True))
    assert shape_of({**sizes, "parallel": False, "has_mlp": True}) == Shape(*REAL[name])


@pytest.mark.parametrize("sizes", [(80, 64, 64), (1, 30_000, 1)])
def test_a_circuit_that_could_not_be_read_again_is_not_written(sizes):
    shape = Shape(*sizes)
    edges, nodes = torch.zeros(shape.n_edges), torch.zeros(shape.n_nodes)
    circuit = Circuit(shape, edges.bool(), edges, nodes)
    with pytest.raises(FileFormatError, match=r"no more than 2,000,000 between 20,000 are read"):
        to_json(circuit, "c.json")


@pytest.mark.parametrize("text", ["", "[]", "3", '"x"', "{}", "[" * 100_000, "\ud800"])
def test_what_is_no_circuit_is_refused(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(FileFormatError, match=r"not whole JSON|does not hold a Circuit"):
        Circuit.load(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="cannot be read"):
        Circuit.load(tmp_path / "none.json")
    with pytest.raises(FileFormatError, match="cannot be read"):
        Circuit.load(tmp_path)
