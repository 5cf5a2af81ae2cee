"""Files of EAP-IG and MIB: what is written is read back, and read as their loaders read it."""

from __future__ import annotations

import json
import math
import os
import warnings
import zipfile

import pytest
import torch
from hypothesis import HealthCheck, given, settings

from interp import load
from interp.circuits import Circuit, Shape, eap_format
from interp.circuits.eap_format import read_eap, write_eap
from interp.errors import CircuitError, FileFormatError
from interp.provenance import provenance
from interp.sites import MLP, Head
from tests.circuits.samples import assert_same, parts

FEW = settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
ENDINGS = ["json", "pt"]
PAIR, GROUPED = Shape(2, 2, 2), Shape(2, 6, 2)
CFG = {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}


def some_circuit(shape=PAIR):
    generator = torch.Generator().manual_seed(0)
    return Circuit(
        shape,
        kept=torch.rand(len(shape.edges), generator=generator) < 0.5,
        scores=torch.randn(len(shape.edges), generator=generator),
        node_scores=torch.randn(len(shape.nodes), generator=generator),
        places={Head(1, 0): ("END",)},
        labels={Head(1, 0): ("mover", "mover of names")},
        provenance={"task": "ioi", "n": 3},
    )


@pytest.mark.parametrize("ending", ENDINGS)
@FEW
@given(some=parts())
def test_a_circuit_comes_back_as_it_was(tmp_path, ending, some):
    circuit = Circuit(**some)
    path = write_eap(circuit, tmp_path / "deep" / f"c.{ending}", d_model=8)
    assert_same(read_eap(path), circuit)
    assert_same(read_eap(path, circuit.shape), circuit)


# Their loaders, as short as can be: every node and edge that they look up must be there.


def their_row(name, heads):
    if name == "input":
        return 0
    if name[0] == "m":
        return 1 + int(name[1:]) * (heads + 1) + heads
    layer, head = name[1:].split(".h")
    return 1 + int(layer) * (heads + 1) + int(head)


def their_column(name, layers, heads):
    if name == "logits":
        return layers * (3 * heads + 1)
    if name[0] == "m":
        return int(name[1:]) * (3 * heads + 1) + 3 * heads
    layer, rest = name[1:].split(".h")
    head, kind = rest[:-1].split("<")
    return int(layer) * (3 * heads + 1) + "qkv".index(kind) * heads + int(head)


