"""Sweeps that keep a run: the same bits as those that do not, and nothing computed twice."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

import interp
from interp import engine, runs
from interp.engine import Mean, SweepResult, Zero, everywhere, stored
from interp.engine.interventions import Intervention, Patch, Set
from interp.engine.runner import Runner
from interp.errors import InterventionError, MetricError, RunError
from interp.models import Model
from interp.prompts import PromptSet
from interp.sites import Head, heads, mlps
from interp.workers import Here, Item, Work
from tests.activations.samples import PAD, ROWS, model, prompts


def paired() -> PromptSet:
    base = prompts()
    corrupt = torch.where(base.mask, base.clean + 40, base.clean)
    return replace(base, corrupt=corrupt)


def own(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, 3] - logits[:, 4]


def ablate(**options: Any) -> SweepResult:
    return interp.ablate(model("gpt2"), paired(), progress=False, **options)


def patch(**options: Any) -> SweepResult:
    return interp.patch(model("gpt2"), paired(), progress=False, **options)


SWEEPS: dict[str, Callable[..., SweepResult]] = {
    "mean": ablate,
    "kl": lambda **run: ablate(metric="kl", freeze="patterns", **run),
    "own metric": lambda **run: ablate(metric=own, **run),
    "patch": patch,
    "direct": lambda **run: patch(effect="direct", direction="noise", **run),
    "bfloat16": lambda **run: ablate(dtype="bfloat16", **run),
}


@pytest.fixture
def rides(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many interventions each batch that is run has, one or two a batch."""
    monkeypatch.setattr("interp.engine.memory.CPU_TOKENS", 8)
    seen: list[int] = []
    ends = Runner.ends

    def counted(self: Runner, jobs: Any) -> torch.Tensor:
        seen.append(len(jobs))
        return ends(self, jobs)

    monkeypatch.setattr(Runner, "ends", counted)
    return seen


def same(found: SweepResult, other: SweepResult) -> bool:
    return (
        torch.equal(found.values, other.values)
        and torch.equal(found.clean, other.clean)
        and (found.corrupt is None or torch.equal(found.corrupt, other.corrupt))
        and found.sites == other.sites
        and found.provenance == other.provenance
    )


@pytest.mark.parametrize("name", SWEEPS)
def test_a_run_changes_no_bit_and_is_not_computed_twice(
    name: str, rides: list[int], tmp_path: Path
) -> None:
    plain = SWEEPS[name]()
    kept = SWEEPS[name](run=tmp_path)
    assert same(kept, plain)
    info = runs.info(tmp_path)
    assert (info.state, info.done, info.identity["kind"]) == ("done", info.chunks, "sweep")
    assert same(SweepResult.load(runs.result_of(tmp_path)), plain)
    rides.clear()
    assert same(SWEEPS[name](run=tmp_path), plain)
    own_precision = 8 if name == "bfloat16" else 0  # measured again, for the error
    assert sum(rides) <= own_precision * len(ROWS)


@pytest.mark.parametrize("when", [1, 20])
def test_an_interrupt_keeps_what_was_done(
    when: int, rides: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = SWEEPS["patch"]()
    whole = len(rides)
    rides.clear()
    ends = Runner.ends

    def stopped(self: Runner, jobs: Any) -> torch.Tensor:
        if len(rides) == when:
            raise KeyboardInterrupt
        return ends(self, jobs)

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "ends", stopped)
        with pytest.raises(KeyboardInterrupt) as interrupted:
            SWEEPS["patch"](run=tmp_path)
    partial = interrupted.value.partial  # type: ignore[attr-defined]
    assert partial.values.isnan().any()
    assert runs.info(tmp_path).state == "stopped"
    with pytest.raises(RunError, match="is not done, with"):
        runs.result_of(tmp_path)
    assert same(SWEEPS["patch"](run=tmp_path), plain)
    assert len(rides) == whole


