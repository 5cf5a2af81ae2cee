from __future__ import annotations

import pytest

from interp.activations import batches
from interp.activations.batches import batch_size_for
from tests.activations.samples import model, prompts


def test_small_prompts_run_at_once():
    assert batch_size_for(model("gpt2"), prompts()) == 4


def test_batches_shrink_with_the_budget_down_to_one(monkeypatch: pytest.MonkeyPatch):
    tiny, some = model("gpt2"), prompts(rows=[[1] * 60] * 50)
    sizes = []
    for budget in (2**22, 2**21, 2**20, 1):
        monkeypatch.setattr(batches, "BUDGET", budget)
        sizes.append(batch_size_for(tiny, some))
    assert sizes == sorted(sizes, reverse=True)
    assert 50 > sizes[0] > sizes[-1] == 1


def test_what_is_kept_counts(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(batches, "BUDGET", 2**22)
    tiny, some = model("gpt2"), prompts(rows=[[1] * 60] * 50)
    sizes = [
        batch_size_for(tiny, some, [f"blocks.{layer}.{name}" for layer in range(9)])
        for name in ("hook_resid_pre", "attn.hook_result", "attn.hook_pattern")
    ]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
