"""The API reference says something of everything that is public, and opens without a network."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import interp
from tests.docs.pages import ROOT

PACKAGES = [
    "interp",
    *(f"interp.{name}" for name in interp.__all__ if isinstance(getattr(interp, name), ModuleType)),
    "interp.zoo.handmade",
]
SENTENCE = re.compile(r"[A-Z`\"'(\d].*[.:!?)](\s|$)", re.DOTALL)


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_says_what_it_is(package: str) -> None:
    module = import_module(package)
    assert SENTENCE.match(module.__doc__ or "")
    constants = docstrings_of_constants(module)
    public = getattr(module, "__all__", [name for name in vars(module) if name.endswith("Error")])
    assert public
    for name in public:
        value = getattr(module, name)
        if isinstance(value, ModuleType) or name == "__version__":
            continue
        if inspect.isroutine(value) or inspect.isclass(value):
            docstring = inspect.getdoc(value) or ""
            assert not docstring.startswith(f"{name}("), f"{package}.{name} says nothing"
        else:
            docstring = constants.get(name, "")
        assert SENTENCE.match(docstring), f"{package}.{name}: {docstring!r}"


def docstrings_of_constants(module: ModuleType) -> dict[str, str]:
    """What stands under the assignments in the files of a package."""
    found: dict[str, str] = {}
    for file in Path(str(module.__file__)).parent.glob("*.py"):
        for made, said in pairwise(ast.parse(file.read_text(encoding="utf-8")).body):
            target = made.targets[0] if isinstance(made, ast.Assign) else None
            target = made.target if isinstance(made, ast.AnnAssign) else target
            match target, said:
                case ast.Name(id=name), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = text
    return found


@pytest.mark.slow
def test_the_reference_is_built_without_a_warning_and_opens_from_disk(tmp_path: Path) -> None:
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "build.py", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    pages = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.html")}
    expected = {f"{package.replace('.', '/')}.html" for package in PACKAGES}
    assert pages == expected | {"index.html"}
    for page in tmp_path.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]*\ssrc="([^"]+)"', text)
        loaded += re.findall(r'<link[^>]*\shref="([^"]+)"', text)
        assert not [address for address in loaded if "//" in address.partition(",")[0]]
        for link in re.findall(r'<a [^>]*href="([^"#]+)', text):
            if "//" not in link and "$" not in link:  # the search makes those with a dollar
                assert (page.parent / link).exists(), f"{page} points to {link}"
