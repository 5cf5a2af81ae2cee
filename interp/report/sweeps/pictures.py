"""Drawings and tables of a sweep: grids, bars of what has no grid, and all sites on one axis."""

from __future__ import annotations

import pandas as pd
import torch

from interp.engine import SweepResult
from interp.report.drawing import svg
from interp.report.drawing.bars import bars
from interp.report.parts import Figure, Table, of
from interp.report.sweeps.claim import Crowd, Largest, shares
from interp.report.sweeps.grids import Grid, grids_of
from interp.report.sweeps.words import Deed, Writer, deed_of, noun_of
from interp.stats import bootstrap_ci

MOST_BARS = 30
MOST_ROWS = 200
"""Rows of the table of all sites."""
MOST_MARKS = 1000
"""Sites on the one axis of the control."""
TOP = 8
"""Rows of the table beside the drawings."""
DONE: dict[Deed, str] = {
    "ablate": "removed",
    "break": "corrupted",
    "restore": "restored",
    "estimate": "corrupted (estimated)",
    "change": "changed",
}


def figures_of(sweep: SweepResult, best: Largest) -> tuple[Figure, ...]:
    """Grids where the sites have them, bars of the largest of the rest, and all on one axis."""
    frame, grids = sweep.to_frame(), grids_of(sweep)
    tips = _tips(sweep, frame)
    in_grids = {row for grid in grids for row in (*grid.cells.values(), *grid.left_out)}
    rest = frame[~frame.index.isin(in_grids) & frame["effect"].notna()]
    drawn = [_heatmap(sweep, frame, grid, tips) for grid in grids]
    if len(rest):
        drawn.append(_bars(sweep, rest, tips, best.crowd))
    return (*drawn, _one_axis(sweep, frame))


def baselines_of(sweep: SweepResult, best: Largest) -> Table:
    """The model as it is on clean and on corrupt prompts, and with the largest change."""
    write = Writer.of(sweep)
    runs = {"Clean prompts": sweep.clean}
    if sweep.corrupt is not None:
        runs["Corrupt prompts"] = sweep.corrupt
    runs[f"{best.name} {DONE[deed_of(sweep)]}"] = sweep.values[best.row]
    rows = []
    for name, values in runs.items():
        low, high = (end.item() for end in bootstrap_ci(values))
        n = int((~values.isnan()).sum())
        rows.append((name, values.nanmean().item(), write.interval(low, high), n))
    columns = ("Run", write.column(sweep.metric), "95% interval", "n")
    return Table("The runs that are compared", columns, tuple(rows), digits=write.digits)


def top_table(sweep: SweepResult) -> Table:
    """The eight largest effects, with their shares where these mean something."""
    write, frame = Writer.of(sweep), sweep.top(TOP)
    columns = [noun_of(sweep.sites).capitalize(), write.column("Effect"), "95% interval"]
    rows: list[list[str | float]] = [
        [row.site, row.effect, write.interval(row.ci_low, row.ci_high)]
        for row in frame.itertuples()
    ]
    name, found = _shares(
        sweep, [list(map(str, sweep.sites)).index(site) for site in frame["site"]]
    )
    if found is not None:
        columns.append(name)
        for row, share in zip(rows, found, strict=True):
            row.append(share)
    n = of(len(sweep.clean))
    return Table(f"Largest effects, {n}", tuple(columns), tuple(map(tuple, rows)), write.digits)


def _shares(sweep: SweepResult, rows: list[int]) -> tuple[str, list[float] | None]:
    """Effects as shares of the gap or, of ablations, of the clean value if it is clear of zero."""
    if deed_of(sweep) != "ablate":
        found = shares(sweep, torch.tensor(rows))
        return "Share of the gap", None if found is None else found[0].tolist()
    low, high = bootstrap_ci(sweep.clean)
    if not (low > 0 or high < 0):
        return "Share of clean", None
    effects = sweep.effects.nanmean(dim=-1)[rows]
    return "Share of clean", (effects / sweep.clean.mean()).tolist()


