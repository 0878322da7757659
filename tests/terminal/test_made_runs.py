"""Runs that were made up, in the terminal: compared, repeated, hostile, narrow, and damaged."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_runs import MadeRollout, MadeRun, made_call, pack_events

from lightning_sdk.settings import Settings
from lightning_sdk.terminal.width import display_width
from tests.dashboard.hostile import KEY, make_hostile_run

Print = Callable[..., str]
EVIL = "\x1b[2J\x1b]0;title\x07 \r\x9b31m \u202egnp.exe\u2066 \x08\x7f\u200b\U000e0041 日本語 <b>"
ID = "ab" * 16


def measured_run(folder: Path, scores: dict[str, float], rewards: tuple[float, ...], **settings: Any) -> Path:
    """A run with a curve and a last held-out score."""
    run = MadeRun(folder, Settings.from_dict(settings))
    run.steps([{"step": step, "reward_mean": reward} for step, reward in enumerate(rewards, 1)])
    mean = sum(scores.values()) / len(scores)
    line = {"name": "after", "step": 2, "mean": mean, "low": 0.0, "high": 1.0, "n": len(scores), "scores": scores}
    (folder / "evaluations.jsonl").write_text(json.dumps(line) + "\n")
    run.close()
    return folder


def test_runs_are_compared(tmp_path: Path, show: Print) -> None:
    """By task, with the page's verdict; curves on one scale; and by the settings that are not the same."""
    tasks = [str(number) for number in range(40)]
    low = measured_run(tmp_path / "low", dict.fromkeys(tasks, 0.0), (0.0, 0.0))
    high = measured_run(tmp_path / "high", dict.fromkeys(tasks, 1.0), (0.5, 1.0), **{"optimizer.learning_rate": 0.5})
    same = measured_run(tmp_path / "same", dict.fromkeys(tasks, 0.0), (0.0, 0.0))
    text = show("compare", low, high, same)
    assert re.search(r"change +\+1\.000 \[\+0\.\d+, \+1\.000\] better: high minus low, over 40 tasks", text)
    assert re.search(r"\+0\.000 \[-0\.\d+, \+0\.\d+\] no more than chance: same minus low, over 40 tasks", text)
    assert re.search(r"^low +▁▁ +0 to 0 in 2 steps$", text, re.MULTILINE)
    assert re.search(r"^high +▅█ +0\.5 to 1 in 2 steps$", text, re.MULTILINE)
    assert re.search(r"^optimizer\.learning_rate +None +0\.5 +None$", text, re.MULTILINE)
    assert "worse" in show("compare", high, low)
    assert "all settings are the same" in show("compare", low, same)
    assert "none of them has the metric loss" in show("compare", low, high, "--metric", "loss")


def test_runs_of_one_name_in_folders_of_one_name_are_compared(tmp_path: Path, show: Print) -> None:
    """As long a part of their paths is shown as it takes to tell them apart."""
    first, second = tmp_path / "a" / "runs" / "solve", tmp_path / "b" / "runs" / "solve"
    measured_run(first, {"1": 0.0}, (0.1,))
    measured_run(second, {"1": 1.0}, (0.2,))
    text = show("compare", first, second)
    assert re.search(r"^a/runs/solve ", text, re.MULTILINE) and "b/runs/solve minus a/runs/solve" in text


def test_attempts_and_what_failed_are_shown(tmp_path: Path, show: Print) -> None:
    """Each try with its end; any of them can be opened."""
    run = MadeRun(tmp_path / "solve")
    first = MadeRollout(group="1-0", id=ID, key=KEY, status="timeout", error="took longer than 5 s")
    again = MadeRollout(group="1-0", id=ID, attempt=2, rewards=[("", "correct", 0.5, "nearly")])
    call = made_call(1, [{"role": "user", "content": "2 + 3?"}], "6", status="error", error="Timeout: 5 s")
    run.add([first, again, MadeRollout(group="1-0", rewards=[("", "correct", 1.0, "")], events=pack_events([call]))])
    run.close()
    text = show("show", run.folder, ID[:5])
    assert re.search(r"^attempts +1 timeout after 1\.5 s on runner-1: took longer than 5 s$", text, re.MULTILINE)
    assert re.search(r"^ +2 \(shown\) ok after 1\.5 s", text, re.MULTILINE)
    assert "correct 0.5: nearly" in text and "reward 0.500" in text
    assert "error     took longer than 5 s" in show("show", run.folder, ID, "--attempt", "1")
    listed = show("show", run.folder, "--status", "timeout", "--all-attempts")
    assert "took longer than 5 s" in listed and "1 of 1 rollouts" in listed
    best = show("show", run.folder, "best")
    assert "error: Timeout: 5 s" in best and re.search(r"^error +Timeout: 5 s$", best, re.MULTILINE)


