"""A report as JSON: every claim, and every number that its page draws, exactly."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from interp.plots.widget import Widget
from interp.report.parts import Block, Figure, Section, Table

if TYPE_CHECKING:
    from interp.report.page import Report
else:
    Report = Any

FORMAT = {"format": "interp.Report", "version": 1}


def to_json(report: Report) -> str:
    """The report as text; what is missing or not finite is null."""
    return json.dumps(
        {
            **FORMAT,
            "title": report.title,
            "verdict": report.verdict,
            "facts": dict(report.facts),
            "sections": [_section(section) for section in report.sections],
        },
        allow_nan=False,
        indent=1,
    )


def _section(section: Section) -> dict[str, Any]:
    return {
        "heading": section.heading,
        "lead": section.lead,
        "claims": [vars(claim) for claim in section.claims],
        "baselines": _table(section.baselines),
        "blocks": [_block(block) for block in section.blocks],
        "limits": section.limits,
        "provenance": dict(section.provenance),
        "command": section.command,
    }


def _block(block: Block) -> dict[str, Any]:
    return {
        "heading": block.heading,
        "meaning": block.meaning,
        "figures": [_figure(figure) for figure in block.figures],
        "tables": [_table(table) for table in block.tables],
    }


def _figure(figure: Figure) -> dict[str, Any]:
    drawing = figure.drawing
    return {
        "title": figure.title,
        "caption": figure.caption,
        "role": figure.role,
        "data": _table(figure.data),
        "widget": {"kind": drawing.kind, "label": drawing.label, "data": drawing.data}
        if isinstance(drawing, Widget)
        else None,
    }


def _table(table: Table | None) -> dict[str, Any] | None:
    if table is None:
        return None
    rows = [
        [cell if isinstance(cell, str) or math.isfinite(cell) else None for cell in row]
        for row in table.rows
    ]
    return {"caption": table.caption, "columns": table.columns, "rows": rows}
