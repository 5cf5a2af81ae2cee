"""A tuned lens is nearer to the model than the logit lens at every layer, on held-out text."""

from __future__ import annotations

import pytest
import torch

import interp
from interp.engine.replay import replay_of
from interp.errors import LensError
from interp.lens.compare import LensComparison, compare
from interp.lens.documents import documents, held_out, training_rows
from interp.lens.lens import Lens, logit_lens
from interp.lens.read import read
from interp.lens.tuned import LensTrainer, shuffled, tuned_lens
from interp.models import Model
from tests.families import tiny, tiny_tokenizer
from tests.lens.test_lens import in_double, random_lens


@pytest.fixture(scope="module", params=["polymath", "polymath-llama"])
def model(request: pytest.FixtureRequest) -> Model:
    return interp.load(request.param)


@pytest.fixture(scope="module")
def tuned(model: Model) -> Lens:
    return tuned_lens(model, steps=10, tokens=512, progress=False)


@pytest.fixture(scope="module")
def compared(model: Model, tuned: Lens) -> LensComparison:
    return compare(model, held_out(model, 20, seed=1), tuned)


def test_kl_is_lower_at_every_layer_but_the_last(compared: LensComparison):
    frame = compared.to_frame()
    tuned = frame[frame["lens"] == "tuned"]
    assert (tuned["n"] == 20).all()
    assert (tuned["change_high"].iloc[:-1] < 0).all()
    assert compared.worse == ()
    assert tuned["mean"].iloc[-1] == 0


def test_translators_of_other_layers_are_worse_than_their_own(compared: LensComparison):
    own, other = compared.per_text["tuned"][:-1], compared.per_text["shuffled"][:-1]
    assert (own.mean(dim=1) < other.mean(dim=1)).all()


def test_a_comparison_shows_itself(compared: LensComparison):
    assert [line.name for line in compared.plot().data] == ["logit", "tuned", "shuffled"]
    assert "KL" in compared.plot().layout.yaxis.title.text
    assert "n = 20 texts" in repr(compared)
    assert compared._repr_html_().startswith("<p><b>LensComparison")


def test_the_model_is_not_changed(model: Model, tuned: Lens):
    assert all(weight.grad is None for weight in model.hf.parameters())
    after = Model(model.hf, model.tokenizer, id="after")  # a hash is kept once it was asked for
    assert after.weights_hash == interp.load(model.id).weights_hash


def test_training_is_that_of_a_plain_loop():
    model = in_double("llama")
    rows = [torch.randint(90, (2, 5), generator=torch.Generator().manual_seed(i)) for i in range(3)]
    replay = replay_of(model)
    maps = [torch.nn.Linear(32, 32).double() for _ in range(2)]
    for each in maps:
        torch.nn.init.zeros_(each.weight)
        torch.nn.init.zeros_(each.bias)
    weights = [parameter for each in maps for parameter in each.parameters()]
    optimizer = torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-3)
    for step, tokens in enumerate(rows):
        optimizer.param_groups[0]["lr"] = 0.1 * (1 - step / 3)
        optimizer.zero_grad()
        with torch.no_grad():
            stream = [points.flatten(0, 1) for points in replay.clean(tokens).stream]
        final = model.logits(tokens).flatten(0, 1).softmax(dim=-1)
        for layer in (0, 1):
            said = replay.logits(stream[layer] + maps[layer](stream[layer])).log_softmax(dim=-1)
            loss = (final * (final.log() - said)).sum(dim=-1).mean()
            for parameter, gradient in zip(
                maps[layer].parameters(),
                torch.autograd.grad(loss, list(maps[layer].parameters())),
                strict=True,
            ):
                parameter.grad = gradient
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
    trainer = LensTrainer(model, steps=3, chunk=3)
    first, *_ = [trainer.step(tokens) for tokens in rows]
    lens = trainer.lens()
    for layer in (0, 1):
        torch.testing.assert_close(lens.weight[layer], maps[layer].weight.detach())
        torch.testing.assert_close(lens.bias[layer], maps[layer].bias.detach())
    assert lens.weight.abs().max() > 0
    before = read(model, rows[0], k=1).values["kl"].mean(dim=1)
    torch.testing.assert_close(first, before[:2])
    assert lens.provenance["momentum"] == 0.9


def test_one_seed_gives_one_lens_and_texts_may_be_given():
    model = interp.load("polymath")
    one, same, other = (
        tuned_lens(model, steps=2, tokens=128, seed=seed, progress=False) for seed in (0, 0, 1)
    )
    assert torch.equal(one.weight, same.weight)
    assert not torch.equal(one.weight, other.weight)
    text = next(documents(model))
    given = tuned_lens(model, [text, [text, text]], steps=2, progress=False)
    assert given.provenance["steps"] == 2
    with pytest.raises(LensError, match=r"texts for 1 steps and steps=2"):
        tuned_lens(model, [text], steps=2, progress=False)


def test_training_text_is_of_the_training_split_alone():
    model = interp.load("polymath")
    rows = next(training_rows(model, tokens=1000, seed=3))
    assert rows.shape == (7, 128)
    assert rows[0, 0] == model.bos_id
    texts = held_out(model, 12)
    assert len(set(texts)) == 12
    trained = {text for _, text in zip(range(100), documents(model), strict=False)}
    assert not trained & set(texts)


def test_each_shuffled_translator_stands_at_another_layer():
    lens = random_lens(in_double("gpt2"))
    control = shuffled(lens)
    assert torch.equal(control.weight, lens.weight.flip(0))
    assert torch.equal(control.bias, lens.bias.flip(0))
    assert control.provenance["order"] == [1, 0]
    with pytest.raises(LensError, match="no two translators"):
        shuffled(logit_lens(in_double("gpt2")))


def test_what_trains_nothing_is_refused():
    model = Model(tiny("gpt2"), tiny_tokenizer(), id="tiny")
    for options in ({"steps": 0}, {"steps": 1, "lr": 0.0}, {"steps": 1, "momentum": 1.0}):
        with pytest.raises(LensError, match="train nothing"):
            LensTrainer(model, **options)
    with pytest.raises(LensError, match="too few words for every task"):
        tuned_lens(model, steps=1, progress=False)
    with torch.no_grad():
        model.hf.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(LensError, match="divergence at layer 0 is nan; train with a smaller lr"):
        LensTrainer(model, steps=1).step("w1 w2")
