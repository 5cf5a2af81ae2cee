"""What a report says of lenses, probes and networks that add follows from their numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import interp
from interp.grokking import ModularAnalysis, analyze, shipped_curves
from interp.lens import LensComparison, LensReading, logit_lens
from interp.lens.read import read
from interp.models import Model
from interp.probes import CodeLength, StepProbes, Transfer
from interp.probes.depth import depth
from interp.report.parts import Section
from interp.report.probes.lens import comparison_section, reading_section
from interp.report.probes.probe_measures import codelength_section, depth_section, erasure_section
from interp.report.probes.probes import probe_section, steps_section, transfer_section
from interp.report.training.grokking import analysis_section, grokking_curves_section
from tests.grokking.samples import Waves
from tests.report.analyses import KNOWN, answered, erasure, probes
from tests.report.pages import HOSTILE

TEXTS = ["Anna and Paul went to the park .", "one two three four"]


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load("polymath", check=False)


@pytest.fixture(scope="module")
def reading(model: Model) -> LensReading:
    return read(model, TEXTS, logit_lens(model), k=3)


def verdicts(section: Section) -> list[str]:
    return [claim.verdict for claim in section.claims]


def test_a_reading_shows_every_word_and_claims_nothing(reading: LensReading) -> None:
    section = reading_section(reading)
    assert section.claims == ()
    assert "No verdict" in section.lead
    figure = section.blocks[0].figures[0]
    layers, tokens = len(reading.layers), int((reading.text == 0).sum())
    assert str(figure.drawing).count("<rect") == layers * tokens
    assert figure.data is not None
    assert len(figure.data.rows) == layers * tokens
    assert "layer 6, after “Anna”: “" in str(figure.drawing)


def test_long_readings_say_what_is_not_drawn(model: Model) -> None:
    long = read(model, ["one two three four " * 12] + ["one two"] * 4, logit_lens(model), k=1)
    section = reading_section(long)
    assert (
        section.blocks[0]
        .figures[0]
        .caption.endswith("columns are tokens (40; 9 more tokens are not drawn).")
    )
    assert "Not drawn: 2 more texts." in section.limits
    assert len(section.blocks) == 4


@pytest.mark.parametrize("word", HOSTILE)
def test_words_of_a_reading_are_only_text(reading: LensReading, word: str) -> None:
    hostile = replace(reading, words=dict.fromkeys(reading.words, word))
    drawing = str(reading_section(hostile).blocks[0].figures[0].drawing)
    bare = drawing.replace("<svg ", "").replace("<rect ", "").replace("<text ", "")
    for tag in ("<script", "<img", "<svg", "<a ", "<iframe", "<style", 'onerror="'):
        assert tag not in bare
    assert drawing.count('"') % 2 == 0


def comparison(*changes: float, shuffled: float = 4.0) -> LensComparison:
    """A lens that changes the logit lens's 2 nats in each layer; the last layer has none."""
    noise = 0.1 * torch.linspace(-1, 1, 12)
    own = [2 + change + noise * (1 + 3 * (abs(change) < 0.1)) for change in changes]
    logit = torch.stack([2 + noise.roll(3)] * len(changes) + [torch.zeros(12)])
    return LensComparison(
        "kl",
        {
            "logit": logit,
            "tuned": torch.stack([*own, torch.zeros(12)]),
            "shuffled": torch.stack([shuffled + noise] * len(changes) + [torch.zeros(12)]),
        },
        KNOWN,
    )


@pytest.mark.parametrize(
    ("found", "verdict", "layers"),
    [
        (comparison(-1.0, -0.5), "found", "2 of 2"),
        (comparison(-1.0, 0.5), "doubtful", "1 of 2"),
        (comparison(0.5, 0.5), "not found", "0 of 2"),
        (comparison(-1.0, -0.5, shuffled=1.2), "doubtful", "2 of 2"),
    ],
)
def test_a_lens_is_better_where_every_layer_surely_is(
    found: LensComparison, verdict: str, layers: str
) -> None:
    (claim,) = comparison_section(found).claims
    assert claim.verdict == verdict
    assert f"in {layers} layers" in claim.statement
    assert "shuffled" in claim.evidence


@pytest.mark.parametrize(
    ("found", "verdict", "told"),
    [
        (probes(0.95), "found", "Layer 1 of toy holds the label of coin_flip"),
        (probes(0.95, control=0.95), "not found", "reads no more than from a control"),
        (probes(0.7, untrained=0.65), "doubtful", "Layer 1 of toy may hold"),
        (probes(0.95, untrained=1.0), "not found", "reads no more than from a control"),
    ],
)
def test_a_layer_holds_what_no_control_reads(found, verdict: str, told: str) -> None:
    (claim,) = probe_section(found).claims
    assert claim.verdict == verdict
    assert told in claim.statement
    assert "untrained model" in claim.evidence
    assert "n\u00a0=\u00a040 test prompts" in claim.evidence


