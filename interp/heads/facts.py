"""What is published about the heads of a model, as checks that run on its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from interp.display import Displayed
from interp.errors import InterpError, ModelError
from interp.models import Model
from interp.progress import track
from interp.provenance import provenance
from interp.saved import KEPT_OUT, Saved, register

Numbers = dict[str, float]
"""What was measured, each number with its name."""


@register
@dataclass(frozen=True)
class Fact:
    """Something that holds in a model.

    Attributes:
        text: What holds.
        source: Who found it, and how sure the number is where it is not from the paper itself.
        expected: The published numbers.
        tolerance: What still counts as the same, and why it may differ.
        measure: The numbers of a model, and whether the fact holds in it; None in a fact that
            was read from a file, which holds no functions.
    """

    text: str
    source: str
    expected: str
    tolerance: str
    measure: Callable[[Model], tuple[Numbers, bool]] | None = field(default=None, metadata=KEPT_OUT)


@dataclass(frozen=True)
class FactSheet:
    """What is known of one model.

    Attributes:
        model: Its name.
        shape: Its layers, and heads in a layer.
        facts: What must hold.
    """

    model: str
    shape: tuple[int, int]
    facts: tuple[Fact, ...]


@register
@dataclass(frozen=True)
class Verdict:
    """Whether a fact holds in a model.

    Attributes:
        fact: The fact.
        measured: The numbers of the model; empty if it could not be measured.
        held: Whether it holds; what cannot be measured does not.
        error: Why it could not be measured, or "".
    """

    fact: Fact
    measured: Numbers
    held: bool
    error: str = ""


@dataclass(frozen=True)
class Verification(Saved, Displayed):
    """The verdict on every fact; `verify` makes one."""

    verdicts: tuple[Verdict, ...]
    provenance: dict[str, Any]

    @property
    def held(self) -> bool:
        """Whether all facts hold."""
        return all(verdict.held for verdict in self.verdicts)

    def to_frame(self) -> pd.DataFrame:
        """One row a fact: fact, source, expected, tolerance, measured, holds."""
        return pd.DataFrame(
            [
                {
                    "fact": verdict.fact.text,
                    "source": verdict.fact.source,
                    "expected": verdict.fact.expected,
                    "tolerance": verdict.fact.tolerance,
                    "measured": verdict.error
                    or ", ".join(f"{name} {x:.2f}" for name, x in verdict.measured.items()),
                    "holds": verdict.held,
                }
                for verdict in self.verdicts
            ]
        )

    def __repr__(self) -> str:
        held = sum(verdict.held for verdict in self.verdicts)
        return (
            f"Verification({self.provenance['model']}: {held} of {len(self.verdicts)} facts hold)"
        )


def verify(model: Model, sheet: FactSheet, *, progress: bool = True) -> Verification:
    """Measure every fact on a model.

    Args:
        model: The model that the facts are about, or one that should behave as it does.
        sheet: Such as `interp.heads.gpt2_facts.GPT2_SMALL`.
        progress: Show a bar.

    A fact that cannot be measured, as where the tokenizer lacks its words, does not hold.

    Raises:
        ModelError: A model of another shape.
    """
    shape = (model.geometry.n_layers, model.geometry.n_heads)
    if shape != sheet.shape:
        raise ModelError(
            f"{model.id} has {shape[0]} layers of {shape[1]} heads and the facts are about "
            f"{sheet.model}, which has {sheet.shape[0]} of {sheet.shape[1]}; pass its weights."
        )
    shown = track(sheet.facts, f"Verifying {model.id}", shown=progress)
    verdicts = tuple(_verdict(fact, model) for fact in shown)
    how = provenance(model, method="published facts", facts=sheet.model)
    return Verification(verdicts, how)


def _verdict(fact: Fact, model: Model) -> Verdict:
    if fact.measure is None:
        return Verdict(fact, {}, held=False, error="not measured: the fact was read from a file")
    try:
        measured, held = fact.measure(model)
    except InterpError as error:
        return Verdict(fact, {}, held=False, error=f"not measured: {error}")
    return Verdict(fact, measured, held)
