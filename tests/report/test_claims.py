"""The sentences on an atlas follow from the numbers, and are not surer than they are."""

from __future__ import annotations

from typing import Any

import torch

from interp.heads import AttentionPatterns, HeadAtlas, Score
from interp.plots.widget import Widget
from interp.report.heads.atlas import atlas_section
from interp.report.heads.attention import attention_section, patterns_for
from interp.report.parts import Claim, Section
from interp.sites import Head
from tests.report.results import atlas, check, untrained


def told(scanned: HeadAtlas, *others: object) -> Section:
    section = atlas_section(scanned, [scanned, *others])
    assert section is not None
    return section


def induction(scanned: HeadAtlas, control: HeadAtlas | None) -> Claim:
    section = told(scanned) if control is None else told(scanned, control)
    return next(claim for claim in section.claims if "induction head" in claim.statement)


def test_heads_beyond_threshold_and_control_are_found() -> None:
    claim = induction(atlas({"induction": {"1.3": 0.93, "2.0": 0.88}}), untrained())
    assert claim.statement == "Heads 1.3 and 2.0 are induction heads."
    assert claim.verdict == "found"
    assert "1.3 at 0.93 (0.92 to 0.94) and 2.0 at 0.88 (0.87 to 0.89)" in claim.evidence
    assert "untrained twin at most 0.03" in claim.evidence
    assert claim.evidence.endswith("n\u00a0=\u00a010 prompts.")


def test_what_was_found_is_told_first() -> None:
    section = told(atlas({"induction": {"1.3": 0.93}}), untrained())
    assert [claim.verdict for claim in section.claims[:2]] == ["found", "not found"]
    assert section.claims[0].statement == "Head 1.3 is an induction head."


def test_one_head_is_told_in_the_singular() -> None:
    claim = induction(atlas({"induction": {"1.3": 0.93}}), untrained())
    assert claim.statement == "Head 1.3 is an induction head."


def test_many_heads_are_counted_not_listed() -> None:
    planted = {"induction": {f"{layer}.{head}": 0.9 for layer in (1, 2) for head in range(4)}}
    claim = induction(atlas(planted), untrained())
    assert claim.statement == "Heads 1.0, 1.1, 1.2, 1.3 and 4 more are induction heads."


def test_nothing_above_the_threshold_is_said_to_be_not_found() -> None:
    claim = induction(atlas({"induction": {"1.3": 0.3}}), untrained())
    assert claim.statement == "No head is an induction head."
    assert claim.verdict == "not found"
    assert "The best is 1.3 at 0.30 (0.29 to 0.31), below 0.4" in claim.evidence


def test_an_interval_across_the_threshold_is_doubtful() -> None:
    claim = induction(atlas({"induction": {"1.3": 0.41}}, spread=0.1), untrained())
    assert (claim.statement, claim.verdict) == ("Head 1.3 may be an induction head.", "doubtful")


def test_a_head_too_close_to_call_is_set_apart() -> None:
    planted = {"induction": {"1.3": 0.9, "2.0": 0.41}}
    claim = induction(atlas(planted, spread=0.1), untrained())
    assert claim.statement == "Head 1.3 is an induction head."
    assert "too close to 0.4 to say: 2.0 at 0.41" in claim.evidence


def test_a_score_that_random_weights_reach_too_is_doubtful() -> None:
    control = untrained(planted={"induction": {"0.0": 0.95}})
    claim = induction(atlas({"induction": {"1.3": 0.93}}), control)
    assert claim.verdict == "doubtful"
    assert "untrained twin at most 0.95" in claim.evidence


def test_a_missing_control_is_admitted() -> None:
    section = told(atlas({"induction": {"1.3": 0.93}}))
    assert all("no untrained control" in claim.evidence for claim in section.claims)
    assert any("There is no untrained control" in limit for limit in section.limits)


