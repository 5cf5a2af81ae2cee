"""Sites: the places in a model where activations are read and interventions act."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from typing import Protocol, runtime_checkable

from interp.errors import SiteError

POINTS = ("pre", "mid", "post")
"""Where a residual stream is read: entering the block, before its MLP, leaving the block."""


@runtime_checkable
class Sizes(Protocol):
    """What `heads` and `validate` need to know of a model: `interp.models.Geometry` has both."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""

    @property
    def n_heads(self) -> int:
        """Query heads in each block."""


@runtime_checkable
class HasSizes(Protocol):
    """A model: anything with a `geometry`."""

    @property
    def geometry(self) -> Sizes:
        """Its sizes."""


@total_ordering
class Site:
    """Base of all sites. They sort in the order in which a model computes them."""

    layer: int

    @property
    def hook(self) -> str:
        """TransformerLens name of the activation that the site is, or is a part of."""
        raise NotImplementedError

    @property
    def _order(self) -> tuple[int, int, int]:
        """Layer, step within the layer, head."""
        raise NotImplementedError

    def __lt__(self, other: object) -> bool:
        return self._order < other._order if isinstance(other, Site) else NotImplemented


@dataclass(frozen=True)
class Head(Site):
    """The output z of one attention head, before its output projection. Printed `5.1`."""

    layer: int
    head: int

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"

    @property
    def hook(self) -> str:
        """Every head of the layer, `[prompts, pos, head, d_head]`; this head is a part of it."""
        return f"blocks.{self.layer}.attn.hook_z"

    @property
    def _order(self) -> tuple[int, int, int]:
        return self.layer, 1, self.head


@dataclass(frozen=True)
class MLP(Site):
    """What the MLP of a block adds to the residual stream. Printed `m3`."""

    layer: int

    def __str__(self) -> str:
        return f"m{self.layer}"

    @property
    def hook(self) -> str:
        """The output of the MLP, `[prompts, pos, d_model]`."""
        return f"blocks.{self.layer}.hook_mlp_out"

    @property
    def _order(self) -> tuple[int, int, int]:
        return self.layer, 3, 0


@dataclass(frozen=True)
class Resid(Site):
    """The residual stream at a point of a block: "pre", "mid" or "post". Printed `r4.pre`."""

    layer: int
    point: str = "pre"

    def __str__(self) -> str:
        return f"r{self.layer}.{self.point}"

    @property
    def hook(self) -> str:
        """The residual stream, `[prompts, pos, d_model]`."""
        return f"blocks.{self.layer}.hook_resid_{self.point}"

    @property
    def _order(self) -> tuple[int, int, int]:
        return self.layer, {"pre": 0, "mid": 2, "post": 4}.get(self.point, 5), 0


_HEAD = re.compile(r"(\d+)\.(\d+)")
_MLP = re.compile(r"m(\d+)|blocks\.(\d+)\.hook_mlp_out")
_RESID = re.compile(r"r(\d+)\.(pre|mid|post)|blocks\.(\d+)\.hook_resid_(pre|mid|post)")
_LAYER_OF_HEADS = re.compile(r"blocks\.(\d+)\.attn\.hook_z")


def parse(text: str) -> Site:
    """The site that is printed as `text`, or that a TransformerLens hook name stands for.

    Raises SiteError for anything else, and for `blocks.5.attn.hook_z`, which is many heads at once.

    >>> parse("5.1"), parse("m3"), parse("blocks.4.hook_resid_pre")
    (Head(layer=5, head=1), MLP(layer=3), Resid(layer=4, point='pre'))
    >>> str(parse("r4.mid")), parse("5.1").hook
    ('r4.mid', 'blocks.5.attn.hook_z')
    """
    text = text.strip()
    if found := _HEAD.fullmatch(text):
        return Head(int(found[1]), int(found[2]))
    if found := _MLP.fullmatch(text):
        return MLP(int(found[1] or found[2]))
    if found := _RESID.fullmatch(text):
        return Resid(int(found[1] or found[3]), found[2] or found[4])
    if found := _LAYER_OF_HEADS.fullmatch(text):
        raise SiteError(
            f"{text} holds every head of layer {found[1]} and a site is one of them; "
            f"write {found[1]}.0 for the first."
        )
    raise SiteError(
        f"{text!r} is not a site; write a head as 5.1, an MLP as m3, a residual stream as r4.pre, "
        "r4.mid or r4.post, or use a TransformerLens name such as blocks.3.hook_mlp_out."
    )


def heads(model: HasSizes | Sizes) -> tuple[Head, ...]:
    """Every attention head of a model, or of its geometry: layer by layer.

    >>> from types import SimpleNamespace
    >>> [str(head) for head in heads(SimpleNamespace(n_layers=2, n_heads=2))]
    ['0.0', '0.1', '1.0', '1.1']
    """
    sizes = model.geometry if isinstance(model, HasSizes) else model
    return tuple(
        Head(layer, head) for layer in range(sizes.n_layers) for head in range(sizes.n_heads)
    )


def validate(site: Site, sizes: Sizes) -> None:
    """Raise SiteError unless the model has this site."""
    _in_range(site, "layer", site.layer, sizes.n_layers)
    if isinstance(site, Head):
        _in_range(site, "head", site.head, sizes.n_heads)
    if isinstance(site, Resid) and site.point not in POINTS:
        raise SiteError(
            f"{site} reads the residual stream at {site.point!r}; use one of {', '.join(POINTS)}."
        )


def resolve(sites: Iterable[Site | str] | None, model: HasSizes) -> tuple[Site, ...]:
    """Sites from sites or their printed forms, each of them in the model; None is every head.

    Raises SiteError for a site outside the model, one given twice, and an empty list.
    """
    if sites is None:
        return heads(model)
    if isinstance(sites, str | Site):
        sites = [sites]
    found = [parse(site) if isinstance(site, str) else site for site in sites]
    for index, site in enumerate(found):
        validate(site, model.geometry)
        if site in found[:index]:
            raise SiteError(f"{site} is given twice; give each site once.")
    if not found:
        raise SiteError("There are no sites to act on; give at least one, or None for every head.")
    return tuple(found)


def _in_range(site: Site, what: str, value: int, count: int) -> None:
    if not 0 <= value < count:
        raise SiteError(
            f"{site} is outside the model: its {what} is {value}, and {what}s are numbered "
            f"0 to {count - 1}."
        )
