"""What a report says of consistency, and of where answers come from, follows from the numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import interp
from interp.consistency import (
    AlignedValues,
    AttentionMass,
    FalseInduction,
    Sources,
    demonstrations,
    false_induction,
    measure,
    overthinking,
)
from interp.models import Model
from interp.report.consistency.answer_sources import (
    aligned_values_section,
    attention_mass_section,
    sources_section,
)
from interp.report.consistency.consistency import consistency_section
from interp.report.consistency.overthinking import (
    false_induction_section,
    gap_reduction_section,
    overthinking_section,
)
from interp.report.parts import Section
from interp.tasks.coin_flip import CoinFlip
from tests.report import analyses
from tests.report.analyses import KNOWN, N, again, consistency, gap_reduction


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load("polymath", check=False)


def verdicts(section: Section) -> list[str]:
    return [claim.verdict for claim in section.claims]


@pytest.mark.parametrize(
    ("found", "verdict", "does"),
    [
        (consistency(right=1.0, wrong=0.2), "found", "tells right from wrong"),
        (consistency(right=1.0, wrong=0.2, untrained=0.4), "found", "tells right from wrong"),
        (consistency(right=0.8, wrong=0.6), "doubtful", "may tell right from wrong"),
        (consistency(right=0.5, wrong=0.5), "not found", "does not tell right from wrong"),
        (consistency(right=0.2, wrong=1.0), "not found", "is higher on wrong paths"),
    ],
)
def test_consistency_is_worth_something_where_it_clears_chance_and_controls(
    found, verdict: str, does: str
) -> None:
    claim = consistency_section(found).claims[0]
    assert claim.verdict == verdict
    assert does in claim.statement
    own = found.separations["ic"]
    assert claim.evidence.startswith(f"AUROC {own.auroc:.3f} ({own.low:.3f} to {own.high:.3f}")
    for name in set(found.separations) - {"ic"}:
        assert f"; {name} " in claim.evidence
    assert claim.evidence.endswith(
        "20 right and 20 wrong paths, n\u00a0=\u00a020 questions of 2 paths."
    )


def test_votes_are_told_in_the_words_of_the_result() -> None:
    found = consistency(right=1.0, wrong=0.2)
    claim = consistency_section(found).claims[1]
    assert claim.statement == found.verdict.split(": ", 1)[0] + "."
    assert claim.verdict == "not found"
    assert "SC+IC answers 50.0% of 20 questions and SC 50.0%" in claim.evidence


def test_a_gain_of_votes_is_found() -> None:
    """One of two paths is right, and the layers agree on that one alone."""
    found = consistency(right=1.0, wrong=0.0)
    mixed = {
        name: torch.stack([values.flatten(0, 1)[:20], values.flatten(0, 1)[20:]], dim=1)
        for name in ("given", "log_probs", "lengths", "latents")
        if (values := getattr(found, name)) is not None
    }
    claim = consistency_section(replace(found, **mixed)).claims[1]
    assert claim.verdict == "found"
    assert claim.statement == "Weighting by consistency helps."
    assert "a difference of +50.0 points" in claim.evidence


def test_the_wrong_paths_on_which_layers_agree_most_are_shown() -> None:
    found = consistency(right=1.0, wrong=0.2, text="<script>")
    block = consistency_section(found).blocks[-1]
    (table,) = block.tables
    assert len(table.rows) == 5
    assert block.meaning.startswith(
        "The 5 wrong paths with the highest internal consistency, of 20"
    )
    assert [row[-2] for row in table.rows] == sorted((row[-2] for row in table.rows), reverse=True)
    assert table.rows[0][:4] == ("10 <script>", "The answer is no.", "no", "yes")


def test_a_model_that_is_never_wrong_has_no_such_paths() -> None:
    found = consistency(right=1.0, wrong=0.2)
    right = replace(found, given=torch.zeros_like(found.given))
    assert consistency_section(right).blocks[-1].tables == ()
    assert verdicts(consistency_section(right))[0] != "found"


def test_a_measurement_is_told_whole_and_its_command_makes_it_again(model: Model) -> None:
    options = {"paths": 2, "calibration_paths": 2, "temperature": 1.5, "max_new_tokens": 16}
    found = measure(model, CoinFlip(flips=1), n=4, calibration=4, progress=False, **options)
    section = consistency_section(found)
    assert section.heading == "Do the layers of polymath agree when it is right? (coin_flip)"
    assert len(section.blocks) == 5
    assert repr(again(section.command, model)) == repr(found)


@pytest.mark.parametrize(
    ("gap", "verdict"), [(0.6, "found"), (0.05, "doubtful"), (0.0, "not found")]
)
def test_false_demonstrations_mislead_where_the_last_gap_is_clear(gap: float, verdict: str) -> None:
    section = overthinking_section(analyses.overthinking(gap))
    (claim,) = section.claims
    assert claim.verdict == verdict
    assert f"a gap of {gap:.2f}" in claim.evidence
    assert "chance 0.50" in claim.evidence
    assert ("from layer 1 on" in claim.statement) == (verdict == "found")


def test_the_command_of_overthinking_makes_it_again(model: Model) -> None:
    found = overthinking(model, "continent", n=8, calibration=12, shots=4)
    assert repr(again(overthinking_section(found).command, model)) == repr(found)


@pytest.mark.parametrize(
    ("found", "verdict", "told"),
    [
        (gap_reduction(0.6), "found", "closes 0.60 of the gap"),
        (gap_reduction(0.6, random=0.6), "not found", "no more of the gap"),
        (gap_reduction(0.6, random=0.4), "doubtful", "closes 0.60 of the gap"),
        (gap_reduction(0.0, gap=0.0), "not found", "There is no gap to close in toy."),
    ],
)
def test_heads_close_the_gap_where_random_ones_do_not(found, verdict: str, told: str) -> None:
    section = gap_reduction_section(found)
    (claim,) = section.claims
    assert claim.verdict == verdict
    assert told in claim.statement
    assert bool(section.blocks[0].figures) == (found.gap[1] > 0)


def test_a_head_that_looks_up_labels_stands_apart(model: Model) -> None:
    prompts = demonstrations(model, "continent", n=8, kind="false", shots=5)
    real = false_induction(model, prompts)
    assert repr(again(false_induction_section(real).command, model)) == repr(real)
    values = torch.zeros(4, 4, N).double()
    assert verdicts(false_induction_section(FalseInduction(values, KNOWN))) == ["not found"]
    values[2, 1] = 0.5
    section = false_induction_section(FalseInduction(values, KNOWN))
    assert verdicts(section) == ["found"]
    assert section.claims[0].statement == "Head 2.1 of toy looks up labels."
    values[2, 1] = torch.linspace(-1, 1.2, N)
    assert verdicts(false_induction_section(FalseInduction(values, KNOWN))) == ["doubtful"]


def mass(best: float) -> AttentionMass:
    """Head 1.2 gives the context its mass; looking at all tokens alike would give it 0.3."""
    values = torch.full((N, 2, 4, 3), 0.1).double()
    values[:, 1, 2, 0] = best + 0.05 * torch.linspace(-1, 1, N)
    uniform = torch.tensor([0.3, 0.1, 0.6]).double().expand(N, 3)
    return AttentionMass(values, uniform, ("context", "first", "rest"), KNOWN | {"n": N})


@pytest.mark.parametrize(
    ("best", "verdict"), [(0.8, "found"), (0.31, "doubtful"), (0.2, "not found")]
)
def test_attention_to_a_part_is_held_against_looking_everywhere(best: float, verdict: str) -> None:
    section = attention_mass_section(mass(best))
    (claim,) = section.claims
    assert claim.verdict == verdict
    assert claim.statement == "Head 1.2 of toy looks most at the context."
    assert "looking at all tokens alike would give 0.30" in claim.evidence


def test_a_part_that_no_prompt_has_is_not_found() -> None:
    found = mass(0.8)
    values = found.values.clone()
    values[..., 0] = torch.nan
    section = attention_mass_section(replace(found, values=values, uniform=found.uniform))
    assert section.claims[0].statement == "No prompt has a context."
    assert verdicts(section) == ["not found"]


def aligned(own: float, *, shuffled: float = 10.0) -> Sources:
    counts = torch.tensor([5.0, own]).double()
    noise = torch.linspace(-8, 8, 30)[:, None].double()
    return Sources(
        attention=mass(0.8),
        groups={"right": torch.ones(N, dtype=torch.bool)},
        counts={"right": counts},
        resampled={"right": counts + noise},
        shuffled={"right": torch.tensor([5.0, shuffled]).double().expand(5, 2)},
        random=torch.full((5, 2), 3.0).double(),
        threshold=0.2,
        provenance=KNOWN,
    )


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (aligned(40.0), "found"),
        (aligned(14.0), "doubtful"),
        (aligned(8.0), "not found"),
    ],
)
def test_value_vectors_lie_along_the_answer_beyond_shuffled_answers(
    found: Sources, verdict: str
) -> None:
    section = sources_section(found)
    (claim,) = section.claims
    assert claim.verdict == verdict
    assert "Value vectors of layer 1 of toy" in claim.statement
    assert "with shuffled answers 10.0, random directions 3.0" in claim.evidence


def test_a_group_with_one_answer_tells_of_no_direction() -> None:
    found = aligned(40.0)
    nothing = {"right": torch.full((2,), torch.nan).double()}
    resampled = {"right": torch.full((30, 2), torch.nan).double()}
    section = sources_section(replace(found, counts=nothing, resampled=resampled))
    assert verdicts(section) == ["doubtful"]
    assert "cannot be told" in section.claims[0].statement


@pytest.mark.parametrize(
    ("count", "verdict"), [(30.0, "found"), (6.0, "doubtful"), (4.0, "not found")]
)
def test_a_direction_is_held_against_every_random_one(count: float, verdict: str) -> None:
    random = torch.tensor([[4.0], [8.0], [3.0]]).double()
    found = AlignedValues(torch.tensor([count]).double(), random, (100,), 0.2, 0.99, KNOWN)
    (claim,) = aligned_values_section(found).claims
    assert claim.verdict == verdict
    assert f"{count:.0f} of 100; random directions 5.0" in claim.evidence
    assert "at most 8 of n\u00a0=\u00a03 draws" in claim.evidence
