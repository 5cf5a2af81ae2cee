"""Attention over tokens: the data of the viewer, the viewer, and one pattern as a figure."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import torch
from jaxtyping import Float
from torch import Tensor

from interp.errors import InterpError
from interp.plots.colors import SEQUENTIAL
from interp.plots.widget import Widget

MARKS = {"\n": "⏎", "\t": "⇥", "\r": "␍"}
WIDEST = 14
"""Characters of a token beside a heatmap; the hover has them all."""


def attention_data(
    tokens: Sequence[Sequence[str]],
    patterns: Sequence[Float[Tensor, "heads _ _"]],
    heads: Sequence[object],
) -> dict[str, Any]:
    """What the viewer draws.

    Attention is kept in steps of 1/255: base64 of one byte for each cell of the lower triangle,
    row after row, diagonal included.

    >>> pattern = torch.tensor([[[1.0, 0.0], [0.8, 0.2]]])
    >>> attention_data([["a", " b"]], [pattern], ["5.1"])["prompts"]
    [{'tokens': ['a', '·b'], 'patterns': {'5.1': '/8wz'}}]

    Args:
        tokens: The text of each token, prompt by prompt.
        patterns: One for each prompt.
        heads: The name of each head is its `str`.

    Raises:
        InterpError: Heads that look at later tokens, which the triangle leaves no room for.
    """
    for pattern in patterns:
        if (pattern.triu(1) > 0).any():
            raise InterpError(
                "These heads look at later tokens, and the viewer draws heads that look back; use "
                "plot() for one pattern."
            )
    return {
        "prompts": [
            {
                "tokens": [visible(token) for token in words],
                "patterns": {
                    str(head): _packed(each) for head, each in zip(heads, pattern, strict=True)
                },
            }
            for words, pattern in zip(tokens, patterns, strict=True)
        ],
    }


def attention_viewer(
    tokens: Sequence[Sequence[str]],
    patterns: Sequence[Float[Tensor, "heads _ _"]],
    heads: Sequence[object],
    *,
    title: str,
) -> Widget:
    """Heads as thumbnails, tokens that answer, and the matrix of the chosen head.

    Args:
        tokens, patterns, heads: As in `attention_data`.
        title: What is shown, for screen readers.
    """
    return Widget("attention", title, attention_data(tokens, patterns, heads), height=640)


def attention_figure(
    tokens: Sequence[str], pattern: Float[Tensor, "query key"], *, title: str
) -> go.Figure:
    """One pattern as a heatmap: tokens that look from top to bottom, what they look at across."""
    words = [html.escape(visible(token)) for token in tokens]
    names = [_cut(visible(token)) for token in tokens]
    places = list(range(len(tokens)))
    grid = pattern.tolist()
    figure = go.Figure(
        go.Heatmap(
            z=grid,
            zmin=0.0,
            zmax=1.0,
            colorscale=[[i / (len(SEQUENTIAL) - 1), color] for i, color in enumerate(SEQUENTIAL)],
            colorbar={"title": {"text": "attention", "side": "right"}, "outlinewidth": 0},
            hovertext=[
                [f"{words[i]} ({i}) looks at {words[j]} ({j}): {grid[i][j]:.3f}" for j in places]
                for i in places
            ],
            hoverinfo="text",
            xgap=1,
            ygap=1,
        )
    )
    figure.update_layout(
        title=html.escape(title), template="plotly_white", margin={"t": 80, "b": 50}, height=640
    )
    ticks = {"tickvals": places, "ticktext": [html.escape(name) for name in names]}
    figure.update_xaxes(title_text="looked at", showgrid=False, constrain="domain", **ticks)
    figure.update_yaxes(title_text="looks", showgrid=False, autorange="reversed", **ticks)
    return figure


def visible(token: str) -> str:
    r"""A token on one line: what does not show is written out, plain words stay as they are.

    >>> visible("word"), visible(" word"), visible("\n"), visible("\x00"), visible("")
    ('word', '·word', '⏎', '\\x00', "''")
    """
    inner = token.lstrip(" ")
    spaces = "·" * (len(token) - len(inner))
    trailing = len(inner) - len(inner.rstrip(" "))
    inner = inner.rstrip(" ")
    shown = "".join(
        MARKS.get(sign) or (sign if sign.isprintable() else repr(sign)[1:-1]) for sign in inner
    )
    return spaces + shown + "·" * trailing or "''"


def _packed(pattern: Float[Tensor, "query key"]) -> str:
    """Row after row of the lower triangle, one byte a cell."""
    rows, columns = torch.tril_indices(*pattern.shape)
    steps = (pattern[rows, columns].float().clamp(0, 1) * 255).round().to(torch.uint8)
    return base64.b64encode(steps.cpu().numpy().tobytes()).decode()


def _cut(word: str) -> str:
    return word if len(word) <= WIDEST else f"{word[: WIDEST - 1]}…"
