"""Trainings that listen, and runners that join them: each the real command line, in a separate process."""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

AGENT = Path(__file__).with_name("guest_agent.py")
TASKS = [{"question": f"which arm? {number}"} for number in range(5)]
SMALL = [
    "rollouts.tasks_per_step=2",
    "rollouts.group_size=2",
    "algorithm.aggregation=token-mean",
    "failure.backoff=0",
    "evaluation.tasks=1",
]


class Command:
    """`lightning-sdk ...` as a process; what it says is read line by line."""

    def __init__(self, *arguments: str, folder: Path, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "lightning_sdk.cli", *arguments],
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.said: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr
        for line in self.process.stderr:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def until(self, text: str, seconds: float = 60.0) -> str:
        """The first line from here on that holds this text; fails the test if the process ends without."""
        while (line := self._lines.get(timeout=seconds)) is not None:
            self.said.append(line)
            if text in line:
                return line
        raise AssertionError(f"{text!r} was not said: {self.said}")

    def end(self, seconds: float = 60.0) -> tuple[int, str]:
        """Exit code, and all that was said to stderr."""
        assert self.process.stdout and self.process.stderr
        self.output = self.process.stdout.read()
        code = self.process.wait(seconds)
        while (line := self._lines.get(timeout=seconds)) is not None:
            self.said.append(line)
        self.process.stdout.close()
        self.process.stderr.close()
        return code, "\n".join(self.said)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        if self.process.stdout and not self.process.stdout.closed:
            self.end()


class Place:
    """A folder with agent and tasks, and what runs there."""

    def __init__(self, folder: Path, site: Path) -> None:
        self.folder, self.site = folder, site
        self._commands: list[Command] = []
        shutil.copy(AGENT, folder / "agent.py")
        (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, TASKS)))

    def train(self, agent: str, listen: str, *more: str, **environment: str) -> Command:
        """A training with the bandit that runs no rollouts itself."""
        settings = [word for each in SMALL for word in ("--set", each)]
        arguments = [
            "train",
            f"agent.py:{agent}",
            "--tasks",
            "tasks.jsonl",
            "--backend",
            "bandit",
            "--runners",
            "0",
            "--listen",
            listen,
            "--name",
            "run",
            "--steps",
            "2",
            *settings,
            *more,
        ]
        return self.start(*arguments, PYTHONPATH=str(self.site), **environment)

    def start(self, *arguments: str, folder: Path | None = None, **environment: str) -> Command:
        self._commands.append(Command(*arguments, folder=folder or self.folder, **environment))
        return self._commands[-1]

    def join(self, training: Command, *more: str, folder: Path | None = None, **environment: str) -> Command:
        """The command that the training told to type, in the folder of another machine."""
        return self.type_line(training.until("LIGHTNING_KEY="), *more, folder=folder, **environment)

    def type_line(self, line: str, *more: str, folder: Path | None = None, **environment: str) -> Command:
        secret, program, *arguments = shlex.split(line)
        assert program == "lightning-sdk"
        given = {"LIGHTNING_KEY": secret.removeprefix("LIGHTNING_KEY=")}
        return self.start(*arguments, *more, folder=folder, **{**given, **environment})

    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.folder / "runs" / "run" / "report.json").read_text())
        return found

    def close(self) -> None:
        for command in self._commands:
            command.close()
