"""Somebody who reads the page: opens it in a browser, clicks, types, and notices what goes wrong."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE_MS = 240_000
DESKTOP, PHONE = {"width": 1280, "height": 860}, {"width": 390, "height": 844}


class Reader:
    """One tab."""

    def __init__(self, tab: Any, port: int, token: str) -> None:
        self.tab, self._port, self._token = tab, port, token
        self.troubles: list[str] = []
        """What the browser complained of, errors of scripts included."""
        self.elsewhere: list[str] = []
        """Addresses outside of the server that something asked for."""
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("pageerror", lambda error: self.troubles.append(str(error)))
        tab.on("console", lambda message: message.type == "error" and self.troubles.append(message.text))
        tab.on("dialog", lambda dialog: (self.troubles.append(f"dialog {dialog.message}"), dialog.dismiss()))
        tab.on("request", self._note_request)

    def _note_request(self, request: Any) -> None:
        if not request.url.startswith((f"http://127.0.0.1:{self._port}/", "data:")):
            self.elsewhere.append(request.url)

    def open(self, place: str = "/", query: str = "") -> None:
        """A place of the page, as a printed address opens it."""
        self.tab.goto(f"http://127.0.0.1:{self._port}/#{place}?{query}{'&' if query else ''}token={self._token}")
        self.until("document.querySelector('main') && !document.querySelector('.empty[role=status]')")

    def until(self, condition: str) -> None:
        """Wait until this JavaScript is true. The page's policy forbids the browser to evaluate it by itself."""
        last = time.monotonic() + PATIENCE_MS / 1000
        while not self.tab.evaluate(f"() => Boolean({condition})"):
            assert time.monotonic() < last, f"it never came true: {condition}"
            self.tab.wait_for_timeout(50)

    def see(self, text: str | re.Pattern[str]) -> Any:
        """Wait until this text is visible."""
        found = self.tab.get_by_text(text).locator("visible=true").first
        found.wait_for()
        return found

    def place(self) -> str:
        """What stands behind the # of the address."""
        return str(self.tab.evaluate("location.hash"))


@contextmanager
def read(
    browser: Any, port: int, token: str = "", *, size: dict[str, int] = DESKTOP, colours: str = "light"
) -> Iterator[Reader]:
    """A reader with a fresh browser profile."""
    context = browser.new_context(viewport=size, color_scheme=colours, reduced_motion="reduce")
    try:
        yield Reader(context.new_page(), port, token)
    finally:
        context.close()
