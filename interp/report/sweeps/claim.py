"""The largest effect of a sweep, beside those of all comparable sites: what is claimed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp.circuits.evaluate import faithfulness_of, interval, resampler
from interp.engine import SweepResult
from interp.report.parts import Claim, Verdict, of
from interp.report.sweeps.words import (
    Writer,
    deed_of,
    how_of,
    inner,
    named,
    noun_of,
    position_of,
    task_of,
)
from interp.sites import Resid
from interp.stats import bootstrap_ci

MANY = 20
"""Sites from which on the middle nine tenths of them are told; the whole range of fewer."""


@dataclass(frozen=True)
class Crowd:
    """What other sites do.

    Attributes:
        count: How many there are.
        told: Which ones, such as `the other 47 heads`.
        median: Of their mean effects.
        low, high: Ends of the middle nine tenths of MANY or more, else the smallest and largest.
    """

    count: int
    told: str
    median: float
    low: float
    high: float

    @property
    def most(self) -> str:
        """How many of them are between `low` and `high`."""
        return "nine in ten" if self.count >= MANY else "all"


@dataclass(frozen=True)
class Largest:
    """The site with the largest mean effect, among those that were measured exactly if there are.

    Attributes:
        row: Of the sweep.
        name: As it is printed.
        effect, low, high: Mean effect and its 95% interval.
        n: Prompts that it was run on.
        crowd: The sites that it is compared with; None if there are none.
    """

    row: int
    name: str
    effect: float
    low: float
    high: float
    n: int
    crowd: Crowd | None


def largest(sweep: SweepResult) -> Largest:
    """The site that is claimed."""
    means = sweep.effects.nanmean(dim=-1).double().cpu()
    known = means.isfinite()
    exact = known if sweep.exact is None else known & sweep.exact.cpu()
    candidates = exact if exact.any() else known
    row = int(torch.where(candidates, means.abs(), -1.0).argmax())
    low, high = (end.item() for end in bootstrap_ci(sweep.effects[row]))
    return Largest(
        row=row,
        name=str(sweep.sites[row]),
        effect=means[row].item(),
        low=low,
        high=high,
        n=int((~sweep.values[row].isnan()).sum()),
        crowd=_crowd(sweep, row, means, known),
    )


def _crowd(
    sweep: SweepResult, row: int, means: Float[Tensor, " sites"], known: Bool[Tensor, " sites"]
) -> Crowd | None:
    """All other sites; of a residual stream at a position those elsewhere.

    At one position the stream of one layer hands what it holds to the next, so that its effects
    there are one finding.
    """
    site, others = sweep.sites[row], known.clone()
    others[row] = False
    where = ""
    if isinstance(inner(site), Resid) and position_of(site) is not None:
        elsewhere = torch.tensor([position_of(each) != position_of(site) for each in sweep.sites])
        if (others & elsewhere).any():
            others, where = others & elsewhere, " at other positions"
    values = means[others]
    if not len(values):
        return None
    ends = torch.tensor([0.05, 0.95] if len(values) >= MANY else [0.0, 1.0]).double()
    low, high = torch.quantile(values, ends).tolist()
    noun = noun_of(sweep.sites, plural=len(values) > 1)
    told = f"the {len(values):,} {noun}{where}" if where else f"the other {len(values):,} {noun}"
    return Crowd(len(values), told, values.median().item(), low, high)


def claim_of(sweep: SweepResult, best: Largest) -> Claim:
    """What the largest effect is, found where all of its interval is beyond zero and the others."""
    write = Writer.of(sweep)
    start = sweep.baseline.mean().item()
    if math.isclose(best.effect, 0.0, abs_tol=1e-12):
        return Claim(
            f"On {task_of(sweep)}, no {noun_of(sweep.sites)} changes {sweep.metric}.",
            f"All {len(sweep.sites):,} effects are zero; {of(best.n)}.",
            "not found",
        )
    how = how_of(sweep, named(sweep.sites[best.row]))
    verb = "raises" if best.effect > 0 else "lowers"
    return Claim(
        f"On {task_of(sweep)}, {how} {verb} {sweep.metric} the most: from "
        f"{write.plain(start)} to {write.in_units(write.plain(start + best.effect))}.",
        "; ".join(
            [
                f"Effect {write.change(best.effect)} ({write.interval(best.low, best.high)})",
                *_share_told(sweep, best),
                _beside(best.crowd, write),
                *_reservation(sweep, best),
                f"{of(best.n)}.",
            ]
        ),
        _verdict(sweep, best),
    )


def shares(
    sweep: SweepResult, rows: Int[Tensor, " rows"]
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"], Float[Tensor, " rows"]] | None:
    """Each site's share of the gap between the clean and the corrupt run, with its 95% interval.

    A ratio of means, in which prompts are resampled with both runs. None where there is no corrupt
    run, where not all of the prompts were run, and where the gap's own interval contains 0, so that
    shares of it mean nothing.
    """
    if sweep.corrupt is None or sweep.values[rows].isnan().any():
        return None
    start, end = sweep.clean.double().cpu(), sweep.corrupt.double().cpu()
    if deed_of(sweep) == "restore":
        start, end = end, start
    means = resampler(len(start))
    low, high = interval(means(end - start))
    if not (low > 0 or high < 0):
        return None
    values = sweep.values[rows].double().cpu()
    point = faithfulness_of(values, end, start)
    return point, *interval(faithfulness_of(values, end, start, "f", means))


def _share_told(sweep: SweepResult, best: Largest) -> list[str]:
    found = shares(sweep, torch.tensor([best.row])) if deed_of(sweep) != "ablate" else None
    if found is None:
        return []
    point, low, high = (f"{end.item():.0%}".replace("-", "−") for end in found)
    ends = "corrupt to clean" if deed_of(sweep) == "restore" else "clean to corrupt"
    return [f"{point} of the way from {ends} ({low} to {high})"]


def _beside(crowd: Crowd | None, write: Writer) -> str:
    if crowd is None:
        return "no other site to compare it with"
    if crowd.count == 1:
        return f"{crowd.told}: {write.change(crowd.median)}"
    return (
        f"{crowd.told}: median {write.change(crowd.median)}, {crowd.most} between "
        f"{write.change(crowd.low)} and {write.change(crowd.high)}"
    )


def _reservation(sweep: SweepResult, best: Largest) -> list[str]:
    """Why the numbers are not the last word, if they are not."""
    if sweep.exact is None or sweep.exact.all():
        return []
    if error := sweep.provenance.get("error"):
        return [
            f"computed in {sweep.provenance['dtype']}, whose effects were at most "
            f"{error['max']:.2g} off on {error['sites']} sites"
        ]
    if not sweep.exact[best.row]:
        return ["an estimate, to be confirmed by patching this site"]
    rest = int((~sweep.exact).sum())
    return [f"{rest:,} of {len(sweep.sites):,} sites were only estimated or tried on few prompts"]


def _verdict(sweep: SweepResult, best: Largest) -> Verdict:
    """Found: exact (or within a measured error), and beyond zero and the crowd on its side."""
    error = sweep.provenance.get("error")
    if best.crowd is None or not math.isfinite(best.low + best.high):
        return "doubtful"
    if sweep.exact is not None and not sweep.exact[best.row] and error is None:
        return "doubtful"
    slack = 0.0 if error is None else float(error["max"])
    if best.effect > 0:
        clear = best.low - slack > max(0.0, best.crowd.high)
    else:
        clear = best.high + slack < min(0.0, best.crowd.low)
    return "found" if clear else "doubtful"
