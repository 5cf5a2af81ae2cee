from __future__ import annotations

import pytest
import torch
from torch import Tensor

import interp
from interp.engine import ablate, screen
from interp.engine.interventions import Mean, Patch, Zero, everywhere
from interp.engine.linear import estimate
from interp.engine.metrics import resolve
from interp.engine.racing import bounds, race
from interp.engine.sweep import Sweep
from interp.errors import InterventionError, MetricError
from interp.sites import heads, mlps, resid
from tests.activations.samples import model, prompts
from tests.families import FAMILIES


@pytest.fixture(scope="module")
def ioi():
    polymath = interp.load("polymath")
    some = interp.tasks.get("ioi").sample(polymath, n=64, seed=0)
    return polymath, some, ablate(polymath, some, progress=False)


def top(effects: Tensor, k: int) -> set[int]:
    return set(effects.nanmean(dim=-1).abs().topk(k).indices.tolist())


@pytest.mark.parametrize("by", ["race", "half", "attribution"])
def test_the_heads_that_matter_are_found(ioi, by: str) -> None:
    polymath, some, full = ioi
    found = screen(polymath, some, k=5, by=by, progress=False)
    order = full.effects.mean(dim=-1).abs().argsort(descending=True)
    assert set(found.provenance["top"]) == {str(full.sites[i]) for i in order[:5]}
    assert found.exact is not None
    assert found.sites == full.sites
    torch.testing.assert_close(
        found.values[found.exact], full.values[found.exact], rtol=1e-4, atol=1e-4
    )
    assert found.provenance["screen"] == by


def test_only_what_is_called_exact_equals_the_full_sweep(ioi) -> None:
    polymath, some, full = ioi
    found = screen(polymath, some, k=3, by="attribution", keep=2, progress=False)
    assert int(found.exact.sum()) == 6
    off = (found.values - full.values).abs().amax(dim=-1)
    assert (off[found.exact] < 1e-4).all()
    assert (off[~found.exact] > 1e-3).any()


def test_what_a_race_did_not_run_is_missing_and_what_it_ran_is_exact(ioi) -> None:
    polymath, some, full = ioi
    found = screen(polymath, some, k=3, by="race", progress=False)
    ran = ~found.values.isnan()
    assert ran.double().mean() < 0.5
    torch.testing.assert_close(found.values[ran], full.values[ran], rtol=1e-4, atol=1e-4)
    order = full.effects.mean(dim=-1).abs().argsort(descending=True)
    assert set(found.provenance["top"]) == {str(full.sites[i]) for i in order[:3]}


def test_a_race_without_a_gradient_only_takes_longer(ioi) -> None:
    polymath, some, _ = ioi
    full = ablate(polymath, some, metric="accuracy", progress=False)
    found = screen(polymath, some, k=1, by="race", metric="accuracy", progress=False)
    (best,) = found.provenance["top"]
    effects = full.effects.mean(dim=-1).abs()
    assert effects[[str(site) for site in full.sites].index(best)] == effects.max()


def of_matrix(effects: Tensor):
    return lambda rows, sites: effects[sites[:, None], rows]


@pytest.mark.parametrize("rule", ["normal", "bernstein"])
def test_a_race_drops_clear_losers_early_and_finds_the_top(rule: str) -> None:
    random = torch.Generator().manual_seed(0)
    means = torch.cat([torch.linspace(4, 5, 5), torch.zeros(45)])
    effects = means[:, None] + 0.1 * torch.randn(50, 512, generator=random)
    seen, best = race(of_matrix(effects), torch.zeros(50, 512), k=5, rule=rule)
    assert set(best.tolist()) == set(range(5))
    assert (~seen.isnan()).double().mean() < (0.05 if rule == "normal" else 0.5)


@pytest.mark.parametrize("rule", ["normal", "bernstein"])
def test_good_estimates_shorten_a_race_and_bad_ones_do_not_mislead_it(rule: str) -> None:
    random = torch.Generator().manual_seed(0)
    effects = torch.randn(40, 1, generator=random) + torch.randn(40, 256, generator=random)
    guesses = {"good": effects + 0.001, "none": torch.zeros_like(effects), "bad": -3 * effects}
    share = {}
    for name, guess in guesses.items():
        seen, best = race(of_matrix(effects), guess, k=10, rule=rule)
        share[name] = (~seen.isnan()).double().mean().item()
        assert len(set(best.tolist()) & top(effects, 10)) >= 9
    assert share["good"] < 0.1
    assert share["good"] < share["none"] <= share["bad"]


def test_the_expected_recall_of_a_race_is_what_it_reaches() -> None:
    random = torch.Generator().manual_seed(1)
    reached = []
    for seed in range(40):
        effects = torch.randn(40, 1, generator=random) + 2 * torch.randn(40, 256, generator=random)
        _, best = race(of_matrix(effects), torch.zeros_like(effects), k=10, level=0.9, seed=seed)
        reached.append(len(set(best.tolist()) & top(effects, 10)) / 10)
    assert 0.87 < sum(reached) / len(reached) < 0.99


