"""A browser for the tests of the page: Chromium as the machine has it, without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

#: `make test-dashboard` sets it; without it the tests in a browser are skipped. They have a separate target because pip
#: installs no browser, and because they wait for pages, which other tests beside them would slow down.
REQUIRED = "LIGHTNING_TEST_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for the tests of one file: Playwright keeps an event loop running in this thread, and tests of other
    files start their own."""
    if os.environ.get(REQUIRED) != "required":
        pytest.skip("run by make test-dashboard")
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        pytest.fail("no Chromium is installed (Debian and Ubuntu: apt install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()
