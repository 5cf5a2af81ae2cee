"""Successor head (Gould et al. 2023): its output circuit maps each word to the next of its series.

Rule: say the word after the current one. Days and months go round; the last number and the last
letter have no successor.

    stream      position | token | item | output
    0, MLP      looks the token up: token -> item
    1.0         attends to its own position, moves item -> the output of its successor
    the others  rest on <bos>

The head reads what MLP 0 made of the token, so the paper's score, the largest logit of
W_U W_OV MLP0(W_E[t]), finds the successor of every word that has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from interp.models import load
from interp.sites import Head
from interp.zoo.handmade.compiler import (
    HARD,
    N_CTX,
    AttentionHead,
    Layer,
    Lookup,
    Term,
    gpt2,
    resting,
)
from interp.zoo.handmade.handmade import Handmade
from interp.zoo.handmade.stream import Stream
from interp.zoo.handmade.vocabulary import BOS, random_text, word_tokenizer

NUMBERS = [str(n) for n in range(1, 31)]
LETTERS = list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday"
MONTHS = "January February March April May June July August September October November December"
SERIES = (NUMBERS, LETTERS, DAYS.split(), MONTHS.split())
SUCCESSOR = {word: after for series in SERIES for word, after in pairwise(series)}
SUCCESSOR |= {"Sunday": "Monday", "December": "January"}


def successor() -> Handmade:
    """A two-layer GPT-2 that counts numbers, letters, days and months.

    >>> {role: str(head) for role, head in successor().circuit.items()}
    {'successor': '1.0'}
    """
    tokenizer = word_tokenizer([word for series in SERIES for word in series])
    vocabulary = tokenizer.get_vocab()
    following = {vocabulary[a]: vocabulary[b] for a, b in SUCCESSOR.items()}
    d_vocab = len(tokenizer)
    stream = Stream({"position": N_CTX, "token": d_vocab, "item": d_vocab, "output": d_vocab})
    position = stream.read("position")

    step = torch.zeros(d_vocab, d_vocab)  # [said, attended item]
    for item in range(d_vocab):
        step[following.get(item, BOS), item] = 1
    successor_head = AttentionHead(
        score=(Term(HARD, query=position, key=position),),
        value=step @ stream.read("item"),
        writes="output",
    )
    idle = AttentionHead(score=(resting(stream),))
    layers = [
        Layer(heads=(idle, idle), mlp=Lookup(stream.read("token"), writes="item")),
        Layer(heads=(successor_head, idle)),
    ]

    def next_token(tokens: Sequence[int]) -> int | None:
        return following.get(tokens[-1])

    def sample(n: int, *, seed: int = 0) -> Int[Tensor, "prompts pos"]:
        return random_text(tokenizer, n, 64, seed=seed)

    return Handmade(
        model=load(gpt2(stream, layers, tokenizer), tokenizer),
        description="Each number, letter, day or month is followed by the next of its series:"
        " MLP 0 looks the word up, 1.0 attends to its own position and adds one.",
        circuit={"successor": Head(1, 0)},
        truth={
            "previous-token": (),
            "duplicate-token": (),
            "induction": (),
            "current-token": (Head(1, 0),),
            "first-token": (Head(0, 0), Head(0, 1), Head(1, 1)),
        },
        next_token=next_token,
        sample=sample,
    )
