"""Does a learned vector do its task, and do vectors that learned nothing of it do as much?"""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.display import Displayed
from interp.engine import run
from interp.errors import VectorError, did_you_mean
from interp.models import Model
from interp.plots import site_bars
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.saved import Saved
from interp.stats import bootstrap_ci
from interp.vectors.by_query import by_query
from interp.vectors.demonstrations import prompts_of, show
from interp.vectors.head_sums import permuted
from interp.vectors.learned.learn import learn, vector_of
from interp.vectors.relation import Pair, Relation
from interp.vectors.vector import Vector

if TYPE_CHECKING:
    from interp.vectors.learned.learn import LearnedVector

SETTINGS = {
    "zero-shot": "the query alone",
    "shuffled": "demonstrations with shuffled outputs, and the query",
    "regular": "demonstrations and the query",
}
ARMS = {
    "none": "no vector",
    "learned": "the learned vector",
    "permuted": "the same weights, each at a random head; mean over draws",
    "shuffled answers": "learned in as many steps from shuffled answers",
}
MEASURES = ("accuracy", "log_prob")


@dataclass(frozen=True, eq=False)
class LearnedEvaluation(Saved, Displayed):
    """What test queries were answered, in each of `SETTINGS` under each of `ARMS`.

    Means are over queries, each the mean of its prompts, and intervals resample queries.

    Attributes:
        relation: Its name.
        values: By measure: "accuracy" is 1 where the answer came first, "log_prob" the answer's log
            probability, in nats.
        asked: The query of each prompt.
        provenance: Model, prompts, options, versions.
    """

    relation: str
    values: dict[str, Float[Tensor, "settings arms prompts"]] = field(repr=False)
    asked: tuple[str, ...]
    provenance: dict[str, Any] = field(repr=False)

    @property
    def n(self) -> int:
        """Prompts."""
        return len(self.asked)

    def mean(self, setting: str, arm: str = "learned", measure: str = "accuracy") -> float:
        """Over queries. Raises VectorError for what was not measured."""
        return self._each(setting, arm, measure).mean().item()

    def excess(
        self, setting: str, arm: str, measure: str = "accuracy"
    ) -> tuple[float, float, float]:
        """Learned minus another arm on the same prompts, and the ends of its 95% interval.

        Raises VectorError for what was not measured.
        """
        gap = self._each(setting, "learned", measure) - self._each(setting, arm, measure)
        low, high = bootstrap_ci(gap)
        return gap.mean().item(), low.item(), high.item()

    def to_frame(self) -> pd.DataFrame:
        """One row for each measure, setting and arm.

        Columns: measure, setting, arm, mean, ci_low and ci_high (95%, over queries), excess
        (learned minus it, paired) with excess_low and excess_high, n (prompts), queries.
        """
        rows = []
        for measure in MEASURES:
            for setting in SETTINGS:
                for arm in ARMS:
                    each = self._each(setting, arm, measure)
                    low, high = bootstrap_ci(each)
                    excess, excess_low, excess_high = self.excess(setting, arm, measure)
                    rows.append(
                        {
                            "measure": measure,
                            "setting": setting,
                            "arm": arm,
                            "mean": each.mean().item(),
                            "ci_low": low.item(),
                            "ci_high": high.item(),
                            "excess": excess,
                            "excess_low": excess_low,
                            "excess_high": excess_high,
                            "n": self.n,
                            "queries": len(each),
                        }
                    )
        return pd.DataFrame(rows)

    def plot(self) -> go.Figure:
        """Accuracy in each setting under each arm, with its interval."""
        frame = self.to_frame().query("measure == 'accuracy'")
        return site_bars(
            frame["mean"].tolist(),
            low=frame["ci_low"].tolist(),
            high=frame["ci_high"].tolist(),
            names=[f"{row.setting}: {row.arm}" for row in frame.itertuples()],
            title=f"{self.provenance['model']}: {self.relation} by its learned vector "
            f"({self.n} prompts of {len(set(self.asked))} queries)",
            across="accuracy",
            hover=[
                f"{SETTINGS[row.setting]}; {ARMS[row.arm]}: {row.mean:.2f}"
                for row in frame.itertuples()
            ],
        )

    def _each(self, setting: str, arm: str, measure: str) -> Float[Tensor, " queries"]:
        for name, known in ((setting, SETTINGS), (arm, ARMS), (measure, MEASURES)):
            if name not in known:
                raise VectorError(f"Nothing was measured of {name!r}: {did_you_mean(name, known)}")
        row, column = list(SETTINGS).index(setting), list(ARMS).index(arm)
        return by_query(self.values[measure][row, column], self.asked)

    def __repr__(self) -> str:
        told = "; ".join(
            f"{setting} {self.mean(setting, 'none'):.2f} -> {self.mean(setting):.2f}"
            for setting in SETTINGS
        )
        return f"LearnedEvaluation({self.relation}, accuracy: {told}; n = {self.n} prompts)"


