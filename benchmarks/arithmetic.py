"""Arithmetic of reasoning-gym, learned by any model on any backend: the held-out score, and where the time goes.

    python benchmarks/arithmetic.py --agent calculator --model MODEL --backend verl [--steps 40] [--set NAME=VALUE ...]
                                    [--output FILE]

Three agents, told in words what they may do, so that a model whose chat template knows no tools can be any of them.
`sums`: one call, a sum or a difference of two numbers of two digits, step by step. `answers`: the same, with the number
only, in at most 16 tokens. `calculator`: expressions of two to four terms, and a calculator that the model asks by
writing `calc:` and an expression; up to four calls.

The held-out score is greedy, before and after, with its interval; for each step the seconds of rollouts and of the
update, and tokens a second while rollouts run; of the whole run also the processor time of all its processes, which
says more on a machine that others use. `--output` writes all of it as JSON, with the machine, and a plot beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.settings.settings import parse
from lightning_spark import expressions

client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
TOLD = ("torch", "transformers", "vllm", "verl", "ray")
#: Tokens of a sum's answer, at most.
RESPONSE = 128
#: What the calculator's model sees before its task: two tasks of others, solved.
SHOWN = [
    {
        "role": "system",
        "content": "You have a calculator. To use it, write calc: and the expression. Then you are told "
        "the result; reply with that number.",
    },
    {"role": "user", "content": "Calculate 12 + 3 * 4."},
    {"role": "assistant", "content": "calc: 12 + 3 * 4"},
    {"role": "user", "content": "result: 24"},
    {"role": "assistant", "content": "24"},
    {"role": "user", "content": "State the final answer to the following arithmetic problem: 31 - 8 ="},
    {"role": "assistant", "content": "calc: 31 - 8"},
    {"role": "user", "content": "result: 23"},
    {"role": "assistant", "content": "23"},
]
Task = dict[str, Any]


def question_of(task: Task) -> str:
    """The question of a sum."""
    return f"{task['question']} Think step by step, then answer with the number."


def say(messages: list[dict[str, Any]], tokens: int) -> str:
    reply = client.chat.completions.create(model="gpt-4o-mini", messages=messages, max_tokens=tokens)  # type: ignore[arg-type]
    return reply.choices[0].message.content or ""


@lightning.agent(role="solver", trainable=True)
def add(task: Task) -> str:
    """One question, one answer."""
    return say([{"role": "user", "content": question_of(task)}], RESPONSE)


@lightning.agent(role="solver", trainable=True)
def answer(task: Task) -> str:
    """One question, one number."""
    return say([{"role": "user", "content": f"{task['question']} Answer with the number only."}], 16)


@lightning.agent(role="solver", trainable=True)
def calculate(task: Task) -> str:
    """Let the model ask the calculator until it answers."""
    messages = [*SHOWN, {"role": "user", "content": task["question"]}]
    for _ in range(4):
        answer = say(messages, 48)
        question = re.search(r"calc:(.+)", answer)
        if question is None:
            return answer
        messages += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"result: {evaluate_sum(question[1])}"},
        ]
    return ""


def evaluate_sum(expression: str) -> str:
    """Its value, or 'error' for what the calculator does not take."""
    try:
        return expressions.calculate(expression)
    except ValueError:
        return "error"


@lightning.reward
def correct(task: Task, answer: str) -> float:
    """Whether the last number of the answer is the right one."""
    numbers = re.findall(r"-?\d+", answer)
    return float(bool(numbers) and numbers[-1] == task["answer"])


SUMS = [("chain_sum", {"min_terms": 2, "max_terms": 2, "min_digits": 2, "max_digits": 2})]
#: Agent, and what makes its tasks: reasoning-gym's name of each, with its options.
AGENTS: dict[str, tuple[Callable[[Task], str], list[tuple[str, dict[str, int]]]]] = {
    "sums": (add, SUMS),
    "answers": (answer, SUMS),
    "calculator": (
        calculate,
        [
            (kind, {"min_terms": 2, "max_terms": 4, "min_digits": 1, "max_digits": 3})
            for kind in ("basic_arithmetic", "chain_sum")
        ],
    ),
}


def tasks(agent: str, seed: int, size: int) -> list[Task]:
    """Tasks, the same number of each kind."""
    import reasoning_gym  # noqa: PLC0415 - a machine without it can be given `--data`

    kinds = AGENTS[agent][1]
    made = [reasoning_gym.create_dataset(kind, seed=seed, size=size // len(kinds), **given) for kind, given in kinds]
    return [
        {"question": each["question"], "answer": each["answer"]}
        for together in zip(*made, strict=True)
        for each in together
    ]


def data(agent: str, folder: Path | None, held_out: int) -> list[list[Task]]:
    """Tasks to learn from, and held-out ones, none of them the same: made here, or read from where they were made."""
    files = [folder / f"{agent}_{name}.json" for name in ("train", "held_out")] if folder else []
    if files and all(file.exists() for file in files):
        return [json.loads(file.read_text("utf-8")) for file in files]
    later = tasks(agent, 900_000_000, held_out)
    kept = {task["question"] for task in later}
    made = [[task for task in tasks(agent, 1, 8192) if task["question"] not in kept], later]
    for file, values in zip(files, made, strict=False):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    return made


def run(options: argparse.Namespace) -> dict[str, Any]:
    settings = dict(each.partition("=")[::2] for each in options.set)
    train, held_out = data(options.agent, options.data, options.tasks)
    began, told = time.monotonic(), time.time()
    report = lightning.train(
        AGENTS[options.agent][0],
        train,
        correct,
        held_out=held_out[: options.tasks],
        model=options.model,
        backend=options.backend,
        engine=options.engine,
        steps=options.steps,
        name=options.name,
        runs=options.runs,
        backend_python=options.backend_python,
        **{"evaluation.tasks": options.tasks, **{name: parse(name, value) for name, value in settings.items()}},
    )
    folder = Path(options.runs) / options.name
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    print(report)
    return {
        "benchmark": "arithmetic",
        "agent": options.agent,
        "model": Path(options.model).name,
        "backend": options.backend,
        "engine": options.engine,
        "settings": settings,
        "machine": machine(),
        "began": told,
        "seconds": time.monotonic() - began,
        "processor_seconds": processor_seconds(),
        "facts": json.loads((folder / "config.json").read_text("utf-8")).get("facts", {}),
        "report": json.loads((folder / "report.json").read_text("utf-8")),
        "median": medians(steps),
        "steps": steps,
    }


def processor_seconds() -> float:
    """Of this process and all that it has waited for: hub, backend, servers."""
    used = [resource.getrusage(each) for each in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def medians(steps: list[dict[str, Any]]) -> dict[str, float]:
    """Medians over all steps but the first two, which compile and warm up."""
    names = [name for name in steps[-1] if "seconds" in name or name in {"tokens_per_second", "tokens", "rows"}]
    later = steps[2:] or steps
    return {name: statistics.median(step[name] for step in later if name in step) for name in names}


def machine() -> dict[str, Any]:
    found: dict[str, Any] = {"python": platform.python_version(), "cores": os.cpu_count()}
    for name in TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    try:
        import torch  # noqa: PLC0415 - the hub's Python has it, this one may not
    except ImportError:
        return found
    return found | {"gpus": [torch.cuda.get_device_name(at) for at in range(torch.cuda.device_count())]}


def plot(result: dict[str, Any], path: Path) -> None:
    from matplotlib.figure import Figure  # noqa: PLC0415 - takes a second

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([each["step"] for each in result["steps"]], [each["reward_mean/solver"] for each in result["steps"]])
    for name in ("before", "after"):
        score = result["report"]["held_out"][name]["mean"]
        axes.axhline(score, linestyle=":", color="grey")
        axes.annotate(f"held-out {name}: {score:.3f}", (1, score), fontsize=8)
    axes.set(
        xlabel="step",
        ylabel="mean reward in training",
        ylim=(0, 1.02),
        title=f"{result['agent']}: {result['model']} on {result['backend']}",
    )
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", choices=AGENTS, default="sums", help="(%(default)s)")
    parser.add_argument("--model", default="spark", help="as in lightning.train (%(default)s)")
    parser.add_argument("--backend", default="embedded", help="(%(default)s)")
    parser.add_argument("--engine", default="auto", help="(%(default)s)")
    parser.add_argument("--backend-python", help="python of an environment that holds the backend")
    parser.add_argument("--steps", type=int, default=40, help="updates (%(default)s)")
    parser.add_argument("--tasks", type=int, default=200, help="held-out tasks (%(default)s)")
    parser.add_argument(
        "--data", type=Path, help="folder to read tasks from, or to write them to if they are not there"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    parser.add_argument("--name", default="arithmetic", help="of the run (%(default)s)")
    parser.add_argument("--runs", default="runs", help="where it is kept (%(default)s)")
    parser.add_argument("--output", type=Path, help="write the result as JSON to this file, and a plot beside it")
    options = parser.parse_args()
    result = run(options)
    if options.output:
        options.output.write_text(json.dumps(result) + "\n", "utf-8")
        plot(result, options.output.with_suffix(".png"))
    print(json.dumps({name: result[name] for name in ("machine", "seconds", "median")}))


if __name__ == "__main__":
    main()
