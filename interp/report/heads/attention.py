"""Attention patterns: beside the heads that an atlas names, or as a section of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from interp.circuits import Circuit
from interp.heads import AttentionPatterns, HeadAtlas
from interp.report.parts import Block, Figure, Section, Table, listed, of, provenance_rows
from interp.report.rerun import rerun, sampled

MOST_CELLS = 200
"""Rows of the table under the viewer: the strongest cells."""


def patterns_for(
    results: Sequence[object], provenance: Mapping[str, Any]
) -> AttentionPatterns | None:
    """The first attention patterns among the results that are of the model with this provenance."""
    return next(
        (
            result
            for result in results
            if isinstance(result, AttentionPatterns) and _same_model(result.provenance, provenance)
        ),
        None,
    )


def attention_section(patterns: AttentionPatterns, results: Sequence[object]) -> Section | None:
    """The viewer; None where the atlas or a circuit of the same model shows all of these heads."""
    if _shown_elsewhere(patterns, results):
        return None
    task = str(patterns.provenance.get("task") or "the given prompts")
    return Section(
        heading=f"Where heads look, on {task}",
        lead=(
            f"The attention of {len(patterns.heads)} heads over the tokens of "
            f"{_prompts(patterns)}. This is a look at single prompts, and claims nothing."
        ),
        claims=(),
        blocks=(attention_block(patterns),),
        limits=(
            "Attention says where a head reads, not what it writes nor whether that matters: "
            "take the head out to see.",
            f"These are {_prompts(patterns)}, not an average over many.",
        ),
        provenance=provenance_rows(patterns.provenance),
        command=_call(patterns),
    )


def attention_block(patterns: AttentionPatterns) -> Block:
    """The viewer of these patterns, with the strongest cells as a table."""
    return Block(
        heading=f"Attention of {listed([str(head) for head in patterns.heads])}",
        meaning=(
            "Each row of a square is a token that looks, each column one that it looks at; a row "
            "adds up to 1. Point at a head or a token, or walk with the arrow keys; a click or "
            "Enter holds it, Escape lets go."
        ),
        figures=(
            Figure(
                f"Attention over tokens, {_prompts(patterns)}",
                patterns.viewer(),
                "Shares are drawn in steps of 1/255.",
                data=_strongest(patterns),
                role="wide",
            ),
        ),
    )


def _strongest(patterns: AttentionPatterns) -> Table:
    frame = patterns.to_frame(least=0.05)
    shown = frame.sort_values("attention", ascending=False, kind="stable").head(MOST_CELLS)
    left = len(frame) - len(shown)
    also = f"; {left:,} more of at least 0.05 are left out" if left else ""
    columns = ("head", "prompt", "query", "query_token", "key", "key_token", "attention")
    return Table(
        f"The strongest attention, {of(len(patterns.tokens))}{also}",
        (
            "Head",
            "Prompt",
            "Looks (place)",
            "Looks (token)",
            "At (place)",
            "At (token)",
            "Attention",
        ),
        tuple(zip(*(shown[name].tolist() for name in columns), strict=True)),
        digits=3,
    )


def _shown_elsewhere(patterns: AttentionPatterns, results: Sequence[object]) -> bool:
    if patterns_for(results, patterns.provenance) is not patterns:
        return False
    same = [
        result
        for result in results
        if isinstance(result, HeadAtlas | Circuit)
        and _same_model(result.provenance, patterns.provenance)
    ]
    in_circuits = {head for one in same if isinstance(one, Circuit) for head in one.heads}
    return any(isinstance(one, HeadAtlas) for one in same) or in_circuits >= set(patterns.heads)


def _same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    known = one.get("weights_hash")
    return known is not None and known == other.get("weights_hash")


def _prompts(patterns: AttentionPatterns) -> str:
    count = len(patterns.tokens)
    return f"{count} prompt{'s' * (count > 1)}"


def _call(patterns: AttentionPatterns) -> str:
    known = patterns.provenance
    heads = [str(head) for head in patterns.heads]
    limit = known.get("limit", len(patterns.tokens))
    call = f"interp.heads.attention_patterns(model, prompts, {heads}, limit={limit})"
    return rerun(known, sampled(known), call)
