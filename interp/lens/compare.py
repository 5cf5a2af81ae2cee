"""Is a lens better than the logit lens, layer by layer, on texts that it has not seen?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.lens.lens import Lens, logit_lens
from interp.lens.read import read
from interp.lens.reading import STATISTICS, known
from interp.lens.texts import Texts
from interp.lens.tuned import shuffled
from interp.models import Model
from interp.saved import Saved
from interp.stats import bootstrap_ci


@dataclass(frozen=True, eq=False)
class LensComparison(Saved, Displayed):
    """One statistic through several lenses, on the same texts.

    Attributes:
        value: The statistic.
        per_text: Lens -> its mean over the tokens of each text; "logit" is what others are compared
            with, and "shuffled" the control: the translators of other layers.
        provenance: Model, lens, versions.
    """

    value: str
    per_text: Mapping[str, Float[Tensor, "layer texts"]]
    provenance: dict[str, Any] = field(repr=False)

    def to_frame(self) -> pd.DataFrame:
        """One row for each layer and lens.

        Columns: layer, lens, mean (over texts), ci_low, ci_high (95%, over texts), change (against
        the logit lens, paired by text), change_low, change_high, n (texts).
        """
        columns = []
        for name, each in self.per_text.items():
            change = each - self.per_text["logit"]
            (low, high), (least, most) = bootstrap_ci(each), bootstrap_ci(change)
            columns.append(
                pd.DataFrame(
                    {
                        "layer": range(len(each)),
                        "lens": name,
                        "mean": each.nanmean(dim=1).tolist(),
                        "ci_low": low.tolist(),
                        "ci_high": high.tolist(),
                        "change": change.nanmean(dim=1).tolist(),
                        "change_low": least.tolist(),
                        "change_high": most.tolist(),
                        "n": (~change.isnan()).sum(dim=1).tolist(),
                    }
                )
            )
        frame = pd.concat(columns, ignore_index=True)
        return frame.sort_values("layer", kind="stable", ignore_index=True)

    @property
    def worse(self) -> tuple[int, ...]:
        """Layers, but for the last, at which the lens is not surely below the logit lens."""
        name = next(name for name in self.per_text if name not in ("logit", "shuffled"))
        _, high = bootstrap_ci(self.per_text[name] - self.per_text["logit"])
        return tuple(layer for layer, most in enumerate(high[:-1].tolist()) if not most < 0)

    def plot(self) -> go.Figure:
        """The statistic by layer, one line a lens, with its interval."""
        figure = go.Figure()
        for name, some in self.to_frame().groupby("lens", sort=False):
            figure.add_scatter(
                x=some["layer"],
                y=some["mean"],
                name=str(name),
                mode="lines+markers",
                error_y={
                    "array": some["ci_high"] - some["mean"],
                    "arrayminus": some["mean"] - some["ci_low"],
                },
            )
        figure.update_layout(
            title="Lenses by layer",
            template="plotly_white",
            xaxis_title="layer (0: the embedding)",
            yaxis_title=STATISTICS[self.value],
        )
        return figure

    def __repr__(self) -> str:
        means = ", ".join(
            f"{name} {each[:-1].nanmean():.2f}" for name, each in self.per_text.items()
        )
        n = next(iter(self.per_text.values())).shape[1]
        return f"LensComparison({self.value} before the last layer: {means}; n = {n} texts)"


def compare(
    model: Model,
    texts: Texts,
    lens: Lens,
    *,
    value: str = "kl",
    seed: int = 0,
    progress: bool = False,
) -> LensComparison:
    """A lens beside the logit lens and beside its own translators at other layers.

    Args:
        model: What the lens belongs to.
        texts: Texts that the lens was not trained on.
        lens: A tuned lens.
        value: A name in `STATISTICS`; lower is taken as better.
        seed: Of the order of the shuffled translators.
        progress: Show a bar.

    Raises:
        LensError: A lens without translators or of another model; an unknown statistic.
        PromptError: Texts that the model cannot read.
    """
    known(value)
    lenses = {"logit": logit_lens(model), lens.kind: lens, "shuffled": shuffled(lens, seed=seed)}
    readings = {
        name: read(model, texts, each, k=1, progress=progress) for name, each in lenses.items()
    }
    return LensComparison(
        value,
        {name: reading.per_text(value) for name, reading in readings.items()},
        readings[lens.kind].provenance | {"shuffle_seed": seed},
    )
