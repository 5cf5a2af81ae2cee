"""Reports of chosen tables and figures, without a result behind them."""

from __future__ import annotations

import pytest
import torch

from interp.plots import widget
from interp.plots.widget import Widget
from interp.report import Report
from interp.report.drawing import svg
from interp.report.parts import Block, Cell, Claim, Figure, Section, Table, grid_table

HOSTILE = [
    "<script>window.hacked = 1</script>",
    '"><img src=x onerror="window.hacked = 1">',
    "'><svg onload=window.hacked=1>",
    '<a href="javascript:window.hacked=1" autofocus onfocus="window.hacked=1">x</a>',
    '</style><style>body{background:url("https://example.invalid/x")}</style>',
    "</script><script>window.hacked = 1</script>",
    "<!--<script>",
    "]]></title></textarea></template><script>window.hacked=1</script>",
    "{{ 7*7 }}{% raw %}",
    "\u202e\u0000\u200b<iframe src=https://example.invalid>",
    "a\u2028b\u2029c\ud800 ${window.hacked=1}`",
    '=HYPERLINK("https://example.invalid","x")',
    "| x | [y](javascript:window.hacked=1) ![z](https://example.invalid/z.png) `c`",
]

STAND_IN = """
WIDGETS.graph = (host, data) => {
  host.append(el("p", {}, data.token));
  const words = () => shape("text", { x: 5, y: 20 }, data.token);
  const edge = () => shape("path", { class: "edge above", d: "M0 0L80 30" });
  const size = { width: 80, height: 30, viewBox: "0 0 80 30" };
  return { toSvg: () => shape("svg", size, edge(), words()) };
};
"""


def report_of(
    *tables: Table, figures: tuple[Figure, ...] = (), name: str = "A block", sections: int = 1
) -> Report:
    """The same block in each of some sections, with a claim in each."""
    section = Section(
        heading=name,
        lead=f"What {name} is.",
        claims=(Claim(f"{name} is so.", "It is 0.9 (0.8 to 1.0).", "found"),),
        blocks=(Block(name, f"What {name} means.", figures, tables),),
        limits=(f"{name} is not all.",),
        provenance=(("Model", name),),
        command=f"interp scan {name}",
        baselines=Table(f"Baselines of {name}", ("Model", "Metric"), ((name, 4.0),)),
    )
    return Report(name, (("Model", name),), (section,) * sections)


def numbers(*values: Cell, digits: int = 2) -> Table:
    """A table of these values, in rows named a, b, c and on."""
    rows = tuple((chr(ord("a") + i), value) for i, value in enumerate(values))
    return Table("Some values", ("Name", "Value"), rows, digits)


def drawing(name: str = "Scores") -> Figure:
    """A heatmap of two layers of three heads, with its legend and its numbers."""
    grid = torch.tensor([[0.125, 0.5, 1.0], [0.0, -0.25, float("nan")]])
    tips = [[f"{name} {layer}.{head}" for head in range(3)] for layer in range(2)]
    return Figure(
        name,
        svg.heatmap(grid, label=f"{name} of six heads", tips=tips, limits=(0.0, 1.0)),
        f"What {name} shows.",
        svg.legend("0", name),
        grid_table(f"Values of {name}", grid),
    )


def answering(token: str) -> Figure:
    """A widget that holds a token; see `stand_in`."""
    label = f"A graph of {token}"
    return Figure("Graph", Widget("graph", label, {"token": token}), "It answers.", role="wide")


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short script in place of the graph's, which does as widgets should."""
    real = widget.read
    monkeypatch.setattr(widget, "read", lambda name: STAND_IN if name == "graph.js" else real(name))