def evaluate(
    model: Model, found: LearnedVector, *, n: int, permutations: int, progress: bool
) -> LearnedEvaluation:
    """See `LearnedVector.evaluate`.

    Raises VectorError for another model, or no permutation; TaskError for too few pairs.
    """
    found.vector.require(model)
    if permutations < 1:
        raise VectorError(f"permutations={permutations}; the control needs at least one.")
    arms = _vectors(model, found, permutations, progress)
    shown = show(found.relation, n, shots=found.recipe.shots, split="test", seed=found.recipe.seed)
    rng = random.Random(f"{found.relation.name} test shuffled {found.recipe.seed}")
    prompts = {
        "zero-shot": [each.alone for each in shown],
        "shuffled": [each.shuffled(rng) for each in shown],
        "regular": shown,
    }
    sets = [prompts_of(model, prompts[each], template=found.recipe.template) for each in SETTINGS]
    return LearnedEvaluation(
        relation=found.relation.name,
        values={
            measure: torch.stack([_measured(model, each, arms, measure) for each in sets])
            for measure in MEASURES
        },
        asked=tuple(each.query[0] for each in shown),
        provenance=provenance(
            model,
            sets[-1],
            method="learned task vector, evaluated",
            relation=found.relation.name,
            permutations=permutations,
            vector=found.provenance,
        ),
    )


def _vectors(
    model: Model, found: LearnedVector, permutations: int, progress: bool
) -> dict[str, list[Vector]]:
    """The vectors of each arm but the first."""
    generator = torch.Generator().manual_seed(found.recipe.seed)
    drawn = [permuted(found.weights, generator) for _ in range(permutations)]
    turned = _shuffled_answers(found.relation, found.recipe.seed)
    control = learn(model, turned, found.outputs, found.recipe, progress=progress)
    weights = {"learned": [found.weights], "permuted": drawn, "shuffled answers": [control.weights]}
    return {
        arm: [vector_of(each, found.outputs, found.provenance) for each in some]
        for arm, some in weights.items()
    }


def _shuffled_answers(pairs: Relation, seed: int) -> Relation:
    """The relation with the outputs of its training and dev pairs shuffled, each part in itself."""
    rng = random.Random(f"{pairs.name} answers {seed}")

    def turned(part: tuple[Pair, ...]) -> tuple[Pair, ...]:
        outputs = rng.sample([y for _, y in part], len(part))
        return tuple((x, y) for (x, _), y in zip(part, outputs, strict=True))

    return replace(pairs, train=turned(pairs.train), dev=turned(pairs.dev))


def _measured(
    model: Model, prompts: PromptSet, arms: dict[str, list[Vector]], measure: str
) -> Float[Tensor, "arms prompts"]:
    vectors = [each for some in arms.values() for each in some]
    sweep = run(
        model,
        prompts,
        [each.intervention for each in vectors],
        metric=measure,
        method="learned vector",
        progress=False,
    )
    parts = sweep.values.split([len(some) for some in arms.values()])
    return torch.stack([sweep.clean, *(part.mean(dim=0) for part in parts)])
