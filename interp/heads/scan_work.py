"""A scan cut into chunks: each detector, then each claim, wherever they are computed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from interp import tasks
from interp.engine.replay import replay_of
from interp.errors import InterpError, OutOfMemory, TaskError
from interp.heads.attention import ATTENTION, attention
from interp.heads.claims import Claim, check_claim
from interp.heads.function_vector import function_vector
from interp.heads.induction.copying import copying
from interp.heads.induction.prefix_matching import prefix_matching
from interp.heads.kinds import kind_of
from interp.heads.names.copy_suppression import copy_suppression
from interp.heads.names.name_copying import name_copying
from interp.heads.names.roles import name_mover, s_inhibition
from interp.heads.needles.retrieval import retrieval
from interp.heads.score import Score
from interp.heads.succession.successor import successor
from interp.models import Model
from interp.prompts import PromptSet
from interp.runs import Chunk
from interp.saved.fits import fits
from interp.saved.saved import BROKEN
from interp.saved.values import pack, unpack
from interp.sites import Head

PROMPTS = 64
"""Prompts of the task on which a claim is checked."""
TOLD = "told"
"""The tensor that holds what is no tensor."""
UNKEPT = {"unkept": torch.tensor(torch.nan)}
"""Beside an answer that a run is not to keep: it keeps no NaN."""

Detector = Callable[..., "Score | Sequence[Score]"]

DETECTORS: dict[tuple[str, ...], Detector] = {
    ATTENTION: attention,
    ("prefix-matching",): prefix_matching,
    ("copying",): copying,
    ("successor",): lambda model, **how: successor(model).score,  # every word, none drawn
    ("retrieval",): lambda model, **how: retrieval(model, **how).score,
    ("name-copying", "name-suppressing"): name_copying,
    ("name-mover",): name_mover,
    ("copy-suppression",): copy_suppression,
    ("s-inhibition",): s_inhibition,
    ("function-vector",): lambda model, **how: function_vector(model, **how).score,
}
"""Which function measures which kinds."""


@dataclass(frozen=True)
class ScoreWork:
    """Detectors to be run; each is named by the kinds that it measures.

    Attributes:
        n: Samples of each score; None for as many as each was published with.
        seed: Of all random choices.
        threads: With which it computes on a CPU.
        progress: Show bars.
    """

    n: int | None
    seed: int
    threads: int
    progress: bool

    def open(self, model: Model) -> Callable[[tuple[str, ...]], Chunk]:
        """What runs one detector: its scores, or why there are none."""
        _get_ready(model, self.threads)
        how: dict[str, Any] = {"seed": self.seed, "progress": self.progress}
        how |= {} if self.n is None else {"n": self.n}

        def measure(kinds: tuple[str, ...]) -> Chunk:
            def scores() -> list[Score]:
                found = DETECTORS[kinds](model, **how)
                return [found] if isinstance(found, Score) else list(found)

            return _answered(scores)

        return measure


@dataclass(frozen=True)
class ClaimWork:
    """Claims to be checked: each is a kind and the heads that are named after it.

    Attributes:
        seed: Of the prompts and of the random heads.
        threads: With which it computes on a CPU.
        progress: Show bars.
    """

    seed: int
    threads: int
    progress: bool

    def open(self, model: Model) -> Callable[[tuple[str, tuple[Head, ...]]], Chunk]:
        """What checks one claim, or says why it cannot; the prompts of a task are drawn once."""
        _get_ready(model, self.threads)
        drawn: dict[str, PromptSet] = {}

        def check(claim: tuple[str, tuple[Head, ...]]) -> Chunk:
            kind, heads = claim

            def checked() -> Claim:
                task = kind_of(kind).task
                if task not in drawn:
                    drawn[task] = _prompts(model, task, self.seed)
                return check_claim(
                    model, kind, heads, drawn[task], seed=self.seed, progress=self.progress
                )

            return _answered(checked)

        return check


def _get_ready(model: Model, threads: int) -> None:
    """What several devices of one process must do one after another."""
    torch.set_num_threads(threads)
    with suppress(InterpError):  # each detector says itself what it cannot do
        model.bridge  # noqa: B018 - built when first asked for
        replay_of(model)


def packed(value: Any) -> Chunk:
    """A value that files may hold, as bytes: scores may be NaN, and a run takes no such numbers."""
    tensors: dict[str, Tensor] = {}
    told = json.dumps(pack(value, tensors, "")).encode()
    data = save_tensors({**tensors, TOLD: torch.frombuffer(bytearray(told), dtype=torch.uint8)})
    return {"bytes": torch.frombuffer(bytearray(data), dtype=torch.uint8)}


def unpacked(chunk: Chunk, expected: Any) -> Any:
    """What `packed` packed. Raises ValueError for what it did not, or is of another type."""
    try:
        tensors = load_tensors(chunk["bytes"].cpu().numpy().tobytes())
        value = unpack(json.loads(tensors.pop(TOLD).numpy().tobytes()), tensors)
    except (*BROKEN, SafetensorError) as error:
        raise ValueError(str(error)) from error
    if not fits(value, expected):
        raise ValueError(f"{value!r:.80} is not what it must be")
    return value


def _answered(question: Callable[[], Any]) -> Chunk:
    """The answer, or why there is none; a run does not keep that memory ran out."""
    try:
        return packed(question())
    except OutOfMemory as error:
        return {**packed(str(error)), **UNKEPT}
    except InterpError as error:
        return packed(str(error))


def _prompts(model: Model, task: str, seed: int) -> PromptSet:
    """Prompts that an embedded model never saw in training, if there are enough of them."""
    try:
        return tasks.get(task).sample(model, PROMPTS, seed=seed)
    except TaskError:
        return tasks.get(task).sample(model, PROMPTS, seed=seed, split="all")
