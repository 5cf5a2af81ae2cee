"""Means, other prompts and captured runs, against what single prompts without padding give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from interp import capture, engine
from interp.activations import Activations
from interp.engine import Intervention, Mean, Patch, Resample, Set
from interp.engine.averages import token_keys
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import MLP, Attn, Head, K, Neuron, Pattern, Q, Resid, Site, V
from tests.parity.compare import ROUNDED, assert_close, kinds_of_sites, model, others, pairs

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [10, 11, 12, 13], [15, 16, 17, 18]]
TEMPLATES = ["a", "a", "b", "b"]
SITES = (
    Head(0, 1),
    Q(1, 2),
    K(0, 1),
    V(1, 0),
    Attn(0),
    MLP(1),
    Neuron(0, 3),
    Resid(1),
    Resid(0, "mid"),
)


def base(side: str = "right") -> PromptSet:
    some = pairs(side, ROWS)
    return replace(some, notes={"template": TEMPLATES})


def alone(some: Model, prompts: PromptSet, site: Site) -> list[Tensor]:
    """What the site holds at the tokens of each prompt, run on its own without padding."""
    found = []
    for tokens, real in zip(prompts.clean, prompts.mask, strict=True):
        single = PromptSet.from_tokens(tokens[real][None], answer=[0])
        held = capture(some, single, [site.hook])[site.hook][0]
        match site:
            case Head(_, index) | Q(_, index) | K(_, index) | V(_, index):
                held = held[:, index]
            case Neuron(_, index):
                held = held[:, index : index + 1]
        found.append(held)
    return found


def key(prompts: PromptSet, over: str, row: int, place: int) -> object:
    """What tokens that are averaged together have in common."""
    if over == "position":
        return place
    if over == "role":
        return place < 2, place == len(ROWS[row]) - 1  # the roles "S" and "END"
    if over == "template":
        return TEMPLATES[row], len(ROWS[row]), place
    return None


@pytest.mark.parametrize(
    ("side", "over"),
    [
        ("left", "all"),
        ("left", "position"),
        ("right", "role"),
        ("left", "role"),
        ("right", "template"),
    ],
)
def test_means_are_those_of_single_prompts_and_padding_never_counts(side: str, over: str):
    some, prompts = model("llama"), base(side)
    means, sets = [], []
    for site in SITES:
        held = alone(some, prompts, site)
        places = [(row, i) for row, each in enumerate(ROWS) for i in range(len(each))]
        value = torch.full((*prompts.clean.shape, held[0].shape[-1]), torch.nan)
        value = value.double()
        for row, i in places:
            same = [
                held[r][j]
                for r, j in places
                if key(prompts, over, r, j) == key(prompts, over, row, i)
            ]
            column = int(prompts.mask[row].int().argmax()) + i
            value[row, column] = torch.stack(same).mean(dim=0)
        means.append(Intervention.at(site, Mean(over)))
        sets.append(Intervention.at(site, Set(value)))
    found = engine.run(some, prompts, means, progress=False)
    assert_close(found.values, engine.run(some, prompts, sets, progress=False).values, ROUNDED)
    assert (found.effects.abs() > 1e-3).any(dim=1).all()


def test_each_site_has_its_own_mean():
    some, prompts = model("llama"), base()
    heads = [Head(layer, head) for layer in (0, 1) for head in range(4)]
    found = engine.run(some, prompts, [Intervention.at(each, Mean()) for each in heads])
    assert len(found.values[:, 0].unique()) == len(heads)


def test_a_mean_is_the_same_whatever_runs_together(monkeypatch: pytest.MonkeyPatch):
    some, prompts = model("llama"), base()
    means = [Intervention.at(site, Mean(over)) for site in SITES for over in ("all", "role")]
    whole = engine.run(some, prompts, means, progress=False).values
    monkeypatch.setattr("interp.engine.memory.KEPT", 0.0)  # one prompt at a time
    assert_close(engine.run(some, prompts, means, progress=False).values, whole)


@pytest.mark.parametrize("side", ["right", "left"])
def test_keys_number_the_tokens_that_are_averaged_together(side: str):
    prompts = base(side)
    keys = {over: token_keys(prompts, over) for over in ("all", "position", "role", "template")}
    real = {
        over: [row[m].tolist() for row, m in zip(each, prompts.mask, strict=True)]
        for over, each in keys.items()
    }
    assert real["all"] == [[0] * 6, [0] * 3, [0] * 4, [0] * 4]
    assert real["position"] == [list(range(6)), [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3]]
    none, end, start = real["role"][0][2], real["role"][0][5], real["role"][0][0]
    assert len({none, end, start}) == 3
    assert real["role"] == [
        [start, start, none, none, none, end],
        [start, start, end],
        [start, start, none, end],
        [start, start, none, end],
    ]
    assert real["template"][2] == real["template"][3]  # the same template and length
    assert not set(real["template"][0]) & set(real["template"][1])  # another length
    numbers = {n for row in real["template"] for n in row}
    assert numbers == set(range(6 + 3 + 4))  # none is left out, so that no mean is of nothing


def test_tokens_in_spans_of_several_roles_are_averaged_apart():
    prompts = PromptSet.from_tokens(
        [[1, 2, 3], [4, 5, 6]],
        answer=[0, 0],
        roles={"A": torch.tensor([[0, 2], [0, 2]]), "B": torch.tensor([[1, 3], [-1, -1]])},
    )
    keys = token_keys(prompts, "role")
    assert keys[0].unique().numel() == 3  # A, A and B, B and END
    assert keys[0, 0] == keys[1, 0] == keys[1, 1]
    assert keys[1, 2] not in keys[0]


@pytest.mark.parametrize("seed", range(4))
def test_resampling_takes_another_prompt_of_the_same_length(seed: int):
    some = model("llama")
    prompts = pairs("left", [[i, i + 1, i + 2] for i in range(0, 15, 3)] + [[20, 21], [22, 23]])
    whole = [Intervention.at(Resid(0), Resample(seed))]
    kept: list[Tensor] = []

    def keep(logits: Tensor) -> Tensor:
        kept.append(logits)
        return logits[:, 0]

    engine.run(some, prompts, whole, metric=keep, progress=False)
    clean, edited = kept[0], kept[-1]
    distance = torch.cdist(edited, clean)
    partner = distance.argmin(dim=1)
    assert distance.amin(dim=1).max() < 1e-9  # its stream is that of the partner
    assert (partner != torch.arange(len(prompts))).all()
    assert sorted(partner.tolist()) == list(range(len(prompts)))
    lengths = prompts.mask.sum(dim=-1)
    assert torch.equal(lengths[partner], lengths)


def test_seeds_resample_other_prompts_and_the_same_seed_the_same():
    some, prompts = model("llama"), pairs(rows=[[i, i + 1, i + 2] for i in range(0, 24, 3)])
    runs = [
        engine.run(some, prompts, [Intervention.at(Resid(0), Resample(seed))]).values
        for seed in (0, 0, 1)
    ]
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


@pytest.mark.parametrize("family", ["gpt2", "qwen3", "gemma2", "phi", "falcon", "mixtral"])
def test_what_was_captured_is_patched_as_if_it_were_run_again(family: str):
    some = model(family)
    prompts = pairs("left", [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    source = others(prompts)
    sites = kinds_of_sites(some)
    stored = capture(some, source, {site.hook for site in sites})
    run, put = (
        engine.run(some, prompts, [Intervention.at(site, Patch(each)) for site in sites])
        for each in (source, stored)
    )
    assert_close(put.values, run.values, 1e-5)
    assert (run.effects.abs() > 1e-6).any(dim=1).all()


def test_captured_activations_may_lie_in_a_folder(tmp_path):
    some, prompts = model("llama"), pairs()
    source = others(prompts)
    sites = [Head(0, 1), Pattern(1, 2), MLP(0)]
    stored = capture(some, source, {site.hook for site in sites})
    loaded = Activations.load(stored.save(tmp_path / "acts"))
    memory, disk = (
        engine.run(some, prompts, [Intervention.at(site, Patch(each)) for site in sites]).values
        for each in (stored, loaded)
    )
    assert torch.equal(memory, disk)


def test_the_tokens_before_the_first_difference_are_not_patched(monkeypatch: pytest.MonkeyPatch):
    """So that the run may start where the counterfactual begins to differ."""
    some, prompts = model("llama"), pairs(rows=[[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])
    late = prompts.clean.clone()
    late[:, 3] += 40
    prompts = replace(prompts, corrupt=late)
    starts: list[int] = []
    job = engine.sources.Opened.job  # type: ignore[attr-defined]

    def seen(self: object, index: int, each: Intervention) -> object:
        made = job(self, index, each)
        starts.append(made.start)
        return made

    monkeypatch.setattr("interp.engine.sources.Opened.job", seen)
    engine.run(some, prompts, [Intervention.at(Head(0, 1), Patch())], progress=False)
    assert set(starts) == {3}
