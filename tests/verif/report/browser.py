"""Headless Chromium for the pages of a run, and what the tests ask of it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_OPTIONS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1500,1200",
)  # fmt: skip


def start(folder: Path) -> Iterator[Any]:
    """The browser, with its own things in the folder; the test is skipped where there is none."""
    for program, package in (("chromium", "chromium"), ("chromedriver", "chromium-driver")):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {package})")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    for option in (*_OPTIONS, f"--user-data-dir={folder}"):
        options.add_argument(option)
    options.binary_location = shutil.which("chromium") or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    driver.set_script_timeout(180)
    yield driver
    driver.quit()


def load(browser, address, *, dark=False):
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    browser.get("about:blank")
    browser.get_log("browser")  # what a page before has said late
    browser.get(address)
    until(browser, "typeof drawn === 'boolean' && drawn && document.querySelectorAll('.xtick').length > 0")


def until(browser, condition, seconds=180):
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, seconds).until(lambda driver: driver.execute_script(f"return {condition}"))


def quiet(browser):
    """Whether the page has said nothing in the console; what the browser says of itself (of a slow machine) is not the page's."""
    own = ("intervention", "rendering", "violation", "recommendation", "other")
    entries = [entry for entry in browser.get_log("browser") if entry["source"] not in own]
    said = [entry for entry in entries if entry["level"] in ("SEVERE", "WARNING")]
    assert said == [], said
    return True
