"""Which direction does a component read in order to say a word? (Dunefsky and Cohan 2023,
"Observable Propagation: Uncovering Feature Vectors in Transformers".)

    x ──norm──► head 3.1 ──► x' ──norm──► MLP 5 ──► x" ──norm──► W_U ──► n · logits
    y = J^T y'               y' = J^T r             r = J^T W_U^T n

An observable n is a linear functional of the logits, such as logit( she) - logit( he). Each step
back multiplies by the transposed Jacobian of one component, so that `y · x` says, but for a
constant, what the stream x makes that chain of components add to the observable.

- Norms, MLPs and soft-caps are linearised at x0, the mean state of given prompts. A mean is
  shorter than the states, so slopes through norms come out too steep: directions, correlations and
  couplings are to be trusted, sizes less (`Contribution.slope`).
- A head is linear while its pattern is held. Its `W_V^T W_O^T` is had from a run of its block on
  one token, which can attend to itself alone, so any architecture has it. What heads look at is
  not explained.
- A norm that stands behind heads or an MLP is linearised at what they write on that one token.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from interp.activations.batches import require_fit
from interp.display import Displayed
from interp.engine.end_logits import end_logits
from interp.engine.groups import Group, groups
from interp.engine.memory import largest_group
from interp.engine.replay import Replay, replay_of
from interp.engine.sources import patterns_of, require_patterns
from interp.errors import UnsupportedModel, VectorError
from interp.models import Model
from interp.prompts import PromptSet
from interp.provenance import provenance
from interp.sites import MLP, Head, Resid, Site, resolve
from interp.vectors.observables.contribution import Contribution
from interp.vectors.observables.propagate import (
    Point,
    Step,
    has_mid,
    mean_point,
    states,
    stream_at,
    through,
    unembed,
)

TERM = re.compile(r"\s*([+-]?)\s*(?:([0-9.]+)\s*\*\s*)?logit\(([^()]+)\)\s*")
"""One term of an observable that is given as text: its sign, its weight, its token."""

What = str | Mapping[str, float | int] | Mapping[int, float | int]


@dataclass(frozen=True, eq=False)
class Observable(Displayed):
    """A linear functional of the logits; make one with `observable`.

    Attributes:
        model: Whose logits.
        weights: Token -> its weight in n.
        name: Such as "logit( she) - logit( he)".
        point: Where the model is linearised.
        provenance: Model, and the prompts that the point is the mean of.
    """

    model: Model = field(repr=False)
    weights: Mapping[int, float] = field(repr=False)
    name: str
    point: Point = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    @property
    def n(self) -> Float[Tensor, " vocab"]:
        """The functional itself."""
        found = torch.zeros(self.model.geometry.d_vocab, dtype=self.model.dtype)
        found[list(self.weights)] = torch.tensor(list(self.weights.values()), dtype=found.dtype)
        return found.to(self.model.device)

    def value(self, prompts: PromptSet) -> Float[Tensor, " prompts"]:
        """What the model's logits at END give, `n · logits`."""
        return end_logits(self.model, prompts) @ self.n

    def feature(self, *path: Site | str) -> FeatureVector:
        """The direction in the stream that the observable reads through a chain of components.

        Args:
            path: Heads and MLPs in the order of their computation, such as `"3.1", "m5"`: the
                vector is then what head 3.1 reads in the stream. None: what the final norm and
                the unembedding read, which is also the direct path of a stream before:
                `"r3.pre"`, alone or in front, says that it is read there.

        Raises:
            SiteError: A component that the model does not have.
            VectorError: Components that cannot come after one another.
        """
        sites = resolve(path, self.model) if path else ()
        at = sites[0] if sites and isinstance(sites[0], Resid) else None
        chain = sites[1:] if at else sites
        if at and chain:
            raise VectorError(
                f"The path reads the stream at {at} and then at {chain[0]}; name the components "
                "alone, whose first says where the stream is read."
            )
        _require_order(replay_of(self.model), chain)
        return self._feature(tuple(chain), at)

    def with_weights(self, what: What) -> Observable:
        """Another observable of the same model, linearised at the same point."""
        weights, name = _weights(self.model, what)
        return replace(self, weights=weights, name=name)

    def _feature(self, path: tuple[Site, ...], at: Resid | None) -> FeatureVector:
        replay, told = replay_of(self.model), dict(self.provenance)
        told |= {"observable": self.name, "path": [str(site) for site in path]}
        if not path:
            step = unembed(replay, self.point.end, self.n)
            reads = at or Resid(self.model.geometry.n_layers - 1, "post")
            return FeatureVector(step.vector, (), reads, step, None, self, told)
        behind = self._feature(path[1:], None)
        step = through(replay, self.point, path[0], behind.vector)
        first = path[0]
        pre = isinstance(first, Head) or replay.body.parallel
        reads = Resid(first.layer, "pre" if pre else "mid")
        return FeatureVector(step.vector, path, reads, step, behind, self, told)


