"""The server: whom it answers, and what browsers are told never to do with the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_runs import MadeRollout, MadeRun

from tests.dashboard.pages import Page, serve


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    run = MadeRun(tmp_path / "runs" / "solve")
    run.add([MadeRollout(group="1-0")])
    run.close()
    with serve(tmp_path / "runs") as page:
        yield page


def bearer(page: Page) -> dict[str, str]:
    return {"Authorization": f"Bearer {page.server.token}"}


@pytest.mark.parametrize("view", ["runs", "run?run=solve", "rollouts?run=solve", "system?run=solve", "pulse"])
def test_no_data_without_the_token(page: Page, view: str) -> None:
    """Another user of the machine, or a page in the browser, knows the port at the most."""
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": page.server.token}):
        status, _, body = page.request(f"/api/{view}", headers)
        assert status == 401
        assert set(json.loads(body)) == {"error"}
    assert page.request(f"/api/{view}", bearer(page))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "localhost@evil.example"]
)
def test_a_name_that_is_not_this_machines_is_refused(page: Page, host: str) -> None:
    """With DNS rebinding a page of others reaches the port, under its own name."""
    for path in ("/", "/api/runs"):
        assert page.request(path, {"Host": host, **bearer(page)})[0] == 403


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "[::1]", "solve.localhost"])
def test_names_of_this_machine_are_answered_at_any_port(page: Page, name: str) -> None:
    """Behind `ssh -L` the browser knows another port."""
    assert page.request("/api/runs", {"Host": f"{name}:1234", **bearer(page)})[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://localhost:9"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_pages_are_refused(page: Page, headers: dict[str, str]) -> None:
    """Also those of another port of this machine."""
    assert page.request("/api/runs", {**headers, **bearer(page)})[0] == 403


def test_the_own_page_is_answered(page: Page) -> None:
    """A browser that names its origin names ours."""
    own = {"Host": f"127.0.0.1:{page.port}", "Origin": f"http://127.0.0.1:{page.port}", "Sec-Fetch-Site": "same-origin"}
    assert page.request("/api/runs", {**own, **bearer(page)})[0] == 200


def test_every_answer_forbids_what_the_page_does_not_need(page: Page) -> None:
    """Scripts and styles are the server's own, and nothing else is loaded, framed or sent."""
    for path in ("/", "/app.js", "/api/runs", "/nothing.js"):
        _, headers, _ = page.request(path)
        policy = {part.split()[0]: part.split()[1:] for part in headers["Content-Security-Policy"].split("; ")}
        assert policy["default-src"] == ["'none'"]
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == ["'self'"]
        assert policy["base-uri"] == policy["form-action"] == policy["frame-ancestors"] == ["'none'"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"


def test_data_is_not_kept_by_the_browser(page: Page) -> None:
    """What agents said stays in the run's folder."""
    assert page.request("/api/runs", bearer(page))[1]["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/%2e%2e/server.py",
        "/views/../../server.py",
        "/..%2fserver.py",
        "//etc/passwd",
        "/vendor/src/package.json",
        "/views",
        "/.js",
        "/views\\..\\app.js",
        "/server.py",
    ],
)
def test_only_files_of_the_page_are_served(page: Page, path: str) -> None:
    """No path leads out of its folder, and sources that are not for browsers stay where they are."""
    assert page.request(path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_nothing_can_be_changed(page: Page, method: str) -> None:
    """The server only reads."""
    assert page.request("/api/runs", bearer(page), method)[0] == 501


def test_what_is_wrong_is_said(page: Page) -> None:
    """An address that somebody edited gets a sentence."""
    assert page.ask("run", run="solved") == {"error": "no run is called 'solved' here"}
    assert page.ask("nothing") == {"error": "there is no view 'nothing'"}
    assert page.ask("rollouts") == {"error": "the address has no run=..."}
    assert "limit='0': expected a whole number from 1" in page.ask("rollouts", run="solve", limit=0)["error"]
    assert page.ask("rollouts", run="solve", low="much") == {"error": "low='much': expected a number"}
    assert "expected one of started, step" in page.ask("rollouts", run="solve", sort="colour")["error"]
    assert page.ask("rollout", run="solve", rollout="0" * 32) == {"error": f"there is no rollout {'0' * 32}"}


def test_reading_changes_nothing(page: Page, tmp_path: Path) -> None:
    """Not a byte in the folder, whatever was looked at."""
    run = tmp_path / "runs" / "solve"
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    [row] = page.ask("rollouts", run="solve")["rows"]
    for view in ("runs", "run", "series", "rollouts", "groups", "rollout", "system", "pulse"):
        assert set(page.ask(view, run="solve", rollout=row["id"])) != {"error"}
    after = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    # SQLite's own files beside a store come and go with its readers, and hold nothing.
    assert {name: body for name, body in after.items() if not name.endswith(("-wal", "-shm"))} == {
        name: body for name, body in before.items() if not name.endswith(("-wal", "-shm"))
    }


def test_the_key_of_an_attempt_is_told_to_nobody(page: Page, tmp_path: Path) -> None:
    """Whoever knows it could send events of that rollout."""
    run = MadeRun(tmp_path / "runs" / "secret")
    key = bytes(range(65, 81))
    run.add([MadeRollout(group="1-0", key=key)])
    run.close()
    [row] = page.ask("rollouts", run="secret")["rows"]
    told = json.dumps(
        [page.ask(view, run="secret", rollout=row["id"]) for view in ("rollouts", "groups", "rollout", "system")]
    )
    assert key.hex() not in told and key.decode() not in told
