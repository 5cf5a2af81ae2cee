"""A report can be used by keyboard and screen reader, in both themes, in notebooks, in print."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from interp.report import build
from tests.browser.conftest import Page
from tests.report.pages import answering, drawing, numbers, report_of, stand_in
from tests.report.results import atlas, sweep, untrained

pytestmark = pytest.mark.browser

Show = Callable[[str], Page]

RIGHT, DOWN, LEFT, UP, TAB, ESCAPE = "\ue014", "\ue015", "\ue012", "\ue013", "\ue004", "\ue00c"


@pytest.fixture(scope="module")
def html() -> Iterator[str]:
    """Drawings of all kinds, a widget, folded claims, long tables, two sections."""
    planted = {"induction": {"1.3": 0.93}}
    whole = build(atlas(planted), untrained(), sweep({"1.3": -2.5}))
    extra = report_of(numbers(*range(20)), figures=(drawing(), answering("a token")), sections=12)
    with pytest.MonkeyPatch.context() as patch:
        stand_in(patch)
        yield type(whole)(whole.title, whole.facts, whole.sections + extra.sections).html


def press(page: Page, *keys: str) -> None:
    for key in keys:
        ActionChains(page.driver).send_keys(key).perform()


def shown(page: Page) -> str:
    """The words of the tip, which a screen reader says."""
    tip = page.driver.find_element(By.ID, "tip")
    assert tip.get_attribute("role") == "status"
    return tip.text if tip.is_displayed() else ""


def test_the_first_tab_leads_past_the_navigation(show: Show, html: str) -> None:
    page = show(html)
    press(page, TAB)
    assert page.driver.switch_to.active_element.text == "Skip to the findings"
    press(page, "\ue007")
    assert page.driver.switch_to.active_element.get_attribute("id") == "findings"


def test_arrow_keys_walk_a_heatmap_and_say_each_cell(show: Show) -> None:
    page = show(report_of(figures=(drawing(),)).html)
    page.run("document.querySelector('figure svg').focus()")
    assert "walked with the arrow keys" in str(
        page.driver.switch_to.active_element.get_attribute("aria-roledescription")
    )
    walk = [(RIGHT, "0.0"), (RIGHT, "0.1"), (DOWN, "1.1"), (RIGHT, "1.2"), (RIGHT, "1.2")]
    walk += [(UP, "0.2"), (LEFT, "0.1"), (UP, "0.1")]
    for key, cell in walk:
        press(page, key)
        assert shown(page) == f"Scores {cell}"
        assert len(page.driver.find_elements(By.CSS_SELECTOR, "svg .at")) == 1
    press(page, ESCAPE)
    assert shown(page) == ""


def test_arrow_keys_walk_marks_that_stand_in_one_row(show: Show) -> None:
    page = show(build(sweep({"1.3": -2.5, "2.1": 0.8})).html)
    page.run("document.querySelector('svg.strip').focus()")
    press(page, RIGHT)
    assert shown(page).startswith("1.3: −2.50")
    press(page, *[DOWN] * 12)
    assert shown(page).startswith("2.1: +0.80")
    press(page, LEFT)
    assert shown(page).split(":")[0] not in ("1.3", "2.1")


def test_the_theme_is_chosen_by_a_button(show: Show, html: str) -> None:
    page = show(html)
    button = page.driver.find_element(By.CSS_SELECTOR, "nav button")
    ground = "return getComputedStyle(document.body).backgroundColor"
    light = page.run(ground)
    seen = {}
    for _ in range(3):
        button.click()
        seen[button.text] = page.run(ground)
    assert list(seen) == ["Theme: light", "Theme: dark", "Theme: auto"]
    assert seen["Theme: light"] == seen["Theme: auto"] == light != seen["Theme: dark"]


def test_paper_is_white_whatever_the_theme(show: Show, html: str) -> None:
    page = show(html)
    page.run("document.documentElement.dataset.theme = 'dark'")
    page.printed()
    assert page.run("return getComputedStyle(document.documentElement).colorScheme") == "light"
    for hidden in ("nav", ".save", ".values", ".tools", ".skip"):
        assert not page.driver.find_element(By.CSS_SELECTOR, hidden).is_displayed()


def test_folded_claims_are_printed(show: Show, html: str) -> None:
    page = show(build(atlas(layers=2), *[sweep(task=f"task {i}") for i in range(5)]).html)
    folded = "return document.querySelector('.more .claims').checkVisibility()"
    assert not page.run(folded)
    page.printed()
    assert page.run(folded)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_bar_leads_to_every_section_and_says_where_one_is(
    show: Show, html: str, width: int
) -> None:
    page = show(html)
    page.resize(width)
    page.run("document.documentElement.style.scrollBehavior = 'auto'")
    for section in ("section-13", "section-2"):
        page.run("document.querySelector(`nav a[href='#${arguments[0]}']`).click()", section)
        WebDriverWait(page.driver, 10).until(lambda _, at=section: place(page) == f"#{at}")
        current = page.run("""
            const bar = document.querySelector(".places").getBoundingClientRect();
            const link = document.querySelector("nav [aria-current]").getBoundingClientRect();
            return [bar.left, link.left, link.right, bar.right].map(Math.round);
        """)
        assert current == sorted(current)  # seen, though the bar is too narrow for all
        below = "return document.getElementById(arguments[0]).getBoundingClientRect().top"
        assert 0 <= page.run(below, section) < 120  # not under the bar
    assert page.run("return document.documentElement.scrollWidth") <= width


def place(page: Page) -> str | None:
    """The link of the bar that is marked."""
    return page.run("return document.querySelector('nav [aria-current]')?.hash")


def test_a_notebook_shows_it_in_a_frame_that_links_do_not_leave(show: Show) -> None:
    report = build(atlas(), sweep({"1.3": -2.5}))
    page = show(f"<!doctype html><p>cell</p>{report._repr_html_()}")
    page.driver.switch_to.frame(0)
    assert page.run("return document.querySelector('h1').textContent") == "Inside toy"
    page.run("document.querySelector(`nav a[href='#section-2']`).click()")
    assert page.run("return document.activeElement.id") == "section-2"
    assert page.run("return document.querySelectorAll('.save').length") > 4
    page.driver.switch_to.default_content()
    assert page.logs("browser") == []


CHECKS: dict[str, str] = {
    "two elements have one id": """
        const ids = [...document.querySelectorAll("[id]")].map(node => node.id);
        return ids.filter((id, i) => ids.indexOf(id) !== i);
    """,
    "a label points nowhere": """
        return [...document.querySelectorAll("[aria-labelledby], [data-values]")]
          .flatMap(node => [node.getAttribute("aria-labelledby"), node.dataset.values])
          .filter(id => id && !document.getElementById(id));
    """,
    "a link points nowhere": """
        return [...document.querySelectorAll("a")].map(link => link.hash.slice(1))
          .filter(id => !document.getElementById(id));
    """,
    "a heading skips a level": """
        const levels = [...document.querySelectorAll("h1, h2, h3, h4")].map(h => +h.tagName[1]);
        return levels.filter((level, i) => i ? level > levels[i - 1] + 1 : level !== 1);
    """,
    "a landmark is missing": """
        return ["header", "nav[aria-label]", "main", "footer"]
          .filter(name => document.querySelectorAll(`body > ${name}`).length !== 1);
    """,
    "a table has no caption or column names": """
        return [...document.querySelectorAll("table")].filter(table =>
          !table.caption.textContent || table.querySelector("thead th:not([scope=col])"))
          .map(table => table.textContent.slice(0, 40));
    """,
    "a figure or drawing has no name": """
        return [...document.querySelectorAll("figure, svg, .widget")]
          .filter(node => !node.getAttribute("aria-label")).map(node => node.outerHTML);
    """,
    "a size of text is below 11 pixels": """
        return [...document.querySelectorAll("body *:not(script)")]
          .filter(node => node.childElementCount === 0 && node.textContent.trim())
          .map(node => parseFloat(getComputedStyle(node).fontSize)).filter(size => size < 11);
    """,
}


@pytest.mark.parametrize("problem", CHECKS)
def test_no_barrier(show: Show, html: str, problem: str) -> None:
    assert show(html).run(CHECKS[problem]) == []


def test_everything_that_is_pressed_has_a_name(show: Show) -> None:
    page = show(report_of(numbers(*range(20)), figures=(drawing(),)).html)
    page.run("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    pressed = page.driver.find_elements(
        By.CSS_SELECTOR, "a, button, summary, input, [tabindex='0']"
    )
    assert len(pressed) > 14
    assert [element.tag_name for element in pressed if not element.accessible_name.strip()] == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_its_ground(show: Show, html: str, theme: str) -> None:
    page = show(html)
    page.theme(theme)
    page.run("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    faint = page.run("""
        const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const light = ([r, g, b]) =>
          0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
        const parts = color => color.match(/[\\d.]+/g).map(Number);
        const ground = node => {
          for (let at = node; at; at = at.parentElement) {
            const color = parts(getComputedStyle(at).backgroundColor);
            if (color.length === 3) return color;
          }
        };
        const texts = [...document.querySelectorAll("body *")].filter(node =>
          !node.closest("script, .number") && node.checkVisibility() &&
          [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()));
        return texts.map(node => {
          const styles = getComputedStyle(node);
          const color = node.closest("svg") ? styles.fill : styles.color;
          const [a, b] = [light(parts(color)), light(ground(node))].sort((x, y) => y - x);
          return [(a + 0.05) / (b + 0.05), node.tagName, node.textContent.slice(0, 30)];
        }).filter(([ratio]) => ratio < 4.5);
    """)
    assert faint == []
