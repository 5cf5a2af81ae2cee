"""What a report says of a sweep follows from its numbers, whatever was swept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import interp
from interp.engine import SweepResult
from interp.models import Model, load
from interp.plots.widget import Widget
from interp.prompts import PromptSet
from interp.report import build
from interp.report.drawing.bars import bars
from interp.report.parts import Section
from interp.report.sweeps.section import sweep_section
from interp.sites import Site, parse
from tests.report.results import N, sweep

HOSTILE = "<img src=x onerror=alert(1)>"
SIZES = {"n_layers": 3, "n_heads": 4, "n_kv_heads": 4}


def made(
    effects: dict[str, float],
    *,
    method: str = "patch",
    direction: str = "denoise",
    exact: Sequence[bool] | None = None,
    corrupt: float | None = -2.0,
    noise: float = 0.1,
    **provenance: Any,
) -> SweepResult:
    """Sites with known mean effects; 4 logits when clean, -2 when corrupt."""
    spread = noise * torch.linspace(-1, 1, N).roll(3)
    clean = 4 + 0.5 * torch.linspace(-1, 1, N)
    other = None if corrupt is None else corrupt + 0.5 * torch.linspace(-1, 1, N).roll(2)
    base = clean
    if direction == "denoise" and method == "patch":
        assert other is not None
        base = other
    told = {"model": "toy", "task": "ioi", "n": N, "notes": {"seed": 0, "split": "test"}}
    told |= {"geometry": SIZES, "direction": direction}
    return SweepResult(
        tuple(parse(site) for site in effects),
        base + torch.tensor(list(effects.values()))[:, None] + spread,
        clean,
        "logit_diff",
        method,
        told | provenance,
        other,
        None if exact is None else torch.tensor(list(exact)),
    )


def streams(**planted: float) -> dict[str, float]:
    """Residual streams before 3 layers at 8 places; `S2_1=5.0` plants at S2 before layer 1."""
    places = ("A", "B", "S1", "S2", "C", "D", "E", "END")
    return {
        f"r{layer}.pre@{place}": planted.get(f"{place}_{layer}", 0.01 * layer)
        for place in places
        for layer in range(3)
    }


def titles(section: Section) -> list[str]:
    return [figure.title for block in section.blocks for figure in block.figures]


# What is claimed


def test_the_largest_effect_is_told_with_clean_interval_and_the_other_heads() -> None:
    claim = sweep_section(sweep({"1.3": -2.5, "0.1": 0.5})).claims[0]
    assert claim.statement == (
        "On ioi, removing head 1.3 lowers logit_diff the most: from 4.00 to 1.50 logits."
    )
    assert claim.verdict == "found"
    assert claim.evidence.startswith("Effect −2.50 (−2.5")
    assert "; the other 11 heads: median 0.00, all between 0.00 and +0.50; " in claim.evidence


def test_an_effect_within_those_of_all_heads_is_doubtful() -> None:
    every = {f"{layer}.{head}": -1.0 for layer in range(3) for head in range(4)}
    assert sweep_section(sweep(every)).claims[0].verdict == "doubtful"


def test_the_largest_of_many_that_do_nothing_is_doubtful() -> None:
    """Noise alone: some interval misses zero, and none stands apart from the others."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(5):
        noise = sweep(layers=8, heads=8, noise=0.0)
        values = noise.values + torch.randn(noise.values.shape, generator=generator)
        assert sweep_section(replace(noise, values=values)).claims[0].verdict == "doubtful"


def test_sites_at_which_nothing_happened_are_named() -> None:
    moved = {f"{layer}.{head}": -1.0 for layer in range(3) for head in range(4)}
    told = [
        dict(sweep_section(sweep(some, noise=0.0)).provenance) for some in (moved, {"1.3": -1.0})
    ]
    assert told[0]["Changes without any effect"] == "none of 12"
    assert told[1]["Changes without any effect"].startswith(
        "11 of 12: 0.0, 0.1, 0.2, 0.3 and 7 more"
    )


def test_no_effect_at_all_is_not_found() -> None:
    claim = sweep_section(sweep(noise=0.0)).claims[0]
    assert (claim.statement, claim.verdict) == ("On ioi, no head changes logit_diff.", "not found")


