from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp.errors import SiteError
from interp.sites import MLP, POINTS, Head, Resid, Site, heads, parse, resolve, validate
from tests.activations.samples import model

layers = st.integers(0, 200)
any_site = st.one_of(
    st.builds(Head, layers, layers),
    st.builds(MLP, layers),
    st.builds(Resid, layers, st.sampled_from(POINTS)),
)


@given(any_site)
def test_a_site_is_parsed_from_what_it_prints(site: Site):
    assert parse(str(site)) == site


@given(any_site)
def test_a_site_is_parsed_from_its_hook_unless_it_is_a_head(site: Site):
    if not isinstance(site, Head):
        assert parse(site.hook) == site


def test_sites_sort_in_the_order_of_computation():
    order = [parse(text) for text in ("r0.pre", "0.1", "0.11", "r0.mid", "m0", "r0.post", "1.0")]
    shuffled = random.Random(0).sample(order, len(order))
    assert sorted(shuffled) == order
    assert len(set(order + shuffled)) == len(order)


def test_all_heads_layer_by_layer():
    tiny = model("llama")
    assert " ".join(map(str, heads(tiny))) == "0.0 0.1 0.2 0.3 1.0 1.1 1.2 1.3"
    assert heads(tiny.geometry) == heads(tiny)


@pytest.mark.parametrize("text", ["5", "5.1.2", "m", "x3", "r4", "r4.in", "-1.0", "", "attn"])
def test_what_is_not_a_site_is_refused(text: str):
    with pytest.raises(SiteError, match=r"is not a site; write a head as 5\.1, an MLP as m3"):
        parse(text)


def test_the_hook_of_a_layer_of_heads_is_not_one_site():
    with pytest.raises(SiteError, match=r"holds every head of layer 5 .* write 5\.0 for the first"):
        parse("blocks.5.attn.hook_z")


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Head(2, 0), r"2\.0 is outside the model: its layer is 2, and layers are numbered 0 to 1"),
        (Head(1, 4), r"1\.4 is outside the model: its head is 4, and heads are numbered 0 to 3"),
        (Head(-1, 0), r"its layer is -1"),
        (MLP(7), r"m7 is outside the model"),
        (Resid(0, "middle"), r"at 'middle'; use one of pre, mid, post"),
    ],
)
def test_sites_outside_the_model_are_refused(site: Site, message: str):
    with pytest.raises(SiteError, match=message):
        validate(site, model("gpt2").geometry)


def test_sites_and_texts_may_be_mixed():
    tiny = model("gpt2")
    assert resolve(["0.1", MLP(1)], tiny) == (Head(0, 1), MLP(1))
    assert resolve("0.1", tiny) == (Head(0, 1),)
    assert resolve(None, tiny) == heads(tiny)
    with pytest.raises(SiteError, match=r"0\.1 is given twice"):
        resolve(["0.1", Head(0, 1)], tiny)
    with pytest.raises(SiteError, match=r"There are no sites to act on"):
        resolve([], tiny)
