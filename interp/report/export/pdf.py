"""A report as PDF, printed by a browser of this machine that opens no window."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from interp.errors import InterpError

VARIABLE = "INTERP_BROWSER"
BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "microsoft-edge",
    "msedge",
)
SECONDS = 120


def to_pdf(page: str) -> bytes:
    """The page as it prints.

    Raises:
        InterpError: there is no browser, or it prints nothing.
    """
    browser = _browser()
    with tempfile.TemporaryDirectory(prefix="interp-pdf-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "report.html").write_text(page, encoding="utf-8")
        command = [
            browser,
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={folder / 'profile'}",
            "--no-pdf-header-footer",
            f"--print-to-pdf={folder / 'report.pdf'}",
            (folder / "report.html").as_uri(),
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # which Chromium has not got for root
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InterpError(_failure(browser, str(error))) from error
        if not (folder / "report.pdf").exists():
            raise InterpError(_failure(browser, done.stderr.strip()[-300:]))
        return (folder / "report.pdf").read_bytes()


def _browser() -> str:
    if named := os.environ.get(VARIABLE):
        if found := shutil.which(named):
            return found
        raise InterpError(
            f"{VARIABLE} names {named!r}, which is no program; set it to a Chromium, Chrome or "
            "Edge, or unset it to search PATH."
        )
    if found := next(filter(None, map(shutil.which, BROWSERS)), None):
        return found
    raise InterpError(
        "A PDF is printed by Chromium, Chrome or Edge, and none is on PATH; install one, set "
        f"{VARIABLE} to its program, or save as .html and print it from a browser."
    )


def _failure(browser: str, said: str) -> str:
    return (
        f"{browser} printed no PDF ({said or 'it said nothing'}); save as .html and print it from "
        f"a browser, or set {VARIABLE} to another one."
    )