def load_json(path):
    data = json.loads(path.read_text(encoding="utf-8"))
    layers, heads = data["cfg"]["n_layers"], data["cfg"]["n_heads"]
    assert data["cfg"].keys() == {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"}
    scores = torch.zeros(1 + layers * (heads + 1), layers * (3 * heads + 1) + 1)
    kept, nodes = torch.zeros_like(scores).bool(), torch.zeros(len(scores)).bool()
    for name, node in data["nodes"].items():
        assert isinstance(node["score"], float)
        if name != "logits":
            nodes[their_row(name, heads)] = node["in_graph"]
    for name, edge in data["edges"].items():
        src, dst = name.split("->")
        cell = their_row(src, heads), their_column(dst, layers, heads)
        scores[cell], kept[cell] = edge["score"], edge["in_graph"]
    return scores, kept, nodes


def load_pt(path):
    data = torch.load(path)
    layers, heads = data["cfg"]["n_layers"], data["cfg"]["n_heads"]
    for name in data["src_nodes"]:
        assert data["src_nodes"][their_row(name, heads)] == name
    for name in data["dst_nodes"]:
        assert data["dst_nodes"][their_column(name, layers, heads)] == name
    scores = torch.zeros(1 + layers * (heads + 1), layers * (3 * heads + 1) + 1)
    kept, nodes = torch.zeros_like(scores).bool(), torch.zeros(len(scores)).bool()
    scores[:], kept[:] = data["edges_scores"], data["edges_in_graph"]
    nodes[:] = data["nodes_in_graph"]
    return scores, kept, nodes


LOADERS = {"json": load_json, "pt": load_pt}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("shape", [PAIR, GROUPED, Shape(2, 2, 2, parallel=True)])
def test_their_loader_finds_every_edge_at_its_place(tmp_path, ending, shape):
    circuit = some_circuit(shape)
    path = write_eap(circuit, tmp_path / f"c.{ending}", d_model=8)
    scores, kept, nodes = LOADERS[ending](path)
    heads, size = shape.n_heads, shape.n_heads // shape.n_kv_heads
    seen = torch.zeros_like(kept)
    for edge, score, keep in zip(shape.edges, circuit.scores, circuit.kept, strict=True):
        row = their_row(theirs(str(edge.src)), heads)
        layer, part, kind = (str(edge.dst).split(".") + [""] * 2)[:3]
        names = [theirs(str(edge.dst))]
        if kind == "q":
            names = [f"a{layer}.h{part}<q>"]
        elif kind:
            names = [f"a{layer}.h{int(part) * size + i}<{kind}>" for i in range(size)]
        columns = [their_column(name, shape.n_layers, heads) for name in names]
        assert bool(kept[row, columns].all()) == bool(keep) == bool(kept[row, columns].any())
        share = (score / len(names)).expand(len(names))
        torch.testing.assert_close(scores[row, columns], share)
        seen[row, columns] = True
    assert not (kept & ~seen).any()
    assert not scores[~seen].any()
    assert torch.equal(nodes, kept.any(1))


def theirs(name):
    layer, _, head = name.partition(".")
    return f"a{layer}.h{head}" if head else name


def test_gpt2_small_has_as_many_edges_in_their_file_as_in_theirs(tmp_path):
    circuit = Circuit.from_nodes(Shape(12, 12, 12), ["9.9"], mlps=True)
    data = json.loads(write_eap(circuit, tmp_path / "c.json", d_model=768).read_text())
    assert len(data["edges"]) == 32_491
    assert len(data["nodes"]) == 1 + 12 * 13 + 1
    assert data["edges"]["a9.h9->logits"] == {"score": 0.0, "in_graph": True, "scored": False}
    assert data["edges"]["m8->a9.h9<q>"]["in_graph"]


@pytest.mark.parametrize(("name", "ending"), [("polymath", "json"), ("polymath-llama", "pt")])
def test_the_width_is_that_of_the_model_and_the_model_is_told_apart(tmp_path, name, ending):
    model = load(name)
    circuit = Circuit.from_nodes(model, ["1.1", "4.2"], mlps=True, provenance=provenance(model))
    path = write_eap(circuit, tmp_path / f"c.{ending}")
    assert_same(read_eap(path, model), circuit)
    groups = model.geometry.n_kv_heads
    with pytest.raises(
        CircuitError, match=rf"c\.{ending} is of .*kv_heads={groups}.* and the model is"
    ):
        read_eap(path, Shape(6, 8, 4))
    with pytest.raises(CircuitError, match="and the model is"):
        read_eap(path, PAIR)


def test_without_a_width_there_is_no_file(tmp_path):
    with pytest.raises(CircuitError, match="give d_model="):
        write_eap(some_circuit(), tmp_path / "c.json")
    assert not list(tmp_path.iterdir())


def test_a_circuit_too_large_for_their_tables_is_refused(tmp_path):
    wide = Shape(1, 1300, 1, has_mlp=False)
    with pytest.raises(CircuitError, match=r"use Circuit\.save"):
        write_eap(Circuit.from_edges(wide, []), tmp_path / "c.pt", d_model=8)


# Files of other programs


def foreign_json(path, edges, nodes=None, cfg=CFG, **more):
    path.write_text(json.dumps({"cfg": cfg, "nodes": nodes or {}, "edges": edges, **more}))
    return path


def foreign_pt(path, shape=PAIR, **changes):
    layers, heads = shape.n_layers, shape.n_heads
    rows, columns = 1 + layers * (heads + 1), layers * (3 * heads + 1) + 1
    sources, readers = ["input"], []
    for layer in range(layers):
        sources += [f"a{layer}.h{head}" for head in range(heads)] + [f"m{layer}"]
        readers += [f"a{layer}.h{head}<{kind}>" for kind in "qkv" for head in range(heads)]
        readers += [f"m{layer}"]
    data = {
        "cfg": CFG | {"n_layers": layers, "n_heads": heads},
        "src_nodes": sources,
        "dst_nodes": [*readers, "logits"],
        "edges_scores": torch.zeros(rows, columns),
        "edges_in_graph": torch.zeros(rows, columns, dtype=torch.bool),
        "nodes_in_graph": torch.zeros(rows, dtype=torch.bool),
    }
    data |= changes
    torch.save({name: value for name, value in data.items() if value is not None}, path)
    return path


def test_a_json_file_of_another_program_is_read(tmp_path):
    edges = {
        "input->a0.h1<q>": {"score": 2, "in_graph": True},
        "a0.h1->m1": {"score": -0.5, "in_graph": True},
        "m1->logits": {"score": math.nan, "in_graph": False},
    }
    nodes = {
        "input": {"in_graph": True, "score": 0.25},
        "a0.h1": {"in_graph": True},
        "m0": {"in_graph": False, "score": math.nan},
        "logits": {"in_graph": True},
    }
    circuit = read_eap(foreign_json(tmp_path / "theirs.json", edges, nodes))
    assert [str(edge) for edge in circuit.edges] == ["input->0.1.q", "0.1->m1"]
    scored = {str(PAIR.edges[i]) for i in circuit.scores.isfinite().nonzero()[:, 0]}
    assert scored == {"input->0.1.q", "0.1->m1"}
    assert circuit.scores.nansum() == 1.5
    assert circuit.node_scores.nansum() == circuit.node_scores[0] == 0.25
    assert circuit.provenance == {"format": "EAP-IG", "file": "theirs.json", "cfg": CFG}
    again = read_eap(write_eap(circuit, tmp_path / "again.pt"))  # the width is in the provenance
    assert_same(again, circuit)


def test_a_pt_file_of_another_program_is_read_without_what_is_no_edge(tmp_path):
    scores = torch.arange(7 * 15, dtype=torch.float32).view(7, 15)
    kept = torch.zeros(7, 15, dtype=torch.bool)
    kept[6] = True  # m1, whole: EAP-IG flags readers before it too
    flags = torch.zeros(7, dtype=torch.bool)
    flags[[2, 6]] = True
    path = foreign_pt(
        tmp_path / "theirs.pt", edges_scores=scores, edges_in_graph=kept, nodes_in_graph=flags
    )
    circuit = read_eap(path)
    assert [str(edge) for edge in circuit.edges] == ["m1->logits"]
    assert circuit.scores[PAIR.edge_index[circuit.edges[0]]] == 6 * 15 + 14
    assert circuit.provenance["nodes_in_graph"] == ["a0.h1", "m1"]
    assert circuit.node_scores.isnan().all()


def test_a_group_is_kept_if_a_head_is_and_has_the_sum_of_their_scores(tmp_path):
    shares = [0.5, 1.0, -4.0]
    edges = {
        f"input->a0.h{3 + i}<k>": {"score": share, "in_graph": i == 1}
        for i, share in enumerate(shares)
    }
    edges |= {f"m0->a1.h{i}<v>": {"score": 1.0, "in_graph": True} for i in range(3)}
    path = foreign_json(tmp_path / "c.json", edges, cfg=CFG | {"n_heads": 6})
    circuit = read_eap(path, GROUPED)
    assert [str(edge) for edge in circuit.edges] == ["input->0.1.k", "m0->1.0.v"]
    assert circuit.scores[circuit.kept].tolist() == [-2.5, 3.0]
    assert circuit.provenance["split_groups"] == 1
    alone = read_eap(path)
    assert alone.shape == Shape(2, 6, 6)
    assert len(alone.edges) == 4
    assert "split_groups" not in alone.provenance


def test_edges_of_mlps_are_refused_where_the_model_has_none(tmp_path):
    bare = Shape(2, 2, 2, parallel=True, has_mlp=False)
    whole = foreign_json(tmp_path / "c.json", {"m0->m1": {"score": 0.0, "in_graph": False}})
    assert read_eap(whole, bare).edges == ()
    used = foreign_json(tmp_path / "c.json", {"m0->m1": {"score": 1.0, "in_graph": False}})
    with pytest.raises(CircuitError, match="edges of MLPs, and the model has none"):
        read_eap(used, bare)


# Broken and hostile files

GOOD = {"score": 1.0, "in_graph": True}


@pytest.mark.parametrize(
    ("edges", "more", "said"),
    [
        ({"m1->m0": GOOD}, {}, "'m1->m0' is no node or edge of this model"),
        ({"input->a0.h1": GOOD}, {}, "no node or edge"),
        ({"input->a0.h2<q>": GOOD}, {}, "no node or edge"),
        ({"input->a00.h1<q>": GOOD}, {}, "no node or edge"),
        ({"input->m0": {"in_graph": True, "score": "1"}}, {}, "score '1'"),
        ({"input->m0": {"in_graph": True, "score": True}}, {}, "score True"),
        ({"input->m0": {"in_graph": 1, "score": 1.0}}, {}, "in_graph 1"),
        ({"input->m0": {"score": 1.0}}, {}, "in_graph"),
        ({"input->m0": True}, {}, "missing or broken"),
        ({"input->m0": {"in_graph": True, "score": math.inf}}, {}, "infinite"),
        ({"input->m0": {"in_graph": True, "score": 1e300}}, {}, "too large for float32"),
        ({"input->m0": {"in_graph": True, "score": 10**400}}, {}, "missing or broken"),
        ({}, {"nodes": {"m7": GOOD}}, "'m7' is no node"),
        ({}, {"nodes": {"m0": GOOD | {"neurons": [True]}}}, "kept by neurons"),
        ({}, {"nodes": [1]}, "missing or broken"),
        ({}, {"cfg": None}, "missing or broken"),
        ({}, {"cfg": CFG | {"n_layers": 10**9}}, "no model has"),
        ({}, {"cfg": CFG | {"n_heads": 2.0}}, "not whole numbers"),
        ({}, {"cfg": CFG | {"n_heads": -1}}, "not whole numbers"),
        ({}, {"cfg": CFG | {"d_model": "8"}}, "d_model is a str"),
        ({}, {"interp": {"format": "interp.Circuit", "version": 9}}, "version 9"),
        ({}, {"interp": {"format": "interp.Circuit", "version": 1}}, "broken part"),
        ({}, {"interp": []}, "does not hold a Circuit"),
    ],
)
def test_broken_json_is_refused(tmp_path, edges, more, said):
    path = foreign_json(tmp_path / "c.json", edges)
    data = json.loads(path.read_text()) | more
    path.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match=said):
        read_eap(path)


