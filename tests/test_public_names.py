"""The names that users type. Changing this list is a decision, noted in CHANGELOG.md."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import interp

PUBLIC = [
    "Activations",
    "Model",
    "PromptSet",
    "SweepResult",
    "__version__",
    "ablate",
    "attribute",
    "capture",
    "circuits",
    "consistency",
    "engine",
    "errors",
    "generation",
    "grokking",
    "heads",
    "lens",
    "load",
    "models",
    "patch",
    "probes",
    "report",
    "results",
    "sites",
    "tasks",
    "training",
    "vectors",
    "workers",
    "zoo",
]


def test_the_public_names_are_these() -> None:
    assert sorted(interp.__all__) == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_name_is_there(name: str) -> None:
    assert getattr(interp, name) is not None


@pytest.mark.parametrize("first", ["interp", "interp.activations", "interp.heads"])
def test_capture_is_the_function_whatever_is_imported_first(first: str) -> None:
    """Packages are imported in any order, and none takes the place of the function."""
    code = f"import {first}, interp; print(type(interp.capture).__name__)"
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout
    assert shown == "function\n"


def test_the_version_is_that_of_the_package() -> None:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    assert interp.__version__ == project["version"]
