"""Figures of a report are saved as they are shown, with their exact numbers."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from interp.plots.widget import Widget
from interp.report.parts import Figure, Table
from tests.browser.conftest import Page
from tests.report.pages import HOSTILE, answering, drawing, report_of, stand_in

pytestmark = pytest.mark.browser

Show = Callable[[str], Page]
Save = Callable[[Page, str], Path]
DRAWN = ("svg", "path", "rect", "text", "title")
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Saves the first figure of a page in one format; gives the file."""
    folder = tmp_path / "saved"

    def press(page: Page, ending: str) -> Path:
        behavior = {"behavior": "allow", "downloadPath": str(folder)}
        page.driver.execute_cdp_cmd("Browser.setDownloadBehavior", behavior)
        menu = page.driver.find_element(By.CSS_SELECTOR, ".save")
        page.run("arguments[0].open = true", menu)
        buttons = menu.find_elements(By.TAG_NAME, "button")
        button = next(button for button in buttons if button.text == ending.upper())
        page.run("arguments[0].click()", button)
        return WebDriverWait(page.driver, 20).until(lambda _: saved(folder, ending))

    return press


def saved(folder: Path, ending: str) -> Path | None:
    """The file, once all of it is there."""
    return next((path for path in folder.glob(f"*.{ending}") if path.stat().st_size), None)


def csv_rows(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_bytes().decode())))


def menu_of(page: Page) -> list[str]:
    buttons = page.driver.find_elements(By.CSS_SELECTOR, ".save button")
    return [button.get_attribute("textContent") or "" for button in buttons]


@pytest.mark.parametrize(("theme", "ground"), [("light", "255"), ("dark", "22")])
def test_a_drawing_is_saved_as_svg_that_needs_no_style_sheet(
    show: Show, save: Save, theme: str, ground: str
) -> None:
    page = show(report_of(figures=(drawing(),)).html)
    page.theme(theme)
    shown = page.run("return getComputedStyle(document.querySelector('svg .s40')).fill")
    path = save(page, "svg")
    assert path.name == "a-block-scores.svg"
    tree = ElementTree.parse(path).getroot()
    back, *cells = tree.iter(f"{SVG}rect")
    assert (back.get("fill") or "").startswith(f"rgb({ground},")
    assert shown in [cell.get("fill") for cell in cells]
    assert len(cells) == 6 + 41  # with the legend
    assert "Scores 0.0" in [title.text for title in tree.iter(f"{SVG}title")]
    assert {"A block, Scores", "0", ".12", "1"} <= {text.text for text in tree.iter(f"{SVG}text")}
    for element in tree.iter():
        assert not {"class", "style", "data-tip", "tabindex"} & set(element.keys())
    assert page.logs("browser") == []


def test_a_drawing_is_saved_as_png_of_twice_its_size(show: Show, save: Save) -> None:
    page = show(report_of(figures=(drawing(),)).html)
    content = save(page, "png").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    box = page.run("return document.querySelector('.drawing svg').viewBox.baseVal.width")
    assert width >= 2 * box + 64
    assert height > 200
    assert len(content) > 2000  # something is painted


def test_numbers_are_saved_exactly(show: Show, save: Save) -> None:
    page = show(report_of(figures=(drawing(),)).html)
    found = json.loads(save(page, "json").read_text(encoding="utf-8"))
    assert (found["report"], found["figure"]) == ("A block", "A block, Scores")
    assert found["columns"] == ["Layer", "0", "1", "2"]
    assert found["rows"] == [[0, 0.125, 0.5, 1.0], [1, 0.0, -0.25, None]]
    lines = csv_rows(save(page, "csv"))
    assert lines[0] == ["Layer", "0", "1", "2"]
    assert [float(entry or math.nan) for entry in lines[2][1:3]] == [0.0, -0.25]


def test_a_drawing_without_its_numbers_offers_the_drawing_alone(show: Show) -> None:
    drawn = drawing()
    page = show(report_of(figures=(Figure("Bare", drawn.drawing, "No numbers."),)).html)
    assert menu_of(page) == ["SVG", "PNG"]


def test_a_widget_is_saved_as_it_is_shown(
    show: Show, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    page = show(report_of(figures=(answering("hello"),)).html)
    assert menu_of(page) == ["SVG", "PNG", "JSON"]
    tree = ElementTree.parse(save(page, "svg")).getroot()
    assert "hello" in [text.text for text in tree.iter(f"{SVG}text")]
    (edge,) = tree.iter(f"{SVG}path")
    assert (edge.get("fill"), edge.get("stroke")) == ("none", "rgb(33, 102, 172)")  # of its class
    assert json.loads(save(page, "json").read_text())["data"] == {"token": "hello"}
    assert page.run("return document.querySelectorAll('.shelf').length") == 0


def test_a_widget_alone_is_saved_too(
    show: Show, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    page = show(Widget("graph", "A graph", {"token": "hello"}).to_html())
    assert save(page, "png").name == "a-graph.png"
    assert page.logs("browser") == []


def test_hostile_text_is_saved_as_text(
    show: Show, save: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch)
    text = "".join(HOSTILE)
    table = Table(text, (text, text), tuple((each, 1.5) for each in HOSTILE))
    figure = Figure(text, answering(text).drawing, text, data=table, role="wide")
    page = show(report_of(figures=(figure,), name=text).html)
    path = save(page, "csv")
    assert path.parent.name == "saved"
    assert re.fullmatch(r"[\w-]{1,80}\.csv", path.name)
    shown = [each.replace("\u0000", "").replace("\ud800", "?") for each in HOSTILE]
    rows = csv_rows(path)[1:]
    assert rows == [[f"'{each}" if each.startswith("=") else each, "1.5"] for each in shown]
    found = json.loads(save(page, "json").read_text(encoding="utf-8"))
    assert found["rows"] == [[each, 1.5] for each in shown]
    assert found["data"]["token"] == text.replace("\ud800", "?")  # JSON keeps the zero byte
    tree = ElementTree.parse(save(page, "svg")).getroot()
    assert {element.tag for element in tree.iter()} <= {f"{SVG}{tag}" for tag in DRAWN}
    assert save(page, "png").read_bytes()[:4] == b"\x89PNG"
    assert page.run("return window.hacked") is None
    assert page.logs("browser") == []
    assert [url for url in page.requests() if not url.startswith(("blob:null", "data:"))] == []


def test_the_menu_closes_by_escape_and_gives_the_focus_back(show: Show) -> None:
    page = show(report_of(figures=(drawing(),)).html)
    menu = page.driver.find_element(By.CSS_SELECTOR, ".save")
    opener = menu.find_element(By.TAG_NAME, "summary")
    assert opener.accessible_name == "Save A block, Scores"
    opener.send_keys("\ue007")  # Enter
    assert menu.get_attribute("open")
    menu.find_elements(By.TAG_NAME, "button")[1].send_keys("\ue00c")  # Escape
    assert not menu.get_attribute("open")
    assert page.driver.switch_to.active_element == opener
