"""The search for better prompts, as its view answers it and as the page shows it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_runs import MadeRun

from tests.dashboard.exported import export, read_data
from tests.dashboard.pages import Page, serve
from tests.dashboard.reader import read

OWN = "You are a solver of sums."
EVIL = "<script>window.pwned=1</script><img src=x onerror=window.pwned=1>"


def candidate(identity: str, text: str, state: str, parents: list[str], **more: Any) -> dict[str, Any]:
    """A line of candidates.jsonl."""
    values = {"origin": "edit", "reason": EVIL, "round": 1, "scores": {"selection": 0.5}, "tasks": {"selection": 2}}
    texts = {"solver": text}
    return {
        "id": identity,
        "parents": parents,
        "state": state,
        "rollouts": 2,
        "failed": 0,
        "texts": texts,
        **values,
        **more,
    }


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    component = {"name": "solver", "roles": ["solver"], "text": OWN, "mark": ""}
    run = MadeRun(tmp_path / "tuned", search={"components": [component], "chosen": "b"})
    run.steps([{"step": 1, "selection_best": 0.5, "candidates": 3, "rollouts_spent": 6}])
    run.close()
    better = f"You are a careful solver of sums. {EVIL}"
    lines = [
        candidate("a", OWN, "seed", [], origin="seed", reason=""),
        candidate("b", better, "accepted", ["a"], scores={"selection": 1.0}),
        candidate("c", "no", "rejected", ["b"]),
        candidate("b", better, "refused", ["c"], scores={}, tasks={}, rollouts=0),
    ]
    (run.folder / "candidates.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    reply = {"text": f"<instruction>{better}</instruction>", "error": "", "tokens": 1, "attempts": 1, "seconds": 0.1}
    journal: list[dict[str, Any]] = [
        {"kind": "search", "version": 1, "at": 0.0},
        {"kind": "reply", "key": ["x", 0], "reply": reply, "asked": f"Improve this. {EVIL}", "at": 1.0},
        *({"kind": "result", "key": ["b", task, 0], "result": {"score": 1.0}, "at": 2.0} for task in range(25)),
        {"kind": "result", "key": ["b", 99, 0], "result": {"score": None}, "at": 2.0},
    ]
    (run.folder / "search.jsonl").write_text("".join(json.dumps(each) + "\n" for each in journal))
    MadeRun(tmp_path / "trained").close()
    with serve(tmp_path) as page:
        yield page


def test_candidates_have_their_parents_scores_and_origin(page: Page) -> None:
    """The interval is over all tasks that have a score; a failed rollout is none, and a repeated text has none."""
    found = page.ask("prompts", run="tuned")
    assert [(each["id"], each["parents"], each["chosen"]) for each in found["candidates"]] == [
        ("a", [], False),
        ("b", ["a"], True),
        ("c", ["b"], False),
        ("b", ["c"], False),
    ]
    chosen, repeated = found["candidates"][1], found["candidates"][3]
    assert (chosen["all"]["mean"], chosen["all"]["n"]) == (1.0, 25) and 0.8 < chosen["all"]["low"] < 1.0
    assert chosen["replies"] == [0] and found["candidates"][2]["replies"] == []
    assert repeated["all"] is None and repeated["selection"] is None
    assert found["replies"][0]["asked"].startswith("Improve this.")


def test_a_search_is_exported(page: Page, tmp_path: Path) -> None:
    """The file has what the page shows; a search without a candidate yet is exported without this view."""
    MadeRun(tmp_path / "begun", search={"components": [], "chosen": ""}).close()
    export(tmp_path, "tuned", "begun", "--runs", ".", "--html", "both.html")
    found = read_data(tmp_path / "both.html")["of"]
    assert found["tuned"]["prompts"] == page.ask("prompts", run="tuned")
    assert found["begun"]["prompts"] is None and found["begun"]["run"]["search"]


def test_a_run_without_a_search_says_so(page: Page) -> None:
    """And where one comes from."""
    assert "a run that did not tune prompts" in page.ask("prompts", run="trained")["error"]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("colours", ["light", "dark"])
def test_the_search_is_read(browser: Any, page: Page, colours: str) -> None:
    """From the run's tab to a candidate, what it changes, and what reflection read and wrote; text stays text."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - beside the browser

    with read(browser, page.port, page.server.token, colours=colours) as reader:
        reader.open("/run/tuned/run")
        reader.tab.get_by_role("link", name="Prompts", exact=True).click()
        shown = reader.tab.get_by_role("region", name="The candidate", exact=True)
        shown.locator("ins").first.wait_for()
        shown.get_by_text("What reflection read and wrote").click()
        shown.get_by_role("region", name="What reflection wrote").get_by_text("careful solver").wait_for()
        found = Axe().run(reader.tab)
        assert not found.violations_count, found.generate_report()
        reader.tab.get_by_role("table", name="Candidates").get_by_role("button", name="c", exact=True).click()
        reader.until("location.hash.includes('candidate=c')")
        assert reader.tab.evaluate("window.pwned") is None
        assert not reader.tab.locator("main img, main script").count()
        assert not reader.troubles and not reader.elsewhere