def _heatmap(sweep: SweepResult, frame: pd.DataFrame, grid: Grid, tips: list[str]) -> Figure:
    write, effects = Writer.of(sweep), frame["effect"].to_numpy()
    reach = frame["effect"].abs().max() or 1.0  # one scale for all grids, so that they compare
    rows = [[grid.cells.get((row, column)) for column in grid.columns] for row in grid.rows]
    values = [[float("nan") if at is None else float(effects[at]) for at in row] for row in rows]
    most = max(grid.cells.values(), key=lambda at: abs(effects[at]))
    names = [str(column) for column in grid.columns]
    drawing = svg.heatmap(
        torch.tensor(values),
        label=(
            f"Effect on {sweep.metric}, {grid.rows_are} by {grid.columns_are}. Largest: "
            f"{sweep.sites[most]} with {write.in_units(write.change(effects[most]))}."
        ),
        tips=[["not tested" if at is None else tips[at] for at in row] for row in rows],
        limits=(-reach, reach),
        diverging=True,
        digits=write.digits,
        rows=[str(row) for row in grid.rows],
        columns=names,
    )
    ends = write.change(-reach), write.in_units(write.change(reach))
    table = Table(
        f"Effect on {sweep.metric}: {grid.title}",
        (grid.rows_are.capitalize(), *names),
        tuple((row, *line) for row, line in zip(grid.rows, values, strict=True)),
        digits=write.digits,
    )
    return Figure(
        grid.title,
        drawing,
        f"Rows: {grid.rows_are}; columns: {grid.columns_are}.",
        svg.legend(*ends, diverging=True, middle="0"),
        table,
    )


def _bars(sweep: SweepResult, rest: pd.DataFrame, tips: list[str], crowd: Crowd | None) -> Figure:
    write = Writer.of(sweep)
    some = rest.loc[rest["effect"].abs().sort_values(ascending=False).index[:MOST_BARS]]
    noun, left = noun_of(sweep.sites, plural=True), len(rest) - len(some)
    drawing = bars(
        some["effect"].tolist(),
        low=some["ci_low"].tolist(),
        high=some["ci_high"].tolist(),
        names=some["site"].tolist(),
        tips=[tips[row] for row in some.index],
        label=f"Effects on {sweep.metric} of the {len(some)} {noun} with the largest ones.",
        digits=write.digits,
        usual=None if crowd is None else (crowd.low, crowd.high),
    )
    also = f" {left:,} more are in no drawing." if left else ""
    band = "" if crowd is None else f" The grey band is where {crowd.most} of {crowd.told} are."
    title = f"The {len(some)} largest of {len(rest):,} {noun}" if left else "Site by site"
    return Figure(
        title, drawing, f"Lines are 95% intervals.{band}{also}", data=_all_sites(sweep, some)
    )


def _one_axis(sweep: SweepResult, frame: pd.DataFrame) -> Figure:
    """Every effect beside every other; the largest of very many."""
    write = Writer.of(sweep)
    known = frame.dropna(subset=["effect"])
    order = known["effect"].abs().sort_values(ascending=False, kind="stable").index
    some = known.loc[order[:MOST_MARKS]]
    noun = noun_of(sweep.sites, plural=True)
    told = f"all {len(known):,} {noun}"
    if len(some) < len(known):
        told = f"the {MOST_MARKS:,} largest of {len(known):,} {noun}"
    median = write.in_units(write.change(known["effect"].median()))
    drawing = svg.strip(
        torch.tensor(some["effect"].tolist()),
        some["site"].tolist(),
        label=f"Effects of {told} along one axis; the median of all is {median}.",
        unit=write.unit,
        digits=write.digits,
    )
    return Figure(
        f"Control: {told} on one axis",
        drawing,
        f"What matters stands apart from the crowd. The median effect is {median}.",
        data=_all_sites(sweep, frame.loc[order]),
        role="control",
    )


def _all_sites(sweep: SweepResult, frame: pd.DataFrame) -> Table:
    """The sites of a frame, as far as they fit."""
    write, some, left = Writer.of(sweep), frame.head(MOST_ROWS), len(frame) - MOST_ROWS
    told = f"; the {left:,} smallest are left out" if left > 0 else ""
    columns = ["Site", "Layer", write.column("Effect"), "95% low", "95% high", "n"]
    rows = [
        [row.site, row.layer, row.effect, row.ci_low, row.ci_high, row.n]
        for row in some.itertuples()
    ]
    if sweep.exact is not None:
        columns.append("Exact")
        for row, exact in zip(rows, some["exact"], strict=True):
            row.append("yes" if exact else "no")
    caption = f"Effects on {sweep.metric}, the largest first{told}"
    return Table(caption, tuple(columns), tuple(map(tuple, rows)), digits=write.digits)


def _tips(sweep: SweepResult, frame: pd.DataFrame) -> list[str]:
    write = Writer.of(sweep)
    return [
        f"{row.site}: {write.in_units(write.change(row.effect))}, 95% interval "
        f"{write.interval(row.ci_low, row.ci_high)}{'' if row.exact else ', not exact'}"
        for row in frame.itertuples()
    ]
