"""What can be done to a site: frozen data that says it, and nothing that runs.

>>> from interp.sites import Head
>>> print(Intervention.at(Head(5, 1), Zero()))
zero 5.1
>>> print(Intervention.at(Head(5, 1), Scale(2.0), position="END"))
scale 5.1@END
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from interp.activations import Activations
from interp.errors import InterventionError, did_you_mean
from interp.prompts import PromptSet
from interp.sites import At, Edge, Joint, Pattern, Site

AVERAGES = ("all", "position", "role", "template")
"""Over which tokens a mean is taken; see `Mean`."""


class Operation:
    """Base of what can be done to an activation."""

    name: ClassVar[str]


@dataclass(frozen=True)
class Zero(Operation):
    """Replace the activation by zero."""

    name = "zero"


@dataclass(frozen=True)
class Mean(Operation):
    """Replace each token's activation by the site's own mean over tokens of the prompts.

    `over` is "all" (every real token counts alike), "position" (tokens equally far from the first),
    "role" (tokens in spans of the same roles; those in none are averaged together) or "template"
    (the same place in prompts of the same template and length; `prompts.notes["template"]`).
    Padding never counts.
    """

    over: str = "all"
    name = "mean"

    def __post_init__(self) -> None:
        if self.over not in AVERAGES:
            raise InterventionError(
                f"A mean is not taken over {self.over!r}: {did_you_mean(self.over, AVERAGES)}"
            )


@dataclass(frozen=True)
class Resample(Operation):
    """Replace the activation by that of another prompt of the same length, at the same position."""

    seed: int = 0
    name = "resample"


@dataclass(frozen=True, eq=False)
class Patch(Operation):
    """Replace the activation by that of a source run.

    `source` is "corrupt" (each prompt's counterfactual), a PromptSet aligned with the prompts, or
    Activations that were captured from as many prompts of the same lengths.
    """

    source: str | PromptSet | Activations = "corrupt"
    name = "patch"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Patch):
            return NotImplemented
        if isinstance(self.source, str) and isinstance(other.source, str):
            return self.source == other.source
        return self.source is other.source

    def __hash__(self) -> int:
        return hash(self.source) if isinstance(self.source, str) else id(self.source)


@dataclass(frozen=True)
class Scale(Operation):
    """Multiply the activation. Raises InterventionError for a factor of 1, which does nothing."""

    factor: float
    name = "scale"

    def __post_init__(self) -> None:
        if self.factor == 1:
            raise InterventionError("Scaling by 1 changes nothing; give another factor.")


@dataclass(frozen=True, eq=False)
class Add(Operation):
    """Add a vector, or one for each prompt and position. Raises InterventionError for zeros."""

    vector: Float[Tensor, "*prompts_pos features"]
    name = "add"

    def __post_init__(self) -> None:
        if not self.vector.any():
            raise InterventionError("Adding a vector of zeros changes nothing; give another one.")


@dataclass(frozen=True, eq=False)
class Set(Operation):
    """Replace the activation by a vector, or by one for each prompt and position.

    Of a Pattern it sets the attention probabilities, `[prompts, queries, keys]` as padded in the
    prompts, or `[queries, keys]` for all prompts.
    """

    value: Float[Tensor, "*prompts_pos features"]
    name = "set"


@dataclass(frozen=True, slots=True)
class Edit:
    """One operation at one site, at all positions or at one position or role."""

    site: Site
    operation: Operation
    position: str | int | None = None

    def __str__(self) -> str:
        return f"{self.operation.name} {self.label}"

    @property
    def label(self) -> Site:
        """The site with its position."""
        return self.site if self.position is None else At(self.site, self.position)


@dataclass(frozen=True, slots=True)
class Intervention:
    """Edits that are made together in one run of the model."""

    edits: tuple[Edit, ...]

    @classmethod
    def at(
        cls, site: Site, operation: Operation, *, position: str | int | None = None
    ) -> Intervention:
        """One operation at a site, which may be several (Joint) or stand at a position (At)."""
        sites = site.sites if isinstance(site, Joint) else (site,)
        return cls(tuple(_edit(each, operation, position) for each in sites))

    @property
    def label(self) -> Site:
        """The site of its result."""
        labels = dict.fromkeys(edit.label for edit in self.edits)
        return next(iter(labels)) if len(labels) == 1 else Joint(tuple(labels))

    def __str__(self) -> str:
        return ", ".join(str(edit) for edit in self.edits)


def _edit(site: Site, operation: Operation, position: str | int | None) -> Edit:
    if isinstance(site, Edge):
        raise InterventionError(
            f"{site} is an edge, which is patched and not {operation.name}ed; use interp.patch."
        )
    if isinstance(site, At):
        return _edit(site.site, operation, site.position)
    if isinstance(site, Pattern) and isinstance(operation, Mean | Add):
        raise InterventionError(
            f"{site} is a matrix of attention probabilities, whose {operation.name} is not defined "
            "for prompts of other lengths; use zero, scale, a patch, or set it."
        )
    return Edit(site, operation, position)


def everywhere(sites: Iterable[Site], operation: Operation) -> list[Intervention]:
    """The same operation at every site, one at a time."""
    return [Intervention.at(site, operation) for site in sites]
