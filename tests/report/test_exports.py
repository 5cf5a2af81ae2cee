"""A report is saved as HTML, JSON, Markdown and PDF, with the same numbers in each."""

from __future__ import annotations

import html
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from markdown_it import MarkdownIt  # with which rich reads Markdown

from interp.errors import InterpError
from interp.report import Report, build
from interp.report.export.markdown import plain
from interp.report.parts import Table
from tests.report.pages import HOSTILE, answering, drawing, numbers, report_of
from tests.report.results import atlas, sweep, untrained


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def report() -> Report:
    planted = {"induction": {"1.3": 0.93}}
    return build(atlas(planted), untrained(), sweep({"1.3": -2.5}))


def test_the_ending_of_the_name_says_how_it_is_saved(report: Report, tmp_path: Path) -> None:
    for ending, text in (("html", report.html), ("json", report.json), ("md", report.markdown)):
        path = report.save(tmp_path / "new" / f"report.{ending}")
        assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize("name", ["report", "report.docx", "report.html.gz"])
def test_another_ending_is_refused(report: Report, tmp_path: Path, name: str) -> None:
    way_out = r"does not say how to save a report; end the name in .html, .json, .md or .pdf"
    with pytest.raises(InterpError, match=way_out):
        report.save(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_json_has_all_that_the_page_says(report: Report) -> None:
    found = json.loads(report.json)
    assert (found["format"], found["version"]) == ("interp.Report", 1)
    assert found["verdict"] == report.verdict
    assert found["facts"]["Model"].startswith("toy")
    for section, kept in zip(found["sections"], report.sections, strict=True):
        assert section["command"] == kept.command
        assert [claim["evidence"] for claim in section["claims"]] == [
            claim.evidence for claim in kept.claims
        ]
        assert len(section["blocks"]) == len(kept.blocks)


def test_json_has_exact_numbers_and_null_for_what_is_missing() -> None:
    values = 0.1 + 0.2, float("nan"), float("inf"), -7, "words"
    found = json.loads(report_of(numbers(*values), figures=(drawing(),)).json)
    (block,) = found["sections"][0]["blocks"]
    assert [row[1] for row in block["tables"][0]["rows"]] == [0.1 + 0.2, None, None, -7, "words"]
    assert block["figures"][0]["data"]["rows"][1] == [1, 0.0, -0.25, None]
    assert found["sections"][0]["baselines"]["rows"] == [["A block", 4.0]]


def test_json_has_the_data_of_widgets() -> None:
    found = json.loads(report_of(figures=(answering("hello"),)).json)
    (figure,) = found["sections"][0]["blocks"][0]["figures"]
    assert figure["widget"]["kind"] == "graph"
    assert figure["widget"]["data"] == {"token": "hello"}


def test_markdown_has_claims_tables_limits_and_commands(report: Report) -> None:
    text = report.markdown
    assert text.startswith("# Inside toy\n\n**6 claims: ")
    assert "- **Found.** Head 1.3 is an induction head. 1.3 at 0.93 (0.92 to 0.94)" in text
    assert "| 1.3 | 0.93 | 0.92 to 0.94 |" in text
    assert "```\ninterp scan toy --seed 0\n```" in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith(" |")


def test_tables_too_large_to_read_are_left_to_the_other_files() -> None:
    large = Table("Large", ("A", "B"), tuple((str(i), i) for i in range(100)))
    text = report_of(large).markdown
    assert "**Large**: 100 rows of 2 columns, in the HTML and JSON reports." in text
    assert "| 99 |" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_in_markdown_is_escaped(text: str) -> None:
    table = Table(text, (text, text), ((text, 1.5), ("b", text)))
    whole = report_of(table, figures=(answering(text),), name=text).markdown
    whole.encode()
    page = Tags()
    page.feed(MarkdownIt("commonmark").enable("table").render(whole))
    assert {tag for tag, _ in page.found} == {
        *("h1", "h2", "h3", "p", "strong", "em", "ul", "li", "pre", "code"),
        *("table", "thead", "tbody", "tr", "th", "td"),
    }
    assert len([tag for tag, _ in page.found if tag == "td"]) == 2 + 4  # baselines and the table
    assert len([tag for tag, _ in page.found if tag == "pre"]) == 1
    outside = re.sub(r"^(`{3,})\n.*?^\1$", "", whole, flags=re.DOTALL | re.MULTILINE)
    assert not re.search(r"(?<!\\)://|(?<!\\)www\.", outside)  # GitHub makes links of these
    assert not re.search("[\u202e\u0000]", whole)


def test_markdown_is_one_line_and_shows_what_cannot_be_seen() -> None:
    assert plain("a\n\n# b\r\n- c\u2028d") == r"a \# b - c d"
    assert plain("\u202eabc\u0000") == "(U+202E)abc(U+0000)"
    assert plain("1. a") == r"1\. a"
    assert plain("1.3") == "1.3"
    assert plain("- a") == r"\- a"


@pytest.mark.browser
def test_pdf_is_printed_by_a_browser(report: Report, tmp_path: Path) -> None:
    content = report.save(tmp_path / "report.pdf").read_bytes()
    assert content.startswith(b"%PDF-")
    assert content.rstrip().endswith(b"%%EOF")
    assert len(content) > 50_000
    assert [path.name for path in tmp_path.iterdir()] == ["report.pdf"]


def test_pdf_without_a_browser_says_what_to_do(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INTERP_BROWSER", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InterpError, match="none is on PATH; install one, set INTERP_BROWSER to"):
        report.save(tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()


def test_a_browser_that_is_named_wrongly_is_told(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERP_BROWSER", "/no/such/browser")
    with pytest.raises(InterpError, match="INTERP_BROWSER names '/no/such/browser', which is no"):
        report.save(tmp_path / "report.pdf")


def test_a_browser_that_prints_nothing_is_told(
    report: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INTERP_BROWSER", shutil.which("true") or "true")
    with pytest.raises(InterpError, match=r"true printed no PDF \(it said nothing\); save as"):
        report.save(tmp_path / "report.pdf")
    assert not (tmp_path / "report.pdf").exists()


def test_browsers_are_searched_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INTERP_BROWSER", raising=False)
    fake = tmp_path / "msedge"
    fake.write_text("#!/bin/sh\necho it is broken >&2\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InterpError, match=r"msedge printed no PDF \(it is broken\)"):
        report_of().save(tmp_path / "report.pdf")


def test_a_notebook_shows_the_page_in_a_frame_of_its_own(report: Report) -> None:
    page = Tags()
    page.feed(report._repr_html_())
    ((tag, attributes),) = page.found
    assert tag == "iframe"
    assert attributes["srcdoc"] == report.html
    assert attributes["height"] == "700"
    assert "allow-same-origin" not in (attributes["sandbox"] or "")
    assert html.escape("<script>") in report._repr_html_()
