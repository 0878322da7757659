"""Hostile text in every field that an agent, a model or a task can fill: shown as text, never run, nothing loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.hostile import make_hostile_run
from tests.dashboard.pages import Page, serve
from tests.dashboard.reader import read

pytestmark = pytest.mark.timeout(900)
EVIL = (
    '<img src="http://evil.example/x.png" onerror="window.pwned=1"><script>window.pwned=1</script>'
    '"><svg onload=window.pwned=1> javascript:window.pwned=1 {{7*7}} ${window.pwned=1} \x1b]8;;http://evil.example\x07 '
    "\u202e <a href='javascript:window.pwned=1'>click</a> <style>*{display:none}</style> \U0001f600"
)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    folder = make_hostile_run(tmp_path / "evil", EVIL, "0" * 32)
    for name in ("hub.log", "backend.log", f"{EVIL[:10].replace('/', '')}.log"):
        (folder / name).write_text(EVIL)
    finding = {"kind": EVIL, "severity": "warning", "what": EVIL, "cause": EVIL, "remedy": EVIL, "passing": False}
    (folder / "diagnosis.json").write_text(json.dumps({"findings": [finding]}))
    with serve(folder) as page:
        yield page


@pytest.mark.parametrize(
    ("place", "query"),
    [
        ("/", ""),
        ("/run/evil/run", "metrics=."),
        ("/run/evil/rollouts", "attempts=all"),
        ("/run/evil/rollouts", "by=group"),
        ("/run/evil/rollout", f"rollout={'0' * 32}"),
        ("/run/evil/rollout", f"rollout={'0' * 32}&span={'a' * 16}"),
        ("/run/evil/rollout", f"rollout={'0' * 32}&span={1:016x}"),
        ("/run/evil/tokens", f"rollout={'0' * 32}"),
        ("/run/evil/pairs", f"rollout={'0' * 32}"),
        ("/run/evil/system", ""),
        ("/compare", "run=evil"),
        ("/run/<img src=x onerror=pwned=1>/run", "role=<script>pwned=1</script>"),
    ],
)
def test_text_stays_text(browser: Any, page: Page, place: str, query: str) -> None:
    """No script of it runs, no element comes of it, and no address in it is asked for."""
    with read(browser, page.port, page.server.token) as reader:
        reader.open(place, query)
        reader.tab.locator(".card, .list .line, .error").first.wait_for()
        reader.tab.wait_for_load_state("networkidle")
        for link in reader.tab.locator("main a").all()[:50]:
            assert not (link.get_attribute("href") or "").lower().startswith("javascript")
        assert reader.tab.evaluate("window.pwned") is None
        assert not reader.tab.locator("main img, main style, main script, main svg[onload]").count()
        assert not reader.elsewhere
        assert not [each for each in reader.troubles if "404" not in each]


def test_hostile_text_is_all_there(browser: Any, page: Page) -> None:
    """It is shown in full, as it was written."""
    with read(browser, page.port, page.server.token) as reader:
        reader.open("/run/evil/rollout", f"rollout={'0' * 32}&span={1:016x}")
        shown = reader.tab.get_by_role("region", name="Conversation").inner_text()
        assert '<img src="http://evil.example/x.png" onerror="window.pwned=1">' in shown
        assert "{{7*7}}" in shown
