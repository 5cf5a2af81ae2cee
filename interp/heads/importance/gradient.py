"""How much does a behaviour need each head, by the gradient of a gate on it?

After Michel, Levy and Neubig 2019, "Are sixteen heads really better than one?".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine import METRICS
from interp.engine.anatomy import Part
from interp.engine.gradients import frozen, largest_group
from interp.engine.groups import Group, groups
from interp.engine.metrics import Metric, kl, resolve
from interp.engine.replay import Replay, replay_of
from interp.engine.sweep import require_ready
from interp.errors import InterventionError, MetricError, did_you_mean
from interp.heads.tables import columns, control_columns, head_names
from interp.models import Model
from interp.models.quantised import require_gradients
from interp.plots import head_heatmap
from interp.progress import track
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.sites import Head
from interp.sites import heads as all_heads

RESTS = ("zero", "mean")
"""What a head with a closed gate gives: nothing, or its mean over all tokens of the prompts."""


@dataclass(frozen=True, eq=False)
class Importance(Saved, Displayed):
    """How fast the metric changes as the gate of each head is moved.

    Attributes:
        slopes: The derivative of each prompt's metric with respect to a gate on each head; NaN for
            heads that were out already. Closing the gate changes the metric by minus the slope, to
            first order.
        metric: Name of the metric.
        method: What a closed gate gives, "zero" or "mean".
        provenance: Where it comes from.
    """

    slopes: Float[Tensor, "layer head prompts"]
    metric: str
    method: str
    provenance: dict[str, Any]

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """The importance of each head: the mean absolute slope over prompts."""
        return self.slopes.abs().mean(dim=-1)

    @property
    def normalized(self) -> Float[Tensor, "layer head"]:
        """The importances of each layer divided by their L2 norm."""
        return self.grid / (self.grid.square().nansum(dim=1, keepdim=True).sqrt() + 1e-20)

    def order(self, *, normalized: bool = True) -> list[Head]:
        """The heads that are not out, the least important first."""
        grid = self.normalized if normalized else self.grid
        ranked = grid.flatten().argsort(stable=True).tolist()  # NaN comes last
        known = ranked[: int((~grid.isnan()).sum())]
        return [Head(*divmod(index, grid.shape[1])) for index in known]

    def to_frame(self) -> pd.DataFrame:
        """One row a head.

        Columns: head, importance, ci_low and ci_high (95%, over prompts), normalized, slope (mean,
        with its sign), others (mean importance of the other heads of the layer, the control),
        difference (importance minus others, with difference_low and difference_high), n.
        """
        sizes = self.slopes.abs()
        return pd.DataFrame(
            {
                "head": head_names(self.grid),
                **columns("importance", sizes, ("ci_low", "ci_high")),
                "normalized": self.normalized.flatten().tolist(),
                "slope": self.slopes.mean(dim=-1).flatten().tolist(),
                **control_columns(sizes),
                "n": sizes.shape[-1],
            }
        )

    def plot(self) -> go.Figure:
        """Heatmap of the importances."""
        model = self.provenance["model"]
        return head_heatmap(
            self.grid,
            title=f"Gradient importance of the heads of {model}",
            colorbar=f"mean |d {self.metric} / d gate|",
        )

    def __repr__(self) -> str:
        best = self.order(normalized=False)[::-1][:3]
        named = ", ".join(f"{head} {self.grid[head.layer, head.head]:.3f}" for head in best)
        return f"Importance({self.metric}: {named}; n = {self.slopes.shape[-1]} prompts)"


def gradient_importance(
    model: Model,
    prompts: PromptSet,
    *,
    metric: str = "loss",
    method: str = "zero",
    out: Iterable[Head] = (),
    progress: bool = True,
) -> Importance:
    """I_h = E_x |dL / dxi_h|, with xi_h = 1 a gate on the output of head h (= E_x |z_h . dL/dz_h|).

    >>> import interp
    >>> model = interp.load("polymath")
    >>> prompts = interp.tasks.get("ioi").sample(model, n=4, seed=0)
    >>> gradient_importance(model, prompts).grid.shape
    torch.Size([6, 8])

    A head's output is r + xi (z - r), where r is what a closed gate gives. Michel et al. have
    r = 0. The gate acts at all positions of a prompt at once and the absolute value is taken once a
    prompt, as their equation has it; the code published with the paper takes it at each position
    and adds these up, which is as large or larger. Their loss is that of training, ours that of
    the answers at the last token.

    Args:
        model: In eval mode.
        prompts: What it is run on.
        metric: A name in METRICS with a gradient.
        method: What a closed gate gives: "zero", or "mean" over all tokens of the prompts.
        out: Heads whose gate is closed already: the importance of the others without them.
        progress: Show a bar.

    Raises:
        MetricError: A metric that is unknown or without a gradient.
        InterventionError: An unknown method, no head left, a model in training mode, or gradients
            that are off for good.
        PromptError, ModelError: What their names say.
    """
    require_ready(model)
    require_fit(model, prompts)
    measure, closed = _measure(metric), set(out)
    if method not in RESTS:
        raise InterventionError(f"There is no method {method!r}: {did_you_mean(method, RESTS)}")
    require_gradients(model, "Gradient importance takes")
    if torch.is_inference_mode_enabled():
        raise InterventionError(
            "Gradients do not exist in torch.inference_mode(); call gradient_importance outside."
        )
    if closed >= set(all_heads(model)):
        raise InterventionError(f"All heads of {model.id} are out; leave at least one in.")
    replay = replay_of(model)
    some = groups(prompts, largest_group(model, prompts))
    rest = _rest(replay, some, method)
    shape = (model.geometry.n_layers, model.geometry.n_heads)
    gates = torch.ones(shape, dtype=model.dtype, device=model.device)
    for head in closed:
        gates[head.layer, head.head] = 0
    dtype = torch.promote_types(model.dtype, torch.float32)
    slopes = torch.empty(*shape, len(prompts), dtype=dtype)
    for group in track(some, "Gradients", shown=progress):
        slopes[..., group.rows] = _slopes(replay, group, measure, gates, rest).to("cpu", dtype)
    slopes[(gates == 0).cpu()] = torch.nan
    out_names = [str(head) for head in sorted(closed)]
    how = {"metric": measure.name, "method": method, "out": out_names}
    return Importance(slopes, measure.name, method, provenance(model, prompts, **how))


def _measure(metric: str) -> Metric:
    measure = resolve(metric)
    if not measure.is_ours or measure.function is kl:
        smooth = ", ".join(sorted(set(METRICS) - {"kl", "accuracy"}))
        raise MetricError(
            f"{measure.name} has no gradient of use for a gate: kl has none in the clean run, and "
            f"functions of the user's are not known to keep prompts apart; use one of {smooth}."
        )
    return measure


@torch.no_grad()
def _rest(replay: Replay, some: list[Group], method: str) -> list[Float[Tensor, "head d_head"]]:
    """What a head with a closed gate gives, for each layer."""
    model, count = replay.model, 0
    sums = [
        torch.zeros(replay.width(layer, "z"), dtype=torch.float64, device=model.device)
        for layer in range(replay.n_layers)
    ]
    for group in some if method == "mean" else ():
        for total, z in zip(sums, replay.clean(group.tokens, ["z"]).parts["z"], strict=True):
            total += z.sum(dim=(0, 1), dtype=torch.float64)
        count += group.columns.numel()
    return [
        (each / max(1, count)).to(model.dtype).view(model.geometry.n_heads, -1) for each in sums
    ]


def _slopes(
    replay: Replay,
    group: Group,
    measure: Metric,
    gates: Float[Tensor, "layer head"],
    rest: list[Float[Tensor, "head d_head"]],
) -> Float[Tensor, "layer head group"]:
    """The gradient of each prompt's metric with respect to its own gates."""
    body = replay.body
    own = gates[:, None].repeat(1, len(group), 1).requires_grad_()

    def gated(layer: int) -> Callable[[Tensor], Tensor]:
        def gate(z: Tensor) -> Tensor:
            heads = z.reshape(*group.columns.shape, *rest[layer].shape)
            opened = rest[layer] + own[layer][:, None, :, None] * (heads - rest[layer])
            return opened.reshape(z.shape)

        return gate

    with frozen(body.module), torch.enable_grad(), ExitStack() as hooks:
        hooks.enter_context(Part(body.unembed, "in").hook(lambda hidden: hidden[:, -1:]))
        for layer, block in enumerate(body.blocks):
            hooks.enter_context(block.parts["z"].hook(gated(layer)))
        logits = replay.call(group.tokens.to(replay.model.device))[:, -1]
        values = measure(logits, group.prompts[group.rows], clean=logits)
        if not values.requires_grad:
            raise MetricError(
                f"The metric {measure.name} has no gradient: it counts; use a smooth one such as "
                "loss or logit_diff."
            )
        (slopes,) = torch.autograd.grad(values.sum(), own)
    return slopes.transpose(1, 2)
