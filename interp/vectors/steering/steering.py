"""Contrastive activation addition: a vector between two answers, added to steer to one of them.

v_l = mean over contrast pairs of h_l(positive) - h_l(negative), where h_l leaves block l at the
answer token (Rimsky et al. 2024). To steer, m * v_l is added at the prompt's last token and at all
that is written behind it.

A vector works if it moves probability from one answer to the other. Moving it to all other tokens,
or to .5 each, is a broken model: see `strengths.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine import Add, Edit, Intervention
from interp.engine.end_logits import edited_end_logits, end_logits
from interp.engine.groups import groups
from interp.engine.memory import largest_group
from interp.engine.replay import replay_of
from interp.errors import VectorError
from interp.models import Model
from interp.plots import DIVERGING, MISSING
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Resid
from interp.stats import bootstrap_ci
from interp.vectors.steering.contrasts import Behavior, Contrast, asked
from interp.vectors.vector import Vector

SHUFFLES = 5
"""Vectors from pairs whose answers were exchanged in half of the pairs."""
LOGITS = 2**25
"""Numbers of logits that are held at once."""


@dataclass(frozen=True, eq=False)
class SteeringVector(Saved, Displayed):
    """A behavior's vector in every layer, and what each does on the dev pairs.

    Attributes:
        behavior: Its contrast pairs.
        vectors: Mean difference between positive and negative answer, leaving each block.
        shuffled: The same with positive and negative exchanged in half of the pairs, scaled to the
            norm of `vectors`: what is left when the behavior is averaged out.
        gains: On each dev pair, half of what `strength` times the vector adds to the positive
            answer's probability and `-strength` times to the negative one's.
        strength: See `gains`.
        layer: The one chosen: asked for, or with the highest mean gain.
        provenance: Model, weights hash, pairs, versions.
    """

    behavior: Behavior
    vectors: Float[Tensor, "layer d_model"]
    shuffled: Float[Tensor, "draws layer d_model"]
    gains: Float[Tensor, "layer prompts"]
    strength: float
    layer: int
    provenance: dict[str, Any]

    @property
    def vector(self) -> Vector:
        """That of the chosen layer, to save and to write with."""
        return self.at(self.layer)

    def at(self, layer: int) -> Vector:
        """That of one layer. Raises VectorError for a layer that does not exist."""
        require_layer(layer, len(self.vectors))
        told = self.provenance | {"layer": layer}
        return Vector({layer: self.vectors[layer]}, "add", "steering", told, position="AFTER")

    def to_frame(self) -> pd.DataFrame:
        """One row a layer.

        Columns: layer, gain (mean over dev pairs), ci_low, ci_high, norm (of the vector), chosen, n
        (dev pairs).
        """
        low, high = bootstrap_ci(self.gains)
        layers = range(len(self.vectors))
        return pd.DataFrame(
            {
                "layer": layers,
                "gain": self.gains.mean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "norm": self.vectors.norm(dim=-1).tolist(),
                "chosen": [layer == self.layer for layer in layers],
                "n": self.gains.shape[1],
            }
        )

    def plot(self) -> go.Figure:
        """The gain of each layer with its interval; the chosen layer is dark."""
        frame = self.to_frame()
        figure = go.Figure()
        figure.add_bar(
            x=frame["layer"],
            y=frame["gain"],
            error_y={
                "type": "data",
                "array": frame["ci_high"] - frame["gain"],
                "arrayminus": frame["gain"] - frame["ci_low"],
                "thickness": 1,
            },
            marker_color=[DIVERGING[-2] if chosen else MISSING for chosen in frame["chosen"]],
        )
        title = f"Steering to {self.behavior.name} in {self.provenance['model']}, by layer"
        figure.update_layout(title=title, template="plotly_white")
        figure.update_xaxes(title_text="layer", dtick=1)
        figure.update_yaxes(title_text="gain in probability (dev pairs)")
        return figure

    def __repr__(self) -> str:
        gain = self.gains[self.layer].mean()
        return (
            f"SteeringVector({self.behavior.name!r}, layer {self.layer}, gain {gain:+.2f} at "
            f"strength {self.strength:g} on {self.gains.shape[1]} dev pairs)"
        )


def steering_vector(
    model: Model,
    behavior: Behavior,
    *,
    layer: int | None = None,
    strength: float = 1.0,
    seed: int = 0,
    progress: bool = True,
) -> SteeringVector:
    """The vector of a behavior in every layer, from its training pairs; a layer from its dev pairs.

    Args:
        model: In eval mode.
        behavior: What `between_relations`, `from_task`, `read_contrasts` or `behavior` returns.
        layer: Taken without a choice.
        strength: Multiplier at which layers are compared, above 0.
        seed: Of the shuffled pairs.
        progress: Show a bar.

    Raises:
        VectorError: A layer that does not exist, a strength of 0 or less, or pairs whose mean
            difference is zero.
        PromptError: Prompts that do not fit, or answers of several tokens.
    """
    if not strength > 0:
        raise VectorError(f"strength={strength} does not steer; layers are compared above 0.")
    if layer is not None:
        require_layer(layer, model.geometry.n_layers)
    differences = answer_streams(model, behavior.train, "positive")
    differences = differences - answer_streams(model, behavior.train, "negative")
    vectors = differences.mean(dim=1).to(model.dtype)
    if not vectors.norm(dim=-1).all():
        raise VectorError(
            f"The answers of {behavior.name!r} leave the same mean activation in a layer; give "
            "pairs whose positive answers differ from the negative ones."
        )
    prompts = asked(model, behavior.dev)
    clean = responses(model, prompts, [None])[0]
    both = [
        added({i: sign * strength * vector}) for i, vector in enumerate(vectors) for sign in (1, -1)
    ]
    found = responses(model, prompts, both, progress=progress).unflatten(0, (-1, 2))
    up, down = found[:, 0, :, 0] - clean[:, 0], found[:, 1, :, 1] - clean[:, 1]
    gains = (up + down) / 2
    return SteeringVector(
        behavior=behavior,
        vectors=vectors,
        shuffled=_shuffled(differences, seed).to(model.dtype),
        gains=gains,
        strength=strength,
        layer=int(gains.mean(dim=-1).argmax()) if layer is None else layer,
        provenance=provenance(
            model,
            prompts,
            method="contrastive activation addition",
            behavior=behavior.name,
            pairs=len(behavior.train),
            strength=strength,
            layer_was="chosen on the dev pairs" if layer is None else "given",
            shuffle_seed=seed,
        ),
    )


@torch.no_grad()
def answer_streams(
    model: Model, contrasts: Sequence[Contrast], answer: str
) -> Float[Tensor, "layer prompts d_model"]:
    """What leaves each block at the answer token, "positive" or "negative", in float64."""
    prompts = asked(model, contrasts)
    tokens = prompts.answer if answer == "positive" else prompts.wrong
    assert tokens is not None
    rows = [row[real] for row, real in zip(prompts.clean, prompts.mask, strict=True)]
    ended = PromptSet.from_tokens(
        [[*row.tolist(), token] for row, token in zip(rows, tokens[:, 0].tolist(), strict=True)],
        answer=tokens,
    )
    require_fit(model, ended)
    replay, shape = replay_of(model), model.geometry
    streams = torch.empty(shape.n_layers, len(ended), shape.d_model, dtype=torch.float64)
    for group in groups(ended, largest_group(replay, ended)):
        left = replay.clean(group.tokens).stream[1:]
        streams[:, group.rows] = torch.stack([each[:, -1] for each in left]).double().cpu()
    return streams


def responses(
    model: Model,
    prompts: PromptSet,
    interventions: Sequence[Intervention | None],
    *,
    progress: bool = False,
) -> Float[Tensor, "sites prompts answers"]:
    """Probability of the positive answer, the negative one and all other tokens; they sum to 1.

    None is the model as it is.
    """
    assert prompts.wrong is not None
    answers = torch.cat([prompts.answer[:, :1], prompts.wrong[:, :1]], dim=1)
    found = torch.empty(len(interventions), len(prompts), 3, dtype=torch.float64)
    changes = [(i, each) for i, each in enumerate(interventions) if each is not None]
    at_once = max(1, LOGITS // (len(prompts) * model.geometry.d_vocab))
    if len(changes) < len(interventions):
        found[:] = _shares(end_logits(model, prompts)[None], answers)
    starts = range(0, len(changes), at_once)
    for start in track(starts, "Steering", shown=progress):
        some = changes[start : start + at_once]
        logits = edited_end_logits(model, prompts, [each for _, each in some])
        found[[i for i, _ in some]] = _shares(logits, answers)
    return found


def _shares(
    logits: Float[Tensor, "sites prompts vocab"], answers: Int[Tensor, "prompts 2"]
) -> Float[Tensor, "sites prompts answers"]:
    probs = logits.double().softmax(dim=-1).cpu()
    two = probs.gather(-1, answers.cpu().expand(len(probs), -1, -1))
    return torch.cat([two, 1 - two.sum(dim=-1, keepdim=True)], dim=-1)


def added(vectors: Mapping[int, Float[Tensor, " d_model"]]) -> Intervention | None:
    """Vectors added at the last token, layer by layer; None where all are zero."""
    edits = [
        Edit(Resid(layer, "post"), Add(vector), "END")
        for layer, vector in vectors.items()
        if vector.any()
    ]
    return Intervention(tuple(edits)) if edits else None


def _shuffled(
    differences: Float[Tensor, "layer pairs d_model"], seed: int
) -> Float[Tensor, "draws layer d_model"]:
    """Means of as many differences as of exchanged ones; one pair is left out of an odd number.

    Exactly half: with a fixed pair of answers the differences are all alike, and any majority,
    scaled to the full norm, would be the vector itself. Where pairs are few and their differences
    unequal, some of the vector remains, and the control is a strict one.
    """
    generator, pairs = torch.Generator().manual_seed(seed), differences.shape[1]
    even = pairs - pairs % 2
    drawn = []
    for _ in range(SHUFFLES):
        order = torch.randperm(pairs, generator=generator)[:even]
        half = differences[:, order[: even // 2]] - differences[:, order[even // 2 :]]
        mean = half.mean(dim=1)
        drawn.append(torch.nn.functional.normalize(mean, dim=-1))
    return torch.stack(drawn) * differences.mean(dim=1).norm(dim=-1, keepdim=True)


def require_layer(layer: int, n_layers: int) -> None:
    """Raise VectorError for a layer that does not exist."""
    if not 0 <= layer < n_layers:
        raise VectorError(
            f"Layer {layer} does not exist; the model's blocks are 0 to {n_layers - 1}."
        )
