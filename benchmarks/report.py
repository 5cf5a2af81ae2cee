"""Size of a large report, and the time in which Chromium opens it from disk.

    python benchmarks/report.py [--repeats 5] [--save]

The report has 1,000 heads (40 layers of 25): an atlas of every kind with the atlas of an untrained
twin beside it, an ablation of each head, and a graph of 30,000 edges. Its numbers are random, since
only their amount matters. Each repeat opens the page anew; times are from the start of the
navigation to the load event, to the first paint, and to the first moment with nothing left to do;
`cpu_seconds` is what the page's main thread computed, which other work on the machine changes
little; `sort_seconds` is one sort of a table of 1,000 rows. Needs Chromium and chromedriver. --save
writes benchmarks/results/report-cpu.json.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

from interp.engine import SweepResult
from interp.heads import KINDS, HeadAtlas, Score
from interp.plots.circuit_graph import GraphNode, circuit_graph
from interp.plots.widget import Widget
from interp.report import Report, build
from interp.report.parts import Block, Figure, Section, Table
from interp.sites import Head

RESULTS = Path(__file__).parent / "results" / "report-cpu.json"
LAYERS, HEADS, PROMPTS, EDGES = 40, 25, 10, 30_000
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--window-size=1280,900",
)
IDLE = """
addEventListener("load", () => requestIdleCallback(() => { window.idle = performance.now(); }));
"""
TIMES = """
const [page] = performance.getEntriesByType("navigation");
const paint = performance.getEntriesByName("first-contentful-paint")[0];
return window.idle && paint && {
  load_seconds: page.loadEventEnd / 1000,
  first_paint_seconds: paint.startTime / 1000,
  idle_seconds: window.idle / 1000,
};
"""
SORT = """
const table = [...document.querySelectorAll("table")].find(t => t.caption.textContent === "Sites");
const start = performance.now();
table.tHead.querySelectorAll("button")[1].click();
table.getBoundingClientRect();
return (performance.now() - start) / 1000;
"""


def large_report() -> Report:
    random = torch.Generator().manual_seed(0)

    def atlas(model: str) -> HeadAtlas:
        shape = (LAYERS, HEADS, PROMPTS)
        scores = {kind: Score(kind, torch.rand(shape, generator=random)) for kind in KINDS}
        return HeadAtlas(scores, {}, {}, {"model": model, "seed": 0})

    sites = tuple(Head(layer, head) for layer in range(LAYERS) for head in range(HEADS))
    values = torch.randn(len(sites), PROMPTS, generator=random)
    known = {"model": "large", "task": "ioi", "n": PROMPTS}
    known |= {"geometry": {"n_layers": LAYERS, "n_heads": HEADS}}
    sweep = SweepResult(sites, values, torch.full((PROMPTS,), 4.0), "logit_diff", "zero", known)
    report = build(atlas("large"), atlas("large (untrained, seed 0)"), sweep)
    return Report(report.title, report.facts, (*report.sections, graph_section(random)))


def graph_section(random: torch.Generator) -> Section:
    figure = Figure("Graph", graph(random), f"{EDGES} edges.", role="wide")
    return Section(
        heading="A circuit",
        lead="As many edges as a report draws.",
        claims=(),
        blocks=(Block("Graph", "Every node is a button.", (figure,), (sites(random),)),),
        limits=("The numbers are random.",),
        provenance=(("Model", "large"),),
        command="python benchmarks/report.py",
    )


def sites(random: torch.Generator) -> Table:
    values = torch.randn(LAYERS * HEADS, 3, generator=random).tolist()
    rows = tuple((f"{i // HEADS}.{i % HEADS}", *row) for i, row in enumerate(values))
    return Table("Sites", ("Site", "Effect", "Low", "High"), rows)


def graph(random: torch.Generator) -> Widget:
    """Every head, and edges between any two layers."""
    nodes = [GraphNode("input", 0, "input")]
    for layer in range(LAYERS):
        nodes += [GraphNode(f"{layer}.{head}", layer + 1, "head") for head in range(HEADS)]
    nodes.append(GraphNode("logits", LAYERS + 1, "logits"))
    ends = torch.randint(len(nodes), (4 * EDGES, 2), generator=random)
    row = torch.tensor([node.row for node in nodes])
    ends = ends[row[ends[:, 0]] < row[ends[:, 1]]][:EDGES]
    way = torch.randint(3, (EDGES, 1), generator=random)
    scores = torch.randn(EDGES, generator=random) ** 3
    kept = scores.abs() >= scores.abs().topk(500).values[-1]
    return circuit_graph(nodes, torch.cat([ends, way], dim=1), scores, kept, title="A circuit")


def chromium() -> webdriver.Chrome:
    options = Options()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for argument in ARGUMENTS:
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": IDLE})
    driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
    return driver


def opened(driver: webdriver.Chrome, address: str) -> dict[str, float]:
    driver.get("about:blank")
    before = computed(driver)
    driver.get(address)
    times = WebDriverWait(driver, 120).until(lambda _: driver.execute_script(TIMES))
    return {**times, "cpu_seconds": computed(driver) - before}


def computed(driver: webdriver.Chrome) -> float:
    """Seconds that the main thread has computed."""
    metrics = driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "TaskDuration")


def measure(page: Path, repeats: int) -> dict[str, Any]:
    driver = chromium()
    try:
        opened(driver, page.as_uri())  # the browser's own start is not the report's
        rounds = [opened(driver, page.as_uri()) for _ in range(repeats)]
        elements = driver.execute_script("return document.querySelectorAll('*').length")
        return {
            "chromium": driver.capabilities["browserVersion"],
            "elements": elements,
            "sort_seconds": driver.execute_script(SORT),
            **{
                name: {
                    "least": min(each[name] for each in rounds),
                    "median": statistics.median(each[name] for each in rounds),
                }
                for name in rounds[0]
            },
        }
    finally:
        driver.quit()


def hardware() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    named = (line.split(": ")[1] for line in lines if line.startswith("model name"))
    return f"{next(named, platform.machine())}, {torch.get_num_threads()} threads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--save", action="store_true", help=f"write {RESULTS}")
    options = parser.parse_args()
    start = time.perf_counter()
    report = large_report()
    built = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        page = report.save(Path(folder) / "report.html")
        written = time.perf_counter() - start
        found = {
            "hardware": hardware(),
            "interp": version("interp"),
            "heads": LAYERS * HEADS,
            "kinds": len(KINDS),
            "edges": EDGES,
            "repeats": options.repeats,
            "megabytes": page.stat().st_size / 1e6,
            "build_seconds": built,
            "write_seconds": written,
            **measure(page, options.repeats),
        }
    print(json.dumps(found, indent=2))
    if options.save:
        RESULTS.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