@dataclass(frozen=True, eq=False)
class FeatureVector(Displayed):
    """What an observable reads in the stream through a chain of components.

    Attributes:
        vector: y in the stream, in front of the first norm.
        path: The components, in the order of their computation.
        reads: Where the stream is read.
        step: The first component, linearised.
        behind: The feature vector of the rest of the path; None behind the last block.
        observable: What is read.
        provenance: Model, prompts of the linearisation, observable, path.
    """

    vector: Float[Tensor, " d_model"]
    path: tuple[Site, ...]
    reads: Resid
    step: Step = field(repr=False)
    behind: FeatureVector | None = field(repr=False)
    observable: Observable = field(repr=False)
    provenance: dict[str, Any] = field(repr=False)

    @property
    def normed(self) -> Float[Tensor, " d_model"]:
        """The same behind the norm: `W_V^T W_O^T r` of a head, exact whatever x0 is."""
        return self.step.normed

    @torch.no_grad()
    def project(
        self, prompts: PromptSet, *, position: str | int = "END"
    ) -> Float[Tensor, " prompts"]:
        """`y · x`, with x the mean stream over the columns of a position of each prompt."""
        return states(self.observable.model, prompts, self.reads, position=position) @ self.vector

    @torch.no_grad()
    def contribution(self, prompts: PromptSet, *, random: int = 20, seed: int = 0) -> Contribution:
        """What the path adds to the observable at END, as predicted and as the components write it.

        Heads take the patterns that they have on these prompts. Measured is what the first
        component really writes, seen by the rest of the path linearised; for an empty path, the
        observable itself.

        Args:
            prompts: Any prompts that the model can read.
            random: Random directions of the norm of y, the control.
            seed: Of these.

        Raises:
            SiteError: Heads whose output is not their pattern times the values.
            PromptError: Prompts that the model cannot read.
        """
        model = self.observable.model
        replay = replay_of(model)
        require_fit(model, prompts)
        if any(isinstance(site, Head) for site in self.path):
            require_patterns(replay)
        noise = torch.randn(random, len(self.vector), generator=torch.Generator().manual_seed(seed))
        noise = noise.to(self.vector) / noise.norm(dim=-1, keepdim=True).to(self.vector)
        vectors = torch.cat([self.vector[None], self.vector.norm() * noise])
        found = torch.zeros(random + 2, len(prompts), dtype=self.vector.dtype)
        for group in groups(prompts, largest_group(replay, prompts)):
            found[:, group.rows] = self._contribution(replay, group, vectors).cpu()
        return Contribution(
            path=self.path,
            observable=self.observable.name,
            predicted=found[0],
            measured=found[-1],
            random=found[1:-1],
            provenance={**self.provenance, **provenance(model, prompts), "random_seed": seed},
        )

    def _contribution(
        self, replay: Replay, group: Group, vectors: Float[Tensor, "directions d_model"]
    ) -> Float[Tensor, "rows group"]:
        """Projections on each direction and, last, what is measured, all carried to END."""
        run = replay.clean(group.tokens, _kinds(self))
        read = torch.einsum("gpd,vd->vgp", stream_at(replay, run, self.reads), vectors)
        read[0] += self.step.offset
        if not self.path:
            logits = replay.logits(run.stream[-1][:, -1])
            return torch.cat([read[..., -1], (logits @ self.observable.n)[None]])
        first, *rest = self.path
        written = run.parts[_writes(first)][first.layer] @ self.step.outer
        heads = [site for site in self.path if isinstance(site, Head)]
        patterns = patterns_of(replay, group.tokens) if heads else []

        def carried(values: Tensor, through: list[Site]) -> Tensor:
            for site in through:
                if isinstance(site, Head):
                    pattern = patterns[site.layer][:, site.head].to(values)
                    values = torch.einsum("gij,...gj->...gi", pattern, values)
            return values[..., -1]

        return torch.cat([carried(read, [first, *rest]), carried(written, rest)[None]])

    def __repr__(self) -> str:
        through = " > ".join(map(str, self.path)) or "the unembedding"
        return (
            f"FeatureVector({self.observable.name} through {through}, read at {self.reads}, "
            f"norm {self.vector.norm():.3g})"
        )


