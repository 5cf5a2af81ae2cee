"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A place to write a file at, which then takes the place of `path` in one step.

    Folders are made as needed. A file that is already there stays as it is until the new one is on
    the disk, and if anything is raised.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "new" / "words.txt"
    >>> with replacing(path) as partial:
    ...     _ = partial.write_text("words")
    >>> path.read_text(), [each.name for each in path.parent.iterdir()]
    ('words', ['words.txt'])

    Raises OSError: the disk is full, or the folder cannot be written.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
