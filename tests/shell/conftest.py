"""`python -m interp` in a process of its own, and a model on disk for it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from interp.cli import app
from tests.families import tiny, tiny_tokenizer

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def interp(tmp_path: Path) -> Shell:
    """Runs a command in an empty folder, its output in pipes."""

    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "interp", *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Runs a command in this process: the same app without the seconds that a start takes."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        ended = CliRunner().invoke(app, arguments, catch_exceptions=False)
        return subprocess.CompletedProcess(arguments, ended.exit_code, ended.stdout, ended.stderr)

    return run


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory with a random GPT-2 of 2 layers x 4 heads that reads 64 tokens."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny("gpt2").save_pretrained(folder)  # type: ignore[operator]
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)
