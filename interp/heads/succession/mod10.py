"""Do numbers, days and letters share features of their place modulo 10? (Gould et al. 2023)

Three questions about what the first MLP makes of a token:

1. A linear probe learns n mod 10 from numbers. Does it read numbers of other decades?
2. Does the same probe read the place of a word in another series, modulo 10?
3. Edit the last digit: MLP0(W_E[t]) - f[t mod 10] + f[j]. Does a successor head, reading this,
   say the word after the one with last digit j?

The probe is ridge regression onto the ten digits, in closed form, where the source has a logistic
one. Whole decades are held out, so that the probe never saw the other digits of a number that it is
tested on. The features f are what the numbers of a digit have in common, their mean less the mean
of all, from the decades that were not held out: the weights of a probe say how to read a feature,
not how it is written, and have no scale. The source takes them from a sparse autoencoder.

Controls: the same probe after training on shuffled digits, and the same edit with random features
of the same lengths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize, one_hot

from interp.display import Displayed
from interp.errors import SiteError, TaskError
from interp.heads.succession.effective_ov import ov_logits
from interp.heads.succession.successor import Series, series_of, successor
from interp.heads.weights import Weights
from interp.models import Model
from interp.plots import DIVERGING, MISSING
from interp.provenance import provenance
from interp.saved import Saved, register
from interp.sites import Head, parse, validate
from interp.stats import bootstrap_ci

RIDGE = 0.1  # weight of the penalty, as a share of the mean square of the training data
HELD_OUT = 0.3  # share of decades
CONTROLS = 20  # shuffles of the digits, and draws of random features

Probe = Callable[[Float[Tensor, "words d_model"]], Int[Tensor, " words"]]


@register
@dataclass(frozen=True, eq=False)
class Digits:
    """What was measured on the words of a series; NaN where an edit leads out of it.

    Attributes:
        probe: 1 where the probe reads the place modulo 10, else 0.
        shuffled: The share of probes trained on shuffled digits that read it.
        unedited: 1 where the head says the successor of the word as it is; NaN if it has none.
        edited: 1 where the head says the successor of the word with the other last digit.
        residue: 1 where what it says has at least the last digit of that successor.
        random: The share of edits with random features after which it says that successor.
    """

    probe: Float[Tensor, " words"]
    shuffled: Float[Tensor, " words"]
    unedited: Float[Tensor, " words"]
    edited: Float[Tensor, "words digits"]
    residue: Float[Tensor, "words digits"]
    random: Float[Tensor, "words digits"]


@dataclass(frozen=True, eq=False)
class Mod10(Saved, Displayed):
    """Whether the first MLP writes places modulo 10, and whether a head reads them.

    Attributes:
        head: Whose effective OV matrix the edits go through.
        series: What was measured on the words of each series; of the numbers, on the held-out ones.
        provenance: Model, weights hash, seed, how the numbers were split.
    """

    head: Head
    series: dict[str, Digits]
    provenance: dict[str, Any]

    def to_frame(self) -> pd.DataFrame:
        """One row a series, and one for all but the numbers.

        Columns: series; n (words), probe (share read right), probe_low and probe_high (95%, over
        words), probe_shuffled (control); n_edits, edited (share of edits after which the head says
        the right word), edited_low and edited_high (over words), edited_random (control),
        edited_residue (share with the right last digit), unedited (share of words of which it says
        the successor without an edit).
        """
        rest = [digits for name, digits in self.series.items() if name != "numbers"]
        pooled = {"all but numbers": _pooled(rest)} if rest else {}
        return pd.DataFrame([_row(*row) for row in (self.series | pooled).items()])

    def plot(self) -> go.Figure:
        """Of each series, what the probe reads and what the head follows, beside their controls."""
        frame, figure = self.to_frame(), go.Figure()
        for column, name, color in (
            ("probe", "probe", DIVERGING[-2]),
            ("probe_shuffled", "probe, digits shuffled", MISSING),
            ("edited", "head, edited", DIVERGING[1]),
            ("edited_random", "head, random features", DIVERGING[3]),
        ):
            figure.add_bar(x=frame["series"], y=frame[column], name=name, marker_color=color)
        title = f"Places modulo 10 in {self.provenance['model']}, head {self.head}"
        figure.update_layout(title=title, template="plotly_white", barmode="group")
        figure.update_yaxes(title_text="share of words or edits", range=[0, 1])
        return figure

    def __repr__(self) -> str:
        numbers = _row("numbers", self.series["numbers"])
        return (
            f"Mod10({self.provenance['model']}: the probe reads {numbers['probe']:.0%} of "
            f"{numbers['n']} held-out numbers ({numbers['probe_shuffled']:.0%} with shuffled "
            f"digits); {self.head} follows {numbers['edited']:.0%} of {numbers['n_edits']} edits "
            f"({numbers['edited_random']:.0%} with random features))"
        )


@torch.no_grad()
def mod10(
    model: Model, head: Head | str | None = None, *, norm: bool = True, seed: int = 0
) -> Mod10:
    """Whether words of series share features of their place modulo 10, and a head reads them.

    >>> import interp
    >>> from interp.heads.succession.mod10 import mod10
    >>> mod10(interp.load("polymath"), "2.6").series["days"].edited.shape
    torch.Size([7, 10])

    Args:
        model: With an MLP in its first block, and numbers that are single tokens.
        head: Behind layer 0; by default the one with the highest score of `successor`.
        norm: Whether tokens go through the norm before the first MLP.
        seed: Of the split, the shuffles and the random features.

    Raises:
        TaskError: Too few numbers are single tokens.
        SiteError: No such head, or one of layer 0, which stands before the first MLP.
        UnsupportedModel: No MLP in the first block, or values that cannot be told apart.
    """
    weights, random = Weights(model), torch.Generator().manual_seed(seed)
    series = {each.name: each for each in series_of(model)[0]}
    held_out = _held_out(model, series.get("numbers"), random)
    site = _head(model, head, norm)
    written = {
        name: weights.first_mlp(weights.embed(each.tokens), norm=norm).double().cpu()
        for name, each in series.items()
    }

    known, digit = written["numbers"][~held_out], series["numbers"].places[~held_out] % 10
    probe = fit(known, digit)
    shuffled = [
        fit(known, digit[torch.randperm(len(digit), generator=random)]) for _ in range(CONTROLS)
    ]
    features = torch.stack([known[digit == each].mean(dim=0) for each in range(10)])
    features = features - known.mean(dim=0)
    noise = torch.randn(CONTROLS, *features.shape, generator=random, dtype=torch.float64)
    noise = normalize(noise, dim=-1) * features.norm(dim=-1, keepdim=True)

    def says(
        stream: Float[Tensor, "*shape d_model"], tokens: Int[Tensor, " targets"]
    ) -> Float[Tensor, "*shape targets"]:
        flat = stream.flatten(0, -2).to(model.device, weights.dtype)
        logits = ov_logits(weights, site.layer, flat, tokens)[site.head]
        return logits.double().cpu().unflatten(0, stream.shape[:-1])

    measured = {}
    for name, each in series.items():
        rows = held_out if name == "numbers" else torch.ones_like(each.places).bool()
        stream, places = written[name][rows], each.places[rows]
        following, expected = each.at(places + 1), _expected(each, places)
        # The head is linear, so an edit of what it reads is an edit of the logits.
        plain, adds, controls = (says(read, each.tokens) for read in (stream, features, noise))
        said = _edited(plain, adds, places).argmax(dim=-1)
        by_chance = [_edited(plain, one, places).argmax(dim=-1) == expected for one in controls]
        measured[name] = Digits(
            probe=(probe(stream) == places % 10).double(),
            shuffled=_share([one(stream) == places % 10 for one in shuffled]),
            unedited=_where(following, plain.argmax(dim=-1) == following),
            edited=_where(expected, said == expected),
            residue=_where(expected, each.places[said] % 10 == each.places[expected] % 10),
            random=_where(expected, _share(by_chance)),
        )
    decades = (series["numbers"].places[held_out] // 10).unique().tolist()
    return Mod10(
        head=site,
        series=measured,
        provenance=provenance(model, norm=norm, seed=seed, held_out_decades=decades),
    )


def fit(stream: Float[Tensor, "words d_model"], digit: Int[Tensor, " words"]) -> Probe:
    """A linear probe for digits: ridge regression, solved among the words, which are fewer."""
    mean = stream.mean(dim=0)
    centred = stream - mean
    gram = centred @ centred.T
    targets = one_hot(digit, 10).to(stream)
    penalty = RIDGE * gram.diagonal().mean() * torch.eye(len(stream)).to(stream)
    solved = torch.linalg.solve(gram + penalty, targets - targets.mean(dim=0))
    reads, offset = centred.T @ solved, targets.mean(dim=0)
    return lambda other: ((other - mean) @ reads + offset).argmax(dim=-1)


def _head(model: Model, head: Head | str | None, norm: bool) -> Head:
    if head is None:
        ranked = successor(model, norm=norm).score.order()
        behind = [each for each in ranked if each.layer]
        if not behind:
            raise SiteError(f"{model.id} has one layer, and no head stands behind its first MLP.")
        return behind[0]
    site = parse(head) if isinstance(head, str) else head
    if not isinstance(site, Head) or site.layer == 0:
        raise SiteError(
            f"{head} does not read the first MLP; name a head of a later layer, such as '1.0'."
        )
    validate(site, model.geometry)
    return site


def _held_out(
    model: Model, numbers: Series | None, random: torch.Generator
) -> Bool[Tensor, " numbers"]:
    """Which numbers the probe is tested on: those of some decades. Raises TaskError."""
    if numbers is not None:
        decades = (numbers.places // 10).unique()
        chosen = torch.randperm(len(decades), generator=random)[
            : math.ceil(HELD_OUT * len(decades))
        ]
        held_out = torch.isin(numbers.places // 10, decades[chosen])
        if len((numbers.places[~held_out] % 10).unique()) == 10:
            return held_out
    raise TaskError(
        f"{model.id} has too few numbers that are single tokens to learn the last digit from; use "
        "a tokenizer that keeps the numbers of several decades."
    )


def _expected(series: Series, places: Int[Tensor, " words"]) -> Int[Tensor, "words digits"]:
    """The successor of each word with another last digit; -1 where there is none."""
    moved = (places - places % 10)[:, None] + torch.arange(10)
    inside = (moved >= 1) & (moved <= series.length) & (moved != places[:, None])
    exists = inside & (series.at(moved) >= 0)
    return torch.where(exists, series.at(moved + 1), -1)


def _edited(
    plain: Float[Tensor, "words targets"],
    adds: Float[Tensor, "digits targets"],
    places: Int[Tensor, " words"],
) -> Float[Tensor, "words digits targets"]:
    """Logits with the feature of a word's own digit taken out, and that of each digit put in."""
    return (plain - adds[places % 10])[:, None] + adds


