"""What a sweep did, in words: to which parts, how, and in which unit its numbers are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from interp.engine import SweepResult
from interp.engine.ablation import METHODS as ABLATIONS
from interp.engine.attribution import METHODS as ESTIMATES
from interp.report.parts import decimals, interval, number
from interp.sites import MLP, At, Attn, Edge, Head, Joint, K, Neuron, Pattern, Q, Resid, Site, V

UNITS = {
    "logit_diff": "logits",
    "log_prob": "nats",
    "loss": "nats",
    "kl": "nats",
    "prob": "probability",
    "accuracy": "share right",
}
LOWER_IS_BETTER = frozenset({"loss", "kl"})
NOUNS: dict[type[Site], tuple[str, str]] = {
    Head: ("head", "heads"),
    Q: ("query", "queries"),
    K: ("key", "keys"),
    V: ("value", "values"),
    Pattern: ("attention pattern", "attention patterns"),
    Attn: ("attention layer", "attention layers"),
    MLP: ("MLP", "MLPs"),
    Resid: ("residual stream", "residual streams"),
    Neuron: ("neuron", "neurons"),
    Edge: ("edge", "edges"),
    Joint: ("set", "sets"),
}

Deed = Literal["ablate", "break", "restore", "estimate", "change"]
"""Parts are taken out, spoilt by the other run, restored from it, estimated, or changed otherwise.
"""


def deed_of(sweep: SweepResult) -> Deed:
    """What a sweep did to its sites."""
    if sweep.method in ABLATIONS:
        return "ablate"
    if sweep.method in ESTIMATES:
        return "estimate"
    if sweep.method not in ("patch", "path-patch"):
        return "change"
    return "restore" if sweep.provenance.get("direction") == "denoise" else "break"


def inner(site: Site) -> Site:
    """The part itself, wherever it is taken."""
    return site.site if isinstance(site, At) else site


def position_of(site: Site) -> str | int | None:
    """Where it is taken; None for all positions."""
    return site.position if isinstance(site, At) else None


def noun_of(sites: tuple[Site, ...], *, plural: bool = False) -> str:
    """What the sites have in common: `head`, `edges`, or `site` for parts of several kinds."""
    kinds = {NOUNS.get(type(inner(site)), ("site", "sites")) for site in sites}
    return (kinds.pop() if len(kinds) == 1 else ("site", "sites"))[plural]


def named(site: Site) -> str:
    """A site in a sentence: `head 3.5 at END`, `MLP m0 at token 8`."""
    position, noun = position_of(site), noun_of((site,))
    if position is None:
        return f"{noun} {site}"
    return (
        f"{noun} {inner(site)} at {position if isinstance(position, str) else f'token {position}'}"
    )


def article(noun: str) -> str:
    """`a head`, `an MLP`."""
    return f"an {noun}" if noun[0] in "aeM" else f"a {noun}"


def task_of(sweep: SweepResult) -> str:
    """The task whose prompts were run."""
    return str(sweep.provenance.get("task") or "the given prompts")


def how_of(sweep: SweepResult, part: str) -> str:
    """What was done to a part, as the subject of a sentence."""
    deed = deed_of(sweep)
    if deed == "ablate":
        return f"removing {part}"
    if sweep.method == "path-patch":
        run = "clean" if deed == "restore" else "corrupt"
        return f"letting the receivers read {part} of the {run} run"
    if deed == "restore":
        return f"giving the corrupt run the clean value of {part}"
    if deed == "break":
        other = "another run's" if sweep.corrupt is None else "the corrupt"
        return f"giving the clean run {other} value of {part}"
    if deed == "estimate":
        return f"giving the clean run the corrupt value of {part}, as gradients estimate it,"
    return f"the intervention at {part}"


@dataclass(frozen=True)
class Writer:
    """How the numbers of one sweep are written: its unit, and the digits that its effects need."""

    unit: str
    digits: int

    @classmethod
    def of(cls, sweep: SweepResult) -> Writer:
        """Digits after the largest mean effect."""
        means = sweep.effects.nanmean(dim=-1)
        reach = means[means.isfinite()].abs().max().item() if means.isfinite().any() else 0.0
        return cls(UNITS.get(sweep.metric, ""), decimals(reach))

    def plain(self, value: float) -> str:
        """A value of the metric."""
        return number(value, digits=self.digits)

    def change(self, value: float) -> str:
        """An effect, with its sign."""
        return number(value, sign=True, digits=self.digits)

    def interval(self, low: float, high: float) -> str:
        """Its 95% interval."""
        return interval(low, high, digits=self.digits)

    def in_units(self, written: str) -> str:
        """A number with its unit, where it has one."""
        return f"{written} {self.unit}".rstrip()

    def column(self, name: str) -> str:
        """The head of a column of numbers in this unit."""
        return f"{name} ({self.unit})" if self.unit else name
