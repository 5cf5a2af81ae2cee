"""Curves over training are those of each checkpoint on its own."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path

import pytest
import torch

from interp.errors import FileFormatError, MetricError, PromptError
from interp.heads.attention import repeated_tokens
from interp.heads.development.checkpoints import Checkpoints, checkpoints
from interp.heads.development.over_training import _curves, _Point, over_training, token_losses
from interp.heads.development.training_curves import TrainingCurves
from interp.heads.scan import scan
from interp.heads.score import Score
from interp.models import Model
from interp.sites import Head
from tests.families import tiny, tiny_tokenizer

STEPS = (0, 800, 1000, 1100, 1200, 1300, 1400, 1600, 2200, 3000)


@cache
def pair() -> list[tuple[int, Model]]:
    """Two models that differ in their seeds, as steps 10 and 20."""
    return [
        (10 * i, Model(tiny("llama", seed=i), tiny_tokenizer(), id=f"tiny {i}")) for i in (2, 1)
    ]


@cache
def of_pair() -> TrainingCurves:
    return over_training(pair(), ["induction", "previous-token"], n=3, progress=False)


@cache
def of_induction() -> TrainingCurves:
    names = [f"step-{step:06}" for step in STEPS]
    return over_training(checkpoints("induction", names, check=False), n=5, progress=False)


def test_scores_are_those_of_scans() -> None:
    curves = of_pair()
    assert curves.steps == (10, 20)
    for place, (_, model) in enumerate(reversed(pair())):
        atlas = scan(model, curves.kinds, n=3, check=False, progress=False)
        for index, kind in enumerate(curves.kinds):
            assert curves.scores[place, index].equal(atlas.grid(kind))
            low, high = atlas.ci(kind)
            torch.testing.assert_close(curves.low[place, index], low)
            torch.testing.assert_close(curves.high[place, index], high)
            leader = curves.leaders[kind]
            samples = atlas.scores[kind].values[leader.layer, leader.head]
            assert curves.curves[kind][place].equal(samples)


def test_the_leader_has_the_highest_score_of_all_steps() -> None:
    curves = of_pair()
    for index, kind in enumerate(curves.kinds):
        leader, grid = curves.leaders[kind], curves.scores[:, index]
        assert grid[:, leader.layer, leader.head].max() == grid.max()


def test_losses_are_those_of_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model = pair()[0][1]
    tokens = repeated_tokens(model, n=4, seq_len=6)
    expected = torch.empty(4, 12)
    with torch.no_grad():
        for row, prompt in enumerate(tokens):
            for end in range(1, 13):
                chances = model.hf(prompt[None, :end]).logits[0, -1].double().softmax(dim=-1)
                expected[row, end - 1] = -chances[prompt[end]].log()
    torch.testing.assert_close(token_losses(model, tokens), expected)
    monkeypatch.setattr("interp.heads.development.over_training.LOGIT_BYTES", 1)
    torch.testing.assert_close(token_losses(model, tokens), expected)


def test_learning_is_the_later_half_against_the_earlier() -> None:
    model = pair()[0][1]
    tokens = repeated_tokens(model, n=4, seq_len=6)
    curves = over_training(pair(), "induction", n=2, tokens=tokens, progress=False)
    losses = token_losses(model, tokens)
    torch.testing.assert_close(curves.curves["loss"][1], losses.mean(dim=1))
    learning = losses[:, 6:].mean(dim=1) - losses[:, :6].mean(dim=1)
    torch.testing.assert_close(curves.curves["in-context learning"][1], learning)


def test_induction_learns_to_copy_when_its_heads_form() -> None:
    curves = of_induction()
    assert {curves.leaders[kind].layer for kind in ("induction", "prefix-matching")} == {1}
    assert curves.leaders["previous-token"].layer == 0
    for name in ("induction", "prefix-matching", "in-context learning", "loss"):
        change = curves.phase_change(name)
        assert change.found
        assert 1100 <= change.ci[0] < change.ci[1] <= 1600
    assert curves.curves["in-context learning"][0].abs().mean() < 0.15
    assert curves.curves["in-context learning"][-1].mean() < -4
    assert "of 1." in repr(curves.phase_change("induction"))
    table = curves.phase_changes()
    assert list(table["curve"]) == list(curves.curves)
    assert table["found"].all()


def test_the_frame_has_every_head_and_the_whole_model() -> None:
    curves = of_pair()
    frame = curves.to_frame()
    assert list(frame.columns) == ["step", "kind", "head", "score", "ci_low", "ci_high"]
    assert len(frame) == 2 * 2 * 8 + 2 * 2
    one = frame.query("step == 20 and kind == 'previous-token' and head == '1.3'")
    assert one["score"].item() == pytest.approx(curves.scores[1, 1, 1, 3].item())
    loss = frame.query("step == 10 and kind == 'loss'")
    assert loss["score"].item() == pytest.approx(curves.curves["loss"][0].mean().item())
    assert loss["ci_low"].item() < loss["score"].item() < loss["ci_high"].item()


def test_the_figure_has_a_curve_for_every_head_and_a_band_for_every_change() -> None:
    curves = of_induction()
    figure = curves.plot()
    assert len(figure.data) == 3 * 16 + 2
    assert figure.layout.xaxis.type == "log"
    assert figure.data[0].x[:2] == (400, 800)  # step 0 stands at half of the first one
    assert len(figure.layout.shapes) == curves.phase_changes()["found"].sum()
    assert of_pair().plot(log_steps=False).layout.xaxis.type == "linear"


def test_curves_come_back_from_a_file(tmp_path: Path) -> None:
    curves = of_pair()
    again = TrainingCurves.load(curves.save(tmp_path / "new" / "curves.json"))
    for name in ("steps", "kinds", "leaders", "provenance"):
        assert getattr(again, name) == getattr(curves, name)
    for name in ("scores", "low", "high"):
        assert getattr(again, name).equal(getattr(curves, name))
    assert again.curves.keys() == curves.curves.keys()
    assert all(again.curves[name].equal(curves.curves[name]) for name in curves.curves)
    assert repr(again) == repr(curves)


def test_broken_files_are_refused(tmp_path: Path) -> None:
    path = of_pair().save(tmp_path / "curves.json")
    data = json.loads(path.read_text())
    del data["sha256"]  # which would be found to be that of other content
    for text, message in (
        ("{", "is not whole JSON"),
        ("[]", "does not hold a TrainingCurves"),
        (json.dumps(data | {"version": 9}), "is a TrainingCurves of version 9"),
        (json.dumps({**data, "scores": {"shape": [3], "numbers": []}}), "missing or broken part"),
        (json.dumps({key: data[key] for key in data if key != "leaders"}), "'leaders'"),
    ):
        path.write_text(text)
        with pytest.raises(FileFormatError, match=message):
            TrainingCurves.load(path)
    with pytest.raises(FileFormatError, match="cannot be read"):
        TrainingCurves.load(tmp_path / "nowhere.json")


def test_steps_at_which_a_kind_cannot_be_measured_have_none() -> None:
    score = Score("retrieval", torch.rand(2, 4, 3), samples="runs")
    losses = torch.rand(5, 8)
    measured = [
        _Point({}, {"retrieval": "no run counted."}, losses, {}),
        _Point({"retrieval": score}, {}, losses, {}),
    ]
    points = Checkpoints("some", (1, 2), ())
    curves = _curves(points, ("retrieval",), measured)
    assert curves.scores[0].isnan().all()
    assert curves.low[0].isnan().all()
    assert curves.scores[1, 0].equal(score.grid)
    head = Head(*divmod(int(score.grid.argmax()), 4))
    assert curves.leaders["retrieval"] == head
    assert math.isnan(curves.to_frame().loc[0, "score"])
    with pytest.raises(MetricError, match="No checkpoint has 'retrieval' heads: no run counted"):
        _curves(points, ("retrieval",), measured[:1])
    fewer = measured[0]._replace(scores={"retrieval": Score("retrieval", torch.rand(2, 4, 2))})
    with pytest.raises(MetricError, match="'retrieval' has other samples at other checkpoints"):
        _curves(points, ("retrieval",), [fewer, measured[1]])


def test_kinds_that_no_model_has_words_for_are_refused() -> None:
    with pytest.raises(MetricError, match="No checkpoint has 'name-mover' heads: "):
        over_training(pair(), "name-mover", progress=False)
    with pytest.raises(MetricError, match="'inducton' is not a kind of head"):
        over_training(pair(), "inducton", progress=False)


def test_impossible_questions_are_refused() -> None:
    with pytest.raises(MetricError, match=r"no curve 'los': did you mean loss\?"):
        of_pair().phase_change("los")
    with pytest.raises(MetricError, match="on 2 checkpoints"):
        of_pair().phase_change("loss")
    with pytest.raises(PromptError, match="2 tokens have no earlier and later half"):
        token_losses(pair()[0][1], torch.tensor([[1, 2]]))
