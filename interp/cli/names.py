"""The names that a shell completes.

They stand here a second time, because the modules that define them import torch, and nobody waits
for that at a prompt. A test compares both.
"""

from __future__ import annotations

from interp.resources import data_dir

TASKS = (
    "repeated_tokens",
    "ioi",
    "colored_objects",
    "succession",
    "retrieval",
    "functions",
    "rival_functions",
    "facts_vs_context",
    "coin_flip",
    "greater_than",
)
METRICS = ("logit_diff", "prob", "log_prob", "loss", "accuracy", "kl")
ABLATIONS = ("zero", "mean", "counterfactual-mean", "resample", "counterfactual", "optimal")
SELECTIONS = ("top", "threshold", "greedy")
STATISTICS = ("kl", "entropy", "cross_entropy", "rank", "prob", "max_prob")
STREAMS = ("resid", "attn_out", "mlp_out")
FACTS = ("gpt2",)
RECIPES = ("polymath", "polymath-llama", "induction", "modular", "regression")
SWEEP_METHODS = ("zero", "mean", "resample", "counterfactual", "patch")
VECTOR_METHODS = ("task", "function", "learned", "steering")
CIRCUIT_METHODS = (
    "eap-ig-inputs",
    "eap",
    "eap-ig-activations",
    "exact",
    "acdc",
    "information-flow",
    "atp",
    "nap-ig",
    "exact-nodes",
)
ENGINES = ("here", "ray")
KINDS = (
    "previous-token",
    "duplicate-token",
    "induction",
    "current-token",
    "first-token",
    "prefix-matching",
    "copying",
    "successor",
    "retrieval",
    "name-copying",
    "name-suppressing",
    "name-mover",
    "copy-suppression",
    "s-inhibition",
    "function-vector",
)


def models() -> list[str]:
    """The embedded models."""
    return sorted(config.parent.name for config in data_dir().glob("models/*/config.json"))


def relations() -> list[str]:
    """The relations, each of which is a task too."""
    return sorted(file.stem for file in data_dir().glob("relations/*.json"))