def test_bounds_hold_as_often_as_they_say() -> None:
    random = torch.Generator().manual_seed(0)
    effects = torch.randn(200, 128, generator=random).double() ** 3
    truth = effects.mean(dim=-1).abs()
    misses = 0
    for seed in range(10):
        order = torch.randperm(128, generator=torch.Generator().manual_seed(seed))
        seen = effects.clone()
        seen[:, order[48:]] = torch.nan
        low, high = bounds(seen, torch.zeros_like(effects), risk=0.05)
        misses += int(((truth < low) | (truth > high)).sum())
    assert misses / 2000 <= 0.05


def test_bounds_close_when_every_prompt_has_been_seen() -> None:
    effects = torch.randn(7, 20, generator=torch.Generator().manual_seed(0)).double()
    low, high = bounds(effects, torch.zeros_like(effects), risk=0.05)
    torch.testing.assert_close(low, effects.mean(dim=-1).abs())
    torch.testing.assert_close(high, low)


@pytest.mark.parametrize("family", FAMILIES)
def test_estimates_are_the_first_order_of_exact_effects(family: str) -> None:
    tiny, some = model(family), prompts()
    sites = [*heads(tiny), *resid(tiny)]
    sites += mlps(tiny) if family != "native" else []
    small = [interp.engine.Intervention.at(site, interp.engine.Scale(1 + 1e-3)) for site in sites]
    measure = resolve("logit_diff")
    guess = estimate(Sweep(tiny, some, small, measure).sources, small, measure)
    # the grouped products of experts refuse float64
    dtype = "float32" if family == "mixtral" else "float64"
    exact = interp.engine.run(tiny, some, small, dtype=dtype, progress=False).effects.double()
    size = exact.abs().max().item()
    torch.testing.assert_close(guess.double(), exact, rtol=0.05, atol=0.05 * size)


def test_estimates_need_gradients_and_our_metrics() -> None:
    tiny, some = model("gpt2"), prompts()
    made = everywhere(heads(tiny), Zero())
    sources = Sweep(tiny, some, made, resolve("logit_diff")).sources
    with torch.inference_mode(), pytest.raises(InterventionError, match="inference_mode"):
        estimate(sources, made, resolve("logit_diff"))
    with pytest.raises(MetricError, match="not known to have a gradient"):
        estimate(sources, made, resolve(lambda logits: logits[:, 0]))
    with pytest.raises(MetricError, match="accuracy has no gradient"):
        estimate(sources, made, resolve("accuracy"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0 and there are 8 sites"),
        ({"k": 8}, "k is 8 and there are 8 sites; ask for fewer"),
        ({"by": "rase", "k": 2}, "There is no screen 'rase': did you mean race"),
        ({"rule": "normale", "k": 2}, "There is no rule 'normale': did you mean normal"),
        ({"method": "optimal", "k": 2}, "Optimal constants are learned"),
    ],
)
def test_what_cannot_be_screened_is_refused(options: dict, message: str) -> None:
    with pytest.raises(InterventionError, match=message):
        screen(model("gpt2"), prompts(), progress=False, **options)


def test_a_metric_of_the_users_is_screened_by_half_precision_and_not_by_a_race() -> None:
    tiny, some = model("gpt2"), prompts()  # of four lengths

    def first_logit(logits: Tensor) -> Tensor:
        assert len(logits) == len(some)
        return logits[:, 20]

    full = ablate(tiny, some, metric=first_logit, progress=False)
    found = screen(tiny, some, k=3, by="half", metric=first_logit, progress=False)
    assert int(found.exact.sum()) >= 4
    torch.testing.assert_close(
        found.values[found.exact], full.values[found.exact], rtol=1e-4, atol=1e-4
    )
    with pytest.raises(MetricError, match="first_logit wants the logits of all prompts"):
        screen(tiny, some, k=3, by="race", metric=first_logit, progress=False)


def test_rounds_of_a_sweep_leave_what_earlier_rounds_found() -> None:
    tiny, some = model("gpt2"), prompts()
    measure = resolve(lambda logits: logits[:, 20])
    sweep = Sweep(tiny, some, everywhere(heads(tiny), Zero()), measure)
    with torch.no_grad():
        sweep.compute_some(progress=False, sites=torch.tensor([5, 2]))
        before = sweep.table.found[[2, 5]].clone()
        sweep.compute_some(progress=False, sites=torch.tensor([0]))
    assert torch.equal(sweep.table.found[[2, 5]], before)
    assert not before.isnan().any()
    assert not torch.equal(before[0], sweep.table.start)
    assert sweep.table.found[[1, 3, 4, 6, 7]].isnan().all()


def test_operations_are_data_with_equality() -> None:
    assert Patch() == Patch()
    assert Mean("role") != Mean()
    assert hash(Zero()) == hash(Zero())