def test_a_single_site_has_nothing_to_be_compared_with() -> None:
    claim = sweep_section(made({"m1": 3.0})).claims[0]
    assert claim.verdict == "doubtful"
    assert "no other site to compare it with" in claim.evidence


def test_one_prompt_claims_nothing() -> None:
    whole = sweep({"1.3": -2.5})
    one = replace(whole, values=whole.values[:, :1], clean=whole.clean[:1])
    claim = sweep_section(one).claims[0]
    assert claim.verdict == "doubtful"
    assert "(no interval)" in claim.evidence


def test_denoising_tells_what_is_restored() -> None:
    section = sweep_section(made({"m0": 0.0, "m1": 3.0, "m2": 0.1}))
    claim = section.claims[0]
    assert section.heading == "What an MLP restores, on ioi"
    assert claim.statement == (
        "On ioi, giving the corrupt run the clean value of MLP m1 raises logit_diff the most: "
        "from −2.00 to 1.00 logits."
    )
    assert "; 50% of the way from corrupt to clean (" in claim.evidence
    assert claim.verdict == "found"
    assert "Blue: this MLP brings the answer back." in section.blocks[0].meaning


def test_noising_tells_what_breaks() -> None:
    section = sweep_section(made({"m0": 0.0, "m1": -3.0, "m2": 0.1}, direction="noise"))
    claim = section.claims[0]
    assert section.heading == "What breaks when an MLP is corrupted, on ioi"
    assert "giving the clean run the corrupt value of MLP m1 lowers logit_diff" in claim.statement
    assert "; 50% of the way from clean to corrupt (" in claim.evidence
    assert "Red: the model needs the MLP for this." in section.blocks[0].meaning


def test_a_gap_that_may_be_zero_has_no_shares() -> None:
    section = sweep_section(made({"m0": 0.0, "m1": 3.0}, corrupt=4.0))
    assert "of the way" not in section.claims[0].evidence
    assert "Share of the gap" not in section.blocks[0].tables[0].columns
    assert any("No shares of the gap are told" in limit for limit in section.limits)


def test_shares_of_the_gap_are_those_of_the_sweep() -> None:
    result = made({"m0": 0.3, "m1": 3.0, "m2": -1.2})
    table = sweep_section(result).blocks[0].tables[0]
    shares = [row[table.columns.index("Share of the gap")] for row in table.rows]
    expected = result.normalized()[[1, 2, 0]].double().tolist()
    assert shares == pytest.approx(expected, abs=1e-5)


def test_a_residual_stream_is_compared_with_other_positions() -> None:
    """One finding in three layers at S2: its layers are no control of each other."""
    planted = streams(S2_0=5.0, S2_1=5.1, S2_2=4.9)
    section = sweep_section(made(planted))
    claim = section.claims[0]
    assert claim.verdict == "found"
    assert "residual stream r1.pre at S2 raises" in claim.statement
    assert "; the 21 residual streams at other positions: median +0.01" in claim.evidence
    assert any("where the answer passes, not what makes it" in limit for limit in section.limits)


def test_a_residual_stream_that_matters_everywhere_is_doubtful() -> None:
    every = {site: 5.0 for site in streams()} | {"r1.pre@S2": 5.01}
    assert sweep_section(made(every)).claims[0].verdict == "doubtful"


def test_gradients_are_only_an_estimate() -> None:
    edges = {"input->0.0.q": 0.01, "0.1->1.2.v": -3.0, "m0->logits": 0.02, "m1->logits": 0.0}
    result = made(edges, method="eap", direction="noise", exact=[False] * 4, steps=1)
    claim = sweep_section(result).claims[0]
    assert claim.verdict == "doubtful"
    assert "edge 0.1->1.2.v, as gradients estimate it, lowers" in claim.statement
    assert "an estimate, to be confirmed by patching this site" in claim.evidence


def test_a_screen_claims_what_was_run_exactly() -> None:
    """The largest estimate is not claimed where others were measured."""
    effects = {"0.0": -3.0, "0.1": 0.0, "0.2": -9.0, "0.3": 0.1}
    result = made(effects, method="zero", direction="noise", exact=[True, False, False, True])
    claim = sweep_section(result).claims[0]
    assert "removing head 0.0" in claim.statement
    assert "2 of 4 sites were only estimated or tried on few prompts" in claim.evidence
    assert claim.verdict == "doubtful"  # the estimate reaches further


