"""Trainings on VERL from an agent in a separate process, whose environment does not have VERL."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
#: Where agents run: the environment of the tests without VERL, which has neither VERL nor Ray nor vLLM.
PYTHON = ROOT / ".venv" / "bin" / "python"
#: An agent, and a reward that any model learns in a few steps, whatever it says at first: its answers become longer.
AGENT = """
import lightning_sdk as lightning
from openai import OpenAI

client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)

@lightning.agent(role="solver", trainable=True)
def solve(task):
    messages = [{"role": "user", "content": task["question"]}]
    reply = client.chat.completions.create(model="gpt", messages=messages, max_tokens=16)
    return reply.choices[0].message.content or ""

@lightning.reward
def is_long(task, answer):
    return min(len(answer), 64) / 64
"""
WORDS = ["river", "stone", "winter", "garden", "letter", "window", "summer", "castle", "bridge", "forest"]
SIZE = {
    "rollouts.tasks_per_step": 8,
    "rollouts.group_size": 8,
    "evaluation.tasks": 8,
    "serving.max_length": 512,
    "optimizer.learning_rate": 1e-3,
    "optimizer.warmup_steps": 0,
    "optimizer.decay": 0.0,
    "save_every": 100,
    "rollouts.timeout": 240.0,
}


def begin(folder: Path, steps: int, *, resume: bool = False, **changed: Any) -> subprocess.Popen[str]:
    """Type the command."""
    folder.mkdir(exist_ok=True)
    (folder / "agent.py").write_text(AGENT)
    tasks = [{"question": f"Tell me about a {one} and a {other}."} for one in WORDS for other in WORDS if one != other]
    (folder / "tasks.jsonl").write_text("\n".join(map(json.dumps, tasks)))
    settings = [part for name, value in {**SIZE, **changed}.items() for part in ("--set", f"{name}={value}")]
    command = [
        PYTHON,
        "-m",
        "lightning_sdk.cli",
        "train",
        "agent.py:solve",
        "--tasks",
        "tasks.jsonl",
        "--backend",
        "verl",
        "--backend-python",
        sys.executable,
        "--steps",
        str(steps),
        "--quiet",
        *(("--resume", "runs/run") if resume else ("--name", "run")),
        *settings,
    ]
    return subprocess.Popen(
        command,
        cwd=folder,
        env=os.environ | {"LIGHTNING_HOME": str(folder / "home")},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


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


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str], seconds: float = 400.0) -> None:
    """Wait until a step is done."""
    deadline = time.monotonic() + seconds
    while len(steps(folder)) < step:
        assert process.poll() is None, end(process, folder)
        assert time.monotonic() < deadline, f"step {step} was not reached in {seconds:.0f} s"
        time.sleep(0.5)
