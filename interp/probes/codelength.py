"""How many bits do the labels cost someone who knows the states? Online codes.

Minimum description length of probes (Voita and Titov 2020, "Information-theoretic probing with
minimum description length"). The labels are sent in blocks; each block is coded with a probe that
was fitted on those before it:

    L = t1 log2 K + sum over later blocks of -log2 p(labels | states),    compression = n log2 K / L

Compression is 1 when states tell nothing and grows with how much they tell and how easily. The
probes are those of `linear.py`, where the paper has networks. A regression knows only classes that
it has seen, so blocks before which some class is missing cost log2 K a label, as the first does.

Read a compression beside that of the shuffled labels, not beside 1: a regression with more features
than prompts is sure of what it guesses, and codes random labels at more than log2 K bits each.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.errors import ProbeError
from interp.models import Model
from interp.plots.colors import MISSING
from interp.probes.controls import conditions, untrained_states, word_types
from interp.probes.directions import fit
from interp.probes.linear import probe_provenance
from interp.probes.result import COLORS
from interp.probes.split import Label, encode
from interp.probes.states import layer_names, states
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.stats import bootstrap_ci

FRACTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
"""Shares of the prompts at which the blocks end."""


@dataclass(frozen=True, eq=False)
class CodeLength(Saved, Displayed):
    """The bits of each prompt's label, in each layer, of the task and of its controls.

    Attributes:
        layers: Names of the layers.
        classes: The labels.
        bits: By condition ("task", "control", "shuffled", "untrained"), in the order sent.
        order: Rows of the prompts, in the order sent.
        ends: Prompts sent at the end of each block.
        provenance: Where it comes from.
    """

    layers: tuple[str, ...]
    classes: tuple[Label, ...]
    bits: dict[str, Float[Tensor, "layer prompts"]]
    order: Int[Tensor, " prompts"]
    ends: tuple[int, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.order)

    def length(self, condition: str = "task") -> Float[Tensor, " layer"]:
        """L in bits, of all prompts."""
        return self.bits[condition].sum(dim=-1)

    def compression(self, condition: str = "task") -> Float[Tensor, " layer"]:
        """n log2 K / L."""
        return self.n * math.log2(len(self.classes)) / self.length(condition)

    def to_frame(self) -> pd.DataFrame:
        """One row a layer.

        Columns: layer, bits (L), compression, and the compression of each control: control,
        shuffled, untrained. Each compression has its `_low` and `_high` (95%, bootstrap over
        prompts with the probes as they are). uniform (n log2 K, in bits), n.
        """
        uniform = math.log2(len(self.classes))
        columns: dict[str, Any] = {"layer": self.layers, "bits": self.length().tolist()}
        for condition, bits in self.bits.items():
            name = "compression" if condition == "task" else condition
            low, high = bootstrap_ci(bits)
            columns[name] = self.compression(condition).tolist()
            columns[f"{name}_low"] = (uniform / high).tolist()
            columns[f"{name}_high"] = (uniform / low).tolist()
        return pd.DataFrame(columns | {"uniform": self.n * uniform, "n": self.n})

    def plot(self) -> go.Figure:
        """Compression by layer, of the task and the controls; dotted: states that tell nothing."""
        figure = go.Figure()
        for name in self.bits:
            figure.add_scatter(
                x=list(self.layers),
                y=self.compression(name).tolist(),
                name=name,
                line={"color": COLORS[name]},
            )
        figure.add_hline(y=1, line={"color": MISSING, "dash": "dot"})
        told = self.provenance.get("model", "given states")
        figure.update_layout(title=f"Online codes of {told}", template="plotly_white")
        figure.update_xaxes(title_text="layer", type="category")
        figure.update_yaxes(title_text="compression", rangemode="tozero")
        return figure

    def __repr__(self) -> str:
        best = int(self.compression().argmax())
        beside = ", ".join(
            f"{name} {float(self.compression(name)[best]):.2f}"
            for name in self.bits
            if name != "task"
        )
        return (
            f"CodeLength(best layer {self.layers[best]}: {float(self.length()[best]):.0f} bits, "
            f"compression {float(self.compression()[best]):.2f} ({beside}); n = {self.n} prompts)"
        )


def codelength(
    model: Model,
    prompts: PromptSet,
    labels: Sequence[Label] | Int[Tensor, " prompts"],
    *,
    kind: str = "resid",
    position: str | int = "END",
    types: str | Sequence[Hashable] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
) -> CodeLength:
    """Bits of the labels, coded online from the states of each layer.

    Args:
        model, prompts, labels, kind, position, types: As of `interp.probes.linear.probe`.
        fractions: Shares of the prompts at which blocks end, rising to 1. Of few prompts the first
            blocks are empty, and are left out.
        seed: Of the order, the controls and the untrained model.

    Raises:
        ProbeError: What `probe` refuses, or fractions that do not rise to 1.
    """
    classes, _ = encode(labels, len(prompts))
    kinds, where = word_types(prompts, types, position=position, classes=len(classes))
    return codelength_of_states(
        states(model, prompts, kind=kind, position=position),
        labels,
        types=kinds,
        untrained=untrained_states(model, prompts, kind=kind, position=position, seed=seed),
        layers=layer_names(model, kind),
        fractions=fractions,
        seed=seed,
        provenance=probe_provenance(model, prompts, kind, position, where, seed)
        | {"method": "online code", "fractions": list(fractions)},
    )


def codelength_of_states(
    read: Float[Tensor, "layer prompts d_model"],
    labels: Sequence[Label] | Int[Tensor, " prompts"],
    *,
    types: Sequence[Hashable],
    untrained: Float[Tensor, "layer prompts d_model"] | None = None,
    layers: Sequence[str] | None = None,
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    provenance: dict[str, Any] | None = None,
) -> CodeLength:
    """The same for states that are at hand; see `interp.probes.linear.probe_states`.

    Raises:
        ProbeError: Labels or types that make no probe, or fractions that do not rise to 1.
    """
    n_layers, n, _ = read.shape
    classes, truth = encode(labels, n)
    ends = block_ends(n, fractions)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    compared = conditions(read, truth, types, untrained=untrained, seed=seed)
    return CodeLength(
        layers=tuple(layers or map(str, range(n_layers))),
        classes=classes,
        bits={
            name: online_bits(each.states[:, order], each.truth[order], len(classes), ends)
            for name, each in compared.items()
        },
        order=order,
        ends=ends,
        provenance=dict(provenance or {}),
    )


def block_ends(n: int, fractions: Sequence[float] = FRACTIONS) -> tuple[int, ...]:
    """Prompts sent at the end of each block.

    Raises ProbeError for fractions that do not rise to 1.

    >>> block_ends(100)
    (1, 2, 3, 6, 12, 25, 50, 100)
    """
    shares = list(fractions)
    if not shares or shares != sorted(set(shares)) or shares[0] <= 0 or shares[-1] != 1:
        raise ProbeError(f"The fractions {shares} do not rise from above 0 to 1.")
    return tuple(dict.fromkeys(end for end in (round(n * share) for share in shares) if end))


def online_bits(
    read: Float[Tensor, "layer prompts d_model"],
    truth: Int[Tensor, " prompts"],
    classes: int,
    ends: Sequence[int],
) -> Float[Tensor, "layer prompts"]:
    """Bits of each label, by a probe of the blocks before its own."""
    bits = torch.full(read.shape[:2], math.log2(classes), dtype=torch.float64)
    for start, end in pairwise(ends):
        if len(truth[:start].unique()) == classes:
            probes = fit(read[:, :start], truth[:start], range(classes))
            said = probes.probabilities(read[:, start:end])
            bits[:, start:end] = -said[:, torch.arange(end - start), truth[start:end]].log2()
    return bits
