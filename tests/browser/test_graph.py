"""The graph of a circuit in a real browser: it opens, walks, slides, finds and prints."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from selenium.webdriver import ActionChains, Keys
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from interp.circuits import Circuit, Shape
from interp.plots.attention_viewer import attention_data
from interp.plots.circuit_graph import Explained, GraphNode, circuit_graph
from interp.sites import Head
from tests.browser.conftest import Page
from tests.browser.test_report import HOSTILE, quiet

pytestmark = pytest.mark.browser

Show = Callable[[str], Page]
SHAPE = Shape(3, 4, 4)
KEPT = ["input->0.1.v", "0.1->1.2.q", "input->1.2.k", "1.2->m2", "1.2->logits", "m2->logits"]


def circuit() -> Circuit:
    """Six edges of decreasing size, both signs; all others weaker."""
    scores = torch.full((len(SHAPE.edges),), 0.001)
    for rank, name in enumerate(KEPT):
        index = [str(edge) for edge in SHAPE.edges].index(name)
        scores[index] = (-1) ** rank * (6.0 - rank)
    found = Circuit.from_edges(SHAPE, KEPT, scores=scores)
    return found.labelled({Head(1, 2): ("name-mover",), Head(0, 1): ("previous-token",)})


WHOLE = Explained(edges=6, f=0.8, low=0.7, high=0.9, random=0.05, n=20)


@pytest.fixture
def graph(show: Show) -> Page:
    tenth = Explained(edges=50, f=0.95, low=0.9, high=1.0, random=0.1, n=20)
    return show(circuit().graph(whole=WHOLE, measured=[tenth], prompts=["a b c"]).to_html())


def node(page: Page, name: str) -> WebElement:
    return page.driver.find_element(By.CSS_SELECTOR, f'.graph .node[aria-label*="{name}"]')


def shown(page: Page) -> list[str]:
    """Names of the nodes that can be seen."""
    script = (
        "return [...document.querySelectorAll('.graph .node:not(.away) title')]"
        ".map((title) => title.textContent.split(',')[0])"
    )
    return page.run(script)


def text(page: Page, selector: str) -> str:
    return page.driver.find_element(By.CSS_SELECTOR, f".graph {selector}").text


def focused(page: Page) -> str:
    return page.run("return document.activeElement.getAttribute('aria-label')")


def press(page: Page, *keys: str) -> None:
    ActionChains(page.driver).send_keys(*keys).perform()


def slide(page: Page, place: str) -> None:
    page.run(
        "const s = document.querySelector('.graph input[type=range]'); s.value = s[arguments[0]];"
        "s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change'))",
        place,
    )


def wait_until_drawn(page: Page, edges: int) -> None:
    drawn = "return Number(document.querySelector('.graph').dataset.drawn) === arguments[0]"
    WebDriverWait(page.driver, 60).until(lambda _: page.run(drawn, edges))


def test_it_opens_at_the_circuit_with_what_is_unexplained(graph: Page) -> None:
    assert text(graph, ".count").startswith("6 of 262 edges (the circuit), 99% of the total")
    assert text(graph, ".left") == (
        "This circuit: 20% is unexplained (10% to 30%; random circuits leave 95%; n = 20)."
    )
    assert shown(graph) == ["input", "Head 0.1", "Head 1.2", "MLP m2", "logits"]
    quiet(graph)


def test_edges_are_painted_in_the_colours_of_their_signs(graph: Page) -> None:
    wait_until_drawn(graph, 6)
    painted = graph.run(
        "const c = document.querySelector('.graph canvas.strong');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let r = 0, b = 0;"
        "for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 128) {"
        "if (d[i] > d[i + 2] + 50) r += 1; if (d[i + 2] > d[i] + 50) b += 1; } return [r, b]"
    )
    assert min(painted) > 200


def test_a_node_opens_with_its_role_scores_edges_and_prompts(graph: Page) -> None:
    node(graph, "Head 1.2").click()
    panel = text(graph, ".panel")
    assert panel.splitlines()[1] == "Head 1.2"
    assert "name-mover" in panel
    assert "2 edges, scores add up to −1.00" in panel  # -5 in as query, 4 in as key
    assert "0.1 query −5.00" in panel
    assert "logits +2.00" in panel
    assert "a b c" in panel
    assert node(graph, "Head 1.2").get_attribute("aria-pressed") == "true"
    assert node(graph, "MLP m2").get_attribute("class") == "node mlp"
    assert "focused" in graph.driver.find_element(By.CLASS_NAME, "stage").get_attribute("class")
    graph.driver.find_element(By.CSS_SELECTOR, ".panel .close").click()
    assert "Head 1.2" not in text(graph, ".panel")
    assert focused(graph) == "Head 1.2, name-mover"


def test_nodes_that_share_no_edge_with_the_open_one_fade(graph: Page) -> None:
    node(graph, "Head 0.1").click()
    assert "dim" in node(graph, "MLP m2").get_attribute("class")
    assert "dim" not in node(graph, "Head 1.2").get_attribute("class")


def test_the_table_of_an_open_node_walks(graph: Page) -> None:
    node(graph, "logits").click()
    graph.driver.find_element(By.CSS_SELECTOR, '.panel [aria-label="Go to 1.2"]').click()
    assert text(graph, ".panel .title") == "Head 1.2"
    assert focused(graph) == "Head 1.2, name-mover"
    graph.driver.find_element(By.CSS_SELECTOR, '.panel [aria-label="Go to 0.1"]').click()
    assert text(graph, ".panel .title") == "Head 0.1"


def test_arrow_keys_walk_along_the_strongest_edges(graph: Page) -> None:
    graph.run("document.querySelector('.graph .node[tabindex=\"0\"]').focus()")
    assert focused(graph) == "logits"
    walked = []
    for key in (Keys.DOWN, Keys.DOWN, Keys.DOWN, Keys.UP, Keys.END, Keys.HOME):
        press(graph, key)
        walked.append(focused(graph).split(",")[0])
    assert walked == ["Head 1.2", "Head 0.1", "input", "Head 0.1", "logits", "input"]
    one = "return document.querySelectorAll('.graph .node[tabindex=\"0\"]').length"
    assert graph.run(one) == 1
    press(graph, Keys.UP, Keys.ENTER)
    assert text(graph, ".panel .title") == "Head 0.1"
    press(graph, Keys.ESCAPE)
    assert "Head 0.1" not in text(graph, ".panel")


def test_arrow_keys_walk_to_the_neighbours_in_a_layer(graph: Page) -> None:
    graph.driver.find_element(By.CSS_SELECTOR, ".switch input").click()
    assert len(shown(graph)) == 17
    graph.run("arguments[0].focus()", node(graph, "Head 1.2"))
    press(graph, Keys.RIGHT)
    assert focused(graph) == "Head 1.3"
    press(graph, Keys.RIGHT)
    assert focused(graph) == "MLP m1"
    press(graph, Keys.LEFT, Keys.LEFT, Keys.LEFT)
    assert focused(graph) == "Head 1.1"


def test_the_slider_changes_the_edges_and_what_is_said_of_them(graph: Page) -> None:
    slide(graph, "min")
    assert text(graph, ".count").startswith("5 of 262 edges, 94% of the total |score|")
    assert "MLP m2" in shown(graph)
    assert text(graph, ".left").startswith("The nearest size measured (50 edges): 5.0% is")
    slide(graph, "max")
    assert text(graph, ".count").startswith("262 of 262 edges, 100%")
    assert len(shown(graph)) == 17
    wait_until_drawn(graph, 262)
    slider = graph.driver.find_element(By.CSS_SELECTOR, ".graph input[type=range]")
    slider.send_keys(Keys.LEFT)
    assert not text(graph, ".count").startswith("262")  # every step changes something
    quiet(graph)


def test_a_circuit_without_scores_or_evaluation_says_so(show: Show) -> None:
    page = show(Circuit.from_nodes(SHAPE, ["0.1", "1.2@END"]).graph().to_html())
    assert text(page, ".left") == "How much these edges explain was not measured."
    assert "no scores" in text(page, ".legend")
    node(page, "Head 1.2").click()
    assert "END" in text(page, ".panel")
    quiet(page)


def test_search_finds_by_name_and_role_and_enter_opens(graph: Page) -> None:
    search = graph.driver.find_element(By.CSS_SELECTOR, ".graph input[type=search]")
    search.send_keys("2.3")
    assert "1 node found" in text(graph, ".said")
    assert "Head 2.3" in shown(graph)  # though no edge of the circuit touches it
    search.clear()
    search.send_keys("mover")
    matched = graph.driver.find_elements(By.CSS_SELECTOR, ".graph .node.match")
    assert [each.get_attribute("aria-label") for each in matched] == ["Head 1.2, name-mover"]
    search.send_keys(Keys.ENTER)
    assert text(graph, ".panel .title") == "Head 1.2"
    search.clear()
    search.send_keys("nobody")
    assert "0 nodes found" in text(graph, ".said")


def test_an_open_head_shows_where_it_looks(show: Show) -> None:
    pattern = torch.tensor([[[1.0, 0.0], [0.7, 0.3]]])
    seen = attention_data([["big", " cat"]], [pattern], [Head(1, 2)])
    page = show(circuit().graph(attention=seen, prompts=["big cat"]).to_html())
    node(page, "Head 1.2").click()
    assert page.driver.find_elements(By.CSS_SELECTOR, ".panel .attention *")
    node(page, "Head 0.1").click()
    assert not page.driver.find_elements(By.CSS_SELECTOR, ".panel .attention")
    assert "big cat" in text(page, ".panel")
    quiet(page)


def test_hostile_words_do_nothing(show: Show) -> None:
    nodes = [
        GraphNode("input", 0, "input"),
        *(GraphNode(f"{bad}{i}", 1, "head", bad, bad, 1.0) for i, bad in enumerate(HOSTILE)),
        GraphNode("logits", 2, "logits"),
    ]
    count = len(HOSTILE)
    edges = torch.tensor([[0, i + 1, 2] for i in range(count)])
    widget = circuit_graph(
        nodes,
        edges,
        torch.ones(count),
        torch.ones(count, dtype=torch.bool),
        title=HOSTILE[0],
        signs=(HOSTILE[1], HOSTILE[5]),
        unknown=HOSTILE[2],
        prompts=HOSTILE,
    )
    page = show(widget.to_html())
    for button in page.driver.find_elements(By.CSS_SELECTOR, ".graph .node.head"):
        page.run("arguments[0].dispatchEvent(new MouseEvent('click', {bubbles: true}))", button)
    page.run("document.body.append(DRAWN.get(document.querySelector('.graph')).toSvg())")
    assert HOSTILE[0] in page.run("return document.querySelector('.panel').textContent")
    assert page.run("return window.hacked") is None
    assert (
        page.run("return document.querySelectorAll('img, iframe, .panel a, .panel svg').length")
        == 0
    )
    quiet(page)


def test_a_thousand_heads_and_thirty_thousand_edges_open_and_redraw(show: Show) -> None:
    layers, heads, count = 40, 25, 30_000
    nodes = [GraphNode("input", 0, "input")]
    for layer in range(layers):
        nodes += [GraphNode(f"{layer}.{head}", layer + 1, "head") for head in range(heads)]
        nodes.append(GraphNode(f"m{layer}", layer + 1, "mlp"))
    nodes.append(GraphNode("logits", layers + 1, "logits"))
    generator = torch.Generator().manual_seed(0)
    rows = torch.tensor([each.row for each in nodes])
    ends = torch.randint(0, len(nodes), (4 * count, 2), generator=generator)
    ends = ends[rows[ends[:, 0]] < rows[ends[:, 1]]][:count]
    inner = torch.tensor([each.kind == "head" for each in nodes])[ends[:, 1]]
    ways = torch.where(inner, ends.sum(dim=1) % 3, 3)
    scores = torch.randn(count, generator=generator) ** 3
    kept = scores.abs() > scores.abs().sort().values[-301]
    widget = circuit_graph(
        nodes, torch.cat([ends, ways[:, None]], dim=1), scores, kept, title="large"
    )
    assert len(widget.to_html()) < 1_000_000
    page = show(widget.to_html())
    assert text(page, ".count").startswith("300 of 30,000 edges")
    wait_until_drawn(page, 300)
    slide(page, "max")
    wait_until_drawn(page, count)
    page.run("document.querySelectorAll('.graph .node')[500].focus()")
    press(page, Keys.ENTER)
    assert text(page, ".panel .title").startswith("Head 19.")
    quiet(page)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_the_panel_stands_below_and_nothing_runs_out(graph: Page, theme: str) -> None:
    graph.resize(390)
    graph.theme(theme)
    node(graph, "Head 1.2").click()
    stage = graph.driver.find_element(By.CLASS_NAME, "stage").rect
    panel = graph.driver.find_element(By.CLASS_NAME, "panel").rect
    assert panel["y"] > stage["y"] + stage["height"]
    assert graph.run("return document.documentElement.scrollWidth") <= 390


def test_paper_and_files_show_the_edges_as_paths(graph: Page) -> None:
    drawn = (
        "return DRAWN.get(document.querySelector('.graph')).toSvg().querySelectorAll('path').length"
    )
    assert graph.run(drawn) == 6
    slide(graph, "max")
    assert graph.run(drawn) == 262
    graph.printed()
    paths = "return document.querySelectorAll('.graph .printed path').length"
    WebDriverWait(graph.driver, 10).until(lambda _: graph.run(paths) == 6)
    assert not graph.driver.find_element(By.CLASS_NAME, "screen").is_displayed()
