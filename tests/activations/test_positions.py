from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interp.activations.positions import columns, pick
from interp.errors import SiteError
from interp.prompts import PromptSet
from tests.activations.samples import ROWS, prompts


def picked_tokens(some: PromptSet, positions: object) -> list[list[int]]:
    picked = columns(some, positions)
    assert picked is not None
    return pick(some.clean, picked, axis=1).tolist()


@pytest.mark.parametrize("side", ["right", "left"])
def test_positions_count_real_tokens_whatever_the_padding(side: str):
    some = prompts(side)
    assert picked_tokens(some, "END") == picked_tokens(some, -1) == [[row[-1]] for row in ROWS]
    assert picked_tokens(some, 0) == [[row[0]] for row in ROWS]
    assert picked_tokens(some, [-2, 1]) == [[row[-2], row[1]] for row in ROWS]
    assert picked_tokens(some, "S") == [row[:2] for row in ROWS]


def test_all_positions_are_none():
    assert columns(prompts(), None) is None


@given(st.data())
def test_integers_are_python_indices_into_each_prompt(data: st.DataObject):
    lengths = data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=5))
    wanted = data.draw(st.lists(st.integers(-min(lengths), min(lengths) - 1), min_size=1))
    rows = [[10 * i + j for j in range(length)] for i, length in enumerate(lengths)]
    side = data.draw(st.sampled_from(["left", "right"]))
    some = prompts(side, [[*row, 80] for row in rows])
    expected = [[[*row, 80][p] for p in wanted] for row in rows]
    assert picked_tokens(some, wanted) == expected


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (3, r"Position 3 is outside prompt 1, which has 3 tokens; use -3 to 2\."),
        ([-1, -4], r"Position -4 is outside prompt 1, which has 3 tokens; use -3 to 2\."),
        ("IO", r"No prompt has the role 'IO': known: END, S"),
        ([], r"positions is \[\]; give None for all, a role such as 'END'"),
    ],
)
def test_positions_that_do_not_exist_are_refused(positions: object, message: str):
    with pytest.raises(SiteError, match=message):
        columns(prompts(), positions)


def with_role(spans: list[list[int]]) -> PromptSet:
    rows = [[1, 2, 3], [4, 5, 6]]
    return PromptSet.from_tokens(rows, answer=[7, 8], roles={"IO": torch.tensor(spans)})


def test_a_role_of_unequal_spans_is_refused():
    with pytest.raises(SiteError, match=r"'IO' spans 1 tokens in prompt 0 and 2 in prompt 1"):
        columns(with_role([[0, 1], [1, 3]]), "IO")


def test_a_role_that_a_prompt_lacks_is_refused():
    with pytest.raises(SiteError, match=r"Prompt 1 lacks the role 'IO' \(1 of 2 do\)"):
        columns(with_role([[0, 1], [-1, -1]]), "IO")
