"""The whole measurement on trained models: what it keeps apart, saves, and says in the shell."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest
import torch
import typer
from typer.testing import CliRunner

import interp
from interp.cli.consistency import consistency as command
from interp.consistency.layer_weights import learn
from interp.consistency.measure import measure, split
from interp.consistency.questions import Question, coin_flips
from interp.consistency.result import Consistency
from interp.consistency.score import separation
from interp.errors import FileFormatError, MetricError, TaskError
from interp.tasks.coin_flip import CoinFlip

FAST = {"paths": 6, "calibration_paths": 5, "temperature": 1.5, "progress": False}
FAST |= {"max_new_tokens": 22}


@pytest.fixture(scope="module")
def model():
    return interp.load("polymath")


@pytest.fixture(scope="module")
def questions(model) -> list[Question]:
    return coin_flips(model, CoinFlip(flips=3), 40, seed=5)


@pytest.fixture(scope="module")
def found(model, questions) -> Consistency:
    return measure(model, questions[20:], calibration=questions[:20], n=20, **FAST)


def test_paths_are_read_scored_and_counted(found, questions) -> None:
    assert found.given.shape == (20, 6)
    assert {each.text for each in found.questions} == {each.text for each in questions[20:]}
    assert 0.5 < found.accuracy < 1
    unread = found.given < 0
    assert found.unread == int(unread.sum())
    written = [
        asked.read(text)
        for asked, text in zip(
            [each for each in found.questions for _ in range(6)], found.texts, strict=True
        )
    ]
    assert [each is None for each in written] == unread.flatten().tolist()
    for name, values in found.scores.items():
        assert torch.equal(values.isnan(), unread), name
    assert not found.right[unread].any()
    known = found.ic[~unread]
    assert float(known.min()) >= 0
    assert float(known.max()) <= 1
    assert torch.allclose(found.ic, found.layer_votes.mean(dim=-1), equal_nan=True)


def test_latents_stand_where_the_model_says_its_answer(model, found) -> None:
    row = int((found.given.flatten() >= 0).nonzero()[0])
    asked = found.questions[row // 6]
    text = found.texts[row]
    upto = asked.prompt(rationale=True) + " " + text[: asked.read(text)[1]]
    tokens = torch.tensor([[model.bos_id, *model.encode(upto)]])
    words = [model.single_token(" yes"), model.single_token(" no")]
    own = model.logits(tokens)[0, -1, words].double().softmax(dim=-1)
    assert torch.allclose(found.latents.flatten(0, 1)[row, -1], own, atol=1e-5)


def test_thresholds_and_weights_do_not_see_what_is_scored(model, questions, found) -> None:
    """Other questions, with every answer turned round: what was fitted stays as it was."""
    poisoned = [
        replace(each, answer="no" if each.answer == "yes" else "yes")
        for each in coin_flips(model, CoinFlip(flips=4), 12, seed=9)
    ]
    other = measure(model, poisoned, calibration=questions[:20], n=12, untrained=False, **FAST)
    assert torch.equal(other.thresholds.values, found.thresholds.values)
    assert torch.equal(other.tuned.weights, found.tuned.weights)
    assert other.thresholds.hash == found.thresholds.hash
    changed = measure(model, questions[20:], calibration=poisoned, n=4, untrained=False, **FAST)
    assert not torch.equal(changed.thresholds.values, found.thresholds.values)


def test_calibration_questions_are_refused(model, questions, found) -> None:
    with pytest.raises(TaskError, match="other questions than those of the calibration"):
        measure(model, questions[:20], calibration=questions[19:], n=20, **FAST)
    with pytest.raises(TaskError, match="Layer weights were fitted on"):
        measure(model, questions[10:20], n=4, calibration=4, transfer=found.tuned, **FAST)
    with pytest.raises(TaskError, match="fitted on"):
        found.thresholds.score(found.latents[:1], questions[:1])
    with pytest.raises(TaskError, match="Layer weights were fitted on"):
        found.tuned.weigh(found.layer_votes[:1], questions[10:11])
    with pytest.raises(MetricError, match="learn them with this model"):
        found.tuned.weigh(found.layer_votes[..., 1:], found.questions)


def test_calibration_and_scored_questions_of_a_task_are_disjoint(model) -> None:
    calibration, scored = split(model, CoinFlip(flips=3), n=30, calibration=20)
    assert (len(calibration), len(scored)) == (20, 30)
    assert not {each.text for each in calibration} & {each.text for each in scored}
    assert split(model, CoinFlip(flips=3), n=5, calibration=20)[0] == calibration


def test_layer_weights_are_learned_where_a_layer_tells_and_not_where_nothing_does() -> None:
    random = torch.Generator().manual_seed(0)
    right = torch.rand(30, 10, generator=random) < 0.6
    votes = (torch.rand(30, 10, 4, generator=random) < 0.5).double()
    votes[..., 2] = right.double()
    asked = [Question(str(i), "yes", ("yes", "no")) for i in range(30)]
    found = learn(votes, right, asked)
    assert int(found.weights.argmax()) == 2
    others = [replace(each, text="new " + each.text) for each in asked]
    assert separation(found.weigh(votes, others), right).auroc > 0.99
    assert learn(votes, torch.ones_like(right), asked) is None


def test_controls_and_baselines_stand_beside_ic(found) -> None:
    frame = found.separation_frame().set_index("score")
    assert list(frame.index) == ["ic", "agreement", "margin", "log_prob", "untrained", "shuffled"]
    assert frame.loc["shuffled", "low"] < 0.5 < frame.loc["shuffled", "high"]
    layers = found.layer_frame()
    assert len(layers) == 7
    assert float(layers["accuracy"].iloc[-1]) > 0.6
    assert list(found.votes.methods[:4]) == ["SC", "SC+IC", "SC+margin", "SC+prob"]
    assert found.votes.counts == (1, 2, 5, 6)
    assert "of 20 questions" in found.verdict
    assert found.provenance["tokens_per_path"] == pytest.approx(
        float(found.lengths.double().mean())
    )


def test_without_a_rationale_all_paths_of_a_question_score_alike(model, questions) -> None:
    found = measure(model, questions, n=8, calibration=8, rationale=False, untrained=False, **FAST)
    known = found.given >= 0
    for row, read in zip(found.ic, known, strict=True):
        assert len(set(row[read].tolist())) == 1
    assert (found.votes.of("SC", 6) == found.votes.of("SC+IC", 6)).all()
    assert "changes no vote of all paths" in found.verdict


def test_weights_of_one_difficulty_vote_on_another(model, found) -> None:
    other = measure(
        model,
        CoinFlip(flips=2),
        n=4,
        calibration=4,
        transfer=found.tuned,
        untrained=False,
        **FAST,
    )
    assert "SC+transfer" in other.votes.methods
    assert other.provenance["transfer_hash"] == found.tuned.hash


@pytest.mark.parametrize("ending", ["json", "parquet"])
def test_a_saved_result_is_the_same_result(found, tmp_path, ending) -> None:
    path = found.save(tmp_path / "deep" / f"ic.{ending}")
    back = Consistency.load(path)
    pd.testing.assert_frame_equal(back.to_frame(), found.to_frame())
    pd.testing.assert_frame_equal(back.votes.to_frame(), found.votes.to_frame())
    assert back.questions == found.questions
    assert back.verdict == found.verdict
    assert back.provenance == json.loads(json.dumps(found.provenance))
    assert back.thresholds.fitted_on == found.thresholds.fitted_on
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(FileFormatError, match="write one with"):
        Consistency.load(path)


def test_other_files_are_refused(found, tmp_path) -> None:
    path = found.save(tmp_path / "ic.json")
    data = json.loads(path.read_text())
    del data["sha256"]
    for changed, said in [
        ({"version": 99}, "of version 99"),
        ({"format": "interp.Circuit"}, "does not hold a Consistency"),
        ({"paths": {}}, "missing or broken part"),
    ]:
        path.write_text(json.dumps(data | changed))
        with pytest.raises(FileFormatError, match=said):
            Consistency.load(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        Consistency.load(tmp_path / "none.json")


def test_a_result_shows_itself(found) -> None:
    assert len(found.plot().data) >= 6
    assert "<table" in found._repr_html_()
    assert repr(found).startswith("Consistency(20 questions x 6 paths")


def test_tasks_without_a_closed_list_of_answers_are_refused(model, questions) -> None:
    with pytest.raises(TaskError, match="no closed list"):
        measure(model, interp.tasks.get("ioi"), **FAST)
    with pytest.raises(TaskError, match="n=64 and calibration=64 need 128"):
        measure(model, questions, **FAST)
    with pytest.raises(TaskError, match="too few"):
        measure(model, questions, n=4, calibration=1, **FAST)


@pytest.fixture
def shell():
    app = typer.Typer()
    app.command()(command)

    def run(*arguments: str):
        return CliRunner().invoke(app, arguments, catch_exceptions=False)

    return run


SMALL = ("--n", "4", "--calibration", "4", "--paths", "3", "--max-new-tokens", "20")


def test_the_command_prints_tables_and_a_verdict(shell, tmp_path) -> None:
    out = tmp_path / "ic.parquet"
    ended = shell("polymath", "--flips", "2", "--temperature", "1.5", *SMALL, "--out", str(out))
    assert ended.exit_code == 0
    for told in ("AUROC", "SC+IC", "Weighting by consistency"):
        assert told in ended.stdout
    assert Consistency.load(out).provenance["command"].startswith("interp consistency polymath")


def test_the_command_reads_questions_and_prints_json(shell, tmp_path, questions) -> None:
    path = tmp_path / "q.jsonl"
    rows = [{"question": each.text, "answer": each.answer} for each in questions[:8]]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    told = ("--template", "{question}", "--no-rationale", "--json")
    ended = shell("polymath-llama", "--questions", str(path), *told, *SMALL)
    assert ended.exit_code == 0
    found = json.loads(ended.stdout)
    assert found["provenance"]["rationale"] is False
    assert {row["vote"] for row in found["votes"]} >= {"SC", "SC+IC"}


def test_calibration_questions_of_a_list_do_not_hang_on_how_many_are_scored(
    model, questions
) -> None:
    few, many = (split(model, questions, n=n, calibration=9, seed=3) for n in (2, 31))
    assert few[0] == many[0]
    assert few[1] == many[1][:2]
    assert not {each.text for each in many[0]} & {each.text for each in many[1]}