def _share(votes: Sequence[Bool[Tensor, "*shape"]]) -> Float[Tensor, "*shape"]:
    return torch.stack(list(votes)).double().mean(dim=0)


def _where(expected: Int[Tensor, "*shape"], values: Tensor) -> Float[Tensor, "*shape"]:
    return torch.where(expected >= 0, values.double(), math.nan)


def _pooled(parts: Sequence[Digits]) -> Digits:
    return Digits(
        **{
            field.name: torch.cat([getattr(part, field.name) for part in parts])
            for field in fields(Digits)
        }
    )


def _row(name: str, digits: Digits) -> dict[str, Any]:
    by_word = digits.edited.nanmean(dim=-1)
    (probe_low, edited_low), (probe_high, edited_high) = (
        ends.tolist() for ends in bootstrap_ci(torch.stack([digits.probe, by_word]))
    )
    return {
        "series": name,
        "n": len(digits.probe),
        "probe": digits.probe.mean().item(),
        "probe_low": probe_low,
        "probe_high": probe_high,
        "probe_shuffled": digits.shuffled.mean().item(),
        "n_edits": int((~digits.edited.isnan()).sum()),
        "edited": by_word.nanmean().item(),
        "edited_low": edited_low,
        "edited_high": edited_high,
        "edited_random": digits.random.nanmean(dim=-1).nanmean().item(),
        "edited_residue": digits.residue.nanmean(dim=-1).nanmean().item(),
        "unedited": digits.unedited.nanmean().item(),
    }
