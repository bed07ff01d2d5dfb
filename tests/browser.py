"""Debian's Chromium, without a time limit."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import BrowserContext, sync_playwright

CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-background-networking", "--disable-component-update"]

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Debian's chromium")


@contextmanager
def chromium() -> Iterator[BrowserContext]:
    """A browser with a wide window whose pages wait as long as it takes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=0)
        context = browser.new_context(viewport={"width": 1920, "height": 900})
        context.set_default_timeout(0)
        yield context
        browser.close()
