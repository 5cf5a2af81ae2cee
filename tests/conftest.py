"""Set-up of the whole suite: offline, every core used once, random tests repeatable, every shape
checked at run time.
"""

from __future__ import annotations

import gc
import os
import shutil
import signal
from pathlib import Path

import jaxtyping
import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

import tests.checked  # noqa: F401 - the hook calls it by its name

CI = "CI" in os.environ
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
BROWSER = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
DRIVER = shutil.which("chromedriver")
NO_BROWSER = (
    "Chromium and chromedriver are not both on PATH; install them with "
    "`apt-get install chromium chromium-driver`, or leave these tests out with -m 'not browser'"
)

gc.disable()  # what is imported stays; see pytest_collection_finish
# A shell lets what it runs in the background ignore Ctrl-C, and so would all that is started here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Before the first import of the libraries that read them. Hosts with many cores lend few of them to
# a container: counting the lent ones keeps torch from starting more threads than can run.
if "PYTEST_XDIST_WORKER_COUNT" in os.environ:  # a worker, which inherits what its parent has set
    WORKERS = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ["OMP_NUM_THREADS"] = str(max(1, CORES // WORKERS))
else:
    os.environ.setdefault("OMP_NUM_THREADS", str(CORES))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parents[1]
CHECKED = [
    f"interp.{each.stem}"
    for each in (ROOT / "interp").iterdir()
    if (each.suffix == ".py" or (each / "__init__.py").exists())
    and each.stem not in ("__init__", "sites")  # which hold no tensors, and are asked all the time
]
install_import_hook(CHECKED, "tests.checked.checked")  # before the first import of interp

settings.register_profile("interp", deadline=None, derandomize=CI)
settings.load_profile("interp")


def pytest_xdist_auto_num_workers() -> int:
    """One worker for each core that is lent, and no more than memory holds models for."""
    return min(CORES, 8)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests that share a cluster come first, so that one process runs them all.

    One that has nothing left to do takes over the last tests of another, and would start a second.
    """
    items.sort(key=lambda item: "workers" not in item.path.parts)


def pytest_collection_finish() -> None:
    """Look for cycles again, but never in what was imported: millions of objects that stay."""
    gc.enable()
    gc.freeze()


def pytest_report_header() -> str | None:
    return None if BROWSER and DRIVER else f"browser tests: {NO_BROWSER}"


@pytest.fixture
def types_unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """No call is checked, as for a user who gives a wrong type."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without a browser its tests are skipped with a way out; in CI they fail instead."""
    if item.get_closest_marker("browser") and not (BROWSER and DRIVER):
        (pytest.fail if CI else pytest.skip)(NO_BROWSER)
