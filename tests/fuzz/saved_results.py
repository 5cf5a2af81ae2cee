"""Small results that lie in files of tensors, tables and lines, and what reads them there.

Like `originals.py`: a reader compares with the original, which is the same in every process, and
also uses what it has read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from interp import results
from interp.activations import Activations
from interp.consistency import read_questions
from interp.consistency.layer_weights import LayerWeights
from interp.consistency.questions import Question
from interp.consistency.result import Consistency
from interp.consistency.thresholds import Thresholds
from interp.engine import SweepResult
from interp.lens.lens import Lens
from interp.lens.lens_file import load_lens, save_lens
from interp.lens.reading import STATISTICS, LensReading
from interp.probes.directions import Probes
from interp.sites import parse
from interp.vectors.relation import read_pairs
from interp.vectors.steering.contrasts import Behavior, Contrast, read_contrasts
from interp.vectors.vector import Vector
from interp.vectors.weights.weight_vector import WeightVector
from tests.fuzz.originals import Format

TOLD = {"model": "tiny", "weights_hash": "0123456789abcdef", "seed": 0, "versions": {"torch": "2"}}
GEOMETRY = {"n_layers": 2, "n_heads": 2, "n_kv_heads": 2}


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


@cache
def vector() -> Vector:
    return Vector({0: normal(4), 3: normal(4)}, "add", "task", TOLD, "AFTER", 1.5)


@cache
def weight_vector() -> WeightVector:
    return WeightVector({"a.weight": normal(2, 3).double(), "b": normal(2)}, "0123", "w", TOLD)


@cache
def lens() -> Lens:
    return Lens("tuned", TOLD, normal(2, 3, 3), normal(2, 3))


@cache
def probes() -> Probes:
    biases = torch.tensor([[0.5, -math.inf, 1.0], [0.0, 1.0, -1.0]])
    return Probes(("0", "1"), ("yes", "no", 3), normal(2, 3, 4), biases, TOLD)


@cache
def sweep() -> SweepResult:
    told = TOLD | {"geometry": GEOMETRY}
    sites = (parse("0.1"), parse("m1"), parse("1.0@END"))
    exact = torch.tensor([True, False, True])
    clean = normal(4)
    return SweepResult(sites, normal(3, 4), clean, "logit_diff", "mean", told, clean + 1, exact)


@cache
def behavior() -> Behavior:
    pairs = [Contrast(f"Q: {i}", " yes", " no") for i in range(4)]
    return Behavior("agreement", tuple(pairs[:2]), tuple(pairs[2:3]), tuple(pairs[3:]))


@cache
def consistency() -> Consistency:
    questions = tuple(Question(f"Is {i} even?", "yes", ("yes", "no")) for i in range(3))
    latents = normal(3, 2, 4, 2).softmax(-1).double()
    latents[1, 1] = math.nan
    untrained = normal(3, 2).double().sigmoid()
    untrained[0, 0] = math.nan
    return Consistency(
        questions=questions,
        texts=tuple(f"text {i}" for i in range(6)),
        given=torch.tensor([[0, 1], [1, -1], [0, 0]]),
        log_probs=-normal(3, 2).double().abs(),
        lengths=torch.tensor([[3, 4], [5, 6], [7, 8]]),
        latents=latents,
        untrained=untrained,
        thresholds=Thresholds(latents[0, 0], ("yes", "no"), frozenset({"ab", "cd"}), 12),
        tuned=LayerWeights(normal(4).double(), 0.5, frozenset({"ab"}), 9),
        transferred=None,
        provenance=TOLD,
    )


@cache
def reading() -> LensReading:
    return LensReading(
        layers=(0, 2),
        text=torch.tensor([0, 0, 1]),
        position=torch.tensor([0, 1, 0]),
        token=torch.tensor([5, 6, 5]),
        target=torch.tensor([6, -1, 7]),
        values={name: normal(2, 3).double() for name in STATISTICS},
        top=torch.tensor([[[5, 6], [6, 7], [7, 5]]] * 2),
        top_prob=normal(2, 3, 2).double().softmax(-1),
        words={5: "five", 6: " six", 7: "sev\nen"},
        lens="logit",
        provenance=TOLD,
    )


@cache
def activations() -> Activations:
    tensors = {f"blocks.{i}.hook_out": normal(3, 5, 4) + i for i in range(2)}
    mask = torch.ones(3, 5, dtype=torch.bool)
    return Activations(tensors, mask, {"END": torch.tensor([[4, 5]] * 3)}, TOLD)


def same(one: Any, other: Any) -> bool:
    """Whether two results say the same: types, numbers to the bit, and all that they hold."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Activations):
        held = [({**each}, each.mask, each.roles, each.provenance) for each in (one, other)]
        return same(*held)
    if isinstance(one, Tensor):
        numbers = (
            each.nan_to_num(7e7) if each.is_floating_point() else each for each in (one, other)
        )
        return one.dtype == other.dtype and torch.equal(*numbers)
    if isinstance(one, dict):
        return set(one) == set(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if is_dataclass(one):
        every = (field.name for field in fields(one))
        return all(same(getattr(one, name), getattr(other, name)) for name in every)
    return bool(one == other)


def told(found: Any, original: Any) -> str:
    """What a reader gives back: the same for the original alone."""
    assert repr(found)
    assert found._repr_html_() if hasattr(found, "_repr_html_") else True
    return "the original" if same(found, original) else f"another {type(found).__name__}"


def read_vector(path: Path) -> str:
    return told(Vector.load(path), vector())


def read_weight_vector(path: Path) -> str:
    return told(WeightVector.load(path), weight_vector())


def write_lens(path: Path) -> Path:
    return save_lens(lens(), path)


def read_lens(path: Path) -> str:
    return told(load_lens(path), lens())


def read_probes(path: Path) -> str:
    return told(Probes.load(path), probes())


def read_sweep(path: Path) -> str:
    return told(SweepResult.load(path), sweep())


def read_behavior(path: Path) -> str:
    return told(Behavior.load(path), behavior())


def read_consistency(path: Path) -> str:
    return told(Consistency.load(path), consistency())


def read_reading(path: Path) -> str:
    return told(LensReading.load(path), reading())


def read_activations(path: Path) -> str:
    return told(Activations.load(path), activations())


def read_anything(path: Path) -> str:
    """Whatever it is: the one door of `interp report`."""
    return repr(results.load(path))


def write_contrasts(path: Path) -> None:
    line = {"prompt": "Is {}?", "positive": " yes", "negative": " no"}
    lines = [line | {"prompt": f"Is {i}?"} for i in range(9)]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def read_contrast_lines(path: Path) -> str:
    found = read_contrasts(path)
    return f"{found!r} {found.train} {found.dev} {found.test}"


def write_questions(path: Path) -> None:
    lines = [{"question": f"Is {i} even?", "answer": "yes", "labels": ["yes", "no"]} for i in "12"]
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))


