"""`lightning-sdk export --html`: one file that a browser opens from the disk, with no network, every view in it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_runs import MadeRollout, MadeRun, made_call, pack_events

from lightning_dashboard.export.page_file import build_page, escape_json
from tests.dashboard.exported import QUESTION, export, make_run, read_data
from tests.dashboard.pages import serve
from tests.dashboard.reader import PATIENCE_MS

pytestmark = pytest.mark.timeout(900)
EVIL = (
    "</script><script>window.pwned=1</script><!--<script> ]]> &lt; \u2028 \u2029 \ud800 <img src=http://evil.example/x "
    "onerror=window.pwned=1> \U0001f600 \u65e5\u672c"
)


class FileReader:
    """A tab that has a file open, in a browser that is offline."""

    def __init__(self, tab: Any, path: Path) -> None:
        self.tab, self._path = tab, path
        self.troubles: list[str] = []
        self.asked: list[str] = []
        """Every address that was asked for."""
        tab.set_default_timeout(PATIENCE_MS)
        tab.on("pageerror", lambda error: self.troubles.append(str(error)))
        tab.on("console", lambda message: message.type == "error" and self.troubles.append(message.text))
        tab.on("request", lambda request: self.asked.append(request.url))

    def open(self, place: str = "") -> None:
        self.tab.goto(f"{self._path.as_uri()}{place}")

    def assert_quiet(self) -> None:
        """Nothing went wrong, and nothing but the file was asked for."""
        assert not self.troubles
        assert {url.partition("#")[0] for url in self.asked if not url.startswith("data:")} == {self._path.as_uri()}


@contextmanager
def read_file(browser: Any, path: Path) -> Iterator[FileReader]:
    context = browser.new_context(viewport={"width": 1280, "height": 860}, reduced_motion="reduce", offline=True)
    try:
        yield FileReader(context.new_page(), path)
    finally:
        context.close()


def test_every_view_is_read_offline(browser: Any, tmp_path: Path) -> None:
    """Clicked through from the first one: run, rollouts, groups, rollout, call, tokens, pairs and system."""
    make_run(tmp_path / "runs" / "solve").close()
    export(tmp_path, "solve", "--html", "solve.html")
    with read_file(browser, tmp_path / "solve.html") as reader:
        tab = reader.tab
        reader.open()
        tab.get_by_role("note").get_by_text("It has all 15 rollouts").wait_for()
        tab.get_by_role("img", name=re.compile("Reward by role by step")).wait_for()
        tab.get_by_label("names that match").fill("^loss$")
        tab.get_by_role("img", name=re.compile("^loss by step; at the last one, 2: 0.5")).wait_for()
        tab.get_by_role("link", name="Rollouts", exact=True).click()
        tab.get_by_text("15 of 15 rollouts").wait_for()
        tab.get_by_label(re.compile("^step")).fill("2")
        tab.get_by_label(re.compile("^text in task")).fill("REASON 2")
        tab.get_by_text("2 of 15 rollouts").wait_for()
        tab.get_by_role("button", name="Groups").click()
        tab.get_by_text("2 groups").wait_for()
        tries = tab.get_by_role("table", name="Groups").get_by_role(
            "link", name=re.compile("^rollout with reward.*ok$")
        )
        tries.first.click()
        tab.get_by_role("table", name="Rewards").get_by_text("reason").first.wait_for()
        tab.get_by_role("tree", name="Spans").get_by_role("treeitem").nth(2).click()
        tab.get_by_role("region", name="Details").get_by_text("2 + 3?").first.wait_for()
        tab.get_by_role("link", name="Its tokens").click()
        section = tab.get_by_role("region", name="Row 1 of writer")
        section.locator(".token.sampled").first.hover()
        tab.get_by_role("status", name="The token's numbers").get_by_text("log-prob").wait_for()
        tab.get_by_role("link", name="Pairs", exact=True).click()
        tab.get_by_role("region", name="Call 1 of writer").get_by_text("advantage").first.wait_for()
        tab.get_by_role("link", name="System", exact=True).click()
        tab.get_by_role("table", name="Runners").get_by_role("cell", name="15", exact=True).wait_for()
        reader.assert_quiet()


def test_its_tables_are_those_of_the_server(browser: Any, tmp_path: Path) -> None:
    """However they are filtered and sorted: the same rollouts in the same order."""
    run = make_run(tmp_path / "runs" / "solve")
    run.close()
    export(tmp_path, "solve", "--html", "solve.html")
    queries: list[dict[str, Any]] = [
        {"sort": sort, "down": down, "role": role}
        for sort in ("started", "step", "reward", "status", "attempt")
        for down in ("0", "1")
        for role in ("", "writer")
    ]
    queries += [
        {"step": "1", "low": "0.5"},
        {"status": "timeout"},
        {"mode": "evaluate"},
        {"text": "took too", "high": "1"},
    ]
    with serve(run.folder) as page, read_file(browser, tmp_path / "solve.html") as reader:
        reader.open()
        for query in queries:
            expected = [row["id"] for row in page.ask("rollouts", run="solve", limit=500, **query)["rows"]]
            reader.open("#/")
            words = "&".join(f"{name}={value}" for name, value in query.items() if value)
            reader.open(f"#/run/solve/rollouts?{words}")
            reader.tab.get_by_text(f"{len(expected)} of 15 rollouts").wait_for()
            lines = reader.tab.get_by_role("table", name="Rollouts").locator("a.open")
            assert lines.count() == len(expected)
            shown = [re.search("rollout=([^&]+)", link.get_attribute("href"))[1] for link in lines.all()]  # type: ignore[index]
            assert shown == expected, query


def test_several_runs_are_compared(browser: Any, tmp_path: Path) -> None:
    """A list of runs, and the view that puts them over each other."""
    make_run(tmp_path / "runs" / "first").close()
    make_run(tmp_path / "runs" / "second", advantage="grpo").close()
    export(tmp_path, "first", "second", "--html", "both.html")
    with read_file(browser, tmp_path / "both.html") as reader:
        reader.open()
        reader.tab.get_by_role("table", name="Runs").get_by_role("link", name="second").click()
        reader.tab.get_by_role("link", name="Compare").click()
        reader.tab.get_by_role("button", name="first").click()
        reader.tab.get_by_role("table", name="Settings that differ").get_by_text("credit.advantage").wait_for()
        reader.tab.get_by_label("metric").select_option("loss")
        reader.tab.get_by_role("img", name=re.compile("^loss by step")).wait_for()
        reader.assert_quiet()


def test_hostile_text_does_not_break_out(browser: Any, tmp_path: Path) -> None:
    """It is data from end to end, and shown as it was written."""
    run = MadeRun(tmp_path / "runs" / "evil", facts={"model": EVIL}, versions={EVIL: EVIL})
    whole = EVIL.replace("\ud800", "")
    call = made_call(1, [{"role": "user", "content": EVIL}, QUESTION], whole, role=whole)
    rollout = MadeRollout(group="1-0", id="0" * 32, task={"question": EVIL}, events=pack_events([call]))
    run.add([rollout, replace(rollout, id="1" * 32, key=b"k" * 16)])
    run.steps([{"step": 1, f"<script>{EVIL}": 1.0}])
    run.close()
    export(tmp_path, "evil", "--html", "evil.html")
    with read_file(browser, tmp_path / "evil.html") as reader:
        for place in (
            "#/run/evil/run?metrics=.",
            f"#/run/evil/rollout?rollout={'0' * 32}&span={1:016x}",
            "#/run/evil/system",
        ):
            reader.open()
            reader.open(place)
            reader.tab.locator("main .card").first.wait_for()
            assert reader.tab.evaluate("window.pwned") is None
            assert not reader.tab.locator("main img, main script").count()
        reader.open(f"#/run/evil/rollout?rollout={'0' * 32}")
        shown = reader.tab.get_by_role("region", name="Conversation").inner_text()
        assert "</script><script>window.pwned=1</script><!--<script> ]]> &lt;" in shown and "\u65e5\u672c" in shown
        reader.assert_quiet()


def test_no_other_script_is_run(browser: Any, tmp_path: Path) -> None:
    """The policy in the file names its own script; one that somebody adds does nothing, and no image loads."""
    make_run(tmp_path / "runs" / "solve").close()
    export(tmp_path, "solve", "--html", "solve.html")
    path = tmp_path / "changed.html"
    added = "<script>window.pwned=1</script><img src='http://127.0.0.1:9/x.png' onerror='window.pwned=1'></body>"
    path.write_text((tmp_path / "solve.html").read_text().replace("</body>", added))
    with read_file(browser, path) as reader:
        reader.open()
        reader.tab.get_by_role("img", name=re.compile("Reward by role by step")).wait_for()
        assert reader.tab.evaluate("window.pwned") is None
        assert sum("Content Security Policy" in each for each in reader.troubles) >= 2


def test_the_most_telling_rollouts_are_carried(tmp_path: Path) -> None:
    """Best, worst, newest and failed ones, each beside one to compare it with; the file says what it left out."""
    run = make_run(tmp_path / "runs" / "solve", steps=40, tries=4)
    run.close()
    done = export(tmp_path, "solve", "--html", "solve.html", "--rollouts", "12")
    assert "12 rollouts" in done.stdout
    found = read_data(tmp_path / "solve.html")["of"]["solve"]
    assert "It has 12 of 323 rollouts: the best, the worst and the newest of each role" in found["note"]
    rows = {row["id"]: row for row in found["rows"]}
    assert rows.keys() == found["rollouts"].keys() and len(rows) == 12
    for role, ends in {"writer": {0.0, 0.75}, "checker": {0.25, 1.0}}.items():
        assert ends <= {row["scores"].get(role) for row in rows.values()}
    assert "timeout" in {row["status"] for row in rows.values()}
    assert 40 in {row["step"] for row in rows.values()}
    carried = [each["rollout"] for each in found["rollouts"].values() if each["rollout"]["place"]["mode"] == "train"]
    assert all(len(each["group"]) > 1 for each in carried if each["status"] == "ok")
    assert all(mate["id"] in rows for each in carried for mate in each["group"])
    assert {row["group"] for row in found["groups"][""]} == {row["group"] for row in rows.values()}


def test_the_file_can_be_mailed(tmp_path: Path) -> None:
    """The page is below 500 kB, and data stay about below the limit, whatever the run holds."""
    assert len(build_page({})) < 500_000
    run = MadeRun(tmp_path / "runs" / "long")
    events = pack_events([made_call(1, [{"role": "user", "content": "long " * 4000}], "x" * 2000)])
    run.add([MadeRollout(group="1-0", rewards=[("", "r", 0.5, "")], events=events) for _ in range(40)])
    run.close()
    export(tmp_path, "long", "--html", "long.html", "--megabytes", "2")
    assert 1_000_000 < (tmp_path / "long.html").stat().st_size < 2_500_000
    assert "of 40 rollouts" in read_data(tmp_path / "long.html")["of"]["long"]["note"]


def test_data_are_escaped() -> None:
    """Nothing in them means anything in HTML or is no character in UTF-8, and a reader gets back what was written."""
    text = escape_json(json.dumps({"x": EVIL}, ensure_ascii=False))
    assert not set(text) & set("<>&\u2028\u2029\ud800")
    assert json.loads(text.encode().decode()) == {"x": EVIL}
