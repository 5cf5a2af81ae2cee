"""Learned task vectors of functions: does a vector stand in for the examples? (Saglam et al. 2025)

x_1, y_1, ..., x_k, y_k, x_q ──► a[f, l, h]: what each head writes at x_q, mean over prompts of f
few examples of f, x_q       ──► block l ──► + sum over h of Phi[l, h] a[f, l, h] at x_q ──► y_q

Phi belongs to a class of functions, and a to one function: Phi is learned on training functions,
chosen on development functions, and judged on test functions, whose a it has never met.

A vector that is the same for every query need not be of use where what it should say depends on the
query: in the shipped model the offset and the slope of a function can both be read from a, but only
the offset, which linear functions lack, is put to use.
"""

from __future__ import annotations

import random
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from interp.display import Displayed
from interp.engine.anatomy import Part
from interp.errors import VectorError, did_you_mean
from interp.plots import head_heatmap, site_bars
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.head_sums import (
    Fit,
    add_at_end,
    fit,
    head_outputs,
    head_sums,
    permuted,
    require_steps,
)
from interp.zoo.regression import CLASSES, Functions, RegressionModel, draw_functions

STEPS, LEARNING_RATE = 300, 0.01
PROMPTS = 16
"""Prompts of each function that head outputs are averaged over, and as many to predict."""
ARMS = {
    "none": "no vector",
    "learned": "the vector of the function",
    "permuted": "the same weights, each at a random head; mean over draws",
    "other function": "the vector of another function of the class",
    "all examples": "no vector, and as many examples as the vector was made from",
}
SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, eq=False)
class RegressionVector(Saved, Displayed):
    """The weights of all heads for a class of functions, and what their vectors do.

    Attributes:
        kind: The class.
        weights: Phi.
        fit: The way there; losses are Huber losses of the prediction.
        errors: Squared error of each test function under each of `ARMS`, mean over its prompts.
        provenance: Weights hash, options, versions.
    """

    kind: str
    weights: Float[Tensor, "layer head"]
    fit: Fit = field(repr=False)
    errors: dict[str, Float[Tensor, " functions"]] = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    def excess(self, arm: str) -> tuple[float, float, float]:
        """The error of an arm minus that of the learned vector, and the ends of its 95% interval.

        Raises VectorError for an unknown arm.
        """
        if arm not in self.errors:
            raise VectorError(f"Nothing was measured of {arm!r}: {did_you_mean(arm, ARMS)}")
        gap = self.errors[arm] - self.errors["learned"]
        low, high = bootstrap_ci(gap)
        return gap.mean().item(), low.item(), high.item()

    def to_frame(self) -> pd.DataFrame:
        """One row an arm.

        Columns: arm, error (mean squared, 1 is that of predicting zero), ci_low and ci_high (95%,
        over functions), excess (it minus learned, paired) with excess_low and excess_high, n.
        """
        rows = []
        for arm, each in self.errors.items():
            low, high = bootstrap_ci(each)
            excess, excess_low, excess_high = self.excess(arm)
            rows.append(
                {
                    "arm": arm,
                    "error": each.mean().item(),
                    "ci_low": low.item(),
                    "ci_high": high.item(),
                    "excess": excess,
                    "excess_low": excess_low,
                    "excess_high": excess_high,
                    "n": len(each),
                }
            )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Squared error under each arm, with its interval."""
        frame = self.to_frame()
        return site_bars(
            frame["error"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=frame["arm"].tolist(),
            title=f"{self.kind} functions behind {self.provenance['shots']} examples "
            f"({frame['n'][0]} functions)",
            across="squared error (predicting zero: 1)",
            hover=[f"{ARMS[row.arm]}: {row.error:.3f}" for row in frame.itertuples()],
        )

    def plot_weights(self) -> go.Figure:
        """Heatmap of the weights."""
        title = f"Learned weights for {self.kind} functions"
        return head_heatmap(self.weights, title=title, colorbar="weight", diverging=True)

    def __repr__(self) -> str:
        told = ", ".join(f"{arm} {each.mean():.3f}" for arm, each in self.errors.items())
        shots, n = self.provenance["shots"], len(self.errors["none"])
        return f"RegressionVector({self.kind} behind {shots} examples, error: {told}; n = {n})"


def learn_regression_vector(
    model: RegressionModel,
    kind: str,
    *,
    shots: int = 0,
    steps: int = STEPS,
    learning_rate: float = LEARNING_RATE,
    batch: int = 32,
    functions: tuple[int, int, int] = (256, 64, 200),
    permutations: int = 5,
    seed: int = 0,
    progress: bool = True,
) -> RegressionVector:
    """Learn how much of each head's mean output to add at the query, and test it on new functions.

    Head outputs are averaged over prompts of one function, each with as many examples as the model
    holds and a query of its own.

    Args:
        model: Such as `interp.zoo.regression.load_regression()`.
        kind: "linear", "sparse" or "relu".
        shots: Examples before the query at which the vector is added.
        steps: Steps of Adam.
        learning_rate: Its step size.
        batch: Functions of a step, each with one prompt.
        functions: How many are learned from, chosen by and tested on; no two are the same.
        permutations: Draws of the control.
        seed: Of functions and prompts.
        progress: Show a bar.

    Raises:
        VectorError: An unknown class, or options that learn nothing.
    """
    require_steps(steps, learning_rate)
    most = model.config.examples
    if kind not in CLASSES:
        raise VectorError(f"No class of functions is {kind!r}: {did_you_mean(kind, CLASSES)}")
    if not 0 <= shots < most:
        raise VectorError(f"shots={shots} is not between 0 and {most - 1}, one less than all.")
    if min(*functions, batch, permutations) < 1 or functions[2] < 2:
        raise VectorError(
            f"functions={functions}, batch={batch}, permutations={permutations}; use 1 or more of "
            "each, and 2 test functions."
        )
    train, dev, test = (
        Benchmark(model, kind, n, shots, seed=f"{kind} {split} {seed}")
        for split, n in zip(SPLITS, functions, strict=True)
    )
    order = torch.Generator().manual_seed(seed)
    rows = [torch.randperm(len(train), generator=order)[:batch] for _ in range(steps)]
    start = torch.zeros(model.config.layers, model.config.heads)
    found = fit(
        lambda weights, step: train.loss(weights, rows[step - 1], prompt=step % PROMPTS),
        dev.mean_loss,
        start.to(train.outputs),
        steps=steps,
        learning_rate=learning_rate,
        progress=progress,
    )
    drawn = [permuted(found.weights, order) for _ in range(permutations)]
    turned = torch.arange(len(test)).roll(1)
    errors = {
        "none": test.errors(torch.zeros_like(found.weights)),
        "learned": test.errors(found.weights),
        "permuted": torch.stack([test.errors(each) for each in drawn]).mean(dim=0),
        "other function": test.errors(found.weights, turned),
        "all examples": test.errors_of_whole(),
    }
    source = {
        "model": "regression",
        "weights_hash": model.weights_hash,
        "method": "learned regression vector",
        "kind": kind,
        "shots": shots,
        "steps": steps,
        "step": found.step,
        "learning_rate": learning_rate,
        "batch": batch,
        "functions": list(functions),
        "permutations": permutations,
        "seed": seed,
        "versions": {name: version(name) for name in ("interp", "torch", "transformers")},
    }
    return RegressionVector(kind, found.weights, found, errors, source)


class Benchmark:
    """Some functions of a class: what heads write of them, and prompts to predict.

    A prompt to predict is a whole prompt without all but its last examples, so that the queries of
    few examples and of all are the same. None of them is among the prompts that outputs are of.

    Attributes:
        outputs: What each head writes at the query of whole prompts, mean over prompts.
        whole: Other whole prompts: points and values.
        x, y: The last points and values of those.
    """

    outputs: Float[Tensor, "functions layer head d_model"]

    def __init__(self, model: RegressionModel, kind: str, n: int, shots: int, *, seed: str) -> None:
        self.model = model
        self.blocks: Any = model.body.h
        generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(60))
        functions = draw_functions(kind, n, model.config.inputs, generator)
        self.outputs = self._outputs(*self._prompts(functions, generator))
        self.whole = self._prompts(functions, generator)
        self.x, self.y = (each[:, :, -shots - 1 :] for each in self.whole)

    def __len__(self) -> int:
        return len(self.x)

    def predicted(
        self,
        vectors: Float[Tensor, "functions layer d_model"],
        x: Float[Tensor, "functions prompts points inputs"],
        y: Float[Tensor, "functions prompts points"],
    ) -> Float[Tensor, "functions prompts"]:
        """The prediction at the query, with the vectors of its function added there."""
        each = vectors.repeat_interleave(x.shape[1], dim=0)
        with ExitStack() as hooks:
            for layer, block in enumerate(self.blocks):
                added = partial(add_at_end, vector=each[:, layer])
                hooks.enter_context(Part(block, "out").hook(added))
            found = self.model(x.flatten(0, 1), y[..., :-1].flatten(0, 1))
        return found[:, -1].view(x.shape[:2])

    def loss(
        self, weights: Float[Tensor, "layer head"], rows: Int[Tensor, " some"], prompt: int
    ) -> Float[Tensor, ""]:
        """Huber loss on one prompt of each of some functions."""
        x, y = self.x[rows, prompt, None], self.y[rows, prompt, None]
        found = self.predicted(head_sums(weights, self.outputs[rows]), x, y)
        return F.huber_loss(found, y[..., -1])

    @torch.no_grad()
    def mean_loss(self, weights: Float[Tensor, "layer head"]) -> float:
        """Huber loss on all prompts."""
        found = self.predicted(head_sums(weights, self.outputs), self.x, self.y)
        return F.huber_loss(found, self.y[..., -1]).item()

    @torch.no_grad()
    def errors(
        self,
        weights: Float[Tensor, "layer head"],
        outputs_of: Int[Tensor, " functions"] | None = None,
    ) -> Float[Tensor, " functions"]:
        """Squared error, mean over prompts; with the outputs of other functions if given."""
        outputs = self.outputs if outputs_of is None else self.outputs[outputs_of]
        found = self.predicted(head_sums(weights, outputs), self.x, self.y)
        return (found - self.y[..., -1]).square().mean(dim=1)

    @torch.no_grad()
    def errors_of_whole(self) -> Float[Tensor, " functions"]:
        """Squared error on whole prompts with nothing added, mean over prompts."""
        x, y = self.whole
        found = self.model(x.flatten(0, 1), y[..., :-1].flatten(0, 1))[:, -1]
        return (found.view(y.shape[:2]) - y[..., -1]).square().mean(dim=1)

    def _prompts(
        self, functions: Functions, generator: torch.Generator
    ) -> tuple[
        Float[Tensor, "functions prompts points inputs"], Float[Tensor, "functions prompts points"]
    ]:
        """Whole prompts of each function, and their values."""
        points = self.model.config.examples + 1
        shape = (len(functions), PROMPTS, points, self.model.config.inputs)
        x = torch.randn(shape, generator=generator)
        y = functions(x.flatten(1, 2)).unflatten(1, (PROMPTS, points))
        dtype = self.model.read_out.weight.dtype
        return x.to(dtype), y.to(dtype)

    @torch.no_grad()
    def _outputs(
        self,
        x: Float[Tensor, "functions prompts points inputs"],
        y: Float[Tensor, "functions prompts points"],
    ) -> Float[Tensor, "functions layer head d_model"]:
        kept: list[Tensor] = []
        with ExitStack() as hooks:
            for block in self.blocks:
                z = Part(block.attn.c_proj, "in")
                hooks.enter_context(z.hook(lambda each: kept.append(each[:, -1])))
            self.model(x.flatten(0, 1), y[..., :-1].flatten(0, 1))
        heads = self.model.config.heads
        means = [each.view(*x.shape[:2], heads, -1).mean(dim=1) for each in kept]
        each = zip(self.blocks, means, strict=True)
        return torch.stack([head_outputs(block.attn.c_proj, z) for block, z in each], dim=1)
