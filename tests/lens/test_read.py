"""Every statistic is that of the full softmax, whatever the chunks, and readings are kept."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import torch

import interp
from interp.errors import FileFormatError, InterventionError, LensError, PromptError
from interp.lens.lens import Lens
from interp.lens.read import read
from interp.lens.reading import STATISTICS, LensReading
from interp.models import Model
from interp.prompts import PromptSet
from tests.families import tiny, tiny_tokenizer
from tests.lens.test_lens import in_double, random_lens

TEXTS = ["w1 w2 w3 w1 w2", "w5", "w7 w8 w9 w7 w8"]
ROWS = [[90, 1, 2, 3, 1, 2], [90, 5], [90, 7, 8, 9, 7, 8]]


@pytest.fixture(scope="module", params=["gpt2", "llama", "gemma2"])
def model(request: pytest.FixtureRequest) -> Model:
    return in_double(request.param)


@pytest.fixture(scope="module")
def lens(model: Model) -> Lens:
    return random_lens(model)


@pytest.fixture(scope="module")
def reading(model: Model, lens: Lens) -> LensReading:
    return read(model, TEXTS, lens, k=3)


def same(one: LensReading, other: LensReading) -> None:
    assert one.layers == other.layers
    for name in ("text", "position", "token", "target", "top", "top_prob"):
        torch.testing.assert_close(getattr(one, name), getattr(other, name))
    for name in STATISTICS:
        torch.testing.assert_close(one.values[name], other.values[name], equal_nan=True)


def test_statistics_are_those_of_the_full_softmax(model: Model, lens: Lens, reading: LensReading):
    column = 0
    for row in ROWS:
        with torch.no_grad():
            states = model.hf(torch.tensor([row]), output_hidden_states=True).hidden_states
            final = model.logits(torch.tensor([row]))[0].softmax(dim=-1)
            for layer in range(3):
                said = final
                if layer < 2:
                    said = lens.logits(model, states[layer][0], layer).softmax(dim=-1)
                for at in range(len(row)):
                    p, q = final[at], said[at]
                    found = {
                        name: reading.values[name][layer, column + at].item() for name in STATISTICS
                    }
                    wanted = {
                        "kl": (p * (p.log() - q.log())).sum().item(),
                        "entropy": -(q * q.log()).sum().item(),
                        "max_prob": q.max().item(),
                        "prob": float("nan"),
                        "cross_entropy": float("nan"),
                        "rank": float("nan"),
                    }
                    if at + 1 < len(row):
                        after = row[at + 1]
                        wanted["prob"] = q[after].item()
                        wanted["cross_entropy"] = -q[after].log().item()
                        wanted["rank"] = sum(each > q[after] for each in q).item()
                    assert found == pytest.approx(wanted, rel=1e-9, abs=1e-12, nan_ok=True)
                    best = q.sort(descending=True)
                    assert reading.top[layer, column + at].tolist() == best.indices[:3].tolist()
                    torch.testing.assert_close(
                        reading.top_prob[layer, column + at], best.values[:3]
                    )
        column += len(row)
    assert column == len(reading.token)


@pytest.mark.parametrize("chunk", [1, 4])
def test_chunks_change_nothing(model: Model, lens: Lens, reading: LensReading, chunk: int):
    same(read(model, TEXTS, lens, k=3, chunk=chunk), reading)


def test_never_more_logits_than_a_chunk_are_held(
    model: Model, lens: Lens, monkeypatch: pytest.MonkeyPatch
):
    asked = []
    logits = interp.engine.replay.Replay.logits
    monkeypatch.setattr(
        interp.engine.replay.Replay,
        "logits",
        lambda self, hidden, words=None: asked.append(len(hidden)) or logits(self, hidden, words),
    )
    read(model, TEXTS, lens, chunk=4)
    assert max(asked) == 4
    assert sum(asked) == 3 * sum(map(len, ROWS))


def test_texts_rows_of_tokens_and_prompts_read_alike(model: Model, lens: Lens):
    rows = [ROWS[0], ROWS[2]]
    by_text = read(model, [TEXTS[0], TEXTS[2]], lens)
    same(read(model, torch.tensor(rows), lens), by_text)
    prompts = PromptSet.from_tokens(rows, answer=[40, 41])
    asked = read(model, prompts, lens)
    assert asked.target[asked.position == 5].tolist() == [40, 41]
    assert by_text.target[by_text.position == 5].tolist() == [-1, -1]
    torch.testing.assert_close(asked.values["kl"], by_text.values["kl"])
    assert asked.provenance["prompts_hash"] == prompts.hash


def test_some_layers_are_read_as_all_are(model: Model, lens: Lens, reading: LensReading):
    some = read(model, TEXTS, lens, layers=[2, 0])
    assert some.layers == (2, 0)
    torch.testing.assert_close(some.values["kl"], reading.values["kl"][[2, 0]])


def test_a_named_target_is_followed_at_every_token(model: Model, reading: LensReading):
    named = read(model, TEXTS, target="w2")
    assert set(named.target.tolist()) == {2}
    assert not named.values["prob"].isnan().any()
    plain = read(model, TEXTS)
    follows = plain.target == 2
    torch.testing.assert_close(named.values["rank"][:, follows], plain.values["rank"][:, follows])
    with pytest.raises(PromptError, match="'w2 w3' is not one known token"):
        read(model, TEXTS, target="w2 w3")


def test_means_are_over_texts_with_intervals(reading: LensReading):
    each = reading.per_text("cross_entropy")
    assert each.shape == (3, 3)
    first = reading.values["cross_entropy"][0, :5].mean()
    torch.testing.assert_close(each[0, 0], first)
    summary = reading.summary().set_index(["layer", "statistic"])
    row = summary.loc[(1, "kl")]
    assert row["ci_low"] <= row["mean"] <= row["ci_high"]
    assert (row["texts"], row["tokens"]) == (3, 14)
    assert summary.loc[(1, "rank"), "tokens"] == 11
    assert summary.loc[(2, "kl"), "mean"] == 0


@pytest.mark.parametrize("name", ["reading.json", "reading.parquet"])
def test_files_give_back_what_was_written(reading: LensReading, tmp_path: Path, name: str):
    back = LensReading.load(reading.save(tmp_path / "new" / name))
    same(back, reading)
    for name in ("lens", "provenance"):
        assert getattr(back, name) == getattr(reading, name)
    assert back.words == dict(reading.words)
    assert back.to_frame().equals(reading.to_frame())
    assert {field.name for field in fields(back)} >= {"words", "lens", "provenance"}


def test_files_of_other_kinds_are_refused(reading: LensReading, tmp_path: Path):
    path = reading.save(tmp_path / "reading.json")
    data = json.loads(path.read_text())
    del data["sha256"]
    broken = {
        "does not hold": data | {"format": "interp.HeadAtlas"},
        "of version 2": data | {"version": 2},
        "broken part": data | {"columns": {}},
    }
    for message, content in broken.items():
        path.write_text(json.dumps(content))
        with pytest.raises(FileFormatError, match=message):
            LensReading.load(path)
    for name in ("reading.json", "reading.parquet"):
        (tmp_path / name).write_bytes(b'{"format"')
        with pytest.raises(FileFormatError, match="is not whole"):
            LensReading.load(tmp_path / name)
    with pytest.raises(FileFormatError, match="cannot be read"):
        LensReading.load(tmp_path / "nowhere.json")


def test_what_cannot_be_read_is_refused_in_one_sentence(model: Model):
    for options, message in {
        "k": ({"k": 0}, "k is 1 to"),
        "chunk": ({"chunk": 0}, "chunk 1 or more"),
        "layers": ({"layers": [9]}, "Layer 9 does not exist"),
        "none": ({"layers": []}, "layers is empty"),
    }.values():
        with pytest.raises(LensError, match=message):
            read(model, TEXTS, **options)
    with pytest.raises(PromptError, match="There is no text"):
        read(model, [])
    with pytest.raises(PromptError, match="does not know the word 'zebra'"):
        read(model, "w1 zebra")
    with pytest.raises(PromptError, match="Text 1 has 66 tokens"):
        read(model, ["w1", " ".join(["w1"] * 65)])
    with pytest.raises(InterventionError, match="training mode"):
        read(Model(tiny("gpt2").train(), tiny_tokenizer(), id="learner"), "w1")


def test_an_untrained_model_says_nothing_in_the_middle():
    model = interp.load("polymath")
    text = "List: Mon, Tue, Wed, Thu, Fri"
    trained, control = read(model, text), read(model.untrained(), text)
    follows = trained.position >= 5
    assert trained.values["prob"][-1, follows].nanmean() > 0.5
    assert control.values["prob"][-1, follows].nanmean() < 0.1
