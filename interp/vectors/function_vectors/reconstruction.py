"""Is a function vector more than the words it says? Control by reconstruction (Todd et al. 2024).

Decoded on its own, through final norm and unembedding, a function vector says words, often outputs
of the function. If that were all there is to it, any vector that says the same words would do as
well. So random vectors are optimized to decode to the same distribution, and added where the
function vector was:

    minimize KL(softmax(unembed(norm(function vector))) || softmax(unembed(norm(v)))) over v

A distribution over more words than the stream has dimensions gives away the whole direction, and
then v becomes the function vector itself; `cosine` says how near it came.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine.metrics import kl
from interp.engine.replay import replay_of
from interp.errors import VectorError
from interp.models import Model
from interp.saved import Saved
from interp.vectors.function_vectors.function_vector import FunctionVector
from interp.vectors.function_vectors.injection import Injection, compare
from interp.vectors.random_vectors import random_draws

RATE = 0.3
"""Adam's first step, as a share of the size of a coordinate."""


@dataclass(frozen=True, eq=False)
class Reconstruction(Saved, Displayed):
    """Vectors that say what a function vector says, and how well they do in its place.

    Attributes:
        vectors: One for each random start, of the norm of the function vector.
        kl: How far what each says is from what the function vector says, over the words that were
            matched, in nats.
        cosine: Its cosine with the function vector.
        words: How many words were matched.
        injection: The accuracy with "function", "reconstructed" and "random" vectors.
    """

    vectors: Float[Tensor, "draws d_model"]
    kl: Float[Tensor, " draws"]
    cosine: Float[Tensor, " draws"]
    words: int
    injection: Injection

    def to_frame(self) -> pd.DataFrame:
        """The table of `Injection`, with no other columns."""
        return self.injection.to_frame()

    def plot(self) -> go.Figure:
        """Accuracy in each context with each vector."""
        return self.injection.plot()

    def __repr__(self) -> str:
        frame = self.to_frame()
        frame = frame[(frame["context"] == "zero-shot") & (frame["items"] == "all")]
        told = ", ".join(f"{row.vector} {row.accuracy:.2f}" for row in frame.itertuples())
        return (
            f"Reconstruction({self.injection.relation}, zero-shot {told}; {len(self.vectors)} "
            f"vectors on {self.words} words, KL {self.kl.mean():.1e}, cosine "
            f"{self.cosine.mean():.2f}; n = {frame['n'].iloc[0]} prompts)"
        )


def reconstruction(
    model: Model,
    function: FunctionVector,
    *,
    words: int | None = 100,
    layer: int | None = None,
    draws: int = 5,
    steps: int = 500,
    n: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> Reconstruction:
    """Optimize random vectors to say what a function vector says, and put them in its place.

    The final norm hides the length of a vector, so each is held at that of the function vector.

    Args:
        model: The one that the vector was found in.
        function: What `function_vector` returns.
        words: Match the likeliest words of what it says, among themselves; None for all words.
        layer: At whose output vectors are added; by default as in `inject`.
        draws: Random starts, and random vectors beside them.
        steps: Steps of Adam, with a rate that falls to zero.
        n: Test prompts, as in `inject`.
        seed: Of starts and prompts.
        progress: Show a bar.

    Raises:
        VectorError: A vector of another model, no draws, fewer than two words or no steps.
    """
    function.vector(0).require(model)
    count = model.geometry.d_vocab if words is None else min(words, model.geometry.d_vocab)
    if count < 2 or steps < 1:
        raise VectorError(
            f"A vector is reconstructed from {count} words in {steps} steps; use at least two "
            "words and one step."
        )
    start = random_draws(function.direction, draws, seed)
    vectors, found = says_as(model, function.direction, start, words=count, steps=steps)
    injection = compare(
        model,
        function.relation,
        {"function": function.direction[None], "reconstructed": vectors, "random": start},
        template=function.template,
        shots=function.shots,
        layer=layer,
        other=function.other,
        n=n,
        seed=seed,
        progress=progress,
    )
    asked = injection.provenance | {"function": function.options}
    injection = replace(injection, provenance=asked)
    cosine = torch.cosine_similarity(vectors, function.direction[None], dim=-1)
    return Reconstruction(vectors, found, cosine, count, injection)


def says_as(
    model: Model,
    direction: Float[Tensor, " d_model"],
    start: Float[Tensor, "draws d_model"],
    *,
    words: int,
    steps: int = 500,
) -> tuple[Float[Tensor, "draws d_model"], Float[Tensor, " draws"]]:
    """Vectors that decode as `direction` does over its likeliest words, and the divergences left.

    Args:
        model: Whose final norm and unembedding decode them.
        direction: What is matched.
        start: Where the vectors begin.
        words: How many of its likeliest words are matched, among themselves.
        steps: Steps of Adam.
    """
    replay, device, dtype = replay_of(model), model.device, model.dtype
    wide = torch.promote_types(dtype, torch.float32)
    with torch.no_grad():
        wanted = replay.logits(direction[None].to(device))
    kept = wanted[0].topk(words).indices

    def divergence(vectors: Float[Tensor, "draws d_model"]) -> Float[Tensor, " draws"]:
        logits = replay.logits(vectors.to(dtype), kept).to(wide)
        return kl(logits, wanted[:, kept].to(wide).expand_as(logits))

    norm = direction.to(wide).norm().to(device)
    free = start.to(device, wide, copy=True).requires_grad_()
    optimizer = torch.optim.Adam([free], lr=RATE * norm.item() / len(direction) ** 0.5)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(steps):
        (free.grad,) = torch.autograd.grad(divergence(free).sum(), [free])
        optimizer.step()
        falling.step()
        with torch.no_grad():
            free *= norm / free.norm(dim=-1, keepdim=True)
    vectors = free.detach()
    with torch.no_grad():
        return vectors.to(dtype).cpu(), divergence(vectors).cpu()
