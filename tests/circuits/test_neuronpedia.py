"""Attribution graphs: what is drawn, and that the circuit comes back."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from interp.circuits import Circuit, Shape
from interp.circuits.neuronpedia import EVERYWHERE, read_neuronpedia, write_neuronpedia
from interp.errors import FileFormatError
from interp.sites import Head
from tests.circuits.samples import assert_same, parts

FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
PAIR = Shape(2, 2, 2)
NODE_KEYS = {
    *("node_id", "feature", "layer", "ctx_idx", "feature_type", "token_prob", "is_target_logit"),
    *("run_idx", "reverse_ctx_idx", "jsNodeId", "clerp", "influence", "activation"),
}


def graph(path):
    return json.loads(path.read_text(encoding="utf-8"))


@FEW
@given(parts())
def test_a_circuit_comes_back_as_it_was_and_every_link_has_its_ends(tmp_path, some):
    circuit = Circuit(**some)
    path = write_neuronpedia(circuit, tmp_path / "deep" / "c.json")
    assert_same(read_neuronpedia(path), circuit)
    data = graph(path)
    ids = [node["node_id"] for node in data["nodes"]]
    assert len(set(ids)) == len(ids) == len(circuit.nodes) + 2
    links = [(link["source"], link["target"]) for link in data["links"]]
    assert len(set(links)) == len(links)
    assert {end for link in links for end in link} <= set(ids)
    assert all(math.isfinite(link["weight"]) for link in data["links"])


def test_the_graph_has_every_field_of_the_schema(tmp_path):
    circuit = Circuit.from_nodes(
        PAIR,
        ["0.1@S2", "0.1@END", "1.0@END", "m1"],
        labels={Head(0, 1): ("mover", "copier"), Head(1, 0): ("mover",)},
        provenance={"model": "polymath"},
    )
    data = graph(write_neuronpedia(circuit, tmp_path / "my-graph.json"))
    assert data.keys() == {"metadata", "qParams", "nodes", "links"}
    about = data["metadata"]
    assert (about["slug"], about["scan"], about["schema_version"]) == ("my-graph", "polymath", 1)
    assert about["prompt_tokens"] == [EVERYWHERE, "S2", "END"]
    assert data["qParams"].keys() == {"pinnedIds", "supernodes", "linkType", "clickedId", "sg_pos"}
    assert data["qParams"]["supernodes"] == [["mover", "0_1_1", "1_0_2"]]
    nodes = {node["node_id"]: node for node in data["nodes"]}
    assert list(nodes) == ["E_0_0", "0_1_1", "1_0_2", "1_2_0", "3_0_2"]
    assert all(node.keys() == NODE_KEYS for node in nodes.values())
    assert nodes["0_1_1"]["clerp"] == "0.1 mover copier at S2, END"
    assert [node["feature_type"] for node in nodes.values()] == [
        *("embedding", "attention head", "attention head", "mlp", "logit")
    ]
    assert [node["is_target_logit"] for node in nodes.values()] == [False] * 4 + [True]
    assert all(link.keys() == {"source", "target", "weight"} for link in data["links"])


def test_a_link_weighs_the_sum_of_its_edges(tmp_path):
    scores = torch.full((len(PAIR.edges),), math.nan)
    for name, score in (("0.1->1.0.q", 0.5), ("0.1->1.0.v", -2.0)):
        scores[[str(edge) for edge in PAIR.edges].index(name)] = score
    kept = ["0.1->1.0.q", "0.1->1.0.v", "1.0->logits", "0.1->1.1.q"]
    circuit = Circuit.from_edges(PAIR, kept, scores=scores)
    links = graph(write_neuronpedia(circuit, tmp_path / "c.json"))["links"]
    assert links == [
        {"source": "0_1_0", "target": "1_0_0", "weight": -1.5},
        {"source": "1_0_0", "target": "3_0_0", "weight": 1.0},
    ]


def test_an_edge_to_shared_keys_is_split_between_the_heads_of_the_circuit(tmp_path):
    shape = Shape(1, 4, 1, has_mlp=False)
    kept = ["input->0.0.k", "0.0->logits", "0.2->logits", "0.3->logits"]
    circuit = Circuit.from_edges(shape, kept, scores=torch.full((len(shape.edges),), 6.0))
    links = graph(write_neuronpedia(circuit, tmp_path / "c.json"))["links"]
    split = {link["target"]: link["weight"] for link in links if link["source"] == "E_0_0"}
    assert split == {"0_0_0": 2.0, "0_2_0": 2.0, "0_3_0": 2.0}


def test_roles_may_be_called_as_the_first_column_is(tmp_path):
    circuit = Circuit.from_nodes(PAIR, [f"0.1@{EVERYWHERE}", "1.0@END"])
    path = write_neuronpedia(circuit, tmp_path / "c.json")
    assert [node["ctx_idx"] for node in graph(path)["nodes"]] == [0, 0, 2, 2]
    assert_same(read_neuronpedia(path), circuit)


class Compared(str):
    """A role that counts how often it is compared."""

    __slots__ = ()
    times = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Compared.times += 1
        return str.__eq__(self, other)


def test_many_roles_are_not_compared_with_one_another(tmp_path):
    shape = Shape(1, 200, 200, has_mlp=False)
    places = {Head(0, head): (Compared(f"role {head}"),) for head in range(200)}
    circuit = Circuit.from_nodes(shape, [f"0.{head}" for head in range(200)], places=places)
    assert len(graph(write_neuronpedia(circuit, tmp_path / "c.json"))["nodes"]) == 202
    assert Compared.times < 1_000


# Wrong input


@pytest.fixture
def saved(tmp_path):
    return write_neuronpedia(Circuit.from_nodes(PAIR, ["0.1", "1.0"]), tmp_path / "c.json")


def test_a_file_cut_short_anywhere_is_refused(saved):
    whole = saved.read_bytes().rstrip()
    for size in range(0, len(whole), 101):
        saved.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match="not whole JSON"):
            read_neuronpedia(saved)


def without_a_link(data):
    data["links"].pop()


def with_another_weight(data):
    data["links"][0]["weight"] += 1


def with_another_node(data):
    data["nodes"][1]["node_id"] = "0_0_0"


def without_nodes(data):
    del data["nodes"]


def of_schema_2(data):
    data["metadata"]["schema_version"] = 2


def of_another_program(data):
    del data["metadata"]["interp"]


def of_another_version(data):
    data["metadata"]["interp"]["version"] = 7


def of_a_huge_model(data):
    del data["metadata"]["interp"]["sha256"]
    data["metadata"]["interp"]["shape"]["n_layers"] = 10**9


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_a_link, "were changed"),
        (with_another_weight, "were changed"),
        (with_another_node, "were changed"),
        (without_nodes, "were changed"),
        (of_schema_2, "of schema 2, and schema 1 is read"),
        (of_another_program, "features rather than heads"),
        (of_another_version, "version 7, and this release reads version 1"),
        (of_a_huge_model, "no model has"),
    ],
)
def test_graphs_that_do_not_show_a_circuit_of_ours_are_refused(saved, change, said):
    data = graph(saved)
    change(data)
    saved.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match=said):
        read_neuronpedia(saved)


@pytest.mark.parametrize("text", ["[]", "{}", '{"metadata": []}', "3", "[" * 100_000])
def test_what_is_no_graph_is_refused(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=r"no attribution graph|not whole JSON"):
        read_neuronpedia(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_neuronpedia(tmp_path / "none.json")
