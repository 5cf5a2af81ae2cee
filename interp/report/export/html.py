"""A report as one page of HTML that loads nothing and runs nothing but its own script."""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from interp.plots.widget import Kind, Widget, digest, read, scripts
from interp.report.drawing.theme import scale_css
from interp.report.parts import Cell, cell, tally

if TYPE_CHECKING:
    from interp.report.page import Report
else:
    Report = Any

SCRIPTS = ("page.js", "tables.js", "figures.js", "tips.js")
LONG = 28
"""Letters beyond which the words of a cell are broken into lines."""
SHOWN = 12
"""Claims that stand open at the top, shared by the sections; the others unfold."""


def to_html(report: Report) -> str:
    """The page; a content-security policy names its style and script by their hashes."""
    style = read("theme.css") + _template("style.css") + read("widgets.css") + scale_css()
    script = scripts(_kinds(report), map(_template, SCRIPTS))
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= {"cell": _cell, "tally": tally}
    environment.tests["widget"] = lambda drawing: isinstance(drawing, Widget)
    page = environment.from_string(_template("report.html")).render(
        report=report,
        most=max(1, SHOWN // max(1, len(report.sections))),
        style=Markup(style),
        script=Markup(script),
        policy=(
            f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'; "
            "img-src data:; base-uri 'none'; form-action 'none'"
        ),
    )
    return page.encode(errors="replace").decode()  # half a surrogate pair is no text


def _template(name: str) -> str:
    return (files("interp.report.export") / "template" / name).read_text(encoding="utf-8")


def _cell(value: Cell, digits: int, scope: str) -> Markup:
    """One cell of a table; a number carries its exact value for sorting and for files."""
    name, more = ("th", f' scope="{scope}"') if scope else ("td", "")
    if isinstance(value, str):
        more += ' class="long"' if len(value) > LONG else ""
    elif math.isfinite(value):
        more += f' data-value="{value!r}"'
    return Markup(f"<{name}{more}>{escape(cell(value, digits))}</{name}>")


def _kinds(report: Report) -> set[Kind]:
    """Kinds of widgets that the page needs scripts for."""
    return {
        kind
        for section in report.sections
        for block in section.blocks
        for figure in block.figures
        if isinstance(figure.drawing, Widget)
        for kind in figure.drawing.kinds
    }