def test_one_prompt_claims_nothing() -> None:
    whole = atlas({"induction": {"1.3": 0.93}})
    scores = {
        kind: Score(kind, score.values[..., :1], chance=score.chance)
        for kind, score in whole.scores.items()
    }
    single = HeadAtlas(scores, provenance=whole.provenance)
    claim = induction(single, None)
    assert claim.verdict == "doubtful"
    assert "(no interval)" in claim.evidence


def test_heads_without_which_the_task_suffers_are_confirmed() -> None:
    planted = {"induction": {"1.3": 0.93}}
    claim = induction(atlas(planted, claims={"induction": check()}), untrained())
    assert claim.verdict == "found"
    assert "Taken out together, it changes logit_diff on repeated_tokens by −3.00" in claim.evidence
    assert claim.evidence.endswith(
        "and random heads by −0.50 (20 sets; n\u00a0=\u00a010): confirmed."
    )


def test_heads_that_matter_no_more_than_random_ones_are_doubtful() -> None:
    planted = {"induction": {"1.3": 0.93}}
    claim = induction(atlas(planted, claims={"induction": check(-0.5, -0.5)}), untrained())
    assert claim.verdict == "doubtful"
    assert claim.evidence.endswith("that they serve this task is not confirmed.")


def test_what_was_not_measured_is_a_limit() -> None:
    section = told(atlas(missing={"retrieval": "No words for it."}), untrained())
    assert "Not measured: retrieval. No words for it." in section.limits


def test_the_control_has_no_section_of_its_own() -> None:
    assert atlas_section(untrained(), [atlas(), untrained()]) is None


def patterns(*heads: str, **provenance: Any) -> AttentionPatterns:
    """Of one prompt of two tokens, by the model of `atlas`."""
    known = {"model": "toy", "weights_hash": "0123456789abcdef", "task": "ioi"}
    return AttentionPatterns(
        tuple(Head(*map(int, head.split("."))) for head in heads),
        (("a", "b"),),
        (torch.tensor([[[1.0, 0.0], [0.75, 0.25]]]).expand(len(heads), 2, 2),),
        known | provenance,
    )


def test_an_atlas_shows_where_its_named_heads_look() -> None:
    seen = patterns("0.0", "1.3")
    section = told(atlas({"induction": {"1.3": 0.93}}), seen)
    block = section.blocks[-1]
    assert block.heading == "Attention of 1.3"
    assert "1 more heads were looked at, and are left out" in block.meaning
    drawing = block.figures[0].drawing
    assert isinstance(drawing, Widget)
    assert list(drawing.data["prompts"][0]["patterns"]) == ["1.3"]
    assert attention_section(seen, [atlas(), seen]) is None


def test_attention_alone_has_a_section_that_claims_nothing() -> None:
    seen = patterns("0.0", "1.3")
    section = attention_section(seen, [seen])
    assert section is not None
    assert section.claims == ()
    assert section.heading == "Where heads look, on ioi"
    (figure,) = section.blocks[0].figures
    assert figure.data is not None
    assert figure.data.rows[0] == ("0.0", 0, 0, "a", 0, "a", 1.0)
    assert "interp.heads.attention_patterns(model, prompts, ['0.0', '1.3'], limit=1)" in (
        section.command
    )


def test_attention_of_another_model_stands_alone() -> None:
    seen, other = patterns("0.0"), patterns("0.0", weights_hash="fedcba9876543210")
    assert patterns_for([other, seen], atlas().provenance) is seen
    assert attention_section(other, [atlas(), other, seen]) is not None
    assert len(told(atlas(), other).blocks) == len(told(atlas()).blocks)


def test_a_second_look_at_the_same_model_is_not_lost() -> None:
    first, second = patterns("0.0"), patterns("1.3", task="repeated_tokens")
    section = attention_section(second, [atlas(), first, second])
    assert section is not None
    assert section.heading == "Where heads look, on repeated_tokens"
