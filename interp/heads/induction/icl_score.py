"""In-context learning score: how much better are late tokens predicted than early ones?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.activations.batches import batch_size_for, require_fit
from interp.display import Displayed
from interp.errors import PromptError
from interp.heads.attention import longest_copy, repeated_tokens
from interp.models import Model
from interp.plots import site_bars
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci

EARLY, LATE, LENGTH = 50, 500, 512
"""The tokens that Olsson et al. 2022 compare, and how long their texts are."""


@dataclass(frozen=True, eq=False)
class ICLScore(Saved, Displayed):
    """Losses at an early and at a late token, in nats.

    Attributes:
        losses: Of the token at each of the two positions, in every sequence.
        shuffled: The same two tokens, when all others before the late one are in random order: the
            control, which keeps the words of the context and takes their order.
        positions: The two columns, counted from the first token, which is 0.
        provenance: Model, weights hash, sequences, seed and versions.
    """

    losses: Float[Tensor, "2 sequences"]
    shuffled: Float[Tensor, "2 sequences"]
    positions: tuple[int, int]
    provenance: dict[str, Any]

    @property
    def values(self) -> Float[Tensor, " sequences"]:
        """Late loss minus early loss; below 0 where context helped."""
        return self.losses[1] - self.losses[0]

    @property
    def control(self) -> Float[Tensor, " sequences"]:
        """The same difference on the shuffled sequences."""
        return self.shuffled[1] - self.shuffled[0]

    @property
    def score(self) -> float:
        """Mean over sequences."""
        return self.values.mean().item()

    def ci(self, *, level: float = 0.95) -> tuple[float, float]:
        """Bootstrap confidence interval of the score over sequences: its low and high ends."""
        low, high = bootstrap_ci(self.values, level=level)
        return low.item(), high.item()

    def to_frame(self) -> pd.DataFrame:
        """The sequences as they are, shuffled, and the difference of both, paired by sequence.

        Columns: sequences, score, ci_low, ci_high (95%), early and late (mean losses), n.
        """
        losses = torch.stack([self.losses, self.shuffled, self.losses - self.shuffled])
        scores = losses[:, 1] - losses[:, 0]
        low, high = bootstrap_ci(scores)
        return pd.DataFrame(
            {
                "sequences": ["as they are", "shuffled", "difference"],
                "score": scores.mean(dim=-1).tolist(),
                "ci_low": low.tolist(),
                "ci_high": high.tolist(),
                "early": losses[:, 0].mean(dim=-1).tolist(),
                "late": losses[:, 1].mean(dim=-1).tolist(),
                "n": losses.shape[-1],
            }
        )

    def plot(self) -> go.Figure:
        """A bar for each row of `to_frame`: the score, with its interval."""
        frame, (early, late) = self.to_frame(), self.positions
        return site_bars(
            frame["score"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=frame["sequences"].tolist(),
            title=f"In-context learning of {self.provenance['model']}",
            across=f"loss at token {late} less loss at token {early} (nats)",
            hover=[f"{row.early:.3f} to {row.late:.3f}" for row in frame.itertuples()],
        )

    def __repr__(self) -> str:
        (low, high), (early, late) = self.ci(), self.positions
        return (
            f"ICLScore({self.provenance['model']}: {self.score:.3f} [{low:.3f}, {high:.3f}] nats "
            f"from token {early} to {late}, {self.control.mean():.3f} shuffled; "
            f"n = {len(self.values)} sequences)"
        )


def icl_score(
    model: Model,
    sequences: PromptSet | Int[Tensor, "sequences pos"] | None = None,
    *,
    positions: tuple[int, int] | None = None,
    n: int = 64,
    seed: int = 0,
    progress: bool = True,
) -> ICLScore:
    """Loss of the 500th token minus loss of the 50th: the more negative, the more context helps.

    Args:
        model: What `interp.load` returns.
        sequences: Text such as the model was trained on, as tokens; padding is masked. Without it,
            `n` sequences of BOS and 50 random tokens (or half of a short context) said again and
            again, up to 512 tokens or the context. The early token is then in the first copy and
            the late one in the last, so that the score says how well the model repeats: more than
            natural text gives, and to be compared with other scores on random text alone.
        positions: Columns of the early and the late token, counted from the first, which is 0. By
            default 50 and 500 where every sequence has them; in shorter ones the last token of the
            shortest, and the token at a tenth of its column.
        n: Random sequences; given sequences are all used.
        seed: Of the random tokens, and of the shuffling.
        progress: Show a bar.

    Raises:
        PromptError: Sequences too short for the positions, or longer than the model reads.

    Olsson et al. 2022 average 10,000 texts of 512 tokens. Shuffling is a control that they do not
    have; another one is `icl_score(model.untrained())`, about 0.

    >>> import interp
    >>> icl_score(interp.load("induction"), n=4).positions
    (6, 62)
    """
    task = "given"
    if sequences is None:
        copy = min(EARLY, longest_copy(model))
        copies = (min(LENGTH, model.geometry.n_ctx) - 1) // copy
        sequences = repeated_tokens(model, n=n, seq_len=copy, seed=seed, copies=copies)
        task = "repeated random tokens"
    if isinstance(sequences, Tensor):
        sequences = PromptSet.from_tokens(sequences, answer=sequences[:, -1], task=task)
    require_fit(model, sequences)
    places = _places(sequences, positions)
    mixed = _shuffled(sequences, places, seed)
    size = batch_size_for(model, sequences)
    starts = range(0, len(sequences), size)
    batches = [each[start : start + size] for each in (sequences, mixed) for start in starts]
    losses = torch.cat(
        [
            _losses(model, batch, places)
            for batch in track(batches, f"Losses of {model.id}", shown=progress)
        ],
        dim=1,
    )
    return ICLScore(
        losses=losses[:, : len(sequences)],
        shuffled=losses[:, len(sequences) :],
        positions=places,
        provenance=provenance(model, sequences, positions=list(places), seed_of_shuffling=seed),
    )


def _places(sequences: PromptSet, positions: tuple[int, int] | None) -> tuple[int, int]:
    """The two columns. Raises PromptError if a sequence lacks one."""
    lengths = sequences.mask.sum(dim=-1)
    shortest = int(lengths.min())
    if positions is None:
        late = min(LATE, shortest - 1)
        positions = (EARLY if late == LATE else max(1, late // 10), late)
    early, late = positions
    if not 1 <= early < late < shortest:
        raise PromptError(
            f"The tokens at {early} and {late} are compared, and sequence {int(lengths.argmin())} "
            f"has {shortest} tokens; give positions with 1 <= early < late < {shortest}, or longer "
            "sequences."
        )
    return early, late


def _shuffled(sequences: PromptSet, positions: tuple[int, int], seed: int) -> PromptSet:
    """The same sequences with all tokens but the first and those measured in random order."""
    early, late = positions
    moved = torch.tensor([column for column in range(1, late) if column != early])
    generator = torch.Generator().manual_seed(seed)
    tokens = sequences.clean.cpu().clone()
    for row, start in zip(tokens, sequences.mask.int().argmax(dim=-1).tolist(), strict=True):
        order = torch.randperm(len(moved), generator=generator)
        row[start + moved] = row[start + moved[order]]
    return PromptSet.from_tokens(tokens, answer=sequences.answer.cpu(), mask=sequences.mask.cpu())


@torch.no_grad()
def _losses(
    model: Model, sequences: PromptSet, positions: tuple[int, int]
) -> Float[Tensor, "2 sequences"]:
    """Loss of the tokens at the two columns, each predicted from the column before it."""
    tokens, mask = sequences.clean.to(model.device), sequences.mask.to(model.device)
    rows = torch.arange(len(tokens), device=model.device)
    columns = mask.int().argmax(dim=-1) + torch.tensor(positions, device=model.device)[:, None]
    logits = model.logits(tokens, mask=mask)[rows, columns - 1]
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    said = tokens[rows, columns][..., None]
    return -logits.log_softmax(dim=-1).gather(-1, said)[..., 0].cpu()