def test_names_given_twice_are_refused(tmp_path):
    path = foreign_json(tmp_path / "c.json", {"input->m0": GOOD})
    text = path.read_text()
    path.write_text(text.replace('"edges": {', '"edges": {"input->m0": {"score": 2.0}, '))
    with pytest.raises(FileFormatError, match="'input->m0' is given twice"):
        read_eap(path)


@pytest.mark.parametrize("missing", ["cfg", "nodes", "edges"])
def test_json_without_a_part_is_refused(tmp_path, missing):
    path = foreign_json(tmp_path / "c.json", {})
    data = json.loads(path.read_text())
    del data[missing]
    path.write_text(json.dumps(data))
    with pytest.raises(FileFormatError, match=missing):
        read_eap(path)


@pytest.mark.parametrize("text", ["", "[]", "null", '"x"', "[" * 100_000])
def test_json_that_is_no_circuit_is_refused(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(FileFormatError):
        read_eap(path)


FLAGS = torch.zeros(7, 15, dtype=torch.bool)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"edges_scores": torch.zeros(7, 14)}, r"\(7, 14\)"),
        ({"edges_scores": torch.zeros(7, 15).to_sparse()}, "no plain numbers"),
        ({"edges_scores": torch.zeros(7, 15, device="meta")}, "no plain numbers"),
        ({"edges_scores": torch.zeros(7, 15, dtype=torch.long)}, "of torch.int64"),
        ({"edges_scores": torch.full((7, 15), math.inf)}, "infinite"),
        ({"edges_scores": [[0.0] * 15] * 7}, "not a tensor"),
        ({"edges_in_graph": torch.zeros(7, 15)}, "of torch.float32"),
        ({"edges_in_graph": None}, "edges_in_graph"),
        ({"nodes_in_graph": FLAGS}, r"\(7, 15\)"),
        ({"nodes_scores": torch.zeros(8)}, r"\(8,\)"),
        ({"neurons_in_graph": FLAGS}, "kept by neurons"),
        ({"src_nodes": ["input"] * 7}, "each once"),
        ({"src_nodes": torch.zeros(7)}, "missing or broken|each once"),
        ({"dst_nodes": []}, "each once"),
        ({"cfg": CFG | {"n_layers": 3}}, "each once"),
        ({"cfg": CFG | {"n_layers": 10**9}}, "no model has"),
        ({"cfg": CFG | {"n_layers": torch.tensor(2)}}, "not whole numbers"),
        ({"cfg": [1]}, "missing or broken"),
        ({"interp": "{"}, "missing or broken"),
        ({"interp": "{}"}, "does not hold a Circuit"),
    ],
)
def test_broken_tensors_are_refused(tmp_path, changes, said):
    path = foreign_pt(tmp_path / "c.pt", **changes)
    with pytest.raises(FileFormatError, match=said):
        read_eap(path)


