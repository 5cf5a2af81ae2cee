"""A folder that its reader may not enter."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def closed_folder() -> Iterator[Path]:
    """A folder with a file in it, as it is to somebody who may not look inside."""
    outer = Path(tempfile.mkdtemp())  # pytest's folders are closed to others
    outer.chmod(0o755)
    folder = outer / "closed"
    folder.mkdir()
    (folder / "index.json").write_text("{}")
    folder.chmod(0)
    root = os.geteuid() == 0
    if root:  # who may read everything, so another is played
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
        shutil.rmtree(outer)
