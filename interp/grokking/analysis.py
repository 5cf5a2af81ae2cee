"""Does a network add modulo p by waves, and by which?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed, as_html
from interp.grokking.fourier import NeuronFrequencies, logit_shares, neuron_frequencies
from interp.grokking.provenance import provenance_of
from interp.plots import DIVERGING, MISSING
from interp.saved import Saved
from interp.zoo.modular import ModularAdder, all_pairs

CLEAR = 0.85
"""A neuron has a frequency if this explains more of its variance (threshold of Nanda et al.)."""

FEW = 0.02
"""Fewer neurons than this share make no key frequency."""


@dataclass(frozen=True, eq=False)
class ModularAnalysis(Saved, Displayed):
    """Which frequencies the neurons and the logits of a network are made of; of all p * p pairs.

    Nothing is sampled, so no number has an interval; another run finds other key frequencies.

    Attributes:
        key_frequencies: Those that more than 2% of neurons have, ascending. A neuron has the
            frequency that explains most of its variance, if this is more than 85%.
        neurons: The best frequency of each neuron, and what it explains.
        shares: What each frequency from 1 explains of the variance of the logits.
        untrained_neurons, untrained_shares: The same of the network before its first step.
        provenance: Network and versions.
    """

    key_frequencies: tuple[int, ...]
    neurons: NeuronFrequencies
    shares: Float[Tensor, " frequencies"]
    untrained_neurons: NeuronFrequencies
    untrained_shares: Float[Tensor, " frequencies"]
    provenance: dict[str, Any]

    @property
    def explained(self) -> float:
        """Share of the variance of the logits that the key frequencies explain together."""
        return self._key(self.shares).sum().item()

    @property
    def explained_by_others(self) -> tuple[float, float]:
        """Control: the same of as many other frequencies; mean over all such sets, and the best."""
        count = len(self.key_frequencies)
        others = self.shares[~self._is_key()].sort(descending=True).values
        return count * others.mean().item(), others[:count].sum().item()

    @property
    def explained_untrained(self) -> float:
        """Control: the same of the key frequencies, in the untrained network."""
        return self._key(self.untrained_shares).sum().item()

    def _is_key(self) -> Tensor:
        key = torch.zeros(len(self.shares), dtype=torch.bool)
        key[[frequency - 1 for frequency in self.key_frequencies]] = True
        return key

    def _key(self, shares: Float[Tensor, " frequencies"]) -> Float[Tensor, " key"]:
        return shares[self._is_key()]

    def to_frame(self) -> pd.DataFrame:
        """One row a frequency.

        Columns: frequency, key, neurons (that have it), logit_share, untrained_neurons,
        untrained_logit_share.
        """
        count = len(self.shares)
        return pd.DataFrame(
            {
                "frequency": range(1, count + 1),
                "key": self._is_key().tolist(),
                "neurons": neurons_having(self.neurons, count).tolist(),
                "logit_share": self.shares.tolist(),
                "untrained_neurons": neurons_having(self.untrained_neurons, count).tolist(),
                "untrained_logit_share": self.untrained_shares.tolist(),
            }
        )

    def plot(self) -> go.Figure:
        """What each frequency explains of the logits: key ones in blue; dots are untrained."""
        frame = self.to_frame()
        figure = go.Figure()
        figure.add_bar(
            x=frame["frequency"],
            y=frame["logit_share"],
            name="trained",
            marker_color=[DIVERGING[-2] if key else MISSING for key in frame["key"]],
            hovertext=[f"{count} neurons" for count in frame["neurons"]],
        )
        figure.add_scatter(
            x=frame["frequency"],
            y=frame["untrained_logit_share"],
            name="untrained",
            mode="markers",
            marker={"color": DIVERGING[2], "size": 4},
        )
        figure.update_layout(title=f"Waves in {self.provenance['model']}", template="plotly_white")
        figure.update_xaxes(title_text="frequency")
        figure.update_yaxes(title_text="share of the variance of the logits", rangemode="tozero")
        return figure

    def __repr__(self) -> str:
        if not self.key_frequencies:
            return f"ModularAnalysis({self.provenance['model']}: no key frequencies)"
        others, best = self.explained_by_others
        return (
            f"ModularAnalysis({self.provenance['model']}: key frequencies "
            f"{', '.join(map(str, self.key_frequencies))} explain {self.explained:.1%} of the "
            f"variance of the logits; as many others {others:.2%} (at most {best:.2%}); "
            f"untrained {self.explained_untrained:.2%})"
        )

    def _repr_html_(self) -> str:
        frame = self.to_frame()
        return as_html(self, frame[frame["key"]], digits=4)


def analyze(network: ModularAdder) -> ModularAnalysis:
    """Take apart, by frequency, what a network says of all pairs, and its control's.

    The algorithm of Nanda et al. 2023 shows as a few frequencies that nearly every neuron has one
    of, and that explain nearly all of the logits as functions of a + b. The control is the network
    before any training (`ModularAdder.untrained`).

    Raises:
        MetricError: An even modulus.

    >>> analyze(ModularAdder(7))
    ModularAnalysis(modular addition, mod 7: no key frequencies)
    """
    neurons, shares = _by_frequency(network)
    untrained_neurons, untrained_shares = _by_frequency(network.untrained())
    return ModularAnalysis(
        key_frequencies=key_frequencies(neurons),
        neurons=neurons,
        shares=shares,
        untrained_neurons=untrained_neurons,
        untrained_shares=untrained_shares,
        provenance=provenance_of(network, method="analyze"),
    )


def key_frequencies(neurons: NeuronFrequencies) -> tuple[int, ...]:
    """The frequencies that more than 2% of neurons have, ascending."""
    having = neurons_having(neurons, int(neurons.frequency.max()))
    return tuple((1 + (having > FEW * len(neurons.share)).nonzero()[:, 0]).tolist())


def neurons_having(neurons: NeuronFrequencies, count: int) -> Int[Tensor, " frequencies"]:
    """How many neurons have each frequency from 1 to `count`."""
    clear = neurons.frequency[neurons.share > CLEAR]
    return torch.bincount(clear, minlength=count + 1)[1:]


@torch.no_grad()
def _by_frequency(
    network: ModularAdder,
) -> tuple[NeuronFrequencies, Float[Tensor, " frequencies"]]:
    pairs = all_pairs(network.p)
    return (
        neuron_frequencies(network.mlp_activations(pairs)),
        logit_shares(network.logits(pairs)),
    )
