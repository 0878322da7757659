"""The documentation site as `make docs` builds it, in a real browser: offline, searchable, readable for everybody."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.docs.pages import ROOT

SITE = ROOT / "build" / "docs"
PAGES = ("index.html", "algorithms.html", "frameworks/langgraph.html", "reference/api.html")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    """The address of the site."""
    assert (SITE / "index.html").is_file(), "run `make docs` first"
    handler = functools.partial(_Quiet, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_offline_and_accessible(browser: Any, site: str, name: str, scheme: str) -> None:
    """It asks no other host for anything, nothing is missing, no script fails, and axe finds nothing wrong."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - beside the browser

    page = browser.new_page(color_scheme=scheme)
    asked: list[str] = []
    failed: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("response", lambda response: failed.append(response.url) if response.status >= 400 else None)
    page.on("pageerror", lambda error: failed.append(str(error)))
    page.goto(f"{site}/{name}", wait_until="networkidle")
    assert page.locator("h1").count() == 1
    # The theme makes a `nav` without a name for the copy button of each block of code.
    found = Axe().run(page, options={"rules": {"landmark-unique": {"enabled": False}}}).response["violations"]
    assert not [(each["id"], [node["html"] for node in each["nodes"][:3]]) for each in found]
    assert not [url for url in asked if not url.startswith((site, "data:", "blob:"))]
    assert not failed
    page.close()


def test_search_finds_pages(browser: Any, site: str) -> None:
    """Typing into the field shows the page, without a server that answers."""
    page = browser.new_page()
    page.goto(f"{site}/index.html", wait_until="networkidle")
    page.locator("input.md-search__input").click()
    page.locator("input.md-search__input").press_sequentially("nothing is learned")
    page.locator(".md-search-result__item a[href*='nothing-is-learned']").first.wait_for(timeout=60_000)
    page.close()


def test_equations_are_mathml(browser: Any, site: str) -> None:
    """The browser lays them out itself: a fraction is higher than a line of its text."""
    page = browser.new_page()
    page.goto(f"{site}/algorithms.html")
    assert page.locator("math").count() >= 10
    assert page.locator("mfrac").first.bounding_box()["height"] > page.locator("mi").first.bounding_box()["height"]
    page.close()
