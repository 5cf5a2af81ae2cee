"""Runs: results on disk as they come, so that work that is killed goes on where it was."""

from interp.runs.chunk_files import Chunk
from interp.runs.info import (
    RunInfo,
    find,
    info,
    is_run,
    recorded,
    remove,
    result_of,
    settled,
    verify,
)
from interp.runs.run import Run

__all__ = [
    "Chunk",
    "Run",
    "RunInfo",
    "find",
    "info",
    "is_run",
    "recorded",
    "remove",
    "result_of",
    "settled",
    "verify",
]
