"""Where the files that ship with `interp` lie: `data/` and `circuits/`."""

from __future__ import annotations

import tomllib
from pathlib import Path

from interp.errors import InterpError


def data_dir() -> Path:
    """Folder of word lists, relations, templates and embedded models.

    >>> (data_dir() / "README.md").is_file()
    True
    """
    return _shipped("data")


def circuits_dir() -> Path:
    """Folder of reference circuits.

    >>> (circuits_dir() / "README.md").is_file()
    True
    """
    return _shipped("circuits")


def _shipped(name: str) -> Path:
    package = Path(__file__).resolve().parent
    installed = package / f"_{name}"  # where the wheel puts the checkout's top-level folder
    if installed.is_dir():
        return installed
    in_checkout = package.parent / name
    if in_checkout.is_dir() and _is_checkout(package.parent):
        return in_checkout
    raise InterpError(
        f"the folder {name!r} that ships with interp is neither at {installed} (installed wheel) "
        f"nor at {in_checkout} (checkout): reinstall interp, or run from a complete checkout"
    )


def _is_checkout(root: Path) -> bool:
    pyproject = root / "pyproject.toml"
    if not pyproject.is_file():
        return False
    project = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {})
    return project.get("name") == "interp"
