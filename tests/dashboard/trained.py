"""An agent with two roles, a tool and a reward with reasons, trained for a few steps: what the page is shown."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

AGENT = """
import time
from openai import OpenAI
import lightning_sdk as lightning

client = OpenAI(api_key="not needed")

def say(text, content):
    reply = client.chat.completions.create(model="spark", messages=[{"role": "user", "content": content}])
    return reply.choices[0].message.content or ""

@lightning.agent(role="writer", trainable=True)
def write(task):
    return say("write", task["question"])

@lightning.agent(role="checker", trainable=True)
def check(task, answer):
    return say("check", f"Is this right? {task['question']} {answer}")

def solve(task):
    answer = write(task)
    check(task, answer)
    return answer

@lightning.reward
def short(task, answer):
    good = len(answer) < 12
    return 1.0 if good else 0.0, "short enough" if good else f"it has {len(answer)} characters"
"""
SETTINGS = (
    "rollouts.tasks_per_step=4", "rollouts.group_size=4", "evaluation.tasks=4", "sampling.max_tokens=12",
)  # fmt: skip


def start_training(folder: Path, steps: int, *arguments: str, name: str = "solve") -> subprocess.Popen[str]:
    """Start `lightning-sdk train` in a separate process, with its runs in `folder`/runs."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.py").write_text(AGENT)
    tasks = [{"question": f"What is {number} + {number + 1}?", "n": number} for number in range(24)]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    command = [sys.executable, "-m", "lightning_sdk.cli", "train", "agent.py:solve", "--tasks", "tasks.jsonl"]
    return subprocess.Popen(
        [*command, "--name", name, "--steps", str(steps), *settings, *arguments],
        cwd=folder,
        env={**os.environ, "LIGHTNING_DASHBOARD": "on"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
