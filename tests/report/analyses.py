"""Results of analyses with known numbers, to build sections from."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import interp
from interp.consistency import Consistency, GapReduction, Overthinking, Question, Thresholds
from interp.models import Model
from interp.probes import Erasure, ProbeResult
from interp.probes.result import Judged
from interp.sites import Head
from interp.vectors import (
    HeadCheck,
    Injection,
    LearnedEvaluation,
    Shown,
    StrengthSweep,
    TaskEvaluation,
)
from interp.vectors.learned.learned_evaluation import ARMS, MEASURES, SETTINGS

KNOWN = {"model": "toy", "weights_hash": "0123456789abcdef", "dtype": "float32", "device": "cpu"}
N = 20
QUERIES = tuple(f"q{i}" for i in range(N))
SHOWN = tuple(Shown((("a", "b"),), (query, "y")) for query in QUERIES)


def again(command: str, model: Model) -> object:
    """What the command of a section gives when it is run; the model is at hand."""
    first, *lines, last = command.splitlines()
    assert first == f"model = interp.load({model.id!r})"
    space: dict[str, object] = {"interp": interp, "model": model}
    exec("\n".join(lines), space)
    return eval(last, space)


def answered(share: float, *, n: int = N) -> Float[Tensor, " prompts"]:
    """1 on the first prompts, as many as the share says, else 0."""
    return (torch.arange(n) < round(share * n)).double()


def task_evaluation(name: str = "antonym", **shares: float) -> TaskEvaluation:
    """Every control at 0.1 but those that are given."""
    conditions = ["baseline", "regular", "hypothesis", "mean_vector", "other_relation"]
    conditions += ["shuffled_labels", "random_vector", "other_query"]
    values = {each: answered(shares.get(each, 0.1)) for each in conditions}
    how = {"shots": 5, "queries": 2, "test_seed": 0, "relation": name}
    return TaskEvaluation(name, 2, values, QUERIES, KNOWN | how)


def injection(vectors: dict[str, float], *, without: float = 0.1, **known: Any) -> Injection:
    """Accuracies of vectors on zero-shot prompts; the first of them chose the layer."""
    return Injection(
        relation="antonym",
        layer=2,
        dev=torch.rand(1, 4, 10, generator=torch.Generator().manual_seed(0)),
        contexts=("zero-shot",),
        without=answered(without)[None],
        correct={name: answered(share)[None, None] for name, share in vectors.items()},
        known=torch.ones(N, dtype=torch.bool),
        shown=SHOWN,
        norms=dict.fromkeys(vectors, 1.5),
        skipped={"another relation": "none was given"},
        provenance=KNOWN | {"vector_seed": 0} | known,
    )


def head_check(without: float, random: float, *, spread: float = 0.01) -> HeadCheck:
    """Probabilities of the answer, 0.9 with all heads, without some and without 20 random sets."""
    noise = spread * torch.linspace(-1, 1, N)
    return HeadCheck(
        heads=(Head(1, 3),),
        sets=tuple((Head(0, i % 4),) for i in range(20)),
        clean=0.9 + noise,
        without=without + noise.roll(3),
        random=(random + noise.roll(5)).expand(20, N),
        shown=SHOWN,
        provenance=KNOWN | {"relation": "antonym"},
    )


def strengths(up: float, *, random: float = 0.0, other: float = 0.0) -> StrengthSweep:
    """At strength 1 the positive answer rises by `up`, under random vectors by `random`."""
    noise = 0.01 * torch.linspace(-1, 1, N)

    def response(change: float, lost: float = 0.0) -> Float[Tensor, "strengths prompts answers"]:
        positive = torch.stack([0.4 - change + noise, 0.4 + noise, 0.4 + change + noise.roll(3)])
        rest = torch.tensor([0.1 + lost, 0.1, 0.1 + lost])[:, None].expand(3, N)
        return torch.stack([positive, 1 - positive - rest, rest], dim=-1)

    return StrengthSweep(
        behavior="polite",
        layer=2,
        strengths=(-1.0, 0.0, 1.0),
        steered=response(up, other),
        random=response(random).expand(30, 3, N, 3),
        shuffled=response(0.0).expand(5, 3, N, 3),
        provenance=KNOWN | {"random_seed": 0},
    )


def learned(share: float, *, shuffled: float = 0.1) -> LearnedEvaluation:
    """The learned vector, and one learned from shuffled answers; the other arms are at 0.1."""
    arms = {"none": 0.1, "learned": share, "permuted": 0.1, "shuffled answers": shuffled}
    values = torch.stack([answered(arms[arm]) for arm in ARMS]).expand(len(SETTINGS), -1, -1)
    return LearnedEvaluation(
        "antonym", {measure: values for measure in MEASURES}, QUERIES, KNOWN | {"permutations": 5}
    )


def consistency(
    *, right: float, wrong: float, untrained: float | None = None, text: str = "Is it so?"
) -> Consistency:
    """Ten questions answered right and ten wrong, on two paths each.

    The inner layers of a model of four agree with the last one on a share of the paths, which is
    one number for right paths and another for wrong ones.
    """
    agrees = torch.cat([answered(right, n=20), answered(wrong, n=20)]).bool()
    said = torch.cat([torch.full((20,), 0.9), torch.full((20,), 0.1)])  # P("yes") of the last layer
    inner = torch.where(agrees, said, 1 - said)
    chance = torch.full((40,), 0.5)
    yes = torch.stack([chance, inner, inner, inner, said], dim=-1).double()
    return Consistency(
        questions=tuple(Question(f"{i} {text}", "yes", ("yes", "no")) for i in range(N)),
        texts=tuple(f"The answer is {word}." for word in ["yes"] * 20 + ["no"] * 20),
        given=torch.tensor([0] * 20 + [1] * 20).reshape(N, 2),
        log_probs=torch.linspace(-1, 0, 40).double().reshape(N, 2),
        lengths=torch.full((N, 2), 5),
        latents=torch.stack([yes, 1 - yes], dim=-1).reshape(N, 2, 5, 2),
        untrained=None if untrained is None else torch.full((N, 2), untrained).double(),
        thresholds=Thresholds(torch.full((5, 2), 0.5).double(), ("yes", "no"), frozenset(), 12),
        tuned=None,
        transferred=None,
        provenance=KNOWN | {"task": "questions", "n": N, "paths": 2, "calibration": 8},
    )


def overthinking(gap: float) -> Overthinking:
    """Three layers say the true label; under false demonstrations the last two fail on a share."""
    truth = torch.tensor([0, 1] * 10)
    right = torch.nn.functional.one_hot(truth, 2).double()
    misled = torch.where((torch.arange(N) < round(gap * N))[:, None], 1 - right, right)
    kinds = {
        "true": torch.stack([right] * 3, dim=1),
        "false": torch.stack([right, misled, misled], dim=1),
        "random": torch.stack([right] * 3, dim=1),
    }
    half = torch.full((3, 2), 0.5).double()
    task = {"task": "true demonstrations of continent", "n": N, "calibration": 16}
    return Overthinking(
        {name: 0.1 + 0.8 * each for name, each in kinds.items()},
        dict.fromkeys(kinds, half),
        truth,
        ("yes", "no"),
        KNOWN | task,
    )


def gap_reduction(closed: float, *, random: float = 0.0, gap: float = 1.0) -> GapReduction:
    """Accuracy 1 under true and 1 - `gap` under false demonstrations; heads close a share of it."""
    false, true = answered(1 - gap), torch.ones(N).double()
    left = [answered(1 - gap * (1 - share)) for share in (closed, *[random] * 20)]
    return GapReduction(
        true=true,
        false=false,
        true_ablated=true.expand(21, N),
        false_ablated=torch.stack(left),
        heads=((Head(3, 1),), *(((Head(2, i % 4)),) for i in range(20))),
        provenance=KNOWN | {"task": "false demonstrations of continent", "draws": 20},
    )


def probes(share: float, *, control: float = 0.5, untrained: float = 0.5) -> ProbeResult:
    """Layer 1 of three reads a share of 40 test prompts right; all else is at 0.5."""
    truth = torch.tensor([0, 1] * 20)

    def judged(best: float) -> Judged:
        right = torch.stack([answered(each, n=40) for each in (0.5, best, 0.5)])
        said = torch.where(right.bool(), truth, 1 - truth)
        return Judged(truth, torch.nn.functional.one_hot(said, 2).double())

    return ProbeResult(
        layers=("0", "1", "2"),
        classes=("yes", "no"),
        judged={
            "task": judged(share),
            "control": judged(control),
            "shuffled": judged(0.5),
            "untrained": judged(untrained),
        },
        test=torch.arange(40),
        chance=0.5,
        provenance=KNOWN | {"task": "coin_flip", "kind": "resid", "position": "END"},
    )


def erasure(*, after: float, random: float = 1.0, erased: float = 0.2) -> Erasure:
    """Probes are right before; the model's accuracy falls from 1 to `erased`, or stays."""
    layers = torch.ones(2, 1).double()
    return Erasure(
        layers=("0", "1"),
        before=layers * answered(1.0),
        after=layers * answered(after),
        random=layers * answered(random),
        clean=answered(1.0),
        erased=layers * answered(erased),
        erased_random=layers * answered(0.9),
        chance=0.5,
        metric="accuracy",
        provenance=KNOWN | {"n": N},
    )
