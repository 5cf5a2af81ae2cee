"""The network is the transformer that it says, and the shipped run loads."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from interp.errors import FileFormatError, ModelError
from interp.resources import data_dir
from interp.zoo.modular import (
    PRIME,
    ModularAdder,
    all_pairs,
    in_training,
    load_modular,
    sums,
)


def naive(network: ModularAdder, a: int, b: int) -> tuple[list[float], list[float]]:
    """Neurons and logits at `=`, by a whole causal transformer over the three tokens."""
    w = {name: value.double() for name, value in network.state_dict().items()}
    stream = [w["W_E"][token] + w["W_pos"][place] for place, token in enumerate((a, b, network.p))]
    for place in reversed(range(3)):  # later places read the streams of earlier ones as they were
        added = torch.zeros_like(stream[place])
        for head in range(len(w["W_Q"])):
            query = stream[place] @ w["W_Q"][head]
            keys = [stream[k] @ w["W_K"][head] for k in range(place + 1)]
            scores = torch.stack([query @ key for key in keys]) / math.sqrt(len(query))
            for k, weight in enumerate(scores.softmax(dim=0)):
                added = added + weight * (stream[k] @ w["W_V"][head] @ w["W_O"][head])
        stream[place] = stream[place] + added
    neurons = (stream[2] @ w["W_in"]).clamp(min=0)
    return neurons.tolist(), ((stream[2] + neurons @ w["W_out"]) @ w["W_U"]).tolist()


def test_neurons_and_logits_are_those_of_a_whole_transformer() -> None:
    network = ModularAdder(7, d_model=12, n_heads=3, d_mlp=20, seed=5).double()
    pairs = all_pairs(7)
    for row in (0, 10, 23, 48):
        neurons, logits = naive(network, *pairs[row].tolist())
        assert network.mlp_activations(pairs)[row].tolist() == pytest.approx(neurons, abs=1e-12)
        assert network(pairs)[row].tolist() == pytest.approx(logits, abs=1e-12)


def test_order_matters_to_a_network_that_knows_places() -> None:
    network = ModularAdder(7)
    one, other = network(torch.tensor([[1, 4], [4, 1]]))
    assert not torch.allclose(one, other)


def test_pairs_sums_and_embeddings_are_in_order() -> None:
    assert all_pairs(PRIME)[5 * PRIME + 7].tolist() == [5, 7]
    assert sums(PRIME)[112 * PRIME + 3].item() == 2
    network = ModularAdder(7)
    assert torch.equal(network.embeddings(), network.W_E[:7])


def test_the_split_is_a_function_of_the_seed() -> None:
    chosen = in_training(PRIME, seed=0)
    assert chosen.sum() == int(0.3 * PRIME**2)
    assert torch.equal(chosen, in_training(PRIME, seed=0))
    assert not torch.equal(chosen, in_training(PRIME, seed=1))


def test_the_untrained_control_has_the_same_sizes_and_other_weights() -> None:
    network = ModularAdder(7, d_model=12, n_heads=3, d_mlp=20, seed=5)
    fresh = network.untrained(seed=6)
    shapes = [{name: w.shape for name, w in n.state_dict().items()} for n in (network, fresh)]
    assert shapes[0] == shapes[1]
    assert network.weights_hash != fresh.weights_hash
    assert network.weights_hash == network.untrained(seed=5).weights_hash


def test_the_shipped_run_began_with_the_network_of_its_seed_and_adds() -> None:
    run = load_modular()
    right = sums(PRIME)
    start = run.network.untrained(seed=run.seed)(all_pairs(PRIME)).double()
    loss = torch.nn.functional.cross_entropy(start[run.trained_on], right[run.trained_on])
    assert loss.item() == pytest.approx(run.history[0]["train_loss"], rel=1e-4)
    assert (run.network(all_pairs(PRIME)).argmax(dim=1) == right).double().mean() > 0.999
    assert run.history[-1]["test_accuracy"] > 0.999


def test_the_last_weights_kept_are_those_of_the_network() -> None:
    run = load_modular()
    assert run.at(run.steps[-1]).weights_hash == run.network.weights_hash
    assert run.at(run.steps[0]).weights_hash != run.network.weights_hash
    assert str(run.history[-1]["step"]) in repr(run)


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in (data_dir() / "modular").rglob("*.*")) < 4e6


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="interp train modular"):
        load_modular(tmp_path)
    with pytest.raises(ModelError, match="the nearest is"):
        load_modular().at(123)
    (tmp_path / "history.json").write_text("{")
    with pytest.raises(FileFormatError, match=r"no history of a run|is not whole JSON"):
        load_modular(tmp_path)
    (tmp_path / "history.json").write_text(
        json.dumps({"settings": {"seed": 0}, "log": [{"step": 1}]})
    )
    save_file({"W_E": torch.zeros(8, 4)}, tmp_path / "model.safetensors")
    with pytest.raises(FileFormatError, match="weights of a ModularAdder"):
        load_modular(tmp_path)
