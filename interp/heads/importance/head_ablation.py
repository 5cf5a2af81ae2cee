"""What happens without each head, and with one head left in a layer.

After Michel, Levy and Neubig 2019, "Are sixteen heads really better than one?".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import Intervention, run
from interp.engine.ablation import operation_of
from interp.errors import InterventionError
from interp.heads.tables import columns, control_columns, head_names, together
from interp.models import Model
from interp.plots import head_heatmap
from interp.prompts import PromptSet
from interp.saved import Saved
from interp.sites import Head


@dataclass(frozen=True, eq=False)
class HeadAblation(Saved, Displayed):
    """The metric without each head, or with each head as the only one of its layer.

    Attributes:
        values: The metric on each prompt, for each head.
        layer_out: The metric with all heads of each layer out.
        clean: The metric of the model left as it is.
        left: "others" if a head was taken out, "head" if all others of its layer were.
        metric: Name of the metric.
        method: What took the place of what is out.
        provenance: Where it comes from.
    """

    values: Float[Tensor, "layer head prompts"]
    layer_out: Float[Tensor, "layer prompts"]
    clean: Float[Tensor, " prompts"]
    left: str
    metric: str
    method: str
    provenance: dict[str, Any]

    @property
    def effects(self) -> Float[Tensor, "layer head prompts"]:
        """What each ablation changes: value minus clean."""
        return self.values - self.clean

    @property
    def grid(self) -> Float[Tensor, "layer head"]:
        """Mean effect over prompts."""
        return self.effects.mean(dim=-1)

    def to_frame(self) -> pd.DataFrame:
        """One row a head.

        Columns: head, mean (metric), effect (mean minus clean), ci_low and ci_high (of the effect,
        95%, over prompts), others (mean effect for the other heads of the layer, the control),
        difference (effect minus others, with difference_low and difference_high), layer_out (effect
        of taking out all heads of the layer), n.
        """
        heads, effects = self.values.shape[1], self.effects
        whole = (self.layer_out - self.clean).mean(dim=-1)
        return pd.DataFrame(
            {
                "head": head_names(self.grid),
                "mean": self.values.mean(dim=-1).flatten().tolist(),
                **columns("effect", effects, ("ci_low", "ci_high")),
                **control_columns(effects),
                "layer_out": whole.repeat_interleave(heads).tolist(),
                "n": effects.shape[-1],
            }
        )

    def plot(self) -> go.Figure:
        """Heatmap of the mean effects."""
        what = "without the head" if self.left == "others" else "with the head alone in its layer"
        return head_heatmap(
            self.grid,
            title=f"{self.provenance['model']} {what} ({self.method} ablation)",
            colorbar=f"change of {self.metric}",
            diverging=True,
        )

    def __repr__(self) -> str:
        what = "each head out" if self.left == "others" else "one head left in a layer"
        return (
            f"HeadAblation({what}: {self.metric} {self.clean.mean():.3f} becomes "
            f"{self.values.mean(dim=-1).min():.3f} to {self.values.mean(dim=-1).max():.3f}; "
            f"n = {len(self.clean)} prompts)"
        )


def single_heads(
    model: Model,
    prompts: PromptSet,
    *,
    method: str = "zero",
    metric: str | Callable[..., Any] = "logit_diff",
    progress: bool = True,
) -> HeadAblation:
    """The metric without each head, beside the other heads of its layer.

    `interp.ablate` gives the same values for any sites; here each has its control. Arguments and
    errors are those of `one_head_left`.
    """
    return _ablation(model, prompts, "others", method, metric, progress)


def one_head_left(
    model: Model,
    prompts: PromptSet,
    *,
    method: str = "zero",
    metric: str | Callable[..., Any] = "logit_diff",
    progress: bool = True,
) -> HeadAblation:
    """The metric with all heads but one taken out of a layer, for every head of every layer.

    Michel et al. report for each layer the head that suffices best, chosen on the data that it is
    reported on; here all heads stand side by side, so that the choice can be made on other prompts.

    Args:
        model: In eval mode.
        prompts: What it is run on.
        method: What takes the place of what is out: "zero", "mean", "resample" or "counterfactual",
            as in `interp.ablate`.
        metric: A name in METRICS, or a function as `interp.ablate` takes it.
        progress: Show a bar.

    Raises:
        InterventionError: An unknown method, or a model with one head a layer.
        PromptError, MetricError, ModelError: What their names say.
    """
    return _ablation(model, prompts, "head", method, metric, progress)


def _ablation(
    model: Model,
    prompts: PromptSet,
    left: str,
    method: str,
    metric: str | Callable[..., Any],
    progress: bool,
) -> HeadAblation:
    shape = model.geometry
    if shape.n_heads == 1:
        raise InterventionError(
            f"{model.id} has one head a layer, which has no others; use interp.ablate."
        )
    layers = [
        [Head(layer, head) for head in range(shape.n_heads)] for layer in range(shape.n_layers)
    ]
    operation = operation_of(method, "all", 0)
    taken = [
        [head] if left == "others" else [each for each in layer if each != head]
        for layer in layers
        for head in layer
    ]
    found = run(
        model,
        prompts,
        [Intervention.at(together(some), operation) for some in [*taken, *layers]],
        metric=metric,
        method=method,
        progress=progress,
    )
    return HeadAblation(
        values=found.values[: len(taken)].unflatten(0, (shape.n_layers, shape.n_heads)),
        layer_out=found.values[len(taken) :],
        clean=found.clean,
        left=left,
        metric=found.metric,
        method=method,
        provenance=found.provenance,
    )
