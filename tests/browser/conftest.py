"""Chromium without a window and without a network, and a page opened in it from disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

from tests.conftest import BROWSER, DRIVER

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # containers have no user namespaces
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--disable-background-networking",
)


@dataclass(frozen=True)
class Page:
    """An open page."""

    driver: webdriver.Chrome

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of a script's `return`."""
        return self.driver.execute_script(script, *arguments)

    def requests(self) -> list[str]:
        """Addresses that the page wanted since it was opened, the page itself left out."""
        urls = [event["request"]["url"] for event in self.events("Network.requestWillBeSent")]
        return [url for url in urls if url not in (self.driver.current_url, "data:,")]

    def events(self, method: str) -> list[dict[str, Any]]:
        """What the browser's tools saw since they were last asked."""
        seen = [json.loads(line["message"])["message"] for line in self.logs("performance")]
        return [event["params"] for event in seen if event["method"] == method]

    def logs(self, kind: str) -> list[Any]:
        """What Chromium logged since it was last asked."""
        return self.driver.get_log(kind)

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page a width, also below the smallest that a window has."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def theme(self, name: str) -> None:
        """Ask for "light" or "dark"."""
        feature = {"name": "prefers-color-scheme", "value": name}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})

    def printed(self) -> None:
        """Show the page as it would be printed."""
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})


@pytest.fixture(scope="session")
def chromium() -> Iterator[webdriver.Chrome]:
    options = Options()
    options.binary_location = BROWSER or ""
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.set_network_conditions(offline=True, latency=0, throughput=0)
    yield driver
    driver.quit()


@pytest.fixture
def show(chromium: webdriver.Chrome, tmp_path: Path) -> Iterator[Callable[[str], Page]]:
    """Opens HTML from disk, at 1280 pixels, in light."""

    def open_page(html: str) -> Page:
        page = Page(chromium)
        page.resize(1280)
        page.theme("light")
        (tmp_path / "report.html").write_text(html, encoding="utf-8")
        page.logs("browser"), page.logs("performance")  # of the page before
        chromium.get((tmp_path / "report.html").as_uri())
        return page

    yield open_page
    chromium.get("about:blank")
    shutil.rmtree(tmp_path, ignore_errors=True)
