"""The page is whole, needs nothing from outside, and trusts no text."""

from __future__ import annotations

import base64
import hashlib
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import pytest

from interp.errors import InterpError
from interp.report import Report, build
from tests.report.results import atlas, sweep, untrained

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7*7 }}'
VOID = {"meta", "link", "img", "br", "rect", "circle", "line"}


class Reader(HTMLParser):
    """Collects tags and text, and checks that every tag is closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def report() -> Report:
    planted = {"induction": {"1.3": 0.93}, "previous-token": {"0.2": 0.98}}
    return build(atlas(planted), untrained(), sweep({"1.3": -2.5}))


def test_every_result_has_its_section_and_the_control_has_none(report: Report) -> None:
    page = Reader(report.html)
    assert [a.get("id") for tag, a in page.tags if tag == "section"] == [
        "findings",
        "section-1",
        "section-2",
    ]
    assert report.title == "Inside toy"
    assert page.text.count("Control: untrained twin") == 5


def test_it_says_what_it_was_made_from(report: Report) -> None:
    text = Reader(report.html).text
    for fact in ("0123456789abcdef", "float32", "interp scan toy --seed 0", "95% interval"):
        assert fact in text


def test_nothing_is_loaded_from_outside(report: Report) -> None:
    for tag, attributes in Reader(report.html).tags:
        for name in ("src", "href", "xlink:href", "data", "poster", "srcset"):
            value = attributes.get(name) or "#"
            assert value.startswith(("#", "data:")), (tag, name, value)
    assert "@import" not in report.html
    assert "url(" not in report.html


def test_the_policy_allows_its_own_style_and_script_and_nothing_else(report: Report) -> None:
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', report.html)
    rules = dict(rule.strip().split(" ", 1) for rule in unescape(policy).split(";"))
    assert rules["default-src"] == "'none'"
    for name in ("style", "script"):
        (block,) = re.findall(rf"<{name}>(.*?)</{name}>", report.html, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(block.encode()).digest()).decode()
        assert rules[f"{name}-src"] == f"'sha256-{digest}'"


def test_no_style_or_handler_sits_in_an_attribute(report: Report) -> None:
    """The policy would block them, and the page would look broken."""
    for _, attributes in Reader(report.html).tags:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_text_from_outside_is_only_text() -> None:
    hostile = build(
        atlas(model=HOSTILE, command=HOSTILE, weights_hash=HOSTILE),
        sweep({"1.3": -2.5}, task=HOSTILE, model=HOSTILE),
        title=HOSTILE,
    )
    page = Reader(hostile.html)
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert "img" not in [tag for tag, _ in page.tags]
    assert HOSTILE in page.text


def test_every_drawing_has_words_for_those_who_do_not_see_it(report: Report) -> None:
    drawings = [attributes for tag, attributes in Reader(report.html).tags if tag == "svg"]
    assert len(drawings) == 5 * 3 + 3
    for attributes in drawings:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"] or "") > 20


def test_numbers_are_written_in_the_cells(report: Report) -> None:
    assert re.search(
        r'data-tip="1.3: 0.93, 95% interval 0.92 to 0.94"/><text [^>]*>.93</text>', report.html
    )
    assert re.search(
        r'data-tip="1.3: −2.50 logits, 95% interval [^"]*"/><text [^>]*>−2.5</text>', report.html
    )


def test_the_same_results_give_the_same_bytes(report: Report) -> None:
    planted = {"induction": {"1.3": 0.93}, "previous-token": {"0.2": 0.98}}
    assert build(atlas(planted), untrained(), sweep({"1.3": -2.5})).html == report.html


def test_a_thousand_heads_stay_small() -> None:
    size = {"layers": 32, "heads": 32}
    report = build(atlas(**size), untrained(**size), sweep(**size))
    assert len(report.html.encode()) < 3e6


def test_two_models_keep_their_own_controls() -> None:
    other = atlas(model="other")
    page = Reader(build(atlas(), other, untrained()).html)
    assert page.text.count("Control: untrained twin") == 5
    assert (
        page.text.count("There is no untrained control: add scan(model.untrained()) of other.") == 1
    )


def test_a_twin_of_another_shape_is_no_control() -> None:
    page = Reader(build(atlas(), untrained(layers=2)).html)
    assert "Control: untrained twin" not in page.text


def test_it_is_saved_where_asked(report: Report, tmp_path: Path) -> None:
    path = report.save(tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == report.html


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ((), "A report needs a result; pass a HeadAtlas or a SweepResult."),
        ((3,), "A report cannot show a int; pass a HeadAtlas, SweepResult, TrainingCurves, "),
    ],
)
def test_what_cannot_be_shown_is_refused(results: tuple[object, ...], message: str) -> None:
    with pytest.raises(InterpError, match=message):
        build(*results)
