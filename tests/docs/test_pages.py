"""What the pages say can be done: their links lead somewhere, and their examples run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.pages import GUIDES, PAGES, ROOT, anchors, blocks, commands, links, name
from tests.shell.commands import leaves, parse


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_something(page: Path) -> None:
    for link in links(page):
        if link.startswith(("https://", "http://")):
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{name(page)} points to {link}"
        assert not anchor or anchor in anchors(target), f"{name(page)} points to {link}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_line_of_shell_is_one_that_interp_takes(page: Path) -> None:
    for line in commands(page):
        assert parse(line) in leaves()


def test_a_line_with_an_option_that_does_not_exist_is_found() -> None:
    with pytest.raises(Exception, match="No such option: --nonsense"):
        parse("interp scan polymath --nonsense")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in GUIDES if blocks(page, "python")], ids=name)
def test_the_python_of_a_page_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for code in blocks(page, "python"):
        exec(compile(code, name(page), "exec"), namespace)


def test_the_page_of_the_shell_is_that_of_the_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    from commands import page

    try:
        assert page() == (ROOT / "docs" / "shell.md").read_text(encoding="utf-8"), "run make docs"
    finally:
        sys.modules.pop("commands")
