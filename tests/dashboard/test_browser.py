"""The page in a real browser, while a real training of `spark` runs and after it: opened, clicked, typed and read."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard.pages import Page, serve
from tests.dashboard.reader import PATIENCE_MS, PHONE, Reader, read
from tests.dashboard.trained import start_training

pytestmark = pytest.mark.timeout(1200)
VIEWS = ("run", "rollouts", "system")
OF_ROLLOUT = ("rollout", "tokens", "pairs")


def place_of(view: str, rollout: str) -> tuple[str, str]:
    """Where a view is found, and its query."""
    match view:
        case "":
            return "/", ""
        case "compare":
            return "/compare", "run=solve"
        case "groups":
            return "/run/solve/rollouts", "by=group"
        case _:
            return f"/run/solve/{view}", f"rollout={rollout}" if view in OF_ROLLOUT else ""


@pytest.fixture(scope="module")
def runs_folder(tmp_path_factory: pytest.TempPathFactory, browser: Any) -> Path:
    """The folder of runs with one that is over."""
    folder = tmp_path_factory.mktemp("finished")
    training = start_training(folder, steps=3)
    output, _ = training.communicate(timeout=400)
    assert training.returncode == 0, output
    return folder / "runs"


@pytest.fixture
def page(runs_folder: Path) -> Iterator[Page]:
    with serve(runs_folder) as page:
        yield page


@pytest.fixture
def reader(browser: Any, page: Page) -> Iterator[Reader]:
    with read(browser, page.port, page.server.token) as reader:
        yield reader
        assert not reader.troubles
        assert not reader.elsewhere


def address_of(training: subprocess.Popen[str]) -> tuple[str, int]:
    """What `train` prints: the address, and the port in it."""
    assert training.stdout is not None
    seen = []
    for line in training.stdout:
        seen.append(line)
        if found := re.search(r"dashboard (http://127\.0\.0\.1:(\d+)/#/run/solve\?token=\S+)", line):
            return found[1], int(found[2])
    raise AssertionError(f"no address was printed: {seen}")


def test_a_training_is_watched_while_it_runs(browser: Any, tmp_path: Path) -> None:
    """`train` prints the address; steps, rollouts and queues move on the page, and the token leaves the address."""
    training = start_training(tmp_path, steps=100_000)
    try:
        url, port = address_of(training)
        with read(browser, port) as reader:
            reader.tab.goto(url)
            reader.tab.get_by_text("live", exact=True).wait_for()
            assert "token" not in reader.tab.evaluate("location.href")
            steps = "Number(document.querySelector('[role=progressbar]')?.getAttribute('aria-valuenow') ?? 0)"
            reader.until(f"{steps} >= 2")
            reader.until(f"{steps} > {reader.tab.evaluate(steps)}")
            reader.tab.get_by_role("img", name=re.compile("Reward by role")).wait_for()
            reader.tab.get_by_role("link", name="Rollouts", exact=True).click()
            count = "Number(document.querySelector('[role=table]')?.getAttribute('aria-rowcount') ?? 0)"
            reader.until(f"{count} > 16")
            reader.until(f"{count} > {reader.tab.evaluate(count)}")
            reader.tab.get_by_role("link", name="System", exact=True).click()
            reader.see("under way")
            reader.tab.get_by_role("table", name="Processes").get_by_text("engine and learner").wait_for()
            assert not reader.troubles
    finally:
        training.terminate()
        training.communicate(timeout=120)


def test_what_a_run_came_to_is_read(reader: Reader) -> None:
    """Status, reward by role with its interval, held-out scores, and the update; numbers as a table too."""
    reader.open("/")
    reader.tab.get_by_role("link", name="solve").click()
    reader.see("finished")
    reader.see("change on held-out tasks")
    chart = reader.tab.get_by_role("img", name=re.compile("Reward by role by step"))
    assert "writer" in chart.get_attribute("aria-label") and "checker" in chart.get_attribute("aria-label")
    for title in ("Held-out score", "Loss", "Entropy", "Rows", "Tokens a second", "Time by phase", "Failed rollouts"):
        reader.tab.get_by_role("region", name=title, exact=True).wait_for()
    reader.tab.get_by_role("button", name="Numbers of Loss").click()
    rows = reader.tab.get_by_role("region", name="Numbers of Loss").get_by_role("row")
    assert rows.count() == 4  # a header and three steps
    reader.tab.get_by_label("names that match").fill("^grad_norm$")
    reader.tab.get_by_role("region", name="grad_norm", exact=True).wait_for()
    assert "metrics=%5Egrad_norm%24" in reader.place()


def test_a_chart_is_read_by_keyboard(reader: Reader) -> None:
    """Arrow keys move through its steps."""
    reader.open("/run/solve/run")
    section = reader.tab.get_by_role("region", name="Loss", exact=True)
    section.get_by_role("img").focus()
    section.get_by_text("step 3").wait_for()
    reader.tab.keyboard.press("ArrowLeft")
    section.get_by_text("step 2").wait_for()


def test_the_role_is_one_for_every_view(reader: Reader) -> None:
    """Chosen once, it stays from view to view, and in the address."""
    reader.open("/run/solve/run")
    reader.tab.get_by_label("Role", exact=True).select_option("checker")
    reader.tab.get_by_role("img", name=re.compile("^Entropy by step; at the last one, 3: checker")).wait_for()
    reader.tab.get_by_role("link", name="Rollouts", exact=True).click()
    assert "role=checker" in reader.place()


def test_rollouts_are_found(reader: Reader) -> None:
    """By step and by text; the filters stand in the address, which opens the same again."""
    reader.open("/run/solve/rollouts")
    reader.see(re.compile(r"56 of 56 rollouts"))  # 3 steps of 16, and two evaluations of 4
    reader.tab.get_by_label(re.compile("^step")).fill("2")
    reader.see(re.compile(r"16 of 56 rollouts"))
    reader.tab.get_by_label(re.compile("^text in task")).fill("short enough")
    reader.until("location.hash.includes('text=short')")
    reader.tab.get_by_role("button", name="Clear").wait_for()
    shared = reader.place()
    reader.open("/")
    reader.open(shared.lstrip("#").split("?")[0], shared.split("?")[1])
    assert reader.tab.get_by_label(re.compile("^step")).input_value() == "2"
    reader.tab.get_by_role("button", name="Clear").click()
    reader.see(re.compile(r"56 of 56 rollouts"))
    reader.tab.get_by_role("button", name="Groups").click()
    reader.see(re.compile(r"20 groups"))


def test_a_rollout_is_read_to_its_last_request(reader: Reader) -> None:
    """From the table to its reward with its reason, its tree, a call's request and reply, and the next of its group."""
    reader.open("/run/solve/rollouts", "mode=train&step=1")
    first = reader.tab.locator(".list a.open").first
    first.focus()
    reader.tab.keyboard.press("ArrowDown")
    reader.tab.keyboard.press("Enter")
    reader.tab.get_by_role("table", name="Rewards").get_by_text(re.compile("short enough|characters")).wait_for()
    tree = reader.tab.get_by_role("tree", name="Spans")
    tree.get_by_role("treeitem").nth(2).wait_for()
    assert tree.get_by_text("writer").count() and tree.get_by_text("checker").count()
    tree.get_by_role("treeitem").first.focus()
    reader.tab.keyboard.press("ArrowDown")
    reader.tab.keyboard.press("ArrowDown")
    reader.tab.keyboard.press("Enter")
    details = reader.tab.get_by_role("region", name="Details")
    details.get_by_text("Request").wait_for()
    details.get_by_text(re.compile(r"What is \d+ \+ \d+")).first.wait_for()
    details.get_by_role("button", name="JSON").click()
    details.get_by_text('"messages"').first.wait_for()
    assert "span=" in reader.place()
    reader.tab.get_by_role("region", name="Conversation").get_by_text("Is this right?").first.wait_for()
    before = reader.place()
    reader.tab.get_by_role("group", name="Rollouts of the group").get_by_role("link").first.click()
    reader.until(f"location.hash !== {before!r}")


