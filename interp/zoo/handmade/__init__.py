"""Transformers whose weights are written down, not trained: ground truth for every analysis.

Each function builds one `Handmade`: a small model in a real architecture, the heads of its circuit,
what every head does on repeated random text, and the rule that its logits follow.

    model              architecture          rule
    induction          GPT-2, 2 layers       repeat what followed the last time
    duplicate_token    GPT-2, 1 layer        say whether the word has occurred before
    successor          GPT-2, 2 layers       say the next word of the series
    retrieval          GPT-2, 2 layers       at <recall>, say the word that followed <remember>
    induction_gqa      Llama, 2 layers       as `induction`, grouped queries, rotary positions
"""

from __future__ import annotations

from collections.abc import Callable

from interp.zoo.handmade.duplicate_token import duplicate_token
from interp.zoo.handmade.handmade import Handmade
from interp.zoo.handmade.induction import induction
from interp.zoo.handmade.induction_gqa import induction_gqa
from interp.zoo.handmade.retrieval import retrieval
from interp.zoo.handmade.successor import successor

ALL: dict[str, Callable[[], Handmade]] = {
    "induction": induction,
    "duplicate_token": duplicate_token,
    "successor": successor,
    "retrieval": retrieval,
    "induction_gqa": induction_gqa,
}

__all__ = [
    "ALL",
    "Handmade",
    "duplicate_token",
    "induction",
    "induction_gqa",
    "retrieval",
    "successor",
]
