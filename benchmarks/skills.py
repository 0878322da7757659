"""Twenty skills of `spark`: the held-out score of each before and after 40 steps of reinforcement learning.

    python benchmarks/skills.py [--model spark] [--only NAME ...] [--jobs 1] [--steps 40] [--output FILE]

Each skill is trained by itself, from the same weights and with the default settings, on tasks of `skill_tasks.py`; the
agent is one question and its reply, with a calculator where the skill has one. The scores are greedy, on held-out tasks
that neither pre-training nor the training has seen, with 95% intervals. `--output` writes a line of JSON for each skill
as it ends, and leaves out those that the file already has; at the end it prints the table of the model's card.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from openai import OpenAI
from skill_tasks import SKILLS, Task, load, score

import lightning_sdk as lightning
from lightning_spark.expressions import calculate

client = OpenAI(api_key="not needed while the agent is trained", base_url="http://127.0.0.1:9/v1", max_retries=0)
ROUNDS = 3
"""Calls to the model in one run, at most."""


@lightning.agent(role="solver", trainable=True)
def solve(task: Task) -> tuple[str, list[tuple[str, str]]]:
    """The last reply and its tool calls; a calculator answers, any other call ends the run."""
    messages: list[Any] = list(task["messages"])
    extra = {"tools": task["tools"]} if task.get("tools") else {}
    for _ in range(ROUNDS):
        reply = (
            client.chat.completions.create(model="spark", messages=messages, max_tokens=64, **extra).choices[0].message
        )
        calls = [(call.function.name, call.function.arguments) for call in reply.tool_calls or []]
        if task["check"] != "number" or not calls:
            return reply.content or "", calls
        messages.append(reply.model_dump(include={"role", "content", "tool_calls"}))
        for call in reply.tool_calls or []:
            messages.append({"role": "tool", "tool_call_id": call.id, "content": _calculate(call.function.arguments)})
    return "", []


@lightning.reward
def correct(task: Task, said: tuple[str, list[tuple[str, str]]]) -> float:
    """Whether the reply, or the call, is the right one."""
    return score(task, said[0], [(name, arguments) for name, arguments in said[1]])


def _calculate(arguments: str) -> str:
    try:
        return calculate(json.loads(arguments)["expression"])
    except (ValueError, KeyError, TypeError):
        return "error"


def measure(name: str, model: str, steps: int, given: dict[str, list[Task]]) -> dict[str, Any]:
    """Train one skill, and its scores."""
    skill = next(each for each in SKILLS if each.name == name)
    with tempfile.TemporaryDirectory() as scratch:
        report = lightning.train(
            solve,
            given["train"],
            correct,
            held_out=given["held_out"],
            model=model,
            steps=steps,
            runs=Path(scratch),
            name="skill",
            quiet=True,
        )
        found = json.loads((report.folder / "report.json").read_text("utf-8"))
    return {
        "skill": name,
        "source": skill.source,
        "before": found["held_out"]["before"],
        "after": found["held_out"]["after"],
        "train_seconds": found["train_seconds"],
    }


def run_all(names: list[str], options: argparse.Namespace) -> None:
    """Run each skill in a separate process, several at once, and write one line for each."""

    def one(name: str) -> None:
        words = [sys.executable, __file__, "--model", options.model, "--steps", str(options.steps), "--one", name]
        words += ["--tasks", str(options.tasks)]
        done = subprocess.run(words, capture_output=True, text=True, check=False, env=os.environ)
        line = done.stdout.strip().splitlines()[-1] if done.returncode == 0 else ""
        if not line:
            print(f"{name} failed: {done.stderr[-2000:]}", flush=True)
            return
        with options.output.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(row(json.loads(line)), flush=True)

    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(one, names))


def row(found: dict[str, Any]) -> str:
    """A line of the table."""

    def cell(score: dict[str, Any]) -> str:
        return f"{score['mean']:.2f} ({score['low']:.2f} to {score['high']:.2f})"

    cells = [found["skill"], found["source"], str(found["before"]["n"]), cell(found["before"]), cell(found["after"])]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spark", help="as in lightning.train (%(default)s)")
    parser.add_argument("--only", nargs="*", default=[], help="names of skills (all)")
    parser.add_argument("--jobs", type=int, default=1, help="skills at a time (%(default)s)")
    parser.add_argument("--steps", type=int, default=40, help="updates (%(default)s)")
    parser.add_argument("--output", type=Path, default=Path("skills.jsonl"), help="(%(default)s)")
    parser.add_argument("--tasks", type=Path, help="file of the tasks, written if it is not there (a temporary one)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.model, options.steps, load(options.tasks)[options.one])))
        return
    with tempfile.TemporaryDirectory() as scratch:
        options.tasks = options.tasks or Path(scratch) / "tasks.json"
        load(options.tasks)
        print_table(options)


def print_table(options: argparse.Namespace) -> None:
    """Measure what the output does not have yet, and print the whole table."""
    lines = options.output.read_text("utf-8").splitlines() if options.output.exists() else []
    done = {json.loads(line)["skill"] for line in lines}
    run_all(
        [skill.name for skill in SKILLS if skill.name not in done and (not options.only or skill.name in options.only)],
        options,
    )
    found = {each["skill"]: each for each in map(json.loads, options.output.read_text("utf-8").splitlines())}
    print("| skill | tasks | n | before | after |\n|---|---|---|---|---|")
    for skill in SKILLS:
        if skill.name in found:
            print(row(found[skill.name]))


if __name__ == "__main__":
    main()