def test_free_memory_and_threads_are_as_when_it_was_begun(
    rides: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends, threads = Runner.ends, torch.get_num_threads()
    plain = SWEEPS["mean"]()
    rides.clear()

    def stopped(self: Runner, jobs: Any) -> torch.Tensor:
        if len(rides) == 5:
            raise KeyboardInterrupt
        return ends(self, jobs)

    with monkeypatch.context() as patched:
        patched.setattr(Runner, "ends", stopped)
        with pytest.raises(KeyboardInterrupt):
            SWEEPS["mean"](run=tmp_path)
    monkeypatch.setattr("interp.engine.memory.CPU_TOKENS", 1000)
    seen = []
    monkeypatch.setattr(
        Runner, "ends", lambda *args: seen.append(torch.get_num_threads()) or ends(*args)
    )
    torch.set_num_threads(threads + 1)
    try:
        assert same(SWEEPS["mean"](run=tmp_path), plain)
        assert set(seen) == {threads}
        assert torch.get_num_threads() == threads + 1
    finally:
        torch.set_num_threads(threads)


def test_a_damaged_chunk_is_computed_again_to_the_same_bits(
    rides: list[int], tmp_path: Path
) -> None:
    plain = SWEEPS["mean"](run=tmp_path)
    for file in (tmp_path / "chunks").iterdir():
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
    (tmp_path / "sweep.safetensors").write_bytes(b"")
    with pytest.raises(RunError, match=r"sweep\.safetensors has 0 bytes"):
        runs.result_of(tmp_path)
    with pytest.warns(UserWarning, match="computed again"):
        assert same(SWEEPS["mean"](run=tmp_path), plain)
    assert runs.verify(tmp_path) == []
    assert same(SweepResult.load(runs.result_of(tmp_path)), plain)


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"method": "zero"}, "method was 'mean' and is 'zero'"),
        ({"metric": "prob"}, "metric was 'logit_diff' and is 'prob'"),
        ({"over": "position"}, "over was 'all' and is 'position'"),
        ({"sites": ["0.1", "m1"]}, "interventions was 8 and is 2"),
        ({"positions": "END"}, "edits was '"),
        ({"effect": "direct"}, "effect was 'total' and is 'direct'"),
        ({"dtype": "bfloat16"}, "dtype was 'float32' and is 'bfloat16'"),
    ],
)
def test_other_options_are_refused(changed: dict[str, Any], named: str, tmp_path: Path) -> None:
    ablate(run=tmp_path)
    with pytest.raises(RunError, match="is another run") as refused:
        ablate(run=tmp_path, **changed)
    assert named in str(refused.value)


def test_another_model_and_other_prompts_are_refused(tmp_path: Path) -> None:
    tiny = model("gpt2")
    interp.ablate(tiny, prompts(), progress=False, run=tmp_path)
    with pytest.raises(RunError, match="model was 'gpt2' and is 'llama'"):
        interp.ablate(model("llama"), prompts(), progress=False, run=tmp_path)
    with pytest.raises(RunError, match="weights_hash was '"):
        interp.ablate(trained(tiny), prompts(), progress=False, run=tmp_path)
    other = prompts(rows=[[50, 2, 3, 4, 5, 6], *ROWS[1:]])
    with pytest.raises(RunError, match="prompts_hash was '"):
        interp.ablate(tiny, other, progress=False, run=tmp_path)
    with pytest.raises(RunError, match=r"prompts_hash was '.* n was 4 and is 2"):
        interp.ablate(tiny, prompts()[:2], progress=False, run=tmp_path)


def trained(tiny: Model, value: float = 0.5) -> Model:
    """The same model with one weight changed."""
    module = copy.deepcopy(tiny.hf)
    with torch.no_grad():
        next(module.parameters())[3, 0] = value
    return Model(module, tiny.tokenizer, id=tiny.id)


def test_weights_that_are_not_numbers_are_told_and_lose_nothing(tmp_path: Path) -> None:
    broken = trained(model("gpt2"), torch.nan)
    with pytest.raises(MetricError, match="is NaN for prompt"):
        interp.ablate(broken, prompts(), progress=False, run=tmp_path)
    info = runs.info(tmp_path)
    assert info.state == "stopped"
    assert info.done < info.chunks  # type: ignore[operator]
    for number in runs.recorded(tmp_path):
        assert number < info.chunks  # type: ignore[operator]
    assert runs.verify(tmp_path) == []


