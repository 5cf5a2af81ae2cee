"""`import interp` and `interp --help` stay quick: TransformerLens is imported when first used."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["interp", "interp.cli"])
def test_importing_leaves_transformer_lens_alone(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.split()
    assert module in imported
    assert "transformer_lens" not in imported
