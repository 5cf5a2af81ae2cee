"""A small result of every kind, as it lies on disk, and what reads it there.

What reads also uses what it has read, as far as that takes no model: a file must not give a result
that fails later. Each returns what shows whether the result is the original.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from interp.circuits import Circuit, Shape
from interp.circuits.acdc import _State
from interp.circuits.circuit_file import to_json
from interp.circuits.eap_format import read_eap, write_eap
from interp.circuits.neuronpedia import read_neuronpedia, write_neuronpedia
from interp.grokking.curves import GrokkingCurves
from interp.heads import HeadAtlas, TrainingCurves
from interp.heads.claims import Claim
from interp.heads.score import Score
from interp.probes.result import Judged, ProbeResult
from interp.sites import Head

SHAPE = Shape(2, 2, 2)
RUN = {"weights_hash": "w", "prompts_hash": "p", "dtype": "float32", "metric": "kl", "tau": 0.1}


def uniform(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape)))


def circuit(shape: Shape = SHAPE) -> Circuit:
    scores = uniform(len(shape.edges))
    return Circuit(
        shape,
        kept=scores > 0.5,
        scores=scores.where(scores > 0.2, torch.nan),
        node_scores=uniform(len(shape.nodes)),
        places={Head(1, 0): ("END",)},
        labels={Head(1, 0): ("mover", "mover of names")},
        provenance={"task": "ioi", "model": "m", "n": 3},
    )


def atlas() -> HeadAtlas:
    kinds = ("induction", "duplicate-token")
    samples = (uniform(2, 2, 3), uniform(2, 2, 5))
    scores = {
        kind: Score(kind, values, "runs", 0.25) for kind, values in zip(kinds, samples, strict=True)
    }
    scores["induction"].values[0, 1, 1] = torch.nan
    claim = Claim(
        "induction", (Head(1, 0),), "logit_diff", uniform(4), uniform(4) - 1, uniform(3, 4)
    )
    return HeadAtlas(scores, {"induction": claim}, {"retrieval": "No needle."}, {"model": "m"})


def training_curves() -> TrainingCurves:
    grid = uniform(3, 1, 2, 2)
    return TrainingCurves(
        steps=(0, 10, 20),
        kinds=("induction",),
        scores=grid,
        low=grid - 0.1,
        high=grid + 0.1,
        curves={name: uniform(3, 4) for name in ("loss", "in-context learning", "induction")},
        leaders={"induction": Head(1, 0)},
        provenance={"model": "m"},
    )


def grokking_curves() -> GrokkingCurves:
    names = ("train_loss", "test_loss", "restricted_loss", "excluded_loss")
    return GrokkingCurves(
        steps=(0, 100, 200),
        frequencies=(1, 8),
        losses={name: uniform(3).double() for name in names},
        others={name: uniform(3, 2).double() for name in names[2:]},
        provenance={"model": "m"},
    )


def probe_result() -> ProbeResult:
    truth = torch.tensor([0, 1, 1])
    return ProbeResult(
        layers=("0", "1"),
        classes=("a", "b"),
        judged={
            name: Judged(truth, uniform(2, 3, 2).double())
            for name in ("task", "control", "shuffled")
        },
        test=torch.tensor([4, 5, 9]),
        chance=0.5,
        provenance={"model": "m"},
    )


# What reads, and shows what was read


def read_circuit(path: Path) -> str:
    found = Circuit.load(path)
    return used_circuit(found)


def used_circuit(found: Circuit) -> str:
    assert repr(found)
    assert len(found.to_frame()) == int(found.kept.sum())
    assert len(found.nodes_frame()) == len(found.nodes)
    return to_json(found, "c.json")


def read_eap_file(path: Path) -> str:
    return used_circuit(read_eap(path))


def read_graph(path: Path) -> str:
    return used_circuit(read_neuronpedia(path))


def read_atlas(path: Path) -> str:
    found = HeadAtlas.load(path)
    assert found._repr_html_()
    told = {kind: (score.values.tolist(), score.samples) for kind, score in found.scores.items()}
    return f"{found!r} {told} {found.to_frame()} {found.claims_frame()} {found.missing}"


def read_training_curves(path: Path) -> str:
    found = TrainingCurves.load(path)
    told = [found.scores.tolist(), found.curves, found.leaders]
    return f"{found!r} {told} {found.to_frame().to_csv()} {found.provenance}"


def read_grokking_curves(path: Path) -> str:
    found = GrokkingCurves.load(path)
    assert found.first_below("test_loss", 0.5) in (None, *found.steps)
    return f"{found!r} {found.to_frame().to_csv()} {found.others} {found.provenance}"


def read_probe_result(path: Path) -> str:
    found = ProbeResult.load(path)
    told = {name: each.probabilities.tolist() for name, each in found.judged.items()}
    return f"{found!r} {found.to_frame().to_csv()} {told} {found.test.tolist()} {found.provenance}"


def read_acdc_state(path: Path) -> str:
    found = _State.read(path, RUN, SHAPE)
    return f"{found.done} {found.value!r} {found.kept.tolist()} {found.changes.tolist()}"


def write_acdc_state(path: Path) -> Path:
    kept = uniform(len(SHAPE.edges)) > 0.5
    _State(2, kept, uniform(len(kept)).double(), 0.25).write(path, RUN, SHAPE)
    return path


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        ending: Of its name.
        write: Writes the original.
        read: Reads it elsewhere, see `hostile.assert_harmless`.
        signed: Whether a change of any byte is noticed.
    """

    ending: str
    write: Callable[[Path], Any]
    read: Callable[[Path], str]
    signed: bool = True


FORMATS = {
    "circuit": Format(".json", lambda path: circuit().save(path), read_circuit),
    "grouped circuit": Format(
        ".json", lambda path: circuit(Shape(2, 4, 2)).save(path), read_circuit
    ),
    "EAP-IG as JSON": Format(
        ".json", lambda path: write_eap(circuit(), path, d_model=8), read_eap_file, signed=False
    ),
    "EAP-IG as .pt": Format(
        ".pt", lambda path: write_eap(circuit(), path, d_model=8), read_eap_file, signed=False
    ),
    "Neuronpedia": Format(
        ".json", lambda path: write_neuronpedia(circuit(), path), read_graph, signed=False
    ),
    "atlas": Format(".json", lambda path: atlas().save(path), read_atlas),
    "atlas as Parquet": Format(".parquet", lambda path: atlas().save(path), read_atlas),
    "training curves": Format(
        ".json", lambda path: training_curves().save(path), read_training_curves
    ),
    "grokking curves": Format(
        ".json", lambda path: grokking_curves().save(path), read_grokking_curves
    ),
    "probe result": Format(".json", lambda path: probe_result().save(path), read_probe_result),
    "state of a pruning": Format(".json", write_acdc_state, read_acdc_state),
}
