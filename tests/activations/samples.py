"""Tiny models and padded prompts that the tests of capture and engine share."""

from __future__ import annotations

from functools import cache

import torch

from interp.models import Model
from interp.prompts import PromptSet
from tests.families import tiny, tiny_tokenizer

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18]]
PAD = 92


@cache
def model(family: str) -> Model:
    return Model(tiny(family), tiny_tokenizer(), id=family)


def prompts(side: str = "right", rows: list[list[int]] | None = None) -> PromptSet:
    """ROWS padded on one side, with the role "S" on the first two tokens of each."""
    rows = ROWS if rows is None else rows
    width = max(map(len, rows))
    offsets = [0 if side == "right" else width - len(row) for row in rows]
    clean = torch.full((len(rows), width), PAD)
    for row, offset, line in zip(rows, offsets, clean, strict=True):
        line[offset : offset + len(row)] = torch.tensor(row)
    return PromptSet.from_tokens(
        clean,
        answer=[[20, 21] if i == 0 else [22 + i] for i in range(len(rows))],
        wrong=[[40 + i] for i in range(len(rows))],
        mask=clean != PAD,
        roles={"S": torch.tensor([[offset, offset + 2] for offset in offsets])},
    )


def hooks_on(model: Model) -> int:
    """Number of hooks on every module of the bridge and of the module as it was given."""
    modules = [*model.bridge.modules(), *model.hf.modules()]
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in modules)