def test_a_measured_error_of_another_precision_counts() -> None:
    error = {"against": "float32", "sites": 4, "rms": 0.1, "max": 0.2, "correlation": 0.99}
    effects = {"0.0": -3.0, "0.1": 0.0, "0.2": 0.01, "0.3": 0.1}
    how: dict[str, Any] = {"method": "zero", "direction": "noise", "exact": [False] * 4}
    told = made(effects, dtype="bfloat16", error=error, **how)
    claim = sweep_section(told).claims[0]
    assert claim.verdict == "found"
    assert "computed in bfloat16, whose effects were at most 0.2 off on 4 sites" in claim.evidence
    coarse = made(effects, dtype="bfloat16", error={**error, "max": 3.0}, **how)
    assert sweep_section(coarse).claims[0].verdict == "doubtful"
    assert sweep_section(told).command.splitlines()[0] == "model = interp.load('toy')"
    assert "dtype='bfloat16'" in sweep_section(told).command.splitlines()[2]


# Baselines


def test_the_runs_that_are_compared_stand_on_top() -> None:
    table = sweep_section(made({"m0": 0.0, "m1": 3.0})).baselines
    assert table is not None
    assert [row[0] for row in table.rows] == ["Clean prompts", "Corrupt prompts", "m1 restored"]
    assert [row[1] for row in table.rows] == pytest.approx([4.0, -2.0, 1.0], abs=1e-5)
    assert {row[3] for row in table.rows} == {N}


# Drawings


def test_heads_are_a_grid_with_its_numbers() -> None:
    (grid, axis) = sweep_section(sweep({"1.3": -2.5})).blocks[0].figures
    assert (grid.title, grid.role, axis.role) == ("Layer by head", "main", "control")
    assert grid.data is not None
    assert grid.data.columns == ("Layer", "0", "1", "2", "3")
    assert grid.data.rows[1][4] == pytest.approx(-2.5, abs=1e-5)


def test_positions_are_columns_with_their_roles() -> None:
    section = sweep_section(made(streams(S2_1=5.0)))
    assert titles(section)[0] == "Layer by position: resid pre"
    data = section.blocks[0].figures[0].data
    assert data is not None
    assert data.columns == ("Layer", "A", "B", "S1", "S2", "C", "D", "E", "END")
    assert data.rows[1][4] == pytest.approx(5.0, abs=1e-5)


def test_numbered_positions_are_in_order() -> None:
    sites = {f"m{layer}@{place}": 1.0 for layer in range(3) for place in (5, -1, 2)}
    data = sweep_section(made(sites)).blocks[0].figures[0].data
    assert data is not None
    assert data.columns == ("Layer", "-1", "2", "5")


def test_parts_of_layers_stand_side_by_side() -> None:
    sites = {f"{part}{layer}": 0.5 for part in "am" for layer in range(3)}
    section = sweep_section(made(sites | {f"r{layer}.pre": 1.0 for layer in range(3)}))
    assert titles(section)[0] == "Layer by part"
    data = section.blocks[0].figures[0].data
    assert data is not None
    assert data.columns == ("Layer", "resid pre", "attention", "MLP")


def test_heads_at_few_positions_have_a_grid_for_each_and_at_many_one_in_all() -> None:
    few = {f"{i // 4}.{i % 4}@{place}": 0.1 for i in range(12) for place in ("S2", "END")}
    assert titles(sweep_section(made(few)))[:2] == ["Layer by head at S2", "Layer by head at END"]
    many = {f"{i // 8}.{i % 8}@{place}": 0.01 * i for i in range(24) for place in range(6)}
    section = sweep_section(made(many))
    assert titles(section)[0] == "Head by position (the 4 weakest are left out)"
    assert len(section.blocks[0].figures) == 2  # no bars of what was left out