@pytest.mark.parametrize("data", [[1, 2], 3, "x", torch.zeros(3), None])
def test_a_pt_file_of_anything_else_is_refused(tmp_path, data):
    torch.save(data, tmp_path / "c.pt")
    with pytest.raises(FileFormatError, match="holds no circuit"):
        read_eap(tmp_path / "c.pt")


class Hostile:
    def __init__(self, made):
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


def test_code_in_a_pt_file_is_not_run(tmp_path):
    made = tmp_path / "made"
    path = foreign_pt(tmp_path / "c.pt", cfg=Hostile(made))
    with pytest.raises(FileFormatError, match="more than tensors, numbers, text, lists"):
        read_eap(path)
    assert not made.exists()


def test_a_pt_file_of_objects_is_refused(tmp_path):
    path = foreign_pt(tmp_path / "c.pt", cfg=PAIR)
    with pytest.raises(FileFormatError, match="more than tensors"):
        read_eap(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_cut_short_anywhere_is_refused(tmp_path, ending):
    path = write_eap(some_circuit(), tmp_path / f"c.{ending}", d_model=8)
    whole = path.read_bytes().rstrip()
    for size in range(0, len(whole), max(1, len(whole) // 50)):
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError, match="not whole"):
            read_eap(path)


def test_a_file_with_changed_bytes_is_read_or_refused(tmp_path):
    path = foreign_pt(tmp_path / "c.pt")
    whole = path.read_bytes()
    generator = torch.Generator().manual_seed(0)
    for place in torch.randint(len(whole), (100,), generator=generator).tolist():
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile and torch remark on odd archives
            try:
                read_eap(path)
            except FileFormatError:
                continue


def test_old_files_that_are_no_archives_are_refused(tmp_path):
    path = tmp_path / "c.pt"
    torch.save({"cfg": CFG}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(FileFormatError, match="not whole"):
        read_eap(path)


def test_an_archive_that_would_fill_the_memory_is_refused_unread(tmp_path, monkeypatch):
    path = foreign_pt(tmp_path / "c.pt")
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("c/data/99", bytes(10_000_000))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(eap_format, "LARGEST_FILE", 1_000_000)
    with pytest.raises(FileFormatError, match="no more than 1,000,000 are needed"):
        read_eap(path)


def test_a_json_file_that_would_fill_the_memory_is_refused_unread(tmp_path, monkeypatch):
    path = foreign_json(tmp_path / "c.json", {})
    monkeypatch.setattr(eap_format, "LARGEST_FILE", 10)
    with pytest.raises(FileFormatError, match="no more than 10 are needed"):
        read_eap(path)


@pytest.mark.parametrize("name", ["c.csv", "c", "c.pt.gz"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(FileFormatError, match=r"give a name in \.json or \.pt"):
        read_eap(tmp_path / name)
    with pytest.raises(FileFormatError, match=r"give a name in \.json or \.pt"):
        write_eap(some_circuit(), tmp_path / name, d_model=8)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_file_that_is_not_there_is_refused(tmp_path, ending):
    with pytest.raises(FileFormatError, match=r"No such file"):
        read_eap(tmp_path / f"none.{ending}")


def test_labels_and_places_stand_where_their_loaders_do_not_look(tmp_path):
    data = json.loads(write_eap(some_circuit(), tmp_path / "c.json", d_model=8).read_text())
    assert data.keys() == {"cfg", "nodes", "edges", "interp"}
    assert data["interp"]["labels"] == {"1.0": ["mover", "mover of names"]}
    assert data["interp"]["edges"] == data["interp"]["nodes"] == {}
    assert MLP(1) in read_eap(tmp_path / "c.json").shape.node_index
