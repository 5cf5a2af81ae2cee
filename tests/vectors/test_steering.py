"""Vectors between two answers, against loops with hooks, and the verdicts on them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

import interp
from interp.errors import FileFormatError, PromptError, TaskError, VectorError
from interp.models import Model
from interp.vectors.steering.contrasts import (
    Behavior,
    Contrast,
    behavior,
    between_relations,
    from_task,
    read_contrasts,
)
from interp.vectors.steering.simultaneous import CONDITIONS, Simultaneous, simultaneous
from interp.vectors.steering.steering import SteeringVector, steering_vector
from interp.vectors.steering.strengths import StrengthSweep, strength_sweep
from tests.parity.compare import model as family_model

BLOCKS = {
    "gpt2": lambda hf: hf.transformer.h,
    "llama": lambda hf: hf.model.layers,
    "gemma2": lambda hf: hf.model.layers,
}
WORDS = [
    Contrast(f"w{i} w{i + 1}" + " w3" * (i % 3), f"w{2 * i + 20}", f"w{2 * i + 21}")
    for i in range(20)
]


def words(name: str = "words") -> Behavior:
    return behavior(name, WORDS)


@pytest.fixture(scope="module")
def polymath() -> Model:
    return interp.load("polymath")


@pytest.fixture(scope="module")
def past(polymath: Model) -> SteeringVector:
    return steering_vector(polymath, between_relations(polymath, "past", "gerund"), progress=False)


@pytest.fixture(scope="module")
def swept(polymath: Model, past: SteeringVector) -> StrengthSweep:
    return strength_sweep(
        polymath, past, strengths=[-2.0, 1.0, 2.0, 20.0], draws=39, progress=False
    )


def stream(model: Model, family: str, text: str, answer: str) -> Tensor:
    """What leaves every block at the answer token."""
    kept: list[Tensor] = []

    def keep(module, args, output):
        kept.append((output[0] if isinstance(output, tuple) else output)[0, -1].clone())

    handles = [block.register_forward_hook(keep) for block in BLOCKS[family](model.hf)]
    model.logits(torch.tensor([[model.bos_id, *model.encode(text), *model.encode(answer)]]))
    for handle in handles:
        handle.remove()
    return torch.stack(kept)


def answer_probs(model: Model, family: str, contrast: Contrast, added: dict[int, Tensor]) -> Tensor:
    """Positive, negative and other, with vectors added at the last token."""

    def hook_of(vector: Tensor):
        def hook(module, args, output):
            edited = (output[0] if isinstance(output, tuple) else output).clone()
            edited[:, -1] += vector
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return hook

    blocks = BLOCKS[family](model.hf)
    handles = [blocks[i].register_forward_hook(hook_of(v)) for i, v in added.items()]
    logits = model.logits(torch.tensor([[model.bos_id, *model.encode(contrast.prompt)]]))[0, -1]
    for handle in handles:
        handle.remove()
    probs = logits.softmax(dim=-1)
    two = torch.stack([probs[model.encode(x)[0]] for x in (contrast.positive, contrast.negative)])
    return torch.cat([two, 1 - two.sum()[None]])


@pytest.mark.parametrize("family", BLOCKS)
def test_vectors_and_gains_are_those_of_a_loop(family: str):
    model, some = family_model(family), words()
    found = steering_vector(model, some, strength=0.5, progress=False)
    differences = [
        stream(model, family, c.prompt, c.positive) - stream(model, family, c.prompt, c.negative)
        for c in some.train
    ]
    torch.testing.assert_close(found.vectors, torch.stack(differences).mean(dim=0))
    for layer, vector in enumerate(found.vectors):
        for i, contrast in enumerate(some.dev):
            clean, up, down = (
                answer_probs(model, family, contrast, {layer: m * vector}) for m in (0.0, 0.5, -0.5)
            )
            gain = (up[0] - clean[0] + down[1] - clean[1]) / 2
            assert found.gains[layer, i].item() == pytest.approx(gain.item(), abs=1e-9)
    assert found.layer == found.gains.mean(dim=-1).argmax()


def test_a_sweep_is_that_of_a_loop_and_its_controls_have_the_norm():
    model, some = family_model("llama"), words()
    found = steering_vector(model, some, layer=1, progress=False)
    swept = strength_sweep(model, found, strengths=[-1.0, 2.0], draws=19, progress=False)
    assert swept.strengths == (-1.0, 0.0, 2.0)
    for s, strength in enumerate(swept.strengths):
        for i, contrast in enumerate(some.test):
            expected = answer_probs(model, "llama", contrast, {1: strength * found.vectors[1]})
            torch.testing.assert_close(swept.steered[s, i], expected, atol=1e-9, rtol=1e-9)
            shuffled = answer_probs(model, "llama", contrast, {1: strength * found.shuffled[2, 1]})
            torch.testing.assert_close(swept.shuffled[2, s, i], shuffled, atol=1e-9, rtol=1e-9)
    torch.testing.assert_close(swept.steered.sum(dim=-1), torch.ones(3, len(some.test)).double())
    torch.testing.assert_close(
        found.shuffled.norm(dim=-1), found.vectors.norm(dim=-1).expand(len(found.shuffled), -1)
    )
    assert torch.equal(swept.random[:, 1], swept.steered[1].expand(19, -1, -1))  # 0 is no vector
    assert len({round(x, 9) for x in swept.random[:, 2].mean(dim=(1, 2)).tolist()}) >= 1
    assert swept.toward[0].tolist() == (swept.steered[0] - swept.steered[1])[:, 1].tolist()


def test_shuffled_pairs_of_fixed_answers_lose_the_direction():
    """Exactly half are exchanged; a majority, scaled up, would be the vector again."""
    model = family_model("gpt2")
    fixed = behavior("fixed", [Contrast(f"w{i} w{i + 1}", "w5", "w6") for i in range(20)])
    found = steering_vector(model, fixed, progress=False)
    cosine = torch.cosine_similarity(found.shuffled[:, 0], found.vectors[0], dim=-1)
    assert cosine.abs().max() < 0.9


def test_polymath_is_steered_between_past_and_gerund(past: SteeringVector, swept: StrengthSweep):
    assert past.layer in (4, 5)
    frame = swept.to_frame().set_index("strength")
    assert frame.loc[2.0, "toward_low"] > 0.05
    assert frame.loc[-2.0, "toward_low"] > 0.05
    assert frame.loc[2.0, "positive"] > frame.loc[0.0, "positive"] > frame.loc[-2.0, "positive"]
    assert frame.loc[0.0, "verdict"] == "unsteered"
    assert frame.loc[20.0, "verdict"] == "other tokens"
    assert frame.loc[20.0, "other"] > 0.9
    assert frame.loc[1.0, "toward"] > frame.loc[1.0, "random_toward"]


def made(points: dict[float, tuple[float, float]], random: float = 0.0) -> StrengthSweep:
    """A sweep whose prompts all respond alike, give or take .01."""
    spread = torch.tensor([-0.01, 0.0, 0.01, 0.0])
    rows = []
    for strength in sorted(points):
        up, down = points[strength]
        positive = torch.full((4,), up) + spread
        negative = torch.full((4,), down)
        rows.append(torch.stack([positive, negative, 1 - positive - negative], dim=-1))
    steered = torch.stack(rows).double()
    clean = steered[sorted(points).index(0.0)]
    control = clean.expand(len(points), -1, -1).clone()
    upward = torch.tensor(sorted(points)) > 0
    control[upward, :, 0] += random
    return StrengthSweep(
        behavior="made",
        layer=0,
        strengths=tuple(map(float, sorted(points))),
        steered=steered,
        random=control.expand(39, -1, -1, -1),
        shuffled=clean.expand(2, len(points), -1, -1),
        provenance={"model": "none"},
    )


@pytest.mark.parametrize(
    ("points", "random", "verdict"),
    [
        ({0: (0.2, 0.7), 1: (0.9, 0.05)}, 0.0, "steered"),
        ({0: (0.2, 0.7), 1: (0.9, 0.05)}, 0.75, "as controls"),
        ({0: (0.2, 0.7), 1: (0.1, 0.85)}, 0.0, "reversed"),
        ({0: (0.2, 0.7), 1: (0.205, 0.7)}, 0.0, "no effect"),
        ({0: (0.1, 0.8), 1: (0.5, 0.5)}, 0.0, "label collapse"),
        ({0: (0.9, 0.1), 1: (0.5, 0.5)}, 0.0, "label collapse"),
        ({0: (0.2, 0.7), 1: (0.25, 0.2)}, 0.0, "other tokens"),
        ({0: (0.2, 0.7), 1: (0.01, 0.02)}, 0.0, "other tokens"),
    ],
)
def test_a_broken_model_is_not_called_steered(
    points: dict[float, tuple[float, float]], random: float, verdict: str
):
    assert made(points, random).verdicts == ("unsteered", verdict)


def test_passing_one_half_on_the_way_is_no_collapse():
    passes = made({0: (0.1, 0.8), 1: (0.48, 0.5), 2: (0.9, 0.08)})
    stays = made({0: (0.1, 0.8), 1: (0.48, 0.5), 2: (0.5, 0.48)})
    assert passes.verdicts == ("unsteered", "steered", "steered")
    assert stays.verdicts == ("unsteered", "label collapse", "label collapse")


@pytest.fixture(scope="module")
def at_once() -> Simultaneous:
    model = family_model("llama")
    return simultaneous(model, _two(model), strengths=[1.5, -1.0], draws=2, progress=False)


def _two(model: Model) -> list[SteeringVector]:
    other = behavior("other", [Contrast(c.prompt, c.negative, "w80") for c in WORDS])
    return [steering_vector(model, b, progress=False) for b in (words(), other)]


def test_several_at_once_are_those_of_a_loop(at_once: Simultaneous):
    model, one = family_model("llama"), at_once.one_layer
    steerings = _two(model)
    a, b = (s * v.vectors for s, v in zip((1.5, -1.0), steerings, strict=True))
    at_a, at_b = at_once.layers["words"], at_once.layers["other"]
    assert sorted((at_a, at_b)) == [0, 1]
    wanted = [{}, {at_a: a[at_a]}, {at_a: a[at_a], at_b: b[at_b]}, {one: a[one]}]
    wanted.append({one: a[one] + b[one]})
    for condition, added in enumerate(wanted):
        for i, contrast in enumerate(steerings[0].behavior.test):
            expected = answer_probs(model, "llama", contrast, added)
            found = at_once.values["words"][condition, i]
            torch.testing.assert_close(found, expected, atol=1e-9, rtol=1e-9)


def test_several_at_once_are_told_beside_random_vectors(at_once: Simultaneous):
    frame = at_once.to_frame()
    assert frame["condition"].tolist() == [*CONDITIONS, "random vectors"] * 2
    assert frame["success"].between(0, 1).all()
    likelier = at_once.values["other"][..., 1] > at_once.values["other"][..., 0]
    kept = at_once.values["other"][..., 2] <= 0.5
    assert torch.equal(at_once.success("other")[:-1], (likelier & kept).double())  # steered away
    assert "summed in one layer" in repr(at_once)
    assert "<table" in at_once._repr_html_()
    assert len(at_once.plot().data) == 6


def test_results_show_themselves(past: SteeringVector, swept: StrengthSweep):
    for result in (past, swept):
        assert "<table" in result._repr_html_()
        assert len(result.plot().data) > 0
        assert result.provenance["behavior"] == "past, not gerund"
    assert past.to_frame()["chosen"].sum() == 1
    assert "layer" in repr(past)
    assert "other tokens" in repr(swept)


def test_the_vector_steers_what_is_written(polymath: Model, past: SteeringVector):
    prompt = past.behavior.test[0].prompt
    both = [
        past.vector.scaled(m).generate(polymath, [prompt], max_new_tokens=1).texts[0].strip()
        for m in (3.0, -3.0)
    ]
    asked = past.behavior.test[0]
    assert both == [asked.positive.strip(), asked.negative.strip()]


def test_behaviors_come_from_relations_tasks_and_files(polymath: Model, tmp_path: Path):
    pairs = between_relations(polymath, "superlative", "comparative")
    assert Contrast("Q: hot\nA:", " hottest", " hotter") in pairs.train + pairs.dev + pairs.test
    parts = [set(pairs.train), set(pairs.dev), set(pairs.test)]
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    facts = from_task(polymath, "facts_vs_context", n=20)
    assert all(" is " in contrast.prompt for contrast in facts.train)
    coin = from_task(polymath, "coin_flip", n=20, answers=(" yes", " no"))
    assert {c.positive for c in coin.train} == {" yes"}
    path = tmp_path / "mine.jsonl"
    told = [{"prompt": c.prompt, "positive": c.positive, "negative": c.negative} for c in WORDS]
    path.write_text("\n\n".join(map(json.dumps, told)), encoding="utf-8")
    read = read_contrasts(path)
    assert {*read.train, *read.dev, *read.test} == set(WORDS)
    assert read.name == "mine"


def test_what_is_no_behavior_is_refused(polymath: Model, tmp_path: Path):
    with pytest.raises(TaskError, match="has 1 different contrast pairs; give 8"):
        behavior("few", [WORDS[0]] * 20)
    with pytest.raises(TaskError, match="0 different"):
        between_relations(polymath, "capital", "next_letter")
    path = tmp_path / "mine.jsonl"
    for line in ("[]", "{", '{"prompt": "a", "positive": 1, "negative": " b"}', '{"prompt": "a"}'):
        path.write_text('{"prompt": "a", "positive": " b", "negative": " c"}\n' + line)
        with pytest.raises(FileFormatError, match=r"(?i)line 2 .*is no"):
            read_contrasts(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(FileFormatError, match=r"cannot be read|is not JSON"):
        read_contrasts(path)
    with pytest.raises(FileFormatError, match=r"cannot be read|is not JSON"):
        read_contrasts(tmp_path / "none.jsonl")


def test_what_cannot_be_steered_is_refused(polymath: Model, past: SteeringVector):
    model = family_model("llama")
    for options, says in (
        ({"layer": 2}, "Layer 2 does not exist"),
        ({"strength": 0.0}, "does not steer"),
    ):
        with pytest.raises(VectorError, match=says):
            steering_vector(model, words(), **options, progress=False)
    long = behavior("long", [Contrast(f"w{i}", "w1 w2", "w3") for i in range(9)])
    with pytest.raises(PromptError):
        steering_vector(model, long, progress=False)
    same = behavior("same", [Contrast(f"w{i}", "w1", "w1") for i in range(9)])
    with pytest.raises(PromptError):
        steering_vector(model, same, progress=False)
    for options, says in (
        ({"layer": 6}, "Layer 6 does not exist"),
        ({"draws": 3}, "too few to tell steering from chance; use 19"),
        ({"strengths": [float("nan")]}, "finite numbers"),
    ):
        with pytest.raises(VectorError, match=says):
            strength_sweep(polymath, past, **options, progress=False)
    with pytest.raises(VectorError, match="was made with polymath"):
        strength_sweep(model, past, progress=False)
    for some, options, says in (
        ([past], {}, "cannot be steered at once"),
        ([past, past], {}, "each of another name"),
    ):
        with pytest.raises(VectorError, match=says):
            simultaneous(polymath, some, **options)
    with pytest.raises(VectorError, match="Layer 9 does not exist"):
        simultaneous(model, _two(model), one_layer=9, progress=False)
    for strengths in (0.0, [1.0], [1.0, 0.0]):
        with pytest.raises(VectorError, match="give one for each"):
            simultaneous(model, _two(model), strengths=strengths, progress=False)
