"""A user's folder with the agent of two roles, and the command that tunes its prompts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from tests.prompts import two_roles
from tests.prompts.words import tasks

TRAINING, HELD_OUT = tasks(30), tasks(60)[30:]
COMMAND = [
    sys.executable,
    "-m",
    "lightning_sdk.cli",
    "train",
    "two_roles.py:solve",
    "--tasks",
    "tasks.jsonl",
    "--held-out",
    "held_out.jsonl",
    "--reward",
    "two_roles.py:right",
    "--backend",
    "prompts",
    "--name",
    "run",
    "--set",
    "prompts.budget_rollouts=330",
]


def command(folder: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *more], cwd=folder, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def prepare(folder: Path) -> Path:
    """A user's folder: the agent and its tasks."""
    folder.mkdir()
    (folder / "two_roles.py").write_text(Path(two_roles.__file__).read_text())
    for file, listed in (("tasks", TRAINING), ("held_out", HELD_OUT)):
        (folder / f"{file}.jsonl").write_text("\n".join(map(json.dumps, listed)))
    return folder


def await_lines(process: subprocess.Popen[str], journal: Path, lines: int) -> None:
    """Wait until the search has come so far."""
    deadline = time.monotonic() + 60
    while not journal.exists() or len(journal.read_text().splitlines()) < lines:
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
