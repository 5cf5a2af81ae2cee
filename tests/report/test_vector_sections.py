"""What a report says of vectors follows from their numbers, and its commands make them again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import interp
from interp.models import Model
from interp.report.parts import Section
from interp.report.vectors.function_vectors import function_vector_section, head_check_section
from interp.report.vectors.in_context import (
    interpolation_section,
    recognition_section,
    specification_section,
    superposition_section,
)
from interp.report.vectors.injections import (
    composition_section,
    injection_section,
    reconstruction_section,
)
from interp.report.vectors.learned_vectors import learned_section
from interp.report.vectors.steering import steering_section, strengths_section
from interp.report.vectors.task_vectors import (
    task_evaluation_section,
    task_table_section,
    task_vector_section,
)
from interp.sites import Head
from interp.vectors import (
    Composition,
    FunctionVector,
    Interpolation,
    Parallelogram,
    Recognition,
    Reconstruction,
    Specification,
    Superposition,
    TaskTable,
    TaskVector,
    between_relations,
    function_vector,
    interpolate,
    recognition,
    steering_vector,
    task_table,
)
from interp.vectors.relation import Relation
from tests.report.analyses import (
    KNOWN,
    QUERIES,
    N,
    again,
    answered,
    head_check,
    injection,
    learned,
    strengths,
    task_evaluation,
)


@pytest.fixture(scope="module")
def model() -> Model:
    return interp.load("polymath", check=False)


@pytest.fixture(scope="module")
def table(model: Model) -> TaskTable:
    return task_table(model, ["plural"], shots=3, n=6, n_dev=6, progress=False)


@pytest.fixture(scope="module")
def function(model: Model) -> FunctionVector:
    return function_vector(model, "capital", other="continent", shots=3, n_mean=8, n_effect=6)


def verdicts(section: Section) -> list[str]:
    return [claim.verdict for claim in section.claims]


def test_a_task_vector_beyond_all_controls_is_found() -> None:
    (claim,) = task_evaluation_section(task_evaluation(hypothesis=0.9, regular=1.0)).claims
    assert claim.verdict == "found"
    assert claim.statement == (
        "The task vector of antonym, set after layer 2 of toy, answers 0.90 of the queries, beyond "
        "all its controls."
    )
    assert "with demonstrations 1.00; controls: baseline 0.10" in claim.evidence
    assert claim.evidence.endswith(
        "n\u00a0=\u00a020 prompts of 20 queries. It exceeds all controls."
    )


def test_a_task_vector_that_one_control_comes_near_is_doubtful() -> None:
    near = task_evaluation(hypothesis=0.5, shuffled_labels=0.45)
    (claim,) = task_evaluation_section(near).claims
    assert claim.verdict == "doubtful"
    assert "it exceeds shuffled labels least, by +0.05" in claim.evidence
    assert near.verdict == "does not exceed shuffled_labels"


def test_a_task_vector_no_better_than_a_control_is_not_found() -> None:
    (claim,) = task_evaluation_section(task_evaluation(hypothesis=0.3, baseline=0.5)).claims
    assert claim.verdict == "not found"
    assert claim.statement.endswith("no better than a control.")


@pytest.mark.parametrize(
    ("hypotheses", "verdict", "told"),
    [
        ((0.9, 0.9), "found", "2 of 2 relations exceed all their controls: antonym and plural."),
        ((0.9, 0.1), "doubtful", "1 of 2 relations exceed all their controls: antonym."),
        ((0.1, 0.1), "not found", "0 of 2 relations exceed all their controls."),
    ],
)
def test_a_table_counts_its_task_vectors(
    table: TaskTable, hypotheses: tuple[float, float], verdict: str, told: str
) -> None:
    judged = tuple(
        task_evaluation(name, hypothesis=share)
        for name, share in zip(("antonym", "plural"), hypotheses, strict=True)
    )
    section = task_table_section(TaskTable(table.vectors * 2, judged, table.provenance))
    (claim,) = section.claims
    assert claim.verdict == verdict
    assert claim.statement.endswith(told)
    (rows,) = section.blocks[1].tables
    assert [row[0] for row in rows.rows] == ["antonym", "plural"]
    for column in ("Query alone", "Other relation", "Shuffled labels", "Random vector"):
        assert rows.rows[0][rows.columns.index(column)] == pytest.approx(0.1)


def test_the_layer_of_a_task_vector_is_never_more_than_doubtful(table: TaskTable) -> None:
    found = table.vectors[0]
    best = replace(found, dev=torch.ones_like(found.dev), baseline=torch.zeros_like(found.baseline))
    (claim,) = task_vector_section(best).claims
    assert claim.verdict == "doubtful"
    assert "The layer was chosen on these queries" in claim.evidence
    none = replace(found, dev=torch.zeros_like(found.dev))
    assert verdicts(task_vector_section(none)) == ["not found"]


def test_the_command_of_a_table_makes_its_numbers_again(table: TaskTable, model: Model) -> None:
    assert repr(again(task_table_section(table).command, model)) == repr(table)
    found = again(task_vector_section(table.vectors[0]).command, model)
    assert isinstance(found, TaskVector)
    assert torch.equal(found.vectors, table.vectors[0].vectors)


def test_the_best_head_of_a_function_stands_beside_all_others(
    function: FunctionVector, model: Model
) -> None:
    section = function_vector_section(function)
    (claim,) = section.claims
    assert claim.verdict == "found"
    assert claim.statement.startswith("Head 2.1 carries the most of capital in polymath")
    assert "the other 47 heads: median" in claim.evidence
    assert section.baselines is not None
    assert section.baselines.rows[0][1] == pytest.approx(function.clean.mean().item())
    (figure,) = section.blocks[0].figures
    assert figure.data is not None
    assert len(figure.data.rows) == 48
    assert repr(again(section.command, model)) == repr(function)


def test_no_head_stands_out_where_all_do_the_same(function: FunctionVector) -> None:
    flat = replace(function, effects=torch.full_like(function.effects, 0.1))
    (claim,) = function_vector_section(flat).claims
    assert claim.verdict == "not found"
    assert claim.statement.startswith("No head stands out as a carrier of capital")


@pytest.mark.parametrize(
    ("without", "random", "verdict", "loses"),
    [
        (0.2, 0.85, "found", "loses more"),
        (0.84, 0.85, "doubtful", "may lose more"),
        (0.85, 0.2, "not found", "loses no more"),
    ],
)
def test_heads_are_needed_where_random_ones_are_not(
    without: float, random: float, verdict: str, loses: str
) -> None:
    spread = 0.2 if verdict == "doubtful" else 0.01
    section = head_check_section(head_check(without, random, spread=spread))
    (claim,) = section.claims
    assert (claim.verdict, loses in claim.statement) == (verdict, True)
    assert "among 20 random sets; n\u00a0=\u00a020 prompts" in claim.evidence


@pytest.mark.parametrize(
    ("vectors", "verdict"),
    [
        ({"function": 0.9, "random heads": 0.2, "random": 0.1}, "found"),
        ({"function": 0.4, "random heads": 0.3, "random": 0.1}, "doubtful"),
        ({"function": 0.2, "random heads": 0.3, "random": 0.1}, "not found"),
        ({"function": 0.9}, "doubtful"),
    ],
)
def test_a_vector_does_what_its_controls_do_not(vectors: dict[str, float], verdict: str) -> None:
    section = injection_section(injection(vectors))
    (claim,) = section.claims
    assert claim.verdict == verdict
    assert "without a vector 0.10, a gain of" in claim.evidence
    assert "Left out: another relation. none was given" in section.limits


def test_a_composed_vector_is_held_against_the_true_one_and_beats_its_parts() -> None:
    pair = (("a", "b"),)
    corners = Parallelogram(*(Relation(name, pair, pair, pair) for name in "wxyz"))
    vectors = {"true": 0.95, "composed": 0.9, "x": 0.2, "y": 0.2, "w": 0.2, "random": 0.1}
    found = Composition(
        corners=corners,
        directions=dict.fromkeys(("ac", "ad", "bc", "bd"), torch.ones(4)),
        composed=torch.ones(4),
        heads=(Head(1, 0),),
        injection=injection(vectors),
    )
    (claim,) = composition_section(found).claims
    assert claim.verdict == "found"
    assert "the composed vector makes toy do antonym" in claim.statement
    assert "other vectors: true 0.95, x 0.20, y 0.20, w 0.20, random 0.10" in claim.evidence


def test_a_rebuilt_vector_is_held_against_the_function_vector() -> None:
    vectors = {"function": 0.9, "reconstructed": 0.1, "random": 0.1}
    found = Reconstruction(
        torch.zeros(2, 4), torch.tensor([0.1, 0.2]), torch.zeros(2), 100, injection(vectors)
    )
    section = reconstruction_section(found)
    assert verdicts(section) == ["not found"]
    assert "over 100 words (KL 1.5e-01 nats" in section.lead


@pytest.mark.parametrize(
    ("sweep", "verdict"),
    [
        (strengths(0.3), "found"),
        (strengths(0.1, random=0.3), "doubtful"),
        (strengths(0.0), "not found"),
        (strengths(0.1, other=0.3), "not found"),
    ],
)
def test_steering_is_told_by_the_verdicts_of_every_strength(sweep, verdict: str) -> None:
    section = strengths_section(sweep)
    assert verdicts(section) == [verdict, verdict]
    said = dict(zip(sweep.strengths, sweep.verdicts, strict=True))
    assert f"by strength: 1 {said[1.0]}" in section.claims[0].evidence
    assert f"by strength: −1 {said[-1.0]}" in section.claims[1].evidence


def test_a_steering_vector_without_controls_is_never_found(model: Model) -> None:
    behavior = between_relations(model, "capital", "continent")
    found = steering_vector(model, behavior, progress=False)
    up = replace(found, gains=torch.full_like(found.gains, 0.4))
    assert verdicts(steering_section(up)) == ["doubtful"]
    assert verdicts(steering_section(replace(found, gains=-up.gains))) == ["not found"]


@pytest.mark.parametrize(
    ("share", "shuffled", "verdict"),
    [(0.9, 0.1, "found"), (0.4, 0.35, "doubtful"), (0.4, 0.6, "not found")],
)
def test_a_learned_vector_has_to_beat_one_of_shuffled_answers(
    share: float, shuffled: float, verdict: str
) -> None:
    section = learned_section(learned(share, shuffled=shuffled))
    assert verdicts(section) == [verdict, verdict]
    assert "it exceeds “" in section.claims[0].evidence


def superposition(first: float, *, absent: float = 0.02) -> Superposition:
    """Two tasks, alone and mixed; in the mixture the answers have probability `first` and 0.4."""
    noise = 0.01 * torch.linspace(-1, 1, N)
    probs = torch.tensor([[0.9, absent], [first, 0.4], [absent, 0.9]])[..., None] + noise
    return Superposition(
        tasks=("capital", "continent"),
        counts=((4, 0), (2, 2), (0, 4)),
        log_probs=probs.log(),
        untrained=torch.full((3, 2, N), 0.01).log(),
        last=torch.zeros(3, N, dtype=torch.long),
        queries=QUERIES,
        provenance=KNOWN,
    )


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        (superposition(0.4), "found"),
        (superposition(0.022), "doubtful"),
        (superposition(0.2, absent=0.5), "not found"),
    ],
)
def test_mixed_demonstrations_call_up_all_answers_or_not(
    found: Superposition, verdict: str
) -> None:
    section = superposition_section(found)
    assert verdicts(section) == [verdict]
    assert "mixed 2:2" in section.claims[0].statement
    assert "absent 0." in section.claims[0].evidence
    assert "untrained 0.01" in section.claims[0].evidence


@pytest.fixture(scope="module")
def between(model: Model) -> Interpolation:
    return interpolate(
        model, "capital", "continent", alphas=(0.0, 0.5, 1.0), n_mean=4, draws=1, progress=False
    )


def test_the_mean_of_two_vectors_is_judged_at_half(between: Interpolation, model: Model) -> None:
    high = torch.full_like(between.log_probs, 0.6).log()
    low = torch.full_like(between.log_probs, 0.1)
    both = replace(between, log_probs=high, random=low, zero_shot=low[0].log())
    assert verdicts(interpolation_section(both)) == ["found"]
    neither = replace(both, random=torch.full_like(low, 0.7))
    assert verdicts(interpolation_section(neither)) == ["not found"]
    assert repr(again(interpolation_section(between).command, model)) == repr(between)


@pytest.mark.parametrize(
    ("own", "other", "verdict"),
    [(0.8, 0.1, "found"), (0.11, 0.1, "doubtful"), (0.1, 0.3, "not found")],
)
def test_told_and_shown_vectors_beat_those_of_the_other_task(
    own: float, other: float, verdict: str
) -> None:
    noise = 0.05 * torch.linspace(-1, 1, N)
    probs = torch.full((2, 3, 6, 2, N), 0.1)
    probs[:, :, 1:4] = own
    probs[:, :, 4:] = other
    found = Specification(
        tasks=("capital", "continent"),
        instructions=("Say the capital of {x}.", "Say the continent of {x}."),
        how="set",
        layers={name: (1, 1) for name in ("examples", "instruction", "average")},
        cosine=torch.zeros(2, 4),
        log_probs=(probs + noise).log(),
        provenance=KNOWN,
    )
    section = specification_section(found)
    assert verdicts(section) == [verdict] * 4
    assert "with that of the other task" in section.claims[0].evidence


def test_recognising_and_learning_are_told_apart(model: Model) -> None:
    found: Recognition = recognition(model, "continent", shots=[0, 2], seeds=1, n=8, progress=False)
    section = recognition_section(found)
    assert verdicts(section)[0] == "found"
    assert section.claims[0].statement == "polymath recognises continent."
    assert "chance 0.25, naming the commonest label" in section.claims[1].evidence
    assert repr(again(section.command, model)) == repr(found)
    always = replace(found, log_probs=torch.zeros_like(found.log_probs))
    assert verdicts(recognition_section(always)) != ["found", "found"]


def test_intervals_of_a_single_query_are_not_made_up() -> None:
    single = task_evaluation(hypothesis=0.9)
    one = replace(
        single,
        values={name: answered(1.0, n=1) for name in single.values}
        | {"baseline": answered(0.0, n=1)},
        asked=("q",),
    )
    (claim,) = task_evaluation_section(one).claims
    assert "(no interval)" in claim.evidence
    assert claim.verdict != "found"
