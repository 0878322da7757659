"""Prompts tuned for a model that the run serves itself: the held-out gain with its interval, or that there is none.

    python benchmarks/prompts_served.py --model FOLDER [--engine vllm] [--tasks 400] [--set NAME=VALUE ...]
                                        [--output FILE]

The agent asks for the sum of two numbers and wants the number alone; its own instruction does not say so. Nothing is
trained. The reflecting model is scripted, and declared as such: it adds a sentence of a fixed list to the instruction,
helpful or not, or takes one away, and reads no example. So what is measured is whether the search finds texts with
which this model does better, on tasks that it has not chosen on, and not how well texts are worded.

Every rollout is greedy. `--output` writes the scores before and after with their intervals, the verdict, the texts and
what the search took as JSON, with the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.settings.settings import parse

INSTRUCTION = "You are a helpful assistant."
#: What the reflecting model may add. Nobody tells the search which of them help.
SENTENCES = (
    "Answer with the number only.",
    "Do not repeat the question.",
    "Add the two numbers.",
    "Write nothing but digits.",
    "For 3 + 4 say: 7",
    "Think step by step.",
    "Explain your answer.",
    "Answer in a full sentence.",
    "Be polite and friendly.",
    "Say 0.",
    "If you are not sure, say that you do not know.",
    "Check your answer twice.",
)
TOLD = ("torch", "transformers", "vllm")
_TEXT = re.compile(r"<instruction>\n(.*?)\n</instruction>", re.DOTALL)
_client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)


def make_tasks(seed: int, count: int) -> list[dict[str, Any]]:
    """Sums of two numbers from 1 to 30, no two alike and none that another seed of these two has."""
    pairs = [(a, b) for a in range(1, 31) for b in range(1, 31)]
    random.Random(0).shuffle(pairs)
    half = pairs[seed::2]
    return [{"question": f"{a} + {b} = ?", "answer": str(a + b)} for a, b in half[:count]]


@lightning.agent(role="adder", trainable=True)
def add(task: dict[str, Any]) -> str:
    messages: list[Any] = [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": task["question"]}]
    reply = _client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=24)
    return reply.choices[0].message.content or ""


def is_the_number(task: dict[str, Any], answer: str) -> float | tuple[float, str]:
    """1 for the number alone, a half for an answer that has it."""
    if answer.strip().rstrip(".") == task["answer"]:
        return 1.0
    return (0.5, "more than the number") if task["answer"] in re.findall(r"\d+", answer) else (0.0, "not the sum")


def propose(question: str) -> str:
    """The reflecting model, which depends on its question alone."""
    if (found := _TEXT.search(question)) is None or "Do not write the new instruction yet." in question:
        return "It does not say how to answer."
    now, draw = found[1], random.Random(question)
    present = [each for each in SENTENCES if each in now]
    if present and draw.random() < 0.25:
        text = " ".join(now.replace(draw.choice(present), "").split())
    else:
        text = f"{now} {draw.choice([each for each in SENTENCES if each not in now] or ['Thank you.'])}"
    return f"<instruction>\n{text}\n</instruction>"


def measure(options: argparse.Namespace) -> dict[str, Any]:
    began = time.monotonic()
    settings: dict[str, Any] = {
        "prompts.algorithm": "apo",
        "prompts.budget_rollouts": options.rollouts,
        "rollouts.concurrency": options.concurrency,
        "evaluation.tasks": options.tasks,
    }
    given = dict(each.split("=", 1) for each in options.set)
    settings |= {name: parse(name, value) for name, value in given.items()}
    lightning.init()
    report = lightning.train(
        add,
        make_tasks(0, 120),
        is_the_number,
        held_out=make_tasks(1, options.tasks),
        backend="prompts",
        backend_python=options.backend_python,
        model=options.model,
        engine=options.engine,
        steps=options.steps,
        name=options.name,
        runs=options.runs,
        **{"prompts.reflect_with": propose, **settings},
    )
    lightning.shutdown()
    search, held_out = report.values["search"], report.values["held_out"]
    return {
        "benchmark": "prompts_served",
        "model": Path(options.model).name,
        "reflecting_model": "scripted: adds or removes sentences of a fixed list",
        "before": held_out["before"],
        "after": held_out["after"],
        "verdict": report.verdict,
        "verdict_reason": report.verdict_reason,
        "change": report.values["change"],
        "texts": report.texts,
        "selection": search["selection"],
        "spent": search["spent"],
        "ended": search["ended"],
        "seconds": round(time.monotonic() - began, 1),
        "facts": report.values["facts"],
        "machine": describe_machine(),
    }


def describe_machine() -> dict[str, Any]:
    found = {}
    for name in TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return {"platform": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version(), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spark", help="as in lightning.train (%(default)s)")
    parser.add_argument("--engine", default="auto", help="(%(default)s)")
    parser.add_argument("--backend-python", help="python of an environment that holds the engine")
    parser.add_argument("--tasks", type=int, default=400, help="held-out tasks (%(default)s)")
    parser.add_argument("--rollouts", type=int, default=2000, help="of the search, at most (%(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="rounds, at most (%(default)s)")
    parser.add_argument("--concurrency", type=int, default=64, help="rollouts side by side (%(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    parser.add_argument("--name", default="prompts", help="of the run (%(default)s)")
    parser.add_argument("--runs", default="runs", help="where it is kept (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the result as JSON to this file")
    options = parser.parse_args()
    result = measure(options)
    if options.output:
        options.output.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    told = ("verdict", "verdict_reason", "change", "texts", "seconds")
    print(
        json.dumps(
            {"before": result["before"]["mean"], "after": result["after"]["mean"]} | {n: result[n] for n in told}
        )
    )


if __name__ == "__main__":
    main()
