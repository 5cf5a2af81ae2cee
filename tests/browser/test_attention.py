"""The attention viewer in a real browser: on its own, and in the frame that a notebook gives it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Float
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select
from torch import Tensor

from interp.plots.attention_viewer import attention_viewer
from interp.plots.widget import Widget
from tests.browser.conftest import Page
from tests.report.pages import HOSTILE

pytestmark = pytest.mark.browser

Show = Callable[[str], Page]

TOKENS = ["<s>", "John", " and", " Mary", "\n", "John"]


def looking(targets: list[int]) -> Float[Tensor, "query key"]:
    """Each token gives 0.8 of its attention to its target, and 0.2 to the first token."""
    pattern = torch.zeros(len(targets), len(targets))
    pattern[:, 0] = 0.2
    pattern[torch.arange(len(targets)), torch.tensor(targets)] += 0.8
    return pattern


def viewer() -> Widget:
    """Two prompts, and two heads: 1.2 looks at the token before, 5.1 at what followed its like."""
    before = torch.stack([looking([0, 0, 1, 2, 3, 4]), looking([0, 0, 1, 2, 3, 2])])
    short = torch.stack([looking([0, 0, 1]), looking([0, 0, 0])])
    return attention_viewer(
        [TOKENS, ["<s>", "a", "b"]], [before, short], ["1.2", "5.1"], title="Attention in toy"
    )


def said(page: Page) -> str:
    """The spoken line, without the marks that keep words apart."""
    text = page.driver.find_element(By.CSS_SELECTOR, ".said").text
    return text.replace("\u2068", "").replace("\u2069", "")


def heads(page: Page) -> list[WebElement]:
    return page.driver.find_elements(By.CSS_SELECTOR, ".heads button")


def words(page: Page) -> list[WebElement]:
    return page.driver.find_elements(By.CSS_SELECTOR, ".words button")


def point_at(page: Page, element: WebElement) -> None:
    ActionChains(page.driver).move_to_element(element).perform()


def press(page: Page, *keys: str) -> None:
    for key in keys:
        ActionChains(page.driver).send_keys(key).perform()


def painted(page: Page) -> None:
    """Wait until a change of the page has reached what is drawn."""
    page.run("const frame = () => new Promise(requestAnimationFrame); return frame().then(frame)")


def quiet(page: Page) -> None:
    """No error in the console, nothing asked from anywhere."""
    assert page.logs("browser") == []
    assert page.requests() == []


def test_it_opens_on_the_last_token_of_the_first_prompt(show: Show) -> None:
    page = show(viewer().to_html())
    assert [head.text for head in heads(page)] == ["1.2", "5.1"]
    shown = [word.text.split("\n")[0] for word in words(page)]
    assert shown == ["<s>", "John", "·and", "·Mary", "⏎", "John"]
    assert said(page) == "Head 1.2: John (5) looks at ⏎ (4) 0.80, <s> (0) 0.20."
    quiet(page)


def test_pointing_at_a_token_tells_what_it_looks_at(show: Show) -> None:
    page = show(viewer().to_html())
    point_at(page, words(page)[3])
    assert said(page) == "Head 1.2: ·Mary (3) looks at ·and (2) 0.80, <s> (0) 0.20."
    assert [word.text.split("\n")[1:] for word in words(page)][:4] == [[".20"], [], [".80"], []]


def test_a_head_is_shown_while_pointed_at_and_kept_by_a_click(show: Show) -> None:
    page = show(viewer().to_html())
    point_at(page, heads(page)[1])
    assert said(page).startswith("Head 5.1: John (5) looks at ·and (2) 0.80")
    point_at(page, words(page)[5])
    assert said(page).startswith("Head 1.2")
    heads(page)[1].click()
    point_at(page, words(page)[5])
    assert said(page).startswith("Head 5.1")
    pressed = [head.get_attribute("aria-pressed") for head in heads(page)]
    assert pressed == ["false", "true"]


def test_a_token_that_was_clicked_stays_until_escape(show: Show) -> None:
    page = show(viewer().to_html())
    words(page)[2].click()
    point_at(page, words(page)[4])
    assert said(page).startswith("Head 1.2: ·and (2)")
    press(page, Keys.ESCAPE)
    point_at(page, words(page)[3])
    assert said(page).startswith("Head 1.2: ·Mary (3)")


def test_the_other_direction_tells_who_looks(show: Show) -> None:
    page = show(viewer().to_html())
    page.driver.find_element(By.XPATH, "//button[text()='looked at by']").click()
    point_at(page, words(page)[2])
    assert said(page) == "Head 1.2: ·and (2) is looked at by ·Mary (3) 0.80."
    point_at(page, words(page)[5])
    assert said(page) == "Head 1.2: John (5) is looked at by no token."


def test_the_keyboard_alone_is_enough(show: Show) -> None:
    page = show(viewer().to_html())
    page.run("document.querySelector('.heads button').focus()")
    press(page, Keys.ARROW_RIGHT)
    assert said(page).startswith("Head 5.1")
    press(page, Keys.ENTER, Keys.TAB)  # keep the head, go on to the tokens
    assert said(page).startswith("Head 5.1: John (5)")
    press(page, Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert said(page).startswith("Head 5.1: ·Mary (3)")
    press(page, Keys.HOME)
    assert said(page) == "Head 5.1: <s> (0) looks at <s> (0) 1.00."
    quiet(page)


def test_pointing_at_a_cell_of_the_matrix_tells_its_number(show: Show) -> None:
    page = show(viewer().to_html())
    canvas = page.driver.find_element(By.CSS_SELECTOR, ".matrix canvas")
    size = canvas.size
    cell, edge = 22, size["width"] - 2 - 6 * 22
    x, y = edge + 2.5 * cell - size["width"] / 2, edge + 3.5 * cell - size["height"] / 2
    ActionChains(page.driver).move_to_element_with_offset(canvas, round(x), round(y)).perform()
    tip = page.driver.find_element(By.CSS_SELECTOR, ".tip")
    assert (
        tip.text.replace("\u2068", "").replace("\u2069", "") == "·Mary (3) looks at ·and (2): 0.80"
    )
    assert said(page).startswith("Head 1.2: ·Mary (3)")


def test_another_prompt_has_its_own_tokens(show: Show) -> None:
    page = show(viewer().to_html())
    Select(page.driver.find_element(By.TAG_NAME, "select")).select_by_index(1)
    assert [word.text.split("\n")[0] for word in words(page)] == ["<s>", "a", "b"]
    assert said(page) == "Head 1.2: b (2) looks at a (1) 0.80, <s> (0) 0.20."


def test_what_is_shown_is_drawn_as_svg(show: Show) -> None:
    page = show(viewer().to_html())
    heads(page)[1].click()
    told = page.run("""
        const picture = [...DRAWN.values()][0].toSvg();
        const fills = [...picture.querySelectorAll("rect")].map(cell => cell.getAttribute("fill"));
        return [picture.textContent, fills.length, new Set(fills).size];
    """)
    assert told[0].startswith("Head 5.1, prompt 0<s><s>JohnJohn·and")
    assert told[1] == 21 + 1  # the triangle, and the frame around a row
    assert told[2] == 4 + 1  # 0, 0.2, 0.8 and 1


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_many_heads_and_long_prompts_stay_in_the_page(show: Show, theme: str, width: int) -> None:
    n, names = 64, [f"{layer}.{head}" for layer in range(12) for head in range(12)]
    patterns = torch.rand(144, n, n, generator=torch.Generator().manual_seed(0)).tril()
    patterns /= patterns.sum(dim=-1, keepdim=True)
    words_of = [f"word{i}" for i in range(n)]
    page = show(attention_viewer([words_of], [patterns], names, title="Attention").to_html())
    page.resize(width)
    page.theme(theme)
    painted(page)
    assert len(heads(page)) == 144
    assert page.run("return document.documentElement.scrollWidth") <= width
    assert readable(page)
    quiet(page)


def readable(page: Page) -> bool:
    """Whether every token has a contrast of 4.5 to its ground (WCAG AA)."""
    worst = page.run("""
        const channel = c => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        const light = color => {
          const [r, g, b] = color.match(/\\d+/g).map(Number).map(channel);
          return 0.2126 * r + 0.7152 * g + 0.0722 * b;
        };
        return Math.min(...[...document.querySelectorAll(".words button")].map(button => {
          const style = getComputedStyle(button);
          const [a, b] = [light(style.color), light(style.backgroundColor)].sort((x, y) => y - x);
          return (a + 0.05) / (b + 0.05);
        }));
    """)
    return bool(worst >= 4.5)


def test_colours_follow_the_theme(show: Show) -> None:
    page = show(viewer().to_html())
    ground = "return document.querySelector('.words button').style.background"
    day = page.run(ground)
    page.theme("dark")
    painted(page)
    night = page.run(ground)
    page.run("document.documentElement.dataset.theme = 'light'")
    painted(page)
    assert page.run(ground) == day != night


def test_every_attention_is_painted_with_an_ink_that_reads_on_it(show: Show) -> None:
    """0 to 1 in 64 steps on one row, in both themes."""
    pattern = torch.eye(65)
    pattern[-1] = torch.linspace(0, 1, 65)
    widget = attention_viewer([["x"] * 65], [pattern[None]], ["0.0"], title="Attention")
    page = show(widget.to_html())
    assert readable(page)
    page.theme("dark")
    painted(page)
    assert readable(page)


def test_it_works_in_the_frame_of_a_notebook(show: Show) -> None:
    page = show(f"<!doctype html><title>Notebook</title>{viewer()._repr_html_()}")
    page.driver.switch_to.frame(page.driver.find_element(By.TAG_NAME, "iframe"))
    point_at(page, words(page)[3])
    assert said(page) == "Head 1.2: ·Mary (3) looks at ·and (2) 0.80, <s> (0) 0.20."
    assert page.run("return self.origin") == "null"  # it reaches nothing of the notebook
    page.driver.switch_to.default_content()
    assert page.logs("browser") == []


def test_hostile_tokens_do_nothing_but_stand_there(show: Show) -> None:
    tokens = [*HOSTILE, "__proto__", "\u2028"]
    pattern = torch.full((1, len(tokens), len(tokens)), 0.5).tril()
    widget = attention_viewer(
        [tokens, ["x"]], [pattern, torch.ones(1, 1, 1)], ["0.0"], title=HOSTILE[0]
    )
    page = show(widget.to_html())
    for word in words(page):
        point_at(page, word)
    page.run("return [...DRAWN.values()][0].toSvg().outerHTML")
    assert page.run("return window.hacked") is None
    foreign = "img, iframe, a[href^=java], [onload], [onfocus]"
    assert page.run("return document.querySelectorAll(arguments[0]).length", foreign) == 0
    assert page.run("return document.scripts.length") == 2  # its data, and its own
    assert words(page)[0].text.startswith(HOSTILE[0])
    quiet(page)
