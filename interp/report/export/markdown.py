"""A report as Markdown that GitHub shows: untrusted text makes no HTML, link, picture or table."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from interp.plots.widget import Widget
from interp.report.parts import Block, Claim, Figure, Section, Table, cell

if TYPE_CHECKING:
    from interp.report.page import Report
else:
    Report = Any

MOST_ROWS, MOST_COLUMNS = 64, 33
"""Larger tables are left to the page and to JSON."""
UNSEEN = re.compile(
    "[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
"""Control signs, signs that turn the direction of text, and halves of signs."""


def to_markdown(report: Report) -> str:
    """The report as text: claims, tables, limits and commands; drawings as their numbers."""
    parts = [
        f"# {plain(report.title)}",
        f"**{plain(report.verdict)}**",
        _lines(report.facts),
        "Each finding stands beside a control: what chance, random weights or random parts give. "
        "Found: the whole interval is beyond the threshold and the control. Doubtful: it is not. "
        "Not found: the threshold is not reached. Ranges in brackets are 95% bootstrap intervals.",
    ]
    for number, section in enumerate(report.sections, 1):
        parts += _section(number, section)
    return "\n\n".join(filter(None, parts)) + "\n"


def plain(text: str) -> str:
    r"""Text that Markdown shows as it is, on one line; signs that cannot be seen are named.

    >>> print(plain("<b>1 | 2</b> [x](http://a.b)"))
    \<b\>1 \| 2\</b\> \[x\](http\://a.b)
    """
    text = UNSEEN.sub(lambda sign: f"(U+{ord(sign[0]):04X})", " ".join(text.split()))
    text = re.sub(r"([\\`*_\[\]<>#|~$&@!])", r"\\\1", text)
    text = re.sub(r"(?i)(https?|ftp|mailto|xmpp)(?=:)|www(?=\.)", r"\g<0>\\", text)
    return re.sub(r"^(\d*)(?=[.)+=-](\s|$))", r"\1\\", text)  # would begin a list or a heading


def _section(number: int, section: Section) -> list[str]:
    return [
        f"## {number}. {plain(section.heading)}",
        plain(section.lead),
        _claims(section.claims),
        _table(section.baselines) if section.baselines else "",
        *(part for block in section.blocks for part in _block(block)),
        "### What this cannot say",
        "\n".join(f"- {plain(limit)}" for limit in section.limits),
        "### How it was measured",
        _lines(section.provenance),
        *(["### Run it again", _code(section.command)] if section.command else []),
    ]


def _claims(claims: Sequence[Claim]) -> str:
    return "\n".join(
        f"- **{claim.verdict.capitalize()}.** {plain(claim.statement)} {plain(claim.evidence)}"
        for claim in claims
    )


def _block(block: Block) -> list[str]:
    return [
        f"### {plain(block.heading)}",
        plain(block.meaning),
        *(_figure(figure) for figure in block.figures),
        *(_table(table) for table in block.tables),
    ]


def _figure(figure: Figure) -> str:
    parts = [f"*Figure.* **{plain(figure.title)}** {plain(figure.caption)}"]
    if isinstance(figure.drawing, Widget):
        parts.append(f"{plain(figure.drawing.label)} It is drawn in the HTML report.")
    if figure.data is not None:
        parts.append(_table(figure.data))
    return "\n\n".join(parts)


def _table(table: Table) -> str:
    caption = f"**{plain(table.caption)}**"
    if len(table.rows) > MOST_ROWS or len(table.columns) > MOST_COLUMNS:
        size = f"{len(table.rows)} rows of {len(table.columns)} columns"
        return f"{caption}: {size}, in the HTML and JSON reports."
    lines = [
        table.columns,
        ("---", *("---:" for _ in table.columns[1:])),
        *([cell(value, table.digits) for value in row] for row in table.rows),
    ]
    drawn = [lines[1] if line is lines[1] else [plain(entry) for entry in line] for line in lines]
    return "\n".join([caption, "", *(f"| {' | '.join(line)} |" for line in drawn)])


def _lines(rows: Sequence[tuple[str, str]]) -> str:
    return "\n".join(f"- {plain(name)}: {plain(value)}" for name, value in rows)


def _code(text: str) -> str:
    """A fenced block that nothing in the text ends."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{UNSEEN.sub('', text)}\n{fence}"