@pytest.fixture
def hostile_run(tmp_path: Path) -> Path:
    """Escape sequences in every field that an agent, a model or a task can fill."""
    return make_hostile_run(tmp_path / "evil", EVIL, ID)


COMMANDS = (
    ["show", "{run}"],
    ["show", "{run}", "--rollouts"],
    ["show", "{run}", ID],
    ["show", "{run}", ID, "--whole"],
    ["show", "{run}", ID, "--call", "1"],
    ["show", "{run}", ID, "--tokens"],
    ["runs", "--runs", "{run}"],
    ["compare", "{run}", "{other}"],
)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_nothing_that_an_agent_wrote_acts_on_the_terminal(
    hostile_run: Path, tmp_path: Path, arguments: list[str], show: Print
) -> None:
    """Controls, overrides and hidden letters are spelled out in every view."""
    other = measured_run(tmp_path / "other", {"1": 1.0}, (0.1,))
    text = show(*[each.format(run=hostile_run, other=other) for each in arguments])
    bad = {*map(chr, (*range(32), *range(0x7F, 0xA0))), *"\u202e\u2066\u200b\U000e0041"} - {"\n"}
    assert not bad.intersection(text)
    assert "␛[2J" in text


@pytest.mark.parametrize("columns", ["40", "72"])
def test_narrow_terminals_show_no_line_that_is_too_long(
    hostile_run: Path, tmp_path: Path, columns: str, show: Print, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with letters that take two columns; only a command to copy is left whole."""
    monkeypatch.setenv("COLUMNS", columns)
    other = measured_run(tmp_path / "other", {"1": 1.0}, (0.1,))
    for arguments in COMMANDS:
        text = show(*[each.format(run=hostile_run, other=other) for each in arguments])
        for line in text.splitlines():
            assert display_width(line) <= int(columns) or "lightning-sdk show" in line, (arguments, line)


def test_a_run_that_has_just_begun_is_shown(tmp_path: Path, show: Print) -> None:
    """And one whose files are damaged."""
    for name, content in (("new", "{}"), ("damaged", "{")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(content)
        (tmp_path / name / "metrics.jsonl").write_text("not JSON\n[1]\n")
        assert f"{name}  unfinished" in show("show", tmp_path / name)
        assert "none of 0 rollouts" in show("show", tmp_path / name, "--rollouts")
    assert len(show("runs", "--runs", tmp_path).splitlines()) == 3


def test_what_began_at_a_step_is_marked_there(tmp_path: Path, show: Print) -> None:
    """The words of `check`, and the finding's number below the curve."""
    run = MadeRun(tmp_path / "flat")
    run.steps(
        {
            "step": step,
            **dict.fromkeys(("reward_mean", "reward_mean/solver"), min(step, 20) / 40),
            **dict.fromkeys(("groups", "groups/solver"), 8.0),
            **dict.fromkeys(("groups_without_signal", "groups_without_signal/solver"), 0.0 if step < 20 else 8.0),
            "rows/solver": 4.0,
        }
        for step in range(1, 41)
    )
    run.close()
    text = show("show", run.folder)
    [since] = re.findall(
        r"^check 1 +warning since step (\d+): no group has a signal: from step 20 to 40", text, re.MULTILINE
    )
    curve, marks = text.splitlines()[3:5]
    assert curve.startswith("reward    ▁") and curve.endswith("0.025 to 0.500")
    assert marks == " " * (10 + int(since) - 1) + "1"
