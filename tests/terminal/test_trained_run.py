"""A run that was really trained, in the terminal: the facts of the page, and the same ones."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lightning_sdk import cli
from lightning_sdk.results.run_files import read_report
from tests.dashboard.pages import Page, serve

pytestmark = pytest.mark.timeout(600)
Print = Callable[..., str]


@pytest.fixture
def solve(trained_runs: Path) -> Path:
    return trained_runs / "solve"


@pytest.fixture
def page(trained_runs: Path) -> Iterator[Page]:
    with serve(trained_runs) as page:
        yield page


def test_a_run_is_shown_as_the_page_shows_it(
    solve: Path, page: Page, show: Print, show_json: Callable[..., Any]
) -> None:
    """Curves by role, scores, failures, what `check` says, time; and to scripts exactly what the page gets."""
    text, found = show("show", solve), show_json("show", solve)
    assert text.startswith("solve  finished  step 3 of 3, spark on embedded, trained for ")
    for role in ("writer", "checker"):
        points = found["rewards"][role]
        assert [each["step"] for each in points] == [1, 2, 3] and all(each["low"] is not None for each in points)
        assert re.search(rf"^{role} +\S+ .*{points[0]['mean']:.3f} to {points[-1]['mean']:.3f} \[", text, re.MULTILINE)
    report = read_report(solve)
    assert report is not None and report.change is not None
    assert f"{report.change.mean:+.3f} [{report.change.low:+.3f}, {report.change.high:+.3f}]" in text
    assert "none of 48 rollouts" in text and "generate" in text and "check" in text
    shown = page.ask("run", run="solve", whole=1)
    assert found == shown and not shown["incomplete"]
    best = re.search(r"lightning-sdk show \S+ ([0-9a-f]{8})   reward", text)
    assert best is not None and show("show", solve, best[1]).startswith(best[1])


def test_a_rollout_has_its_tree_its_conversation_and_its_credit(
    solve: Path, page: Page, show: Print, show_json: Callable[..., Any]
) -> None:
    """The best one earned something, so its calls have an advantage that the tokens of the page have too."""
    found = show_json("show", solve, "best", "--mode", "train")
    lines = show("show", solve, found["id"]).splitlines()
    assert lines[0] == f"{found['id']}  ok"
    [tree] = [at for at, line in enumerate(lines) if line.startswith("rollout ")]
    assert [line.split()[1:] for line in lines[tree + 1 : tree + 5 : 2]] == [
        ["invoke_agent", role, *line.split()[3:]]
        for role, line in zip(("writer", "checker"), lines[tree + 1 : tree + 5 : 2], strict=True)
    ]
    assert any(re.match(r"rewards +short 1: short enough", line) for line in lines)
    tokens = page.ask("tokens", run="solve", rollout=found["id"])
    assert found["credit"] == tokens["credit"] and len(found["credit"]) == 2
    for number, (call, value) in enumerate(found["credit"].items(), 1):
        assert found["turns"][number - 1]["call"] == call
        assert any(f"call {number} " in line and f"advantage {value:+.3g}" in line for line in lines)
    question, answer = found["task"]["question"], found["answer"]
    assert any(re.fullmatch(rf"user +{re.escape(question)}", line) for line in lines)
    assert any(re.match(rf"answer +{re.escape(answer.splitlines()[0])}", line) for line in lines)


def test_the_tokens_of_a_call_have_their_numbers(solve: Path, show: Print, show_json: Callable[..., Any]) -> None:
    """Every sampled id with its text, log-prob and advantage; of one call, if that is asked for."""
    found = show_json("show", solve, "best", "--mode", "train", "--tokens")
    row = found["rows"][0]
    [piece] = row["pieces"]
    text = show("show", solve, found["id"], "--tokens", "--call", "1")
    table = [line.split() for line in text.splitlines() if re.match(r" +\d+  \S", line)]
    assert [int(line[0]) for line in table] == row["ids"][piece["start"] : piece["end"]]
    assert [line[2] for line in table] == [f"{row['logprobs'][at]:.3f}" for at in range(piece["start"], piece["end"])]
    assert [line[3] for line in table] == [
        f"{row['advantages'][at]:+.3f}" for at in range(piece["start"], piece["end"])
    ]
    assert "writer" in text and "row 2" not in text
    every = show("show", solve, found["id"], "--tokens")
    assert "row 1 of 2, writer" in every and "row 2 of 2, checker" in every
    asked = show("show", solve, found["id"], "--call", "2")
    assert asked.startswith("call 2 ") and "Is this right?" in asked


def test_rollouts_are_listed_and_filtered_as_on_the_page(
    solve: Path, page: Page, show: Print, show_json: Callable[..., Any]
) -> None:
    """By the same filters, in the same order."""
    listed = show_json("show", solve, "--step", "2", "--sort", "reward", "--limit", "5")
    shown = page.ask("rollouts", run="solve", step=2, sort="reward", limit=5)
    assert listed == shown and len(listed["rows"]) == 5 and listed["total"] == 16
    text = show("show", solve, "--rollouts", "--limit", "3").splitlines()
    assert text[0].split()[:4] == ["rollout", "step", "task", "status"] and len(text) == 5
    assert text[-1].startswith("3 of 56 rollouts, mean reward ")


def test_runs_are_listed(trained_runs: Path, show: Print, show_json: Callable[..., Any]) -> None:
    """In one line each, and where there is none, that is said."""
    [listed] = show_json("runs", "--runs", trained_runs)
    assert listed["name"] == "solve" and listed["steps"] == 3
    assert re.search(r"^solve +finished +3 of 3", show("runs", "--runs", trained_runs), re.MULTILINE)
    assert "no runs in" in show("runs", "--runs", trained_runs / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "{run}", "xyz"], "no rollout whose id begins with 'xyz'"),
        (["show", "{run}", ""], "56 rollouts whose id begins with ''"),
        (["show", "{run}", "best", "--call", "9"], "--call 9: the rollout has 2 calls"),
        (["show", "{run}", "best", "--attempt", "7"], "with an attempt 7"),
        (["show", "{run}", "--step", "two"], "step='two'"),
        (["show", "{run}", "best", "--step", "99"], "has no rollout with a reward that matches"),
        (["compare", "{run}", "{run}"], "at least two different runs"),
        (["show", "{run}", "--backend-python", "/no/such/python"], "cannot run /no/such/python"),
        (["show", "{run}", "--backend-python", "/bin/true"], "needs lightning-agent-sdk[hub]"),
    ],
)
def test_what_cannot_be_shown_is_said(
    solve: Path, arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line, with what to type."""
    assert cli.main([each.format(run=solve) for each in arguments]) == 1
    assert told in capsys.readouterr().err
