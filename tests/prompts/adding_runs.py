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

from tests.processes import descendants, wait_until_ended
from tests.prompts import adding_agent
from tests.waiting import wait_for


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


def finish(process: subprocess.Popen[str]) -> str:
    """What it told, once it has ended well."""
    _, told = process.communicate(timeout=240)
    assert process.returncode == 0, told
    return told


def kill_when(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """kill -9 of the command, its hub and its backend, as soon as the condition holds."""
    wait_for(lambda: process.poll() is not None or condition(), "the moment to kill", 240)
    assert process.poll() is None, process.communicate()
    # The hub first: left alone, it would save what was learned.
    others = [pid for name in ("lightning_hub", "lightning_embedded") for pid in descendants(name, process.pid)]
    assert len(others) >= 2
    for pid in (*others, process.pid):
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until_ended(*others)


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file that another process may be writing; none before there is one."""
    whole = path.read_text().rpartition("\n")[0] if path.exists() else ""
    return [json.loads(line) for line in whole.splitlines()]


def count_replies(journal: Path) -> int:
    """How often the reflecting model has answered a search."""
    return sum(line["kind"] == "reply" for line in lines(journal))
