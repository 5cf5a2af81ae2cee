"""Do vectors of one task lie together, whatever demonstrations they come from?

Half of a task's vectors are made of one half of its pairs and half of the other, and only vectors
of different halves are compared: no two of them share a demonstration or a dummy query.
(Hendel et al. 2023, section 5.1 and figure 5, where they may share both.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
import torch
from jaxtyping import Float, Int
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score
from sklearn.neighbors import NearestCentroid
from torch import Tensor

from interp.display import Displayed, as_html
from interp.errors import VectorError, did_you_mean
from interp.models import Model
from interp.progress import track
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.demonstrations import QA, Template, show
from interp.vectors.relation import Relation
from interp.vectors.task_vectors.task_activations import dummies, task_activations
from interp.vectors.task_vectors.task_table import kept
from interp.vectors.task_vectors.task_vector import task_vector

PROJECTIONS = ("pca", "tsne")


@dataclass(frozen=True, eq=False)
class Robustness(Saved, Displayed):
    """Task vectors from many demonstrations, at one layer.

    Cosines are those of the vectors as they are, and `centered` ones those after the mean over all
    tasks is taken away: all separators have much in common, which says nothing of tasks.

    Attributes:
        relations: The tasks.
        layer: Where the vectors were taken.
        vectors: Of one half of each task's pairs, and of the other half.
        untrained: Those of the model with random weights, from the same prompts.
        sharing: True where two tasks have inputs in common.
        draws: Shuffles of the task labels.
        seed: Of the shuffles and of t-SNE.
        provenance: Model, options, versions.
    """

    relations: tuple[str, ...]
    layer: int
    vectors: Float[Tensor, "halves tasks each d_model"] = field(repr=False)
    untrained: Float[Tensor, "halves tasks each d_model"] = field(repr=False)
    sharing: np.ndarray = field(repr=False)
    draws: int
    seed: int
    provenance: dict[str, Any] = field(repr=False)

    def cosines(
        self, *, centered: bool = False, untrained: bool = False
    ) -> Float[Tensor, "tasks tasks"]:
        """Mean cosine between a task's vectors of one half and another's of the other half."""
        vectors = self.untrained if untrained else self.vectors
        return _cosines(vectors, centered).mean(dim=(1, 3))

    def to_frame(self) -> pd.DataFrame:
        """One row a task.

        Columns: relation; within (mean cosine between its halves), between (with the other tasks)
        and their difference with its interval (95%, over its vectors of the first half); the same
        centered; sharing (centered, with the tasks that have inputs in common with it), nearest
        (the other task most like it, centered), n (vectors).
        """
        columns: dict[str, Any] = {"relation": list(self.relations)}
        for centered, mark in ((False, ""), (True, "_centered")):
            within, between = self._sides(_cosines(self.vectors, centered))
            low, high = bootstrap_ci(within - between)
            columns |= {
                f"within{mark}": within.mean(dim=-1).tolist(),
                f"between{mark}": between.mean(dim=-1).tolist(),
                f"difference{mark}": (within - between).mean(dim=-1).tolist(),
                f"difference{mark}_low": low.tolist(),
                f"difference{mark}_high": high.tolist(),
            }
        table = self.cosines(centered=True).numpy()
        alike = np.where(np.eye(len(table), dtype=bool), -np.inf, table).argmax(axis=1)
        columns["sharing"] = [
            float(row[shares].mean()) if shares.any() else float("nan")
            for row, shares in zip(table, self.sharing, strict=True)
        ]
        columns["nearest"] = [self.relations[other] for other in alike]
        return pd.DataFrame(columns).assign(n=2 * self.vectors.shape[2])

    def summary(self) -> pd.DataFrame:
        """One row each for the vectors, the untrained model's, and the vectors under wrong labels.

        Columns: vectors; within, between, difference and its ci_low and ci_high (95%, over tasks;
        for shuffled labels the middle 95% of the shuffles), the same difference centered with its
        ends; silhouette (-1 to 1, of cosine distances); classified (share of the vectors of one
        half whose nearest centroid of the other half is their task's) with its ends, chance, n
        (vectors).
        """
        rows = [
            self._measured("trained", self.vectors),
            self._measured("untrained model", self.untrained),
            self._shuffled(),
        ]
        return pd.DataFrame(rows).assign(
            chance=1 / len(self.relations), n=self.vectors.shape[:3].numel()
        )

    def project(self, method: str = "pca") -> pd.DataFrame:
        """Two coordinates of every vector: "pca", or "tsne".

        Columns: relation, half, x, y. Raises VectorError for another method.
        """
        if method not in PROJECTIONS:
            raise VectorError(
                f"There is no projection {method!r}: {did_you_mean(method, PROJECTIONS)}"
            )
        halves, tasks, each, _ = self.vectors.shape
        flat = self.vectors.double().flatten(0, 2).numpy()
        if method == "pca":
            places = PCA(2, random_state=self.seed).fit_transform(flat)
        else:
            near = min(30.0, (len(flat) - 1) / 3)
            places = TSNE(2, perplexity=near, random_state=self.seed).fit_transform(flat)
        return pd.DataFrame(
            {
                "relation": [
                    name for _ in range(halves) for name in np.repeat(self.relations, each)
                ],
                "half": np.repeat(range(halves), tasks * each),
                "x": places[:, 0],
                "y": places[:, 1],
            }
        )

    def plot(self, method: str = "pca") -> go.Figure:
        """Every vector in two coordinates; the two halves of a task have different symbols."""
        figure = px.scatter(
            self.project(method),
            x="x",
            y="y",
            color="relation",
            symbol="half",
            template="plotly_white",
            title=f"Task vectors of {self.provenance['model']} at layer {self.layer} "
            f"({'PCA' if method == 'pca' else 't-SNE'})",
        )
        figure.update_traces(marker_size=6)
        return figure

    def _sides(
        self, cosines: Float[Tensor, "tasks each tasks others"]
    ) -> tuple[Float[Tensor, "tasks each"], Float[Tensor, "tasks each"]]:
        """Mean cosine of each vector of the first half with its own task, and with the others."""
        table = cosines.mean(dim=-1)
        own = torch.eye(len(table), dtype=torch.bool)[:, None]
        within = (table * own).sum(dim=-1)
        return within, (table.sum(dim=-1) - within) / (len(table) - 1)

    def _measured(self, name: str, vectors: Float[Tensor, "halves tasks each d"]) -> dict[str, Any]:
        row: dict[str, Any] = {"vectors": name}
        for centered, mark in ((False, ""), (True, "_centered")):
            within, between = (
                side.mean(dim=-1) for side in self._sides(_cosines(vectors, centered))
            )
            if not centered:
                row |= {"within": within.mean().item(), "between": between.mean().item()}
            row |= _interval(f"difference{mark}", within - between)
        return (
            row
            | {"silhouette": _silhouette(vectors, self._labels)}
            | _interval("classified", _classified(vectors, self._labels).mean(dim=-1))
        )

    def _shuffled(self) -> dict[str, Any]:
        """The vectors dealt out to the tasks at random, several times."""
        generator = np.random.default_rng(self.seed)
        halves, tasks, each, width = self.vectors.shape
        rows = []
        for _ in range(self.draws):
            order = np.stack([generator.permutation(tasks * each) for _ in range(halves)])
            dealt = self.vectors.flatten(1, 2)[np.arange(halves)[:, None], order]
            rows.append(self._measured("shuffled labels", dealt.view(halves, tasks, each, width)))
        frame = pd.DataFrame(rows)
        row = {"vectors": "shuffled labels", **frame.mean(numeric_only=True).to_dict()}
        for what in ("difference", "difference_centered", "classified"):
            low, high = np.quantile(frame[what], [0.025, 0.975])
            row |= {f"{what}_low": float(low), f"{what}_high": float(high)}
        return row

    @property
    def _labels(self) -> Int[Tensor, "tasks each"]:
        _, tasks, each, _ = self.vectors.shape
        return torch.arange(tasks)[:, None].expand(tasks, each)

    def __repr__(self) -> str:
        told = "; ".join(
            f"{row.vectors}: within {row.within:.2f}, between {row.between:.2f}, centered "
            f"difference {row.difference_centered:.2f}, classified {row.classified:.2f}"
            for row in self.summary().itertuples()
        )
        return (
            f"Robustness({self.provenance['model']}, layer {self.layer}, {len(self.relations)} "
            f"tasks x {2 * self.vectors.shape[2]} vectors; {told}; chance "
            f"{1 / len(self.relations):.2f})"
        )

    def _repr_html_(self) -> str:
        return as_html(self, self.summary())


def robustness(
    model: Model,
    relations: Sequence[str | Relation] | None = None,
    *,
    n: int = 50,
    layer: int | None = None,
    shots: int = 5,
    queries: int = 2,
    template: Template = QA,
    draws: int = 20,
    seed: int = 0,
    progress: bool = True,
) -> Robustness:
    """Take many vectors of each task and compare them within and between tasks.

    Args:
        model: What `interp.load` returns.
        relations: Names or `Relation`s, two or more; by default all that the tokenizer keeps.
        n: Vectors of each task, half of them from each half of its pairs.
        layer: Where they are taken; by default where task vectors do best on the tuning queries,
            over all relations.
        draws: Shuffles of the task labels, a control.
        progress: Show a bar.
        shots, queries, template, seed: As in `task_vector`.

    Raises:
        TaskError: Relations that the tokenizer does not keep, or with too few pairs.
        VectorError: Fewer than two relations, or fewer than 4 vectors of each.
        PromptError: Prompts too long for the model.
    """
    known = kept(model, relations)
    if len(known) < 2 or n < 4:
        raise VectorError(
            f"{len(known)} relations with {n} vectors each leave nothing to compare; give two or "
            "more relations, and 4 or more vectors of each."
        )
    if layer is None:
        tuned = [
            task_vector(
                model,
                each,
                shots=shots,
                queries=queries,
                template=template,
                seed=seed,
                progress=False,
            ).accuracy
            for each in track(known, "Choosing a layer", shown=progress)
        ]
        layer = int(torch.stack(tuned).mean(dim=0).argmax())
    untrained = model.untrained(seed=seed)
    found: list[list[Tensor]] = [[], []]
    for each in track(known, "Task vectors", shown=progress):
        halves = (each, replace(each, train=each.dev + each.test))
        shown = [show(half, n // 2, shots=shots, split="train", seed=seed) for half in halves]
        dummy = [
            row
            for half, some in zip(halves, shown, strict=True)
            for row in dummies(half, some, queries=queries, seed=seed)
        ]
        for which, kept_in in zip((model, untrained), found, strict=True):
            kept_in.append(task_activations(which, dummy, template=template)[layer])
    vectors, control = (torch.stack(some).unflatten(1, (2, -1)).transpose(0, 1) for some in found)
    inputs = [{x for x, _ in each.pairs} for each in known]
    return Robustness(
        relations=tuple(each.name for each in known),
        layer=layer,
        vectors=vectors,
        untrained=control,
        sharing=np.array([[a is not b and bool(a & b) for b in inputs] for a in inputs]),
        draws=draws,
        seed=seed,
        provenance=provenance(
            model,
            method="task vectors compared",
            relations=[each.name for each in known],
            layer=layer,
            shots=shots,
            queries=queries,
            n=n,
            template=asdict(template),
            draws=draws,
            vector_seed=seed,
        ),
    )


def _cosines(
    vectors: Float[Tensor, "halves tasks each d_model"], centered: bool
) -> Float[Tensor, "tasks each tasks each"]:
    """Between the vectors of the first half and those of the second."""
    some = vectors.double()
    if centered:
        some = some - some.mean(dim=(1, 2), keepdim=True)
    one, other = some / some.norm(dim=-1, keepdim=True)
    return torch.einsum("aid,bjd->aibj", one, other)


def _silhouette(
    vectors: Float[Tensor, "halves tasks each d_model"], labels: Int[Tensor, "tasks each"]
) -> float:
    flat = vectors.double().flatten(0, 2).numpy()
    return float(silhouette_score(flat, labels.flatten().repeat(2).numpy(), metric="cosine"))


def _classified(
    vectors: Float[Tensor, "halves tasks each d_model"], labels: Int[Tensor, "tasks each"]
) -> Float[Tensor, "tasks each"]:
    """Whether the nearest centroid of the first half is that of the task, in the second half."""
    known, asked = vectors.double().flatten(1, 2).numpy()
    wanted = labels.flatten().numpy()
    right = NearestCentroid().fit(known, wanted).predict(asked) == wanted
    return torch.from_numpy(right).double().view(labels.shape)


def _interval(name: str, values: Float[Tensor, " tasks"]) -> dict[str, float]:
    low, high = bootstrap_ci(values)
    return {name: values.mean().item(), f"{name}_low": low.item(), f"{name}_high": high.item()}