def test_tokens_are_read_one_by_one(reader: Reader, page: Page) -> None:
    """From the rollout to its tokens: coloured by what is chosen, with the numbers of the one pointed at."""
    [row] = page.ask("rollouts", run="solve", limit=1, mode="train")["rows"]
    reader.open("/run/solve/rollout", f"rollout={row['id']}")
    reader.tab.get_by_role("link", name="Its tokens").click()
    section = reader.tab.get_by_role("region", name="Row 1 of writer")
    section.get_by_text("What is", exact=False).first.wait_for()
    numbers = reader.tab.get_by_role("status", name="The token's numbers")
    section.locator(".token.sampled").first.hover()
    numbers.get_by_text("log-prob").wait_for()
    numbers.get_by_text("advantage").wait_for()
    section.get_by_role("group", name="Tokens").focus()
    reader.tab.keyboard.press("ArrowLeft")
    numbers.get_by_text("not sampled").wait_for()
    coloured = "document.querySelectorAll('.token.sampled[style*=color-mix]').length"
    reader.tab.get_by_label("coloured by").select_option("mask")
    reader.until(f"{coloured} > 0")
    reader.tab.get_by_label("coloured by").select_option("entropy")
    reader.see(re.compile("It is not kept for single tokens. On average over the tokens of this step: writer"))
    assert "colour=entropy" in reader.place()


