"""Trainings on VERL from an agent in a process of its own, whose environment has none of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "calculator" / "agent.py"
#: Where agents run: the environment of the tests without VERL, which has neither VERL nor Ray nor vLLM.
PYTHON = ROOT / ".venv" / "bin" / "python"
MAKE_TASKS = "import json, agent; print('\\n'.join(json.dumps(task) for task in agent.tasks(seed=1, size=400)))"
SIZE = {"rollouts.tasks_per_step": 8, "rollouts.group_size": 8, "evaluation.tasks": 16, "serving.max_length": 512,
        "save_every": 100, "rollouts.timeout": 240.0}  # fmt: skip


def begin(folder: Path, steps: int, *more: str, **changed: Any) -> subprocess.Popen[str]:
    """Type the command of the calculator's training."""
    folder.mkdir(exist_ok=True)
    shutil.copy(EXAMPLE, folder)
    made = subprocess.run([PYTHON, "-c", MAKE_TASKS], check=True, capture_output=True, text=True, cwd=folder)
    (folder / "tasks.jsonl").write_text(made.stdout)
    settings = [part for name, value in {**SIZE, **changed}.items() for part in ("--set", f"{name}={value}")]
    command = [PYTHON, "-m", "lightning_sdk.cli", "train", "agent.py:solve", "--tasks", "tasks.jsonl",
               "--backend", "verl", "--backend-python", sys.executable, "--name", "run", "--steps", str(steps),
               "--quiet", *settings, *more]  # fmt: skip
    return subprocess.Popen(command, cwd=folder, env=os.environ | {"LIGHTNING_HOME": str(folder / "home")},
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def end(process: subprocess.Popen[str], folder: Path, seconds: float = 500.0) -> str:
    """Wait for it; what it said. AssertionError, with the end of the backend's log, if it failed."""
    out, err = process.communicate(timeout=seconds)
    log = folder / "runs" / "run" / "backend.log"
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-30:]) if log.exists() else ""
    assert process.returncode == 0, f"{out}\n{err}\n{tail}"
    return out


def steps(folder: Path) -> list[dict[str, Any]]:
    """The metrics of each step so far."""
    path = folder / "runs" / "run" / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def reached(folder: Path, step: int, process: subprocess.Popen[str], seconds: float = 400.0) -> None:
    """Wait until a step is done."""
    deadline = time.monotonic() + seconds
    while len(steps(folder)) < step:
        assert process.poll() is None, end(process, folder)
        assert time.monotonic() < deadline, f"step {step} was not reached in {seconds:.0f} s"
        time.sleep(0.5)
