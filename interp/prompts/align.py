"""From text and ragged rows to aligned tensors of token ids."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from interp.errors import PromptError
from interp.models import Model

Offsets = list[tuple[int, int]]


def pad_rows(
    rows: Int[Tensor, "prompts pos"] | Sequence[Sequence[int]], *, fill: int = 0
) -> tuple[Int[Tensor, "prompts pos"], Bool[Tensor, "prompts pos"]]:
    """Rows padded on the right to the longest, and where they are real.

    >>> pad_rows([[1, 2], [3]])[0].tolist()
    [[1, 2], [3, 0]]
    """
    if isinstance(rows, Tensor):
        return rows, torch.ones_like(rows, dtype=torch.bool)
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.full(mask.shape, fill, dtype=torch.long)
    padded[mask] = torch.tensor([token for row in rows for token in row], dtype=torch.long)
    return padded, mask


def tokenize(model: Model, text: str) -> tuple[list[int], Offsets]:
    """Token ids of `text` without special tokens, and the characters that each covers.

    Raises:
        PromptError: A word of the text is unknown to the tokenizer.
    """
    tokenizer = model.tokenizer
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=tokenizer.is_fast)
    ids, offsets = list(encoding["input_ids"]), list(encoding.get("offset_mapping", []))
    unknown = tokenizer.unk_token_id
    if unknown is not None and unknown != tokenizer.eos_token_id and unknown in ids:
        where = f" {text[slice(*offsets[ids.index(unknown)])]!r}" if offsets else ""
        raise PromptError(
            f"The tokenizer does not know the word{where} of {text!r}; use words of its vocabulary."
        )
    return ids, offsets


def span_of_tokens(
    text: str,
    span: str | tuple[int, int],
    offsets: Offsets,
    *,
    shift: int,
    role: str,
    prompt: int,
) -> tuple[int, int]:
    """The half-open span of tokens that cover a piece of text, moved by `shift` columns.

    Raises:
        PromptError: The piece is not there, or is there more than once; or the tokenizer is one of
            the slow ones, which do not say which characters a token covers.
    """
    if not offsets:
        raise PromptError(
            f"Role {role!r} is given as text, which needs a fast tokenizer; load the fast one, or "
            "give token spans to PromptSet.from_tokens."
        )
    if isinstance(span, str):
        if text.count(span) != 1:
            raise PromptError(
                f"Prompt {prompt}: role {role!r} is the text {span!r}, which occurs "
                f"{text.count(span)} times in {text!r}; give a (start, stop) pair of characters."
            )
        span = (text.index(span), text.index(span) + len(span))
    start, stop = span
    covering = [
        index
        for index, (first, last) in enumerate(offsets)
        if first < stop and last > start and text[max(first, start) : min(last, stop)].strip()
    ]
    if not covering:
        raise PromptError(
            f"Prompt {prompt}: role {role!r} covers no token of {text!r} at characters {span}; "
            "give a span inside the text."
        )
    return covering[0] + shift, covering[-1] + 1 + shift