def test_two_rollouts_of_a_group_are_read_side_by_side(reader: Reader, page: Page) -> None:
    """What each earned and why, where they first differ, and the credit of each call; another one can be chosen."""
    [row] = page.ask("groups", run="solve", mode="train", limit=1, sort="spread")["rows"]
    reader.open("/run/solve/rollout", f"rollout={row['rollouts'][0]['id']}")
    reader.tab.get_by_role("link", name="Beside another").click()
    for side in ("This one", "The other"):
        reader.tab.get_by_role("region", name=side).get_by_text(re.compile("short enough|characters")).first.wait_for()
    call = reader.tab.get_by_role("region", name="Call 1 of writer")
    assert call.get_by_text("advantage").count() == 2
    reader.tab.get_by_label("compared with").select_option(index=2)
    reader.until("location.hash.includes('other=')")
    before = reader.place()
    reader.tab.get_by_role("button", name="Swap").click()
    reader.until(f"location.hash !== {before!r}")


def test_runs_are_put_over_each_other(reader: Reader) -> None:
    """Chosen by a click; the choice and the metric stand in the address."""
    reader.open("/compare")
    reader.tab.get_by_role("button", name="solve").click()
    reader.tab.get_by_role("table", name="Held-out scores").get_by_role("link", name="solve").wait_for()
    reader.tab.get_by_label("metric").select_option("loss")
    reader.tab.get_by_role("img", name=re.compile("^loss by step")).wait_for()
    assert "run=solve" in reader.place() and "metric=loss" in reader.place()


def test_the_machinery_is_shown(reader: Reader) -> None:
    """Runners, logs and disk of a run that is over."""
    reader.open("/run/solve/system")
    reader.see("The run is over: nothing is queued.")
    reader.tab.get_by_role("table", name="Runners").get_by_role("cell", name="56", exact=True).wait_for()
    reader.tab.get_by_role("button", name=re.compile("backend.log")).click()
    reader.tab.get_by_role("log", name="The end of backend.log").get_by_text("started in").wait_for()
    reader.see("hub.sqlite")


@pytest.mark.parametrize("colours", ["light", "dark"])
@pytest.mark.parametrize("view", ["", *VIEWS, "groups", *OF_ROLLOUT, "compare"])
def test_everybody_can_read_it(browser: Any, page: Page, view: str, colours: str) -> None:
    """axe finds nothing wrong: contrast, names, order and roles."""
    from axe_playwright_python.sync_playwright import Axe  # noqa: PLC0415 - beside the browser

    [row] = page.ask("rollouts", run="solve", limit=1, mode="train")["rows"]
    with read(browser, page.port, page.server.token, colours=colours) as reader:
        reader.open(*place_of(view, row["id"]))
        reader.tab.locator(".card, .list .line").first.wait_for()
        reader.tab.wait_for_load_state("networkidle")
        found = Axe().run(reader.tab)
        assert not found.violations_count, found.generate_report()
        assert not reader.troubles


@pytest.mark.parametrize("view", ["", *VIEWS, "groups", *OF_ROLLOUT, "compare"])
def test_it_fits_a_phone(browser: Any, page: Page, view: str) -> None:
    """Nothing has to be moved sideways but tables and tabs, which move by themselves."""
    [row] = page.ask("rollouts", run="solve", limit=1, mode="train")["rows"]
    with read(browser, page.port, page.server.token, size=PHONE) as reader:
        reader.open(*place_of(view, row["id"]))
        reader.tab.locator(".card, .list .line").first.wait_for()
        assert reader.tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        assert not reader.troubles


def test_a_stale_address_says_what_to_open(browser: Any, page: Page) -> None:
    """The token of an earlier start opens nothing, in plain words."""
    context = browser.new_context()
    tab = context.new_page()
    tab.set_default_timeout(PATIENCE_MS)
    tab.goto(f"http://127.0.0.1:{page.port}/#/run/solve?token=old")
    tab.get_by_text("open the address that was printed").first.wait_for()
    context.close()