def test_what_has_no_grid_is_drawn_as_bars() -> None:
    sites = {f"m1.{neuron}": 0.01 * neuron for neuron in range(40)}
    section = sweep_section(made(sites))
    assert titles(section)[0] == "The 30 largest of 40 neurons"
    drawing = str(section.blocks[0].figures[0].drawing)
    assert drawing.count("data-tip=") == 30
    assert "m1.39: +0.39 logits" in drawing
    assert "10 more are in no drawing" in section.blocks[0].figures[0].caption


def test_a_few_chosen_sites_are_bars_and_not_a_grid_full_of_holes() -> None:
    section = sweep_section(made({"0.1": 1.0, "m2": 0.5, "2.3": 0.1, "0.0+1.2": 2.0}))
    assert titles(section) == ["Site by site", "Control: all 4 sites on one axis"]


def test_of_very_many_sites_the_largest_are_shown_and_the_rest_is_counted() -> None:
    sites = {f"m{layer}.{i}": 0.001 * i for layer in range(2) for i in range(600)}
    section = sweep_section(made(sites))
    axis = section.blocks[0].figures[-1]
    assert axis.title == "Control: the 1,000 largest of 1,200 neurons on one axis"
    assert axis.data is not None
    assert len(axis.data.rows) == 200
    assert axis.data.caption.endswith("; the 1,000 smallest are left out")


def test_sites_that_were_never_run_are_said_to_be_so() -> None:
    result = sweep({"1.3": -2.5})
    values = result.values.clone()
    values[0] = torch.nan
    section = sweep_section(replace(result, values=values))
    drawing = section.blocks[0].figures[0].drawing
    assert not isinstance(drawing, Widget)
    assert 'class="missing"' in drawing
    assert "all 11 heads" in titles(section)[-1]


@pytest.mark.parametrize(("metric", "needed"), [("logit_diff", "Red"), ("loss", "Blue")])
def test_colours_are_explained_by_the_metric(metric: str, needed: str) -> None:
    section = sweep_section(sweep({"1.3": -2.5}, metric=metric))
    assert f"{needed}: the model needs the head for this." in section.blocks[0].meaning


def test_effects_on_what_is_zero_when_clean_have_no_share() -> None:
    had = sweep({"1.3": 2.0}, metric="kl")
    flat = replace(had, values=had.values - had.clean, clean=torch.zeros(N))
    assert "Share of clean" in sweep_section(had).blocks[0].tables[0].columns
    assert "Share of clean" not in sweep_section(flat).blocks[0].tables[0].columns


def test_small_effects_have_the_digits_that_they_need() -> None:
    section = sweep_section(sweep({"1.3": -0.0025}, metric="prob", noise=0.001))
    table = section.blocks[0].tables[0]
    assert table.rows[0][0] == "1.3"
    assert table.rows[0][1] == pytest.approx(-0.0025, abs=1e-5)
    assert table.digits == 4
    assert "from 4.0000 to 3.9975 probability" in section.claims[0].statement
    drawing = section.blocks[0].figures[0].drawing
    assert not isinstance(drawing, Widget)
    assert ">−.0025</text>" in drawing


def test_bars_escape_names_and_cut_long_ones() -> None:
    drawn = bars(
        [0.5, -0.25],
        low=[0.4, float("nan")],
        high=[0.6, float("nan")],
        names=[HOSTILE, "short"],
        tips=[HOSTILE, "short"],
        label=HOSTILE,
        digits=2,
        usual=(-0.1, 0.1),
    )
    assert "<img" not in drawn
    assert drawn.count("<line") == 1 + 1  # one interval, and the axis
    assert "…</text>" in drawn


# The command


def test_a_sweep_tells_the_python_that_repeats_it() -> None:
    model, prompts, call = sweep_section(sweep()).command.splitlines()
    assert model == "model = interp.load('toy')"
    assert prompts.startswith("prompts = interp.tasks.get('ioi').sample(model, n=10, seed=0, ")
    assert call == "interp.ablate(model, prompts, method='zero', metric='logit_diff')"


def test_what_was_typed_in_the_shell_is_told_as_it_was() -> None:
    assert sweep_section(sweep(command="interp sweep toy")).command == "interp sweep toy"


@pytest.fixture(scope="module")
def model() -> Model:
    return load("polymath", check=False)


@pytest.fixture(scope="module")
def prompts(model: Model) -> PromptSet:
    """All of one length, so that positions can be numbered."""
    return interp.tasks.get("greater_than").sample(model, n=4, seed=3)


