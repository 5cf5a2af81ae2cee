"""Attention patterns are those of the model, prompt by prompt, without padding."""

from __future__ import annotations

import pytest
import torch

from interp.activations import capture
from interp.errors import InterpError, PromptError, SiteError
from interp.heads import AttentionPatterns, attention_patterns
from interp.models import Model, load
from interp.prompts import PromptSet
from interp.sites import Head
from interp.tasks import get


@pytest.fixture(scope="module")
def model() -> Model:
    return load("polymath", check=False)


@pytest.fixture(scope="module")
def prompts(model: Model) -> PromptSet:
    """Three prompts of 50, 28 and 27 tokens."""
    return get("repeated_tokens").sample(model, n=3, seed=0)


@pytest.fixture(scope="module")
def seen(model: Model, prompts: PromptSet) -> AttentionPatterns:
    return attention_patterns(model, prompts, ["2.1", Head(0, 3)])


def test_patterns_are_what_passes_the_hook(
    model: Model, prompts: PromptSet, seen: AttentionPatterns
) -> None:
    names = ["blocks.2.attn.hook_pattern", "blocks.0.attn.hook_pattern"]
    captured = capture(model, prompts, names)
    for prompt, length in enumerate(prompts.mask.sum(dim=-1).tolist()):
        assert seen.patterns[prompt].shape == (2, length, length)
        for name, head, found in zip(names, (1, 3), seen.patterns[prompt], strict=True):
            expected = captured[name][prompt, head, :length, :length]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_each_token_shares_its_attention_among_itself_and_those_before(
    seen: AttentionPatterns,
) -> None:
    for pattern in seen.patterns:
        torch.testing.assert_close(pattern.sum(dim=-1), torch.ones(pattern.shape[:2]))
        assert (pattern.triu(1) == 0).all()


def test_padding_is_in_no_result(model: Model, prompts: PromptSet, seen: AttentionPatterns) -> None:
    """Prompts that are padded on the left give the same."""
    rows = [row[real].tolist() for row, real in zip(prompts.clean, prompts.mask, strict=True)]
    pad = max(map(len, rows))
    left = PromptSet.from_tokens(
        torch.tensor([[model.pad_id] * (pad - len(row)) + row for row in rows]),
        answer=prompts.answer,
        mask=torch.tensor([[False] * (pad - len(row)) + [True] * len(row) for row in rows]),
    )
    again = attention_patterns(model, left, ["2.1", "0.3"])
    assert again.tokens == seen.tokens
    for one, other in zip(again.patterns, seen.patterns, strict=True):
        assert torch.equal(one, other)


def test_tokens_are_their_text(model: Model) -> None:
    seen = attention_patterns(model, "John went to the park", ["2.1"])
    assert seen.tokens == (("<|endoftext|>", "John", "went", "to", "the", "park"),)


def test_an_induction_head_is_seen_to_look_behind_the_earlier_copy(seen: AttentionPatterns) -> None:
    frame = seen.to_frame(least=0.5)
    words = frame[(frame["head"] == "2.1") & (frame["prompt"] == 0) & (frame["query"] > 26)]
    assert len(words) > 15
    assert (words["query"] - words["key"] == 24).mean() > 0.9


def test_the_frame_has_every_cell_or_the_strong_ones(seen: AttentionPatterns) -> None:
    frame = seen.to_frame()
    assert len(frame) == 2 * sum(n * (n + 1) // 2 for n in map(len, seen.tokens))
    row = frame[(frame["head"] == "0.3") & (frame["prompt"] == 1) & (frame["query"] == 4)].iloc[2]
    assert row["attention"] == pytest.approx(seen.pattern("0.3", 1)[4, 2].item())
    assert (row["query_token"], row["key_token"]) == (seen.tokens[1][4], seen.tokens[1][2])
    strong = seen.to_frame(least=0.3)
    assert len(strong) == (frame["attention"] >= 0.3).sum()


def test_every_head_is_seen_by_default_and_as_many_prompts_as_asked_for(
    model: Model, prompts: PromptSet
) -> None:
    seen = attention_patterns(model, prompts[1:], limit=1)
    assert len(seen.heads) == 48
    assert len(seen.tokens) == 1
    assert repr(seen) == (
        "AttentionPatterns(polymath: heads 0.0, 0.1, 0.2, 0.3, 0.4, 0.5 and 42 more on 1 prompt of "
        "up to 28 tokens)"
    )


def test_some_heads_can_be_taken_out_of_many(seen: AttentionPatterns) -> None:
    one = seen.select(["0.3"])
    assert one.heads == (Head(0, 3),)
    assert torch.equal(one.pattern("0.3", 2), seen.pattern("0.3", 2))


def test_a_pattern_is_plotted_with_its_tokens(seen: AttentionPatterns) -> None:
    figure = seen.plot("2.1", prompt=1)
    (drawn,) = figure.data
    assert torch.tensor(drawn.z).shape == (28, 28)
    assert drawn.hovertext[3][2].startswith(f"{seen.tokens[1][3]} (3) looks at")
    assert figure.layout.title.text == "Attention of 2.1 in polymath, prompt 1"


def test_a_notebook_shows_the_viewer(seen: AttentionPatterns) -> None:
    shown = seen._repr_html_()
    assert shown.count("<iframe srcdoc=") == 1
    assert "heads 2.1, 0.3 on 3 prompts" in shown


@pytest.mark.parametrize(
    ("heads", "error", "message"),
    [
        (["9.9"], SiteError, "9.9"),
        (["m3"], SiteError, "m3 is not a head, and only heads attend; write one as 5.1."),
        ([], SiteError, "There are no sites"),
        (["2.1", "2.1"], SiteError, "2.1 is given twice"),
    ],
)
def test_what_is_no_head_of_the_model_is_refused(
    model: Model, prompts: PromptSet, heads: list[str], error: type[InterpError], message: str
) -> None:
    with pytest.raises(error, match=message):
        attention_patterns(model, prompts, heads)


def test_prompts_that_are_not_there_are_refused(
    model: Model, prompts: PromptSet, seen: AttentionPatterns
) -> None:
    with pytest.raises(PromptError, match="limit is 0, and there must be a prompt to look at"):
        attention_patterns(model, prompts, limit=0)
    with pytest.raises(PromptError):
        attention_patterns(model, [])
    with pytest.raises(PromptError, match="There is no prompt 3; these are 0 to 2"):
        seen.pattern("2.1", 3)
    message = r"The attention of 5\.5 is not among these, which are 2\.1, "
    with pytest.raises(SiteError, match=message):
        seen.plot("5.5")


def test_too_much_is_refused_before_it_is_run(model: Model) -> None:
    long = PromptSet.from_tokens(torch.full((20, 160), 5), answer=[5] * 20)
    with pytest.raises(InterpError, match="48 heads on 20 prompts of up to 160 tokens are 24,576,"):
        attention_patterns(model, long, limit=20)
