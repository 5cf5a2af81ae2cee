"""A report in a real browser, opened from disk."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from interp.report import build
from tests.browser.conftest import Page
from tests.report.pages import HOSTILE, answering, numbers, report_of, stand_in
from tests.report.results import atlas, sweep, untrained

pytestmark = pytest.mark.browser

Show = Callable[[str], Page]


@pytest.fixture(scope="module")
def html() -> str:
    planted = {"induction": {"1.3": 0.93, "2.0": 0.88}, "previous-token": {"0.2": 0.98}}
    return build(atlas(planted), untrained(), sweep({"1.3": -2.5, "2.1": 0.8})).html


def quiet(page: Page) -> None:
    """No error in the console, nothing asked from anywhere."""
    assert page.logs("browser") == []
    assert page.requests() == []


def test_it_opens_with_no_request_and_no_console_message(show: Show, html: str) -> None:
    page = show(html)
    assert page.run("return document.title") == "Inside toy"
    assert page.run("return document.readyState") == "complete"
    quiet(page)


def test_the_watch_for_requests_and_errors_works(show: Show) -> None:
    """The checks above would see a request, and a console error."""
    page = show("<img src='https://example.invalid/x.png'><script>missing()</script>")
    assert "https://example.invalid/x.png" in page.requests()
    assert any("missing is not defined" in line["message"] for line in page.logs("browser"))


def test_the_policy_refuses_foreign_style_script_and_pictures(show: Show, html: str) -> None:
    smuggled = (
        "<script>window.hacked = 1</script><img src='https://example.invalid/x.png'>"
        "<p id=styled style='color: rgb(1, 2, 3)'>x</p>"
    )
    page = show(html.replace("<main>", f"<main>{smuggled}"))
    assert page.run("return window.hacked") is None
    color = "return getComputedStyle(document.getElementById('styled')).color"
    assert page.run(color) != "rgb(1, 2, 3)"
    (failed,) = page.events("Network.loadingFailed")
    assert failed["blockedReason"] == "csp"
    refused = [line["message"] for line in page.logs("browser")]
    assert sum("Content Security Policy" in message for message in refused) == 3


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_heatmaps_are_seen_and_nothing_runs_out_of_the_page(
    show: Show, html: str, width: int, theme: str
) -> None:
    page = show(html)
    page.resize(width)
    page.theme(theme)
    for drawing in page.driver.find_elements(By.CSS_SELECTOR, "figure.main svg.heatmap"):
        assert drawing.is_displayed()
        assert drawing.size["width"] > 150
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert readable(page)
    quiet(page)


def readable(page: Page) -> bool:
    """Whether every number in a heatmap has a contrast of 4.5 to its cell (WCAG AA)."""
    worst = page.run("""
        const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const light = color => {
          const [r, g, b] = color.match(/\\d+/g).map(Number).map(channel);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        const fill = node => light(getComputedStyle(node).fill);
        return Math.min(...[...document.querySelectorAll("svg .number")].map(text => {
          const [a, b] = [fill(text), fill(text.previousElementSibling)].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        }));
    """)
    return bool(worst >= 4.5)


def test_cells_are_painted_by_their_value(show: Show, html: str) -> None:
    page = show(html)
    fill = "return getComputedStyle(document.querySelector(`[data-tip^='${arguments[0]}']`)).fill"
    strong, weak = page.run(fill, "1.3: 0.93"), page.run(fill, "1.2: 0.03")
    page.theme("dark")
    assert len({strong, weak, page.run(fill, "1.3: 0.93"), page.run(fill, "1.2: 0.03")}) == 4


def test_pointing_at_a_cell_tells_its_number(show: Show, html: str) -> None:
    page = show(html)
    tip = page.driver.find_element(By.ID, "tip")
    assert not tip.is_displayed()
    cell = page.driver.find_element(By.CSS_SELECTOR, "[data-tip^='1.3: 0.93']")
    # The scroll event, which puts the note away, comes with the next frame: wait for it.
    page.run(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'});"
        "const frame = () => new Promise(requestAnimationFrame); return frame().then(frame)",
        cell,
    )
    ActionChains(page.driver).move_to_element(cell).perform()
    WebDriverWait(page.driver, 10).until(lambda _: tip.is_displayed())
    assert tip.text == "1.3: 0.93, 95% interval 0.92 to 0.94"
    ActionChains(page.driver).send_keys("\ue00c").perform()  # Escape
    WebDriverWait(page.driver, 10).until(lambda _: not tip.is_displayed())


def test_all_values_unfold_as_a_table(show: Show, html: str) -> None:
    page = show(html)
    captions = page.driver.find_elements(By.CSS_SELECTOR, ".values caption")
    told = [caption.get_attribute("textContent") for caption in captions]
    table = captions[told.index("induction score of every head")].find_element(By.XPATH, "..")
    assert not table.is_displayed()
    page.run("arguments[0].closest('details').querySelector('summary').click()", table)
    assert table.is_displayed()
    assert "0.930" in table.text


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_does_nothing_but_stand_there(show: Show, text: str) -> None:
    page = show(
        build(
            atlas(model=text, command=text, weights_hash=text, **{text: text}),
            untrained(model=f"{text} (untrained, seed 0)"),
            sweep({"1.3": -2.5}, task=text, model=text, notes={text: text}),
            title=text,
        ).html
    )
    for element in page.driver.find_elements(By.CSS_SELECTOR, "[data-tip]")[:3]:
        ActionChains(page.driver).move_to_element(element).perform()
    stands_as_text(page, text)


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_tokens_do_nothing_in_tables_and_widgets(
    show: Show, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    stand_in(monkeypatch)
    cells = (text, 1.0, f"x{text}", *"abcdefg")
    figure = answering(text)
    page = show(report_of(numbers(*cells), figures=(figure,), name=text).html)
    page.run(
        """
        document.querySelectorAll("details").forEach(details => { details.open = true; });
        document.querySelectorAll("thead button").forEach(button => button.click());
        const box = document.querySelector("input");
        box.value = arguments[0];
        box.dispatchEvent(new Event("input"));
    """,
        text.replace("\ud800", "?"),
    )
    token = page.run("return document.querySelector('.widget p').textContent")
    assert token == text.replace("\ud800", "?")  # JSON keeps the zero byte
    stands_as_text(page, text)


def stands_as_text(page: Page, text: str) -> None:
    """Nothing ran, nothing was loaded, and the heading is the text."""
    assert page.run("return window.hacked") is None
    assert page.run("return [...document.scripts].filter(s => s.type === '').length") == 1
    foreign = "main img, main iframe, main style, main [onload], a:not([href^='#'])"
    assert page.run("return document.querySelectorAll(arguments[0]).length", foreign) == 0
    heading = page.driver.find_element(By.TAG_NAME, "h1").get_attribute("textContent") or ""
    assert heading == text.replace("\u0000", "").replace("\ud800", "?")
    quiet(page)


def test_a_thousand_heads_open_whole(show: Show) -> None:
    size = {"layers": 32, "heads": 32}
    page = show(build(atlas(**size), untrained(**size), sweep(**size)).html)
    assert page.run("return document.querySelectorAll('svg.heatmap rect').length") == 11 * 1024
    page.resize(390)
    assert page.run("return document.documentElement.scrollWidth") <= 390
    quiet(page)


def test_print_is_black_on_white_without_what_only_a_screen_needs(show: Show, html: str) -> None:
    page = show(html)
    page.printed()
    assert (
        page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )
    for hidden in ("nav", ".values", ".save", ".skip"):
        assert not page.driver.find_element(By.CSS_SELECTOR, hidden).is_displayed()
    assert page.driver.find_element(By.CSS_SELECTOR, "svg.heatmap").is_displayed()
