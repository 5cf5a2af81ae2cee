from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import interp
from interp.engine import Mean, Operation, Patch, Zero, everywhere, explain, run
from interp.engine.jobs import Job
from interp.engine.memory import halving
from interp.engine.places import expand
from interp.engine.precision import in_dtype
from interp.errors import ModelError
from interp.sites import heads, mlps, resid
from tests.activations.samples import model, prompts

EQUAL = [[1, 2, 3, 4, 5, 6, 7, 8], [9, 10, 11, 12, 13, 14, 15, 16]]


@pytest.mark.parametrize("family", ["gpt2", "llama", "gpt-neox", "native"])
def test_the_operations_foretold_are_those_that_torch_counts(family: str) -> None:
    # in float64, where every product is one that torch counts
    tiny, some = in_dtype(model(family), "float64"), prompts(rows=EQUAL)
    made = everywhere([*heads(tiny), *resid(tiny)], Zero())
    run(tiny, some, made, progress=False)  # the replay is made and tried before
    with FlopCounterMode(display=False) as counted:
        run(tiny, some, made, progress=False)
    plan = explain(tiny, some, made)
    foretold = plan.flops - plan.clean_flops
    clean = plan.clean_flops
    # attention over a mask is counted in full by torch and by halves in the plan
    assert foretold == pytest.approx(counted.get_total_flops() - clean, rel=0.25)


@pytest.mark.parametrize("operation", [Zero(), Mean(), Patch()])
def test_at_the_size_of_a_real_model_they_agree_within_a_few_per_cent(operation: Operation) -> None:
    full = in_dtype(interp.load("polymath-llama", check=False), "float64")
    some = interp.tasks.get("ioi").sample(full, n=4, seed=0)
    made = everywhere([*heads(full), *resid(full)], operation)
    run(full, some, made[:1], progress=False)
    with FlopCounterMode(display=False) as counted:
        run(full, some, made, progress=False)
    assert explain(full, some, made).flops == pytest.approx(counted.get_total_flops(), rel=0.03)


def test_the_plan_says_what_is_saved() -> None:
    tiny, some = model("gpt2"), prompts(rows=EQUAL)
    plan = explain(tiny, some, everywhere(expand(resid(tiny), some, "each"), Zero()))
    assert plan.naive_flops > plan.flops > plan.floor_flops > plan.clean_flops > 0
    assert plan.interventions == 16
    text = str(plan)
    assert "16 interventions x 2 prompts of gpt2" in text
    assert "from behind their attention, from the first changed column on" in text
    assert "times fewer than the loop's" in text


def test_equal_and_void_interventions_are_not_counted() -> None:
    from dataclasses import replace

    tiny, some = model("gpt2"), prompts(rows=EQUAL)
    corrupt = some.clean.clone()
    corrupt[:, 4:] += 20
    pair = replace(some, corrupt=corrupt)
    made = everywhere(expand(resid(tiny), pair, "each"), Patch())
    assert explain(tiny, pair, made).interventions == 8  # columns 4 to 7 of two layers
    assert explain(tiny, pair, made + made).interventions == 8
    values = run(tiny, pair, made, progress=False)
    assert (values.effects[:4] == 0).all()


def test_what_does_not_fit_in_memory_is_halved_until_it_does() -> None:
    calls: list[int] = []

    def ride(jobs):
        calls.append(len(jobs))
        if len(jobs) > 3:
            raise torch.OutOfMemoryError("no room")
        return torch.tensor([job.index for job in jobs])

    eight = [Job(index, {(0, "z"): []}, 0, 1) for index in range(8)]
    assert halving(ride, eight).tolist() == list(range(8))
    assert calls == [8, 4, 2, 2, 4, 2, 2]
    with pytest.raises(ModelError, match=r"does not fit in memory \(no room\); give fewer"):
        halving(lambda jobs: ride(jobs * 4), eight[:1])
    with pytest.raises(RuntimeError, match="another"):
        halving(lambda jobs: (_ for _ in ()).throw(RuntimeError("another")), eight)


def test_a_sweep_survives_running_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from interp.engine.train import Train

    tiny, some = model("gpt2"), prompts()
    made = everywhere([*heads(tiny), *mlps(tiny)], Zero())
    whole = run(tiny, some, made, progress=False)
    ride = Train.ride

    def cramped(self, jobs):
        if len(jobs) > 2:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return ride(self, jobs)

    monkeypatch.setattr(Train, "ride", cramped)
    small = run(tiny, some, made, progress=False)
    torch.testing.assert_close(small.values, whole.values, rtol=1e-5, atol=1e-5)
