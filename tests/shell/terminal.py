"""A program on a real pseudo-terminal, as a person has it."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

COLOR = re.compile(r"\x1b\[[0-9;]*(?:3[0-8]|9[0-7])[0-9;]*m")
ESCAPE = "\x1b"


@dataclass(frozen=True)
class Session:
    """What was seen on the screen, and the exit code."""

    screen: str
    code: int


def on_a_terminal(
    *arguments: str,
    until: str | None = None,
    then: signal.Signals = signal.SIGINT,
    seconds: float = 120.0,
    **environment: str,
) -> Session:
    """Run Python with these arguments; send it a signal when `until` is on the screen.

    Both stdout and stderr are the terminal, 100 columns wide.
    """
    ours, its = pty.openpty()
    quiet = {"NO_COLOR", "FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS", "INTERP_PROGRESS"}
    inherited = {key: value for key, value in os.environ.items() if key not in quiet}
    size = {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "40"}
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env=inherited | size | path | environment,
    )
    os.close(its)
    try:
        screen = _read(ours, process, until, then, time.monotonic() + seconds)
        return Session(screen, process.wait(timeout=30))
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()


def _read(
    terminal: int,
    process: subprocess.Popen[bytes],
    until: str | None,
    then: signal.Signals,
    deadline: float,
) -> str:
    seen, sent = b"", False
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 0.1)
        if not ready:
            continue
        try:
            read = os.read(terminal, 65536)
        except OSError:  # Linux: nobody has the other end open any more
            read = b""
        if not read:
            return seen.decode()
        seen += read
        if until is not None and not sent and until.encode() in seen:
            process.send_signal(then)
            sent = True
    raise AssertionError(f"still running; on the screen: {seen.decode()!r}")