def test_an_edit_is_known_by_all_that_it_does() -> None:
    base, tiny = paired(), model("gpt2")
    other = PromptSet.from_tokens(base.clean + 1, answer=base.answer, mask=base.clean != PAD)
    head, vector = Head(0, 1), torch.ones(8)
    made = [
        [Intervention.at(head, Zero())],
        [Intervention.at(head, Zero(), position="END")],
        [Intervention.at(head, Zero(), position=-1)],
        [Intervention.at(Head(1, 0), Zero())],
        [Intervention.at(head, Mean())],
        [Intervention.at(head, Mean("position"))],
        [Intervention.at(head, Patch())],
        [Intervention.at(head, Patch(other))],
        [Intervention.at(head, Patch(base))],
        [Intervention.at(head, Patch(interp.capture(tiny, base, ["blocks.*.attn.hook_z"])))],
        [Intervention.at(head, Set(vector))],
        [Intervention.at(head, Set(vector * 2))],
        [Intervention.at(head, Set(vector.double()))],
        everywhere(heads(tiny), Zero()),
        everywhere(mlps(tiny), Zero()),
    ]
    found = [stored.edits_hash(each) for each in made]
    assert len(set(found)) == len(made)
    assert stored.edits_hash([Intervention.at(head, Set(vector.clone()))]) == found[10]


def test_a_metric_is_known_by_its_source() -> None:
    def one(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, 0]

    before = stored.metric_identity(engine.metrics.resolve(one))  # type: ignore[attr-defined]

    def one(logits: torch.Tensor) -> torch.Tensor:  # type: ignore[no-redef]
        return logits[:, 1]

    after = stored.metric_identity(engine.metrics.resolve(one))  # type: ignore[attr-defined]
    assert before != after
    assert before.split(",")[0] == after.split(",")[0]


def test_a_run_goes_on_elsewhere(rides: list[int], tmp_path: Path) -> None:
    plain = SWEEPS["mean"]()
    whole = len(rides)
    rides.clear()
    engine = Stopping(after=5)
    with pytest.raises(KeyboardInterrupt):
        SWEEPS["mean"](run=tmp_path, engine=engine)
    assert same_values(SWEEPS["mean"](run=tmp_path, devices=["cpu", "cpu"]), plain)
    assert len(rides) == whole


class Stopping(Here):
    """Is interrupted after so many chunks, which come in a shuffled order."""

    def __init__(self, after: int) -> None:
        object.__setattr__(self, "after", after)

    def compute(self, model: Model, work: Work, items: Iterable[Item]) -> Iterator[Any]:
        mixed = random.Random(0).sample(chosen := list(items), len(chosen))
        yield from islice(super().compute(model, work, mixed), self.after)  # type: ignore[attr-defined]
        raise KeyboardInterrupt


def same_values(found: SweepResult, other: SweepResult) -> bool:
    return torch.equal(found.values, other.values) and torch.equal(found.clean, other.clean)


@pytest.mark.parametrize("metric", ["logit_diff", own])
def test_edges_and_paths_keep_runs_too(
    metric: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("interp.engine.memory.CPU_TOKENS", 8)
    monkeypatch.setattr("interp.engine.sweep.KEPT_BLOCK", 2)
    tiny, some = model("gpt2"), paired()
    edges = [str(edge) for edge in interp.sites.edges(tiny)][::30]
    for sweep, rows in ((engine.patch_edges, edges), (engine.patch_paths, None)):
        ask = partial(sweep, tiny, some, rows, metric=metric, progress=False)
        plain, folder = ask(), tmp_path / sweep.__name__
        with pytest.raises(KeyboardInterrupt):
            ask(run=folder, engine=Stopping(3))
        assert len(runs.recorded(folder)) == 3
        assert same_values(ask(run=folder), plain)
        info = runs.info(folder)
        assert (info.state, info.done) == ("done", info.chunks)
        assert same_values(SweepResult.load(runs.result_of(folder)), plain)
    with pytest.raises(RunError, match=r"edits was '"):
        engine.patch_edges(tiny, some, ["0.0->logits"], metric=metric, run=tmp_path / "patch_edges")


def test_optimal_constants_are_learned_again_to_the_same_numbers(tmp_path: Path) -> None:
    plain = ablate(sites=["0.1", "m1"], method="optimal", run=tmp_path)
    assert same_values(ablate(sites=["0.1", "m1"], method="optimal", run=tmp_path), plain)


def test_edges_refuse_what_their_road_has_not(tmp_path: Path) -> None:
    for option in ({"effect": "direct"}, {"freeze": "patterns"}, {"dtype": "float64"}):
        with pytest.raises(InterventionError, match="leave effect, freeze and dtype out"):
            patch(sites=["0.1->logits"], **option)
