"""Waves over all pairs (a, b) modulo p: how much of a function of pairs is of which frequency?

Everything here is over the whole set of p * p pairs, in the order of `all_pairs`, and in float64.
Frequencies run from 1 to (p - 1) / 2, both included: 56 for p = 113. (The loop published with Nanda
et al. 2023 ends one before.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.errors import MetricError
from interp.saved import register


def frequencies_of(p: int) -> range:
    """All frequencies modulo p.

    Raises:
        MetricError: p is even or below 3; half a period would then be a wave without a sine.

    >>> frequencies_of(113)
    range(1, 57)
    """
    if p < 3 or p % 2 == 0:
        raise MetricError(f"p is {p}; waves with a cosine and a sine each need an odd p above 1.")
    return range(1, (p + 1) // 2)


def fourier_basis(p: int) -> Float[Tensor, "component number"]:
    """Orthonormal waves over the numbers 0 to p - 1: the constant, then cos and sin by frequency.

    >>> basis = fourier_basis(5)
    >>> torch.allclose(basis @ basis.T, torch.eye(5, dtype=torch.float64))
    True
    """
    numbers = torch.arange(p, dtype=torch.float64)
    waves = [torch.ones(p, dtype=torch.float64) / math.sqrt(2)]
    for frequency in frequencies_of(p):
        angle = 2 * math.pi * frequency * numbers / p
        waves += [angle.cos(), angle.sin()]
    return torch.stack(waves) * math.sqrt(2 / p)


def transform(values: Float[Tensor, "pairs d"]) -> Float[Tensor, "of_a of_b d"]:
    """Coefficients of functions of a pair, on the products of a wave in a and a wave in b.

    Args:
        values: Row a * p + b is what each of d functions says of the pair (a, b).

    Raises:
        MetricError: The rows are not p * p for an odd p.
    """
    p = math.isqrt(len(values))
    if p * p != len(values):
        raise MetricError(
            f"{len(values)} rows are no square, so not all pairs (a, b); give one row for each of "
            "all_pairs(p)."
        )
    basis = fourier_basis(p)
    grid = values.double().unflatten(0, (p, p))
    of_a = torch.einsum("ia, abd -> ibd", basis, grid)
    return torch.einsum("jb, ibd -> ijd", basis, of_a)


@register
@dataclass(frozen=True, eq=False)
class NeuronFrequencies:
    """The frequency of each neuron, and the share of its variance over pairs that this explains."""

    frequency: Int[Tensor, " d_mlp"]
    share: Float[Tensor, " d_mlp"]


def neuron_frequencies(activations: Float[Tensor, "pairs d_mlp"]) -> NeuronFrequencies:
    """For each neuron the one frequency that explains most of its variance over pairs.

    What a frequency explains is the power of the centered activation in the products of 1, cos and
    sin of that frequency in a and in b, without the constant: 8 directions (Nanda et al. 2023). A
    neuron that says the same of all pairs has frequency 0 and share 0.
    """
    power = transform(activations.double() - activations.double().mean(dim=0)).square()
    total = power.sum(dim=(0, 1))
    blocks = [[0, 2 * frequency - 1, 2 * frequency] for frequency in range(1, len(power) // 2 + 1)]
    explained = torch.stack([power[rows][:, rows].sum(dim=(0, 1)) for rows in blocks])
    most, which = explained.max(dim=0)
    varies = total > 0
    return NeuronFrequencies(
        torch.where(varies, which + 1, 0), torch.where(varies, most / total, 0.0)
    )


def sum_waves(p: int, frequencies: Sequence[int]) -> Float[Tensor, "waves pairs"]:
    """cos w(a + b) and sin w(a + b) over all pairs, w = 2 pi frequency / p: orthonormal directions.

    Raises:
        MetricError: A frequency that there is not modulo p, or one that is given twice.

    >>> sum_waves(5, [1]).shape
    torch.Size([2, 25])
    """
    known = frequencies_of(p)
    if any(frequency not in known for frequency in frequencies):
        raise MetricError(
            f"The frequencies {list(frequencies)} are not all from 1 to {known[-1]}, which are "
            f"those modulo {p}."
        )
    if len(set(frequencies)) < len(frequencies):
        raise MetricError(f"The frequencies {list(frequencies)} name one twice; name each once.")
    numbers = torch.arange(p)
    sums = (numbers[:, None] + numbers).flatten() % p
    rows = [row for frequency in frequencies for row in (2 * frequency - 1, 2 * frequency)]
    return fourier_basis(p)[rows][:, sums] / math.sqrt(p)


def logit_shares(logits: Float[Tensor, "pairs p"]) -> Float[Tensor, " frequencies"]:
    """Share of the variance of the logits that each frequency explains by waves of a + b.

    Logits are centered over pairs. A frequency explains their projection on cos w(a + b) and
    sin w(a + b). Waves are orthogonal, so the share of a set of frequencies is the sum of theirs,
    and all together leave what depends on more than the sum.
    """
    p = logits.shape[1]
    centered = logits.double() - logits.double().mean(dim=0)
    waves = sum_waves(p, frequencies_of(p))
    explained = (waves @ centered).square().unflatten(0, (-1, 2)).sum(dim=(1, 2))
    return explained / centered.square().sum()
