"""`Widget`: a drawing that answers, in a report and in a notebook, with no network.

A widget is data and the name of a script. The data is untrusted text (tokens, prompts): it stands
in the page as JSON that is never run, and scripts write it as text alone. In a notebook the widget
lives in a frame of its own, whose policy allows nothing but its own script and style.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal

from markupsafe import Markup, escape

Kind = Literal["graph", "attention"]


@dataclass(frozen=True)
class Widget:
    """A drawing that answers.

    Attributes:
        kind: Names its script, such as `widgets/graph.js`.
        label: What a screen reader says in place of the picture.
        data: What JSON can hold; numbers are finite or None.
        height: Pixels that it takes in a notebook.
    """

    kind: Kind
    label: str
    data: Mapping[str, Any]
    height: int = 480

    @property
    def kinds(self) -> set[Kind]:
        """Scripts that it needs: its own, and the viewer that opens inside a graph."""
        return {self.kind, "attention"} if self.data.get("attention") else {self.kind}

    def element(self, name: str) -> Markup:
        """The place where the script draws, and its data, for a page with `scripts` in it."""
        return Markup(
            f'<div class="widget {self.kind}" id="{escape(name)}" role="group" '
            f'aria-label="{escape(self.label)}"></div>'
            f'<script type="application/json" data-of="{escape(name)}">{_json(self.data)}</script>'
        )

    def to_html(self) -> str:
        """A whole page with this widget alone."""
        style, script = read("theme.css") + read("widgets.css"), scripts(self.kinds)
        policy = f"default-src 'none'; style-src '{digest(style)}'; script-src '{digest(script)}'"
        page = (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}; img-src data:">'
            f"<title>{escape(self.label)}</title><style>{style}</style></head>"
            f'<body class="alone">{self.element("w0")}<script>{script}</script></body></html>'
        )
        return page.encode(errors="replace").decode()  # half a surrogate pair is no text

    def _repr_html_(self) -> str:
        return (
            f'<iframe srcdoc="{html.escape(self.to_html())}" title="{html.escape(self.label)}" '
            f'sandbox="allow-scripts allow-downloads" width="100%" height="{self.height}" '
            'style="border:0"></iframe>'
        )


def scripts(kinds: Iterable[Kind], page: Iterable[str] = ()) -> str:
    """One script: what all share, a page's own scripts, and all widgets of these kinds.

    The names of `base.js` and `save.js` are known to every script; those of the others to none.
    """
    widgets = (read(f"{name}.js") for name in (*sorted(set(kinds)), "start"))
    return "\n".join([read("base.js"), read("save.js"), *map(_scoped, (*page, *widgets))])


def read(name: str) -> str:
    """A file of the folder `widgets`."""
    return (files("interp.plots") / "widgets" / name).read_text(encoding="utf-8")


def digest(text: str) -> str:
    """Names one inline block in a content-security policy, so that no other can run."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _scoped(script: str) -> str:
    """A script whose names nothing else sees."""
    return f"{{\n{script}}}"


def _json(data: Mapping[str, Any]) -> Markup:
    """JSON in which nothing ends the element that it stands in."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)
