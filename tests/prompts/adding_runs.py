"""Runs of the adding agent as a user starts them, and a double of the reflecting model for them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning_sdk as lightning
from lightning_sdk import markers
from tests.processes import descendants, wait_until_ended
from tests.prompts import adding_agent
from tests.prompts.model_servers import ModelServer
from tests.waiting import wait_for

#: Settings of a run in phases, as small as one can be.
PHASED: dict[str, Any] = {
    **adding_agent.SMALL,
    "prompts.budget_rollouts": 60,
    "phases.steps": 2,
    "rollouts.tasks_per_step": 3,
    "rollouts.group_size": 3,
}
#: The same with a learning rate that no model survives: with the reward `in_form`, phases of weights are undone.
RUINOUS: dict[str, Any] = {
    **PHASED,
    "optimizer.learning_rate": 0.1,
    "optimizer.warmup_steps": 0,
    "phases.selection": 0.5,
}


def tune_for_spark(runs: Path) -> Path:
    """A search whose choice has other texts than the agent's own; each rollout is a conversation of two calls."""
    markers.agent.declared.clear()
    markers.agent.declared["solver"] = True
    lightning.init()
    settings: dict[str, Any] = {**adding_agent.SMALL, "prompts.budget_rollouts": 120, "quiet": True}
    with ModelServer(propose) as server:
        report = lightning.train(
            adding_agent.converse,
            adding_agent.TASKS,
            adding_agent.length,
            backend="prompts",
            model="spark",
            name="tuned",
            runs=runs,
            steps=3,
            **settings,
            **{"prompts.reflect_with": server.url},
        )
    lightning.shutdown()
    assert report.texts["solver"] != adding_agent.INSTRUCTION
    return runs / "tuned"


def propose(body: dict[str, Any]) -> str:
    """A text that depends on the length of the question alone."""
    asked = len(body["messages"][0]["content"])
    return f"<instruction>You are solver {asked} of sums. {'Explain every step. ' * (asked % 5)}</instruction>"


def prepare(folder: Path) -> Path:
    """A user's folder: the agent and its tasks."""
    folder.mkdir()
    (folder / "agent.py").write_text(Path(adding_agent.__file__).read_text())
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, adding_agent.TASKS)))
    return folder


def start(folder: Path, reward: str, settings: Mapping[str, Any], *options: str) -> subprocess.Popen[str]:
    """`lightning-sdk train` of the agent there, as the run 'run'."""
    given = [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]
    words = ["train", "agent.py:solve", "--tasks", "tasks.jsonl", "--reward", f"agent.py:{reward}", "--name", "run"]
    return subprocess.Popen(
        [sys.executable, "-m", "lightning_sdk.cli", *words, *given, *options],
        cwd=folder,
        text=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[str], seconds: float = 240) -> str:
    """What it told, once it has ended well."""
    _, told = process.communicate(timeout=seconds)
    assert process.returncode == 0, told
    return told


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool], seconds: float = 240) -> None:
    """kill -9 of the command, its hub and its backend, as soon as the condition holds."""
    wait_for(lambda: process.poll() is not None or condition(), "the moment to kill", seconds)
    assert process.poll() is None, process.communicate()
    # The hub first: left alone, it would save what was learned.
    others = [pid for name in ("lightning_hub", "lightning_embedded") for pid in descendants(name, process.pid)]
    assert len(others) >= 2
    for pid in (*others, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until_ended(*others)


def is_undone(run: Path) -> bool:
    """Whether a phase of this run was undone."""
    return any(line["kind"] == "undone" for line in lines(run / "phases.jsonl"))


def assert_restored(run: Path) -> dict[str, Any]:
    """Phases of weights ruined the model and were undone, and the run ended with what it began with. Its report."""
    report: dict[str, Any] = json.loads((run / "report.json").read_text())
    undone = [each for each in report["phases"] if each["undone_to"] is not None]
    assert undone and all(each["kind"] == "weights" and each["gain"] < -0.3 for each in undone)
    assert {each["before"] for each in report["phases"]} == {report["phases"][0]["before"]}
    assert report["held_out"]["after"]["mean"] == report["held_out"]["before"]["mean"] >= 0.5
    assert ", undone | " in (run / "report.md").read_text()
    last = f"step-{report['steps']:05}"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000", last]
    return report


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that another process may be writing; none before there is one."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def count_replies(journal: Path) -> int:
    """How often the reflecting model has answered a search."""
    return sum(line["kind"] == "reply" for line in lines(journal))
