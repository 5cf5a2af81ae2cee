"""What the viewer is given is the attention, packed and made visible."""

from __future__ import annotations

import base64
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import InterpError
from interp.plots.attention_viewer import (
    attention_data,
    attention_figure,
    attention_viewer,
    visible,
)
from interp.plots.colors import SEQUENTIAL, SEQUENTIAL_DARK, blend
from interp.plots.widget import read


@given(st.integers(1, 20), st.integers(1, 3), st.integers(0, 9))
def test_every_cell_comes_back_within_half_a_step(n: int, heads: int, seed: int) -> None:
    pattern = torch.rand(heads, n, n, generator=torch.Generator().manual_seed(seed)).tril()
    names = [f"0.{head}" for head in range(heads)]
    (prompt,) = attention_data([["x"] * n], [pattern], names)["prompts"]
    rows, columns = torch.tril_indices(n, n)
    for name, each in zip(names, pattern, strict=True):
        packed = torch.tensor(list(base64.b64decode(prompt["patterns"][name])))
        assert len(packed) == n * (n + 1) // 2
        assert (packed / 255 - each[rows, columns]).abs().max() <= 0.5 / 255 + 1e-6


def test_many_heads_on_long_prompts_stay_small() -> None:
    """144 heads on 64 tokens: 400 kB, base64 and all."""
    patterns = torch.full((144, 64, 64), 0.5).tril()
    names = [f"{layer}.{head}" for layer in range(12) for head in range(12)]
    page = attention_viewer([["word"] * 64], [patterns], names, title="Attention").to_html()
    assert len(page) < 450_000


def test_a_head_that_looks_ahead_is_refused() -> None:
    with pytest.raises(InterpError, match="look at later tokens"):
        attention_data([["a", "b"]], [torch.full((1, 2, 2), 0.5)], ["0.0"])


@given(st.text(max_size=8))
def test_a_token_is_shown_on_one_line_and_never_empty(token: str) -> None:
    shown = visible(token)
    assert shown
    assert shown.isprintable()
    assert "\n" not in shown
    assert shown == shown.strip(" ")


@pytest.mark.parametrize(
    ("token", "shown"),
    [
        ("plain", "plain"),
        ("don't", "don't"),
        (" the", "·the"),
        ("  ", "··"),
        ("a b", "a b"),
        ("\n\n", "⏎⏎"),
        ("\t", "⇥"),
        ("\u202e", "\\u202e"),
        ("日本", "日本"),
    ],
)
def test_what_does_not_show_is_written_out(token: str, shown: str) -> None:
    assert visible(token) == shown


def test_a_figure_escapes_its_tokens() -> None:
    figure = attention_figure(["<b>", "x"], torch.eye(2), title="<i>")
    assert figure.layout.xaxis.ticktext[0] == "&lt;b&gt;"
    assert figure.layout.title.text == "&lt;i&gt;"
    assert figure.data[0].hovertext[1][0] == "x (1) looks at &lt;b&gt; (0): 0.000"


def test_the_viewer_is_painted_in_the_colours_of_the_project() -> None:
    style = read("widgets.css")
    stops = re.findall(r"--heat-(\d): light-dark\((#\w+), (#\w+)\)", style)
    assert [int(place) for place, _, _ in stops] == list(range(9))
    for place, light, dark in stops:
        assert light == blend(SEQUENTIAL, int(place) / 8)
        assert dark == blend(SEQUENTIAL_DARK, int(place) / 8)
