"""A folder with an agent and its tasks, in which commands are typed as a user types them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.stored import stored_agent

HERE = Path(__file__).parent
SMALL = {
    "rollouts.tasks_per_step": 4,
    "rollouts.group_size": 4,
    "rollouts.concurrency": 16,
    "evaluation.tasks": 2,
    "sampling.max_tokens": 10,
}


class Workplace:
    """The folder, its runs, and what they left."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs = folder, folder / "runs"
        shutil.copy(HERE / "stored_agent.py", folder)
        (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, stored_agent.TASKS)))

    def type(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lightning_sdk.cli", *arguments]
        environment = {**os.environ, "LIGHTNING_HOME": str(self.folder / "home")}
        return subprocess.run(
            command, check=False, capture_output=True, text=True, cwd=self.folder, timeout=110, env=environment
        )

    def train(self, name: str, *arguments: str, **settings: Any) -> dict[str, Any]:
        """The report of a run."""
        done = self.type(*self.training(name, *arguments, **settings))
        assert done.returncode == 0, done.stderr
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def training(self, name: str, *arguments: str, **settings: Any) -> list[str]:
        chosen = [f"--set={key}={value}" for key, value in {**SMALL, **settings}.items()]
        return [
            "train",
            "stored_agent.py:solve",
            "--tasks",
            "tasks.jsonl",
            "--reward",
            "stored_agent.py:first",
            "--name",
            name,
            "--json",
            *arguments,
            *chosen,
        ]

    def metrics(self, name: str) -> list[dict[str, Any]]:
        """The metrics of each step."""
        return [json.loads(line) for line in (self.runs / name / "metrics.jsonl").read_text().splitlines()]

    def config(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.runs / name / "config.json").read_text())
        return found