def read_question_lines(path: Path) -> str:
    found = read_questions(path)
    assert all(question.prompt(rationale=True) for question in found)
    return repr(found)


def write_pairs(path: Path) -> None:
    path.write_text(json.dumps([{"input": f"in {i}", "output": f"out {i}"} for i in range(4)]))


def read_word_pairs(path: Path) -> str:
    return repr(read_pairs(path))


def _saved(one: Callable[[], Any]) -> Callable[[Path], Any]:
    return lambda path: one().save(path)


TENSORS = {
    "vector": Format(".safetensors", _saved(vector), read_vector),
    "weight vector": Format(".safetensors", _saved(weight_vector), read_weight_vector),
    "lens": Format(".safetensors", write_lens, read_lens),
    "probes": Format(".safetensors", _saved(probes), read_probes),
    "sweep": Format(".safetensors", _saved(sweep), read_sweep),
    "saved class": Format(".safetensors", _saved(behavior), read_behavior),
}
TABLES = {
    "consistency": Format(".json", _saved(consistency), read_consistency),
    "consistency as Parquet": Format(".parquet", _saved(consistency), read_consistency),
    "reading": Format(".json", _saved(reading), read_reading),
    "reading as Parquet": Format(".parquet", _saved(reading), read_reading),
}
LINES = {
    "contrasts": Format(".jsonl", write_contrasts, read_contrast_lines, signed=False),
    "questions": Format(".jsonl", write_questions, read_question_lines, signed=False),
    "pairs": Format(".json", write_pairs, read_word_pairs, signed=False),
}
