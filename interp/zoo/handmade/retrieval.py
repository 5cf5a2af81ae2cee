"""Retrieval head (Wu et al. 2024): copies a needle out of a haystack when it is asked for.

Rule: at <recall>, say the word that followed the last <remember>. A needle is one word.

    stream      position | token | previous | output
    0.0         attends to the position before its own, moves token -> previous
    1.1         at <recall>, attends where previous = <remember>, moves token -> output
    the others  rest on <bos>, and so does 1.1 at every other word
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from interp.models import load
from interp.sites import Head
from interp.zoo.handmade.compiler import N_CTX, AttentionHead, Layer, Term, gpt2, resting
from interp.zoo.handmade.handmade import Handmade
from interp.zoo.handmade.induction import (
    MATCH,
    RECENT,
    REST,
    position_number,
    previous_token_head,
)
from interp.zoo.handmade.stream import Stream
from interp.zoo.handmade.vocabulary import WORDS, random_text, word_tokenizer


def retrieval() -> Handmade:
    """A two-layer GPT-2 that retrieves the word it was told to remember.

    >>> {role: str(head) for role, head in retrieval().circuit.items()}
    {'previous-token': '0.0', 'retrieval': '1.1'}
    """
    tokenizer = word_tokenizer(WORDS, markers=("<remember>", "<recall>"))
    vocabulary = tokenizer.get_vocab()
    remember, recall = vocabulary["<remember>"], vocabulary["<recall>"]
    d_vocab = len(tokenizer)
    stream = Stream({"position": N_CTX, "token": d_vocab, "previous": d_vocab, "output": d_vocab})
    asked = stream.read("token")[[recall]]
    needle = stream.read("previous")[[remember]]
    retrieval_head = AttentionHead(
        score=(
            Term(MATCH, query=asked, key=needle),
            Term(RECENT, query=stream.one, key=position_number(stream)),
            resting(stream, REST),
        ),
        value=stream.read("token"),
        writes="output",
    )
    idle = AttentionHead(score=(resting(stream),))
    layers = [
        Layer(heads=(previous_token_head(stream), idle, idle)),
        Layer(heads=(idle, retrieval_head, idle)),
    ]

    def next_token(tokens: Sequence[int]) -> int | None:
        needles = [tokens[i + 1] for i, token in enumerate(tokens[:-1]) if token == remember]
        return needles[-1] if needles and tokens[-1] == recall else None

    def sample(n: int, *, seed: int = 0) -> Int[Tensor, "prompts pos"]:
        """60 words of haystack, <remember> at a random depth before a word, <recall> at the end."""
        tokens = random_text(tokenizer, n, 62, seed=seed)
        depth = torch.randint(1, 61, (n,), generator=torch.Generator().manual_seed(seed + 1))
        tokens[torch.arange(n), depth] = remember
        tokens[:, -1] = recall
        return tokens

    return Handmade(
        model=load(gpt2(stream, layers, tokenizer), tokenizer),
        description="At <recall> comes the word that followed the last <remember>:"
        " 0.0 notes the previous token, 1.1 attends where it is <remember> and copies.",
        circuit={"previous-token": Head(0, 0), "retrieval": Head(1, 1)},
        truth={
            "previous-token": (Head(0, 0),),
            "duplicate-token": (),
            "induction": (),
            "current-token": (),
            "first-token": (Head(0, 1), Head(0, 2), Head(1, 0), Head(1, 1), Head(1, 2)),
        },
        next_token=next_token,
        sample=sample,
    )
