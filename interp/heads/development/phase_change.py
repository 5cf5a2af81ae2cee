"""`phase_change`: at which step does a curve over training turn, if it does?

The mean curve over samples is fitted with three shapes, as functions of x = log(step + s), where s
is the first step above 0:

    flat      y = a                                    1 number
    drift     y = a + b x                              2
    change    y = a + b sigmoid((x - c) / w)           4

and the change counts as found where its Bayesian information criterion, T log(RSS / T) + k log T
over the T checkpoints, is lower than that of both others by `EVIDENCE` or more. (10 is "very
strong" evidence in the scale of Kass and Raftery 1995.) Center c and width w are searched on a
grid, since a and b then have a closed form: there is no starting point, and no local minimum to end
in. Centers lie between the second checkpoint and the last but one, so that a change next to either
end rests on a single value, and deserves more checkpoints.

How abrupt a change is says its `window`, from 10% to 90% of it. A slow curve that levels off is
found too, with a window as long as the training.

The interval of c is a bootstrap over samples, widened to the checkpoints that enclose it, as
nothing is known of the steps between them. It says how well this run's change is located; another
run, of another seed, may change elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import MetricError
from interp.saved import Saved

EVIDENCE = 10.0
FEWEST = 6
CENTERS, WIDTHS = 200, 24
RISE = 2 * math.log(9)
"""A sigmoid of width 1 goes from 10% to 90% within this."""


@dataclass(frozen=True)
class PhaseChange(Saved, Displayed):
    """Where a curve over training changes, or that it does not.

    Attributes:
        name: What the curve is.
        found: Whether a change describes the curve better than a flat line or a steady drift.
        step: Center of the change, in training steps; NaN if none was found, as the next three.
        ci: Interval of the center: 95% over samples, widened to the nearest checkpoints.
        window: Steps at which 10% and 90% of the change is done.
        levels: The values before and after.
        better_than_flat: By how much the information criterion prefers the change to a flat line.
        better_than_drift: The same against a straight line in the logarithm of the step.
        n: Samples.
    """

    name: str
    found: bool
    step: float
    ci: tuple[float, float]
    window: tuple[float, float]
    levels: tuple[float, float]
    better_than_flat: float
    better_than_drift: float
    n: int

    def __repr__(self) -> str:
        if not self.found:
            flat = self.better_than_flat < EVIDENCE
            other = "a flat line" if flat else "a steady drift"
            return f"PhaseChange({self.name}: none; {other} fits as well, n = {self.n})"
        return (
            f"PhaseChange({self.name}: step {self.step:.0f} [{self.ci[0]:.0f}, {self.ci[1]:.0f}], "
            f"from {self.levels[0]:.2f} to {self.levels[1]:.2f}, mostly within steps "
            f"{self.window[0]:.0f} to {self.window[1]:.0f}, n = {self.n})"
        )


def phase_change(
    steps: Sequence[int],
    values: Float[Tensor, "steps samples"],
    *,
    name: str = "curve",
    resamples: int = 1000,
    seed: int = 0,
) -> PhaseChange:
    """Locate the phase change of a curve, or say that it has none.

    Args:
        steps: Training step of each checkpoint, ascending.
        values: The curve of each sample. Steps without any value are left out, and so is a sample
            that lacks a value at another step.
        name: What the curve is.
        resamples: Of the samples, for the interval.
        seed: Of the resamples.

    Raises:
        MetricError: Fewer than 6 checkpoints, steps that do not ascend, or no whole sample.

    >>> steps = range(0, 2000, 100)
    >>> jump = torch.tensor([0.1 if step < 900 else 0.8 for step in steps])
    >>> phase_change(steps, jump[:, None].repeat(1, 3), name="jump")
    PhaseChange(jump: step 849 [800, 900], from 0.10 to 0.80, mostly within steps 836 to 862, n = 3)
    """
    at, curves = _whole(steps, values)
    shift = float(at[at > 0].min())
    x = (at + shift).log()
    grid = _Grid.over(x)
    mean = curves.mean(dim=1)
    best = grid.best(mean[:, None])
    center, width = (float(each[best]) for each in (grid.centers, grid.widths))
    shape = torch.sigmoid((x - center) / width)
    change = _criterion(_residual(mean, shape), 4, len(x))
    over_flat = _criterion(_residual(mean, None), 1, len(x)) - change
    over_drift = _criterion(_residual(mean, x), 2, len(x)) - change
    if min(over_flat, over_drift) < EVIDENCE:
        none = (math.nan, math.nan)
        return PhaseChange(
            name, False, math.nan, none, none, none, over_flat, over_drift, curves.shape[1]
        )
    picks = torch.randint(
        curves.shape[1],
        (resamples, curves.shape[1]),
        generator=torch.Generator().manual_seed(seed),
    )
    centers = grid.centers[grid.best(curves[:, picks].mean(dim=2))]
    low, high = torch.quantile(centers, torch.tensor([0.025, 0.975], dtype=x.dtype)).tolist()
    slope = float(_slope(mean, shape))
    before = float(mean.mean() - slope * shape.mean())
    return PhaseChange(
        name,
        True,
        step=math.exp(center) - shift,
        ci=(float(at[x <= low][-1]), float(at[x >= high][0])),
        window=(
            math.exp(center - width * RISE / 2) - shift,
            math.exp(center + width * RISE / 2) - shift,
        ),
        levels=(before, before + slope),
        better_than_flat=over_flat,
        better_than_drift=over_drift,
        n=curves.shape[1],
    )


@dataclass(frozen=True, eq=False)
class _Grid:
    """Sigmoids of all centers and widths, centered and of length 1."""

    centers: Float[Tensor, " shapes"]
    widths: Float[Tensor, " shapes"]
    shapes: Float[Tensor, "shapes steps"]

    @classmethod
    def over(cls, x: Float[Tensor, " steps"]) -> _Grid:
        """From a jump between two checkpoints to a rise over most of the training."""
        span = float(x[-1] - x[0])
        first, last = float(x[1]), float(x[-2])
        inner = torch.linspace(first, last, CENTERS + 2, dtype=x.dtype)[1:-1]
        thin = float(x.diff().min()) / 8
        reach = torch.linspace(math.log(thin), math.log(span / 6), WIDTHS, dtype=x.dtype).exp()
        centers, widths = (each.flatten() for each in torch.meshgrid(inner, reach, indexing="ij"))
        shapes = torch.sigmoid((x - centers[:, None]) / widths[:, None])
        shapes = shapes - shapes.mean(dim=1, keepdim=True)
        return cls(centers, widths, shapes / shapes.norm(dim=1, keepdim=True))

    def best(self, curves: Float[Tensor, "steps many"]) -> Int[Tensor, " many"]:
        """Index of the shape that leaves the least of each curve."""
        return (self.shapes @ (curves - curves.mean(dim=0))).abs().argmax(dim=0)


def _whole(
    steps: Sequence[int], values: Float[Tensor, "steps samples"]
) -> tuple[Float[Tensor, " kept"], Float[Tensor, "kept whole"]]:
    at = torch.tensor(list(steps), dtype=torch.float64)
    if len(at) != len(values) or (at.diff() <= 0).any():
        raise MetricError(
            f"A curve needs one ascending step for each of its {len(values)} values, and "
            f"{len(at)} were given; sort them and leave repeated ones out."
        )
    curves = values.double()
    known = ~curves.isnan().all(dim=1)
    at, curves = at[known], curves[known]
    curves = curves[:, ~curves.isnan().any(dim=0)]
    if len(at) < FEWEST:
        raise MetricError(
            f"A phase change cannot be told from noise on {len(at)} checkpoints; measure at least "
            f"{FEWEST}."
        )
    if curves.shape[1] == 0:
        raise MetricError("No sample has a value at every checkpoint; give one that does.")
    return at, curves


def _slope(y: Float[Tensor, " steps"], shape: Float[Tensor, " steps"]) -> Float[Tensor, ""]:
    centered = shape - shape.mean()
    return (centered @ (y - y.mean())) / (centered @ centered)


def _residual(y: Float[Tensor, " steps"], shape: Float[Tensor, " steps"] | None) -> float:
    """Sum of squares that the best multiple of a shape, plus a constant, leaves."""
    left = y - y.mean()
    if shape is not None:
        left = left - _slope(y, shape) * (shape - shape.mean())
    rounding = 1e-7 * float(y.abs().max())  # of float32; a perfect fit has a finite criterion
    return float(left @ left) + len(y) * rounding**2


def _criterion(residual: float, numbers: int, steps: int) -> float:
    return steps * math.log(residual / steps) + numbers * math.log(steps) if residual > 0 else 0.0