@torch.no_grad()
def observable(
    model: Model, what: What, prompts: PromptSet, *, position: str | int | None = "END"
) -> Observable:
    """A linear functional of the logits, and the states of prompts at which it is propagated.

    Args:
        model: What `interp.load` returns.
        what: Token -> weight, such as `{" she": 1, " he": -1}` (text as it stands, or ids), or text
            such as "logit( she) - 0.5 * logit( he)".
        prompts: Whose mean states the norms and MLPs are linearised at.
        position: Where, within the blocks: a role or an integer; None for all tokens. What the
            final norm reads is taken at END.

    Raises:
        VectorError: Tokens that are none of this model, or no weight but zero.
        UnsupportedModel: An architecture whose blocks cannot be run on their own.
        PromptError, SiteError: What their names say.

    >>> import interp
    >>> model = interp.load("polymath", check=False)
    >>> prompts = interp.tasks.get("antonym").sample(model, 8, seed=0)
    >>> observable(model, "logit( cold) - logit( hot)", prompts).feature("5.1").path
    (Head(layer=5, head=1),)
    """
    weights, name = _weights(model, what)
    require_fit(model, prompts)
    replay = replay_of(model)
    if not replay.works:
        raise UnsupportedModel(
            f"The blocks of {model.id} cannot be run on their own, so nothing can be propagated "
            "through them one by one; use a model of another architecture."
        )
    told = provenance(model, prompts, method="observable propagation", position=position)
    return Observable(model, weights, name, mean_point(replay, prompts, position), told)


def _writes(component: Site) -> str:
    return "z" if isinstance(component, Head) else "mlp_out"


def _kinds(feature: FeatureVector) -> list[str]:
    """The parts that a contribution reads off a run."""
    kinds = [_writes(feature.path[0])] if feature.path else []
    return [*kinds, "resid_mid"] if feature.reads.point == "mid" else kinds


def _require_order(replay: Replay, path: tuple[Site, ...]) -> None:
    for site in path:
        if not isinstance(site, Head | MLP):
            raise VectorError(
                f"{site} is no component that observables are propagated through; name heads such "
                "as '3.1' and MLPs such as 'm5'."
            )
        if isinstance(site, MLP) and not replay.body.parallel and not has_mid(replay):
            raise UnsupportedModel(
                f"The MLPs of {replay.model.id} read no stream that is a sum of what was written "
                "before, so nothing can be propagated through them; name heads alone."
            )
    for one, other in pairwise(path):
        inside = isinstance(one, Head) and isinstance(other, MLP) and not replay.body.parallel
        if not (one.layer < other.layer or (inside and one.layer == other.layer)):
            raise VectorError(
                f"{other} does not read what {one} writes; name the components of a path in the "
                "order of their computation."
            )


def _weights(model: Model, what: What) -> tuple[dict[int, float], str]:
    """The weight of each token, and how the observable is called."""
    given: list[tuple[Any, float]]
    given = _terms(what) if isinstance(what, str) else list(what.items())
    found: dict[int, float] = {}
    named = []
    for word, weight in given:
        token = word if isinstance(word, int) else model.single_token(word)
        if token is None or not 0 <= token < model.geometry.d_vocab:
            raise VectorError(
                f"{word!r} is not one known token of {model.id}; give it the space that precedes "
                "it in the text, or use another word."
            )
        found[token] = found.get(token, 0.0) + weight
        text = word if isinstance(word, str) else model.tokenizer.decode([word])
        size = "" if abs(weight) == 1 else f"{abs(weight):g} * "
        named.append(f"{'-' if weight < 0 else '+'} {size}logit({text})")
    if not any(found.values()):
        raise VectorError(f"The observable {what!r} weighs no token; give one a weight but zero.")
    return found, " ".join(named).removeprefix("+ ")


def _terms(text: str) -> list[tuple[str, float]]:
    terms, at = [], 0
    while at < len(text):
        term = TERM.match(text, at)
        if term is None or (at and not term[1]):
            raise VectorError(
                f"{text[at:]!r} of the observable {text!r} is no term; write it such as "
                "'logit( she) - 0.5 * logit( he)'."
            )
        sign, size, word = term.groups()
        terms.append((word, (-1.0 if sign == "-" else 1.0) * float(size or 1)))
        at = term.end()
    return terms
