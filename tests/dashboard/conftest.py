"""A browser for the tests of the page: Chromium as the machine has it, without a window."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

#: Where CI says that there has to be a browser, a test without one fails instead of being skipped.
REQUIRED = "LIGHTNING_TEST_BROWSER"
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def _missing(what: str) -> None:
    if os.environ.get(REQUIRED) == "required":
        pytest.fail(f"{what}, and {REQUIRED}=required says that it has to be there")
    pytest.skip(what)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium; the tests are skipped where there is none. For one file at a time: Playwright keeps an event loop running
    in this thread, so tests of other files that start their own would fail beside it."""
    path = next(filter(None, map(shutil.which, _NAMES)), None)
    if path is None:
        _missing("no Chromium is installed (Debian and Ubuntu: apt install chromium)")
    try:
        from playwright.sync_api import sync_playwright  # noqa: PLC0415 - not everywhere installed
    except ImportError:
        _missing("playwright is not installed: make install")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield launched
        launched.close()
