"""Tables of a report sort and filter, by mouse and by keyboard."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By

from interp.report.parts import Cell, Table
from tests.browser.conftest import Page
from tests.report.pages import drawing, numbers, report_of

pytestmark = pytest.mark.browser

Show = Callable[[str], Page]

COLUMN = "return [...document.querySelectorAll('.side tbody tr')].filter(row => !row.hidden)"
COLUMN += ".map(row => row.cells[arguments[0]].textContent)"


def press(page: Page, name: str) -> None:
    """Click the head of a column of the table beside the figures."""
    heads = page.driver.find_elements(By.CSS_SELECTOR, ".side thead button")
    page.run("arguments[0].click()", next(head for head in heads if head.text.startswith(name)))


@pytest.mark.parametrize(
    ("values", "ascending"),
    [
        ((10, 9, -1.5, 0.004, 0.003), ["−1.50", "0.00", "0.00", "9", "10"]),
        (("−2.50", "+0.80", "−0.30", "0.00"), ["−2.50", "−0.30", "0.00", "+0.80"]),
        (("5.10", "5.2", "0.11", "0.9"), ["0.9", "0.11", "5.2", "5.10"]),
        (("−4 to −3", "0.1 to 0.2", "−1 to 2"), ["−4 to −3", "−1 to 2", "0.1 to 0.2"]),
    ],
)
def test_a_column_sorts_by_what_its_cells_mean(
    show: Show, values: tuple[Cell, ...], ascending: list[str]
) -> None:
    page = show(report_of(numbers(*values)).html)
    as_it_was = page.run(COLUMN, 1)
    press(page, "Value")
    assert page.run(COLUMN, 1) == ascending
    press(page, "Value")
    assert page.run(COLUMN, 1) == ascending[::-1]
    press(page, "Value")
    assert page.run(COLUMN, 1) == as_it_was


def test_numbers_that_are_written_alike_sort_by_their_exact_value(show: Show) -> None:
    page = show(report_of(numbers(0.0042, 0.0041, 0.0043)).html)
    press(page, "Value")
    assert page.run(COLUMN, 0) == ["b", "a", "c"]


def test_what_is_missing_stands_last_either_way(show: Show) -> None:
    page = show(report_of(numbers(2.0, float("nan"), 1.0, "")).html)
    press(page, "Value")
    assert page.run(COLUMN, 1) == ["1.00", "2.00", "", ""]
    press(page, "Value")
    assert page.run(COLUMN, 1) == ["2.00", "1.00", "", ""]


def test_the_order_is_told_to_screen_readers_and_the_keyboard_sorts(show: Show) -> None:
    page = show(report_of(numbers(3, 1, 2)).html)
    button = page.driver.find_elements(By.CSS_SELECTOR, ".side thead button")[1]
    told = "return [...document.querySelectorAll('.side th[aria-sort]')].map(head => "
    told += "head.textContent + ' ' + head.getAttribute('aria-sort'))"
    page.run("arguments[0].focus()", button)
    for sorted_as in (["Value ascending"], ["Value descending"], []):
        ActionChains(page.driver).send_keys("\ue007").perform()  # Enter
        assert page.run(told) == sorted_as
    assert page.driver.switch_to.active_element == button


def test_long_tables_show_the_rows_that_hold_given_words(show: Show) -> None:
    rows = tuple((f"{layer}.{head}", f"task {head}") for layer in range(12) for head in range(12))
    page = show(report_of(Table("Heads", ("Head", "Task"), rows)).html)
    box = page.driver.find_element(By.CSS_SELECTOR, ".side input")
    count = page.driver.find_element(By.CSS_SELECTOR, ".side output")
    assert (box.accessible_name, count.text) == ("Filter rows of Heads", "144 rows")
    box.send_keys("11. TASK")
    assert count.text == "12 of 144"
    assert page.run(COLUMN, 0)[:3] == ["11.0", "11.1", "11.2"]
    press(page, "Head")
    press(page, "Head")
    assert page.run(COLUMN, 0)[:3] == ["11.11", "11.10", "11.9"]
    box.clear()
    box.send_keys("nothing such")
    assert (count.text, page.run(COLUMN, 0)) == ("0 of 144", [])


def test_short_tables_have_no_box(show: Show) -> None:
    page = show(report_of(numbers(*range(8))).html)
    assert page.driver.find_elements(By.CSS_SELECTOR, ".side input") == []


def test_a_folded_table_is_made_ready_when_it_is_opened(show: Show) -> None:
    page = show(report_of(figures=(drawing(),)).html)
    buttons = "return document.querySelectorAll('.values button').length"
    assert page.run(buttons) == 0
    page.run("document.querySelector('.values summary').click()")
    ready = "const wait = done => document.querySelector('.values button') ? done() : "
    ready += "requestAnimationFrame(() => wait(done)); wait(arguments[0])"
    page.driver.execute_async_script(ready)
    assert page.run(buttons) == 4
    assert "0.125" in page.driver.find_element(By.CSS_SELECTOR, ".values table").text


def test_a_thousand_rows_sort_and_filter_whole(show: Show) -> None:
    rows = tuple((f"{i}", float(i * 7919 % 1000), i % 13) for i in range(1000))
    page = show(report_of(Table("Many", ("Site", "Effect", "Layer"), rows)).html)
    press(page, "Effect")
    assert page.run(COLUMN, 1) == [f"{i}.00" for i in range(1000)]
    page.driver.find_element(By.CSS_SELECTOR, ".side input").send_keys("999.00")
    assert len(page.run(COLUMN, 1)) == 1
