"""`build`: results in, one report out."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interp import __version__
from interp.errors import InterpError
from interp.report.export.html import to_html
from interp.report.export.json_file import to_json
from interp.report.export.markdown import to_markdown
from interp.report.export.pdf import to_pdf
from interp.report.parts import Section, listed, tally
from interp.report.sections import section_of

FRAME_HEIGHT = 700


@dataclass(frozen=True)
class Report:
    """Claims with their evidence, as one file that needs nothing else.

    Attributes:
        title: Heading of the page.
        facts: Labelled lines on the model, its weights, the prompts and this package.
        sections: One for each result.
    """

    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]

    @property
    def verdict(self) -> str:
        """One line: `7 claims: 5 found, 1 doubtful, 1 not found.`"""
        claims = [claim for section in self.sections for claim in section.claims]
        if not claims:
            return "No claims."
        return f"{len(claims)} claim{'s' * (len(claims) > 1)}: {tally(claims)}."

    @property
    def html(self) -> str:
        """One page: style, drawings, data and script are inside."""
        return to_html(self)

    @property
    def json(self) -> str:
        """Claims, tables and the numbers of all figures, as exact numbers."""
        return to_json(self)

    @property
    def markdown(self) -> str:
        """Claims and tables as GitHub shows them; figures as their numbers."""
        return to_markdown(self)

    def save(self, path: str | Path) -> Path:
        """Write the report, making folders as needed; returns the path.

        Args:
            path: Its ending says how: `.html`, `.json`, `.md`, or `.pdf`, which a Chromium, Chrome
                or Edge on this machine prints.

        Raises:
            InterpError: Another ending, or no browser to print with.
        """
        path = Path(path)
        formats = {".html": "html", ".json": "json", ".md": "markdown"}
        if path.suffix not in (*formats, ".pdf"):
            raise InterpError(
                f"{path.name!r} does not say how to save a report; end the name in .html, .json, "
                ".md or .pdf."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pdf":
            path.write_bytes(to_pdf(self.html))
        else:
            path.write_text(getattr(self, formats[path.suffix]), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.html)}" title="{html.escape(self.title)}" '
            f'sandbox="allow-scripts allow-downloads" width="100%" height="{FRAME_HEIGHT}" '
            'style="border:0"></iframe>'
        )


def build(*results: object, title: str | None = None) -> Report:
    """A report of the results, in their order; no model is run.

    A result that is the control or the evidence of another is shown with that one: the atlas of an
    untrained model beside its model's, evaluations beside their circuits.

    Args:
        results: What analyses return.
        title: Heading of the page; the model's name by default.

    Raises:
        InterpError: no results, or something that a report cannot show.
    """
    if not results:
        raise InterpError("A report needs a result; pass a HeadAtlas or a SweepResult.")
    found = [section_of(result, results) for result in results]
    known = [
        dict(getattr(result, "provenance", {}))
        for result, section in zip(results, found, strict=True)
        if section is not None
    ]
    title = title or f"Inside {known[0].get('model', 'the model')}"
    return Report(title, _facts(known), tuple(each for each in found if each is not None))


def _facts(known: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str], ...]:
    """What the results were made from; several models or seeds stand side by side."""
    lines: dict[str, list[str | None]] = {
        "Model": [_model(each) for each in known],
        "Weights hash": [each.get("weights_hash") for each in known],
        "Number format": [_format(each) for each in known],
        "Prompts": [_prompts(each) for each in known],
        "Seed": [_seed(each) for each in known],
        "Made by": [f"interp {__version__}"],
    }
    distinct = {name: list(dict.fromkeys(filter(None, found))) for name, found in lines.items()}
    return tuple((name, listed(found)) for name, found in distinct.items() if found)


def _model(known: Mapping[str, Any]) -> str | None:
    name, revision = known.get("model"), known.get("revision")
    return f"{name} at {revision}" if revision else name


def _format(known: Mapping[str, Any]) -> str | None:
    return f"{known['dtype']} on {known['device']}" if {"dtype", "device"} <= set(known) else None


def _prompts(known: Mapping[str, Any]) -> str | None:
    return f"{known['n']} of {known.get('task') or 'its own'}" if known.get("n") else None


def _seed(known: Mapping[str, Any]) -> str | None:
    seed = known.get("seed", known.get("notes", {}).get("seed"))
    return None if seed is None else str(seed)
