"""A run under way, followed: `tail` from other processes, and samples of rollouts in the training's own output."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lightning_sdk.results.run_files import read_lines, read_report
from tests.dashboard.trained import start_training
from tests.waiting import wait_for

pytestmark = pytest.mark.timeout(900)
STEPS = 4


def start_tail(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lightning_sdk.cli", "tail", *arguments]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def followed_run(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a training printed with `--show 2`, and what three that followed it did."""
    folder = tmp_path_factory.mktemp("followed")
    training = start_training(folder, STEPS, "--show", "2")
    wait_for((folder / "runs" / "solve" / "config.json").exists, "the run", 300)
    tails = [
        start_tail(folder, "solve", "--json", "--show", "1"),
        start_tail(folder),
        start_tail(folder, "--runs", "runs"),
    ]
    interrupted = tails.pop()
    assert interrupted.stdout is not None
    first = interrupted.stdout.readline()
    interrupted.send_signal(signal.SIGINT)
    status = interrupted.wait(60)
    interrupted.communicate()
    printed, _ = training.communicate(timeout=600)
    assert training.returncode == 0, printed
    outputs = [each.communicate(timeout=300) for each in tails]
    return {
        "folder": folder / "runs" / "solve",
        "printed": printed,
        "interrupted": (first, status),
        "events": [json.loads(line) for line in outputs[0][0].splitlines()],
        "text": outputs[1][0],
        "errors": [errors for _, errors in outputs],
        "statuses": [each.returncode for each in tails],
    }


def test_every_step_is_told_as_it_comes_and_the_end(followed_run: dict[str, Any]) -> None:
    """Each step once, with its metrics, evaluations where they belong, and the report at last."""
    assert followed_run["statuses"] == [0, 0] and followed_run["errors"] == ["", ""]
    events = [each for each in followed_run["events"] if each["type"] in {"step", "evaluation", "end"}]
    assert [(each["type"], each.get("name") or each.get("step") or each["status"]) for each in events] == [
        ("evaluation", "before"),
        *(("step", step) for step in range(1, STEPS + 1)),
        ("evaluation", "after"),
        ("end", "finished"),
    ]
    kept = read_lines(followed_run["folder"] / "metrics.jsonl").whole
    assert [each["metrics"]["reward_mean"] for each in events[1:-2]] == [each["reward_mean"] for each in kept]
    report = read_report(followed_run["folder"])
    assert report is not None
    lines = followed_run["text"].splitlines()
    assert len([line for line in lines if re.match(rf"step \d/{STEPS}  reward +\d\.\d+  loss ", line)]) == STEPS
    assert "finished" in lines and any(line.startswith(f"verdict   {report.verdict}") for line in lines)


def test_ctrl_c_leaves_the_run_alone(followed_run: dict[str, Any]) -> None:
    """It ended the one that followed, and the training went on to its end."""
    first, status = followed_run["interrupted"]
    assert first and status == 130
    report = read_report(followed_run["folder"])
    assert report is not None and (report.status, report.steps) == ("finished", STEPS)


def test_samples_are_printed_after_each_step_and_each_evaluation(followed_run: dict[str, Any]) -> None:
    """The best and the worst rollout, each with its reward and why, and what it answered."""
    lines = followed_run["printed"].splitlines()
    heads = [match for line in lines if (match := re.match(r"sample +([^,]+), reward (\d\.\d+), rollout ", line))]
    told = ["before", *(f"step {step}" for step in range(1, STEPS + 1)), "after"]
    assert [head[1] for head in heads] == [name for name in told for _ in range(2)]
    for good, bad in zip(heads[::2], heads[1::2], strict=True):
        assert float(good[2]) >= float(bad[2])
    assert sum(line.startswith("reward    short 0: it has ") for line in lines) >= STEPS
    assert len([line for line in lines if line.startswith("task      What is ")]) == len(heads)
    assert len([line for line in lines if line.startswith("answer    ")]) == len(heads)


def test_samples_are_the_highest_and_the_lowest_rewards(
    followed_run: dict[str, Any], show_json: Callable[..., Any]
) -> None:
    """Of all rollouts of the step, as the dashboard's table has them."""
    heads = re.findall(r"sample +step (\d), reward (\d\.\d+)", followed_run["printed"])
    for step in range(1, STEPS + 1):
        rows = show_json("show", followed_run["folder"], "--step", str(step), "--limit", "100")["rows"]
        rewards = [each["reward"] for each in rows if each["reward"] is not None]
        shown = [float(reward) for number, reward in heads if int(number) == step]
        assert len(rows) == 16 and shown == pytest.approx([max(rewards), min(rewards)], abs=5e-4)