@pytest.mark.parametrize(
    "call",
    [
        "interp.ablate(model, prompts, method='mean', over='position')",
        "interp.ablate(model, prompts, interp.sites.mlps(model), method='resample', seed=3)",
        "interp.ablate(model, prompts, ['3.5', 'm2', '0.1+1.2'], effect='direct')",
        "interp.patch(model, prompts, interp.sites.resid(model, 'post'), positions=['YEAR', -1])",
        "interp.patch(model, prompts, ['m0', 'a3'], positions='each', direction='noise')",
        "interp.patch(model, prompts, ['m0->3.5.q', 'input->logits'], freeze='none')",
        "interp.engine.patch_paths(model, prompts, None)",
        "interp.attribute(model, prompts, method='nap-ig', steps=2)",
        "interp.attribute(model, prompts, interp.sites.heads(model), method='atp', positions=-1)",
        "interp.engine.screen(model, prompts, k=2, by='half', method='zero')",
    ],
)
def test_the_command_makes_the_same_sweep_again(
    model: Model, prompts: PromptSet, call: str
) -> None:
    """Run what is told, and compare the numbers."""
    names = {"interp": interp, "model": model, "prompts": prompts}
    result = eval(call, names)
    section = sweep_section(result)
    _, drawn, told = section.command.splitlines()
    drawn = drawn.removeprefix("prompts = ")
    names["prompts"] = eval(drawn, names)
    again = eval(told, names)
    assert again.sites == result.sites
    assert torch.equal(again.values.nan_to_num(9.0), result.values.nan_to_num(9.0))


def test_all_edges_are_what_gradients_are_taken_of_anyway() -> None:
    edges = interp.sites.edges(SimpleNamespace(**{**SIZES, "n_kv_heads": 2}))
    effects = {str(edge): 0.01 * i for i, edge in enumerate(edges)}
    how: dict[str, Any] = {"method": "eap", "direction": "noise", "exact": [False] * len(edges)}
    result = made(effects, geometry={**SIZES, "n_kv_heads": 2}, steps=1, **how)
    call = sweep_section(result).command.splitlines()[2]
    assert call == "interp.attribute(model, prompts, method='eap', steps=1, metric='logit_diff')"


def test_many_sites_are_left_to_the_table() -> None:
    sites = {f"m1.{neuron}": 0.01 * neuron for neuron in range(40)}
    lines = sweep_section(made(sites)).command.splitlines()
    assert lines[2] == "sites = ...  # 40 of them, named in the table of all sites"
    assert lines[3].startswith("interp.patch(model, prompts, sites, direction='denoise'")


def test_what_no_function_makes_has_no_command() -> None:
    assert sweep_section(made({"m0": 1.0}, method="my own", direction="noise")).command == ""


# All of it


def every_kind(model: Model) -> list[tuple[Site, ...]]:
    layer = interp.sites.heads(model)[:8]
    return [
        layer,
        interp.sites.queries(model)[:8],
        interp.sites.keys(model)[:8],
        interp.sites.values(model)[:8],
        interp.sites.patterns(model)[:8],
        interp.sites.attns(model),
        interp.sites.mlps(model),
        *(interp.sites.resid(model, point) for point in interp.sites.POINTS),
        interp.sites.neurons(2, 8),
        (layer[0], interp.sites.mlps(model)[0], parse("0.1+1.2")),
    ]


@pytest.mark.parametrize("positions", [None, ["YEAR", "END"]])
def test_every_kind_of_site_has_a_section(
    model: Model, prompts: PromptSet, positions: list[str] | None
) -> None:
    for sites in every_kind(model):
        section = sweep_section(
            interp.ablate(model, prompts, sites, method="zero", positions=positions, progress=False)
        )
        assert section.claims
        assert section.command.startswith("model = interp.load('polymath')")
        assert section.blocks[0].figures[-1].role == "control"


def test_words_from_outside_are_only_text() -> None:
    hostile = made({"m0": 1.0, "m1": 0.0}, task=HOSTILE, model=HOSTILE)
    page = build(replace(hostile, metric=HOSTILE)).html
    assert "<img" not in page
