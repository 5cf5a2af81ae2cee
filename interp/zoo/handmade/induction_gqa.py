"""The induction pair in the Llama architecture: grouped queries, rotary positions, RMSNorm.

Rule: that of `induction`. Query heads 0 and 1 share the first key/value head, 2 and 3 the second.

    stream    token | previous | output
    0.0       previous-token head, moves token -> previous
    0.2, 1.1  attend to their own position, write nothing
    1.2       induction head, moves token -> output
    others    rest on <bos>, with the keys that their neighbours use for something else

A rotary model has no position in its stream. Coordinates p and p + D_HEAD / 2 of a head form a pair
that turns by FREQUENCY[p] per position, so a constant key and a constant query score
strength * cos(frequency * (distance - offset)), with the offset chosen by the query. The pairs of a
head, from fast to slow:

    0-4    where to look: offset 1 is the previous token, offset 0 the current one
    5      recency: over the whole context the score falls by at least 10 with every position
    12     the resting key of <bos>
    13-79  which token; these turn by less than 0.004 radians over the context
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interp.models import load
from interp.sites import Head
from interp.zoo.handmade.compiler import HARD, N_CTX, GroupedLayer, KeyValue, Query, llama
from interp.zoo.handmade.handmade import Handmade
from interp.zoo.handmade.induction import what_followed_last_time
from interp.zoo.handmade.stream import Stream
from interp.zoo.handmade.vocabulary import BOS, WORDS, random_text, word_tokenizer

D_HEAD = 160
ROPE_THETA = 1e30
FREQUENCY = ROPE_THETA ** (-torch.arange(D_HEAD // 2) / (D_HEAD // 2))

LOOK, RECENCY, RESTING, CONTENT = range(5), 5, 12, 13
AIM = 2 * HARD  # strength of each of the five pairs; together they lead by more than HARD
RECENT = 1150.0  # strength of the recency pair, whose score spans less than 1.6 times that
REST = 1.6 * RECENT + HARD  # <bos> beats every key without a match
MATCH = REST + HARD  # a match beats <bos>


def induction_gqa() -> Handmade:
    """A two-layer Llama with 4 query heads on 2 key/value heads that continues repeated text.

    >>> {role: str(head) for role, head in induction_gqa().circuit.items()}
    {'previous-token': '0.0', 'induction': '1.2'}
    """
    tokenizer = word_tokenizer(WORDS)
    d_vocab = len(tokenizer)
    stream = Stream({"token": d_vocab, "previous": d_vocab, "output": d_vocab})
    token, previous = stream.read("token"), stream.read("previous")

    def key(content: Float[Tensor, "n d_model"]) -> Float[Tensor, "d_head d_model"]:
        """The same constant in every turning pair, the key of <bos>, and the content."""
        rows = torch.zeros(D_HEAD, stream.width)
        rows[[*LOOK, RECENCY]] = stream.one
        rows[RESTING] = token[BOS]
        rows[CONTENT : CONTENT + len(content)] = content
        return rows

    def aim(
        pairs: Iterable[int], offset: float, strength: float
    ) -> Float[Tensor, "d_head d_model"]:
        """A query that scores strength * cos(frequency * (distance - offset)) in each pair."""
        rows = torch.zeros(D_HEAD, stream.width)
        for pair in pairs:
            angle = FREQUENCY[pair] * offset
            rows[pair] = strength * angle.cos() * stream.one[0]
            rows[pair + D_HEAD // 2] = -strength * angle.sin() * stream.one[0]
        return rows

    def rest(strength: float = HARD) -> Float[Tensor, "d_head d_model"]:
        rows = torch.zeros(D_HEAD, stream.width)
        rows[RESTING] = strength * stream.one[0]
        return rows

    # The recency pair turns by 1.69 radians over the context. Aiming this far into the future
    # centres them on pi / 2, where the cosine falls most evenly.
    ahead = -(math.pi / float(FREQUENCY[RECENCY]) - N_CTX) / 2
    match = torch.zeros(D_HEAD, stream.width)
    match[CONTENT : CONTENT + d_vocab] = MATCH * token
    induct = match + aim([RECENCY], ahead, RECENT) + rest(REST)

    by_token, by_previous = KeyValue(key(token), token), KeyValue(key(previous), token)
    idle, look_here = Query(rest()), Query(aim(LOOK, 0.0, AIM))
    layers = [
        GroupedLayer(
            key_values=(by_token, by_token),
            queries=(Query(aim(LOOK, 1.0, AIM), writes="previous"), idle, look_here, idle),
        ),
        GroupedLayer(
            key_values=(by_token, by_previous),
            queries=(idle, look_here, Query(induct, writes="output"), idle),
        ),
    ]

    def sample(n: int, *, seed: int = 0) -> Int[Tensor, "prompts pos"]:
        return random_text(tokenizer, n, 64, seed=seed)

    hf = llama(stream, layers, tokenizer, d_head=D_HEAD, rope_theta=ROPE_THETA)
    return Handmade(
        model=load(hf, tokenizer),
        description="A word that has occurred before is followed by what followed it the last time:"
        " 0.0 notes the previous token, 1.2 attends where it is the current one and copies."
        " Its key/value head, the second of layer 1, is shared with 1.3, which rests.",
        circuit={"previous-token": Head(0, 0), "induction": Head(1, 2)},
        truth={
            "previous-token": (Head(0, 0),),
            "duplicate-token": (),
            "induction": (Head(1, 2),),
            "current-token": (Head(0, 2), Head(1, 1)),
            "first-token": (Head(0, 1), Head(0, 3), Head(1, 0), Head(1, 3)),
        },
        next_token=what_followed_last_time,
        sample=sample,
    )
