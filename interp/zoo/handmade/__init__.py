"""Transformers whose weights are written down, not trained: ground truth for every analysis.

Each function builds one `Handmade`: a small model in a real architecture, the heads of its circuit,
what every head does on repeated random text, and the rule that its logits follow.

    model                architecture          rule
    induction            GPT-2, 2 layers       repeat what followed the last time
    duplicate_token      GPT-2, 1 layer        say whether the word has occurred before
    successor            GPT-2, 2 layers       say the next word of the series
    retrieval            GPT-2, 2 layers       at <recall>, say the word that followed <remember>
    names                GPT-2, 4 layers       say who was given the thing
    function_vector      GPT-2, 3 layers       do to the word what the demonstrations show

Each of them has a twin, called `induction_gqa` and so on, in the Llama architecture: two query
heads to each key/value head, rotary positions, RMSNorm, gated MLPs.
"""

from __future__ import annotations

from collections.abc import Callable

from interp.zoo.handmade.duplicate_token import duplicate_token
from interp.zoo.handmade.duplicate_token_gqa import duplicate_token_gqa
from interp.zoo.handmade.function_vector import function_vector, function_vector_gqa
from interp.zoo.handmade.handmade import Handmade
from interp.zoo.handmade.induction import induction
from interp.zoo.handmade.induction_gqa import induction_gqa
from interp.zoo.handmade.names import names, names_gqa
from interp.zoo.handmade.retrieval import retrieval, retrieval_gqa
from interp.zoo.handmade.successor import successor, successor_gqa

ALL: dict[str, Callable[[], Handmade]] = {
    "induction": induction,
    "duplicate_token": duplicate_token,
    "successor": successor,
    "retrieval": retrieval,
    "names": names,
    "function_vector": function_vector,
    "induction_gqa": induction_gqa,
    "duplicate_token_gqa": duplicate_token_gqa,
    "successor_gqa": successor_gqa,
    "retrieval_gqa": retrieval_gqa,
    "names_gqa": names_gqa,
    "function_vector_gqa": function_vector_gqa,
}
"""Every hand-compiled model, by its name."""

__all__ = [
    "ALL",
    "Handmade",
    "duplicate_token",
    "duplicate_token_gqa",
    "function_vector",
    "function_vector_gqa",
    "induction",
    "induction_gqa",
    "names",
    "names_gqa",
    "retrieval",
    "retrieval_gqa",
    "successor",
    "successor_gqa",
]