def test_every_step_has_its_claim() -> None:
    steps = StepProbes({"1": probes(0.95), "2": probes(0.5)}, KNOWN)
    section = steps_section(steps)
    assert verdicts(section) == ["found", "not found"]
    assert "the value after step 1" in section.claims[0].statement


def transfer(across: float) -> Transfer:
    """Two tasks; probes read their own, and a share of the other one's test prompts."""

    def right(share: float) -> torch.Tensor:
        return answered(share, n=40).expand(2, 40)

    tasks = ("two", "three")
    pairs = [(a, b) for a in tasks for b in tasks]
    found = {("task", a, b): right(1.0 if a == b else across) for a, b in pairs}
    found |= {(name, a, b): right(0.5) for name in ("shuffled", "untrained") for a, b in pairs}
    return Transfer(
        ("0", "1"), tasks, found, dict.fromkeys(pairs, 0.5), dict.fromkeys(tasks, KNOWN)
    )


@pytest.mark.parametrize(
    ("across", "verdict"), [(0.9, "found"), (0.6, "doubtful"), (0.5, "not found")]
)
def test_probes_carry_over_where_they_beat_their_controls(across: float, verdict: str) -> None:
    section = transfer_section(transfer(across))
    assert verdicts(section) == [verdict, verdict]
    assert "on two itself 1.00" in section.claims[0].evidence
    assert ("Model (two)", "toy") in section.provenance


@pytest.mark.parametrize(
    ("bits", "verdict"), [(0.2, "found"), (0.97, "doubtful"), (1.2, "not found")]
)
def test_a_code_is_short_where_no_control_is(bits: float, verdict: str) -> None:
    each = bits + 0.3 * torch.linspace(-1, 1, 40).double()
    conditions = dict.fromkeys(("control", "shuffled", "untrained"), torch.full((1, 40), 1.0))
    found = CodeLength(
        ("0",), ("a", "b"), {"task": each[None], **conditions}, torch.arange(40), (40,), KNOWN
    )
    (claim,) = codelength_section(found).claims
    assert claim.verdict == verdict
    assert f"of 40 bits, compression {1 / bits:.2f}" in claim.evidence


def test_points_of_a_curve_are_found_where_nearly_all_resamples_have_them() -> None:
    section = depth_section(depth(probes(0.95)))
    told = dict(zip(("jump", "converging", "settled"), section.claims, strict=True))
    assert told["jump"].verdict == "found"
    assert told["jump"].statement == "The jump point of toy is at 0.50 of the depth."
    assert told["converging"].verdict == "not found"


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (erasure(after=0.5), ["found", "found"]),
        (erasure(after=0.9, erased=0.9), ["doubtful", "not found"]),
        (erasure(after=1.0, erased=0.85), ["not found", "doubtful"]),
        (erasure(after=0.5, random=0.5), ["not found", "found"]),
    ],
)
def test_what_is_erased_is_gone_and_used_beyond_random_directions(
    found, expected: list[str]
) -> None:
    section = erasure_section(found)
    assert verdicts(section) == expected
    assert "chance 0.50" in section.claims[0].evidence


@pytest.fixture(scope="module")
def waves() -> ModularAnalysis:
    return analyze(Waves([2, 5]))


def test_a_network_of_waves_is_found_beside_its_controls(waves: ModularAnalysis) -> None:
    (claim,) = analysis_section(waves).claims
    assert claim.verdict == "found"
    assert claim.statement.startswith("Waves of frequency 2 and 5 explain 100.0% of the logits")
    assert "n\u00a0=\u00a0529 pairs" in claim.evidence
    alike = replace(waves, shares=torch.full_like(waves.shares, 1 / len(waves.shares)))
    assert verdicts(analysis_section(alike)) == ["doubtful"]
    none = replace(waves, key_frequencies=())
    assert verdicts(analysis_section(none)) == ["not found"]


def test_a_network_groks_where_it_learns_what_it_never_saw() -> None:
    curves = shipped_curves()
    section = grokking_curves_section(curves)
    assert verdicts(section) == ["found", "found", "found"]
    first = curves.first_below("test_loss", 0.1)
    assert f"adds what it never saw from step {first} on" in section.claims[0].statement
    flat = replace(
        curves,
        losses=dict.fromkeys(curves.losses, torch.full_like(curves.losses["train_loss"], 4.7)),
    )
    assert verdicts(grokking_curves_section(flat))[0] == "not found"
    others = {"restricted_loss": torch.zeros(29, 3), "excluded_loss": torch.full((29, 3), 99.0)}
    beaten = replace(curves, others={name: each.double() for name, each in others.items()})
    assert verdicts(grokking_curves_section(beaten))[1:] == ["not found", "not found"]
