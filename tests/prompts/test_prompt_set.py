"""PromptSet: what it accepts, what it refuses, what it means."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import interp
from interp import PromptSet
from interp.errors import PromptError
from tests.tokenizers import piece_model, word_model

CLEAN = ["When Mary and John went to the store, John gave a drink to"]
CORRUPT = ["When Mary and John went to the store, Mary gave a drink to"]


def test_from_strings_finds_answers_and_roles() -> None:
    model = word_model()
    prompts = PromptSet.from_strings(
        model,
        CLEAN,
        corrupt=CORRUPT,
        answer=[" Mary"],
        wrong=[[" John", " Tom"]],
        roles={"IO": ["Mary"], "S2": [(38, 42)]},
    )
    row = prompts.to_frame(model).iloc[0]
    assert row["answer"] == "Mary"
    assert row["wrong"] == "John | Tom"
    assert (row["IO"], row["S2"], row["END"]) == ("Mary", "John", "to")
    assert int(prompts.clean[0, 0]) == model.bos_id
    assert int(prompts.end[0]) == prompts.clean.shape[1] - 1


def test_roles_cover_pieces_and_their_leading_space() -> None:
    model = piece_model()
    prompts = PromptSet.from_strings(model, CLEAN, answer=[" the"], roles={"IO": ["Mary"]})
    start, stop = prompts.span("IO")[0].tolist()
    assert model.tokenizer.decode(prompts.clean[0, start:stop]).strip() == "Mary"


def test_ragged_rows_are_padded_on_the_right() -> None:
    prompts = PromptSet.from_tokens([[5, 6, 7], [5]], answer=[1, 2])
    assert prompts.mask.tolist() == [[True, True, True], [True, False, False]]
    assert prompts.end.tolist() == [2, 0]
    assert prompts.span("END").tolist() == [[2, 3], [0, 1]]


def test_left_padding_is_kept_as_given() -> None:
    mask = torch.tensor([[False, True, True]])
    prompts = PromptSet.from_tokens(torch.tensor([[0, 5, 6]]), answer=[1], mask=mask)
    assert prompts.end.tolist() == [2]


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=5))
def test_rows_come_back_as_they_were(rows: list[list[int]]) -> None:
    prompts = PromptSet.from_tokens(rows, answer=[1] * len(rows))
    assert [
        row[real].tolist() for row, real in zip(prompts.clean, prompts.mask, strict=True)
    ] == rows
    assert prompts[list(range(len(rows)))].hash == prompts.hash


def test_picking_rows_keeps_everything_in_step() -> None:
    prompts = interp.tasks.get("coin_flip").sample(word_model(), 6)
    picked = prompts[[4, 1]]
    assert len(picked) == 2
    assert torch.equal(picked.clean, prompts.clean[[4, 1]])
    assert torch.equal(picked.span("START"), prompts.span("START")[[4, 1]])
    assert picked.notes["template"] == [prompts.notes["template"][i] for i in (4, 1)]
    assert len(prompts[2]) == 1
    assert len(prompts[1:4]) == 3


def test_the_hash_sees_every_part() -> None:
    base = {"answer": [1], "wrong": [2], "roles": {"A": torch.tensor([[0, 1]])}}
    variants = [
        PromptSet.from_tokens([[5, 6]], [[5, 7]], **base),
        PromptSet.from_tokens([[5, 8]], [[5, 7]], **base),
        PromptSet.from_tokens([[5, 6]], [[5, 8]], **base),
        PromptSet.from_tokens([[5, 6]], **base),
        PromptSet.from_tokens([[5, 6]], [[5, 7]], **(base | {"answer": [3]})),
        PromptSet.from_tokens([[5, 6]], [[5, 7]], **(base | {"wrong": [3]})),
        PromptSet.from_tokens(
            [[5, 6]], [[5, 7]], **(base | {"roles": {"A": torch.tensor([[1, 2]])}})
        ),
    ]
    assert len({prompts.hash for prompts in variants}) == len(variants)


def test_it_shows_itself() -> None:
    prompts = interp.tasks.get("ioi").sample(word_model(), 4)
    assert "PromptSet(ioi: 4 prompts" in repr(prompts)
    assert "PromptSet(ioi: 4 prompts" in prompts._repr_html_()
    assert "<i>" not in PromptSet.from_tokens([[1]], answer=[2], task="<i>")._repr_html_()


def _strings(**changes: object) -> PromptSet:
    given = {"clean": CLEAN, "corrupt": CORRUPT, "answer": [" Mary"], "wrong": [" John"], **changes}
    return PromptSet.from_strings(word_model(), **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _strings(clean=[], corrupt=None), "needs at least one prompt, and got none"),
        (lambda: _strings(clean=CLEAN[0]), "list of texts, and got one text"),
        (lambda: _strings(answer=[" Mary", " Tom"]), "answer has 2 entries for 1 prompts"),
        (lambda: _strings(corrupt=["When Mary left"]), "Prompt 0 has 15 tokens and its count"),
        (lambda: _strings(corrupt=CLEAN), "Prompt 0 equals its counterfactual"),
        (lambda: _strings(answer=[" Mary and"]), "Prompt 0: the answer ' Mary and' is"),
        (lambda: _strings(answer=[" Zebedee"]), "must be one known token"),
        (lambda: _strings(answer=[" John"]), "both as its answer and as a wrong answer"),
        (lambda: _strings(clean=["Zebedee went"]), "does not know the word 'Zebedee'"),
        (lambda: _strings(roles={"S": ["John"]}), "occurs 2 times"),
        (lambda: _strings(roles={"S": ["Bob"]}), "occurs 0 times"),
        (lambda: _strings(roles={"S": [(500, 504)]}), "covers no token of"),
        (lambda: PromptSet.from_tokens([[1, 2], []], answer=[1, 2]), "Prompt 1 has no tokens"),
        (lambda: PromptSet.from_tokens([[1]], [[1], [2]], answer=[1]), "2 counterfactuals for 1"),
        (lambda: PromptSet.from_tokens([[1, -2]], answer=[1]), "negative token id"),
        (lambda: PromptSet.from_tokens([[1]], answer=[[-1]]), "Prompt 0 has no answer"),
        (
            lambda: PromptSet.from_tokens(
                torch.tensor([[1, 2, 3]]), answer=[1], mask=torch.tensor([[True, False, True]])
            ),
            "padding between real tokens",
        ),
        (
            lambda: PromptSet.from_tokens(
                [[1, 2]], answer=[1], mask=torch.tensor([[False, False]])
            ),
            "no real token",
        ),
        (
            lambda: PromptSet.from_tokens(
                [[1, 2], [1]], answer=[1, 1], roles={"A": torch.tensor([[0, 2], [0, 2]])}
            ),
            r"Prompt 1: role 'A' spans columns \[0, 2\]",
        ),
        (
            lambda: PromptSet.from_tokens([[1]], answer=[2]).span("END2"),
            "No prompt has the role 'END2': did you mean END?",
        ),
    ],
)
def test_bad_input_gets_one_clear_sentence(call: object, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        call()  # type: ignore[operator]
