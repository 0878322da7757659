"""Two-digit sums of reasoning-gym, learned by any model on any backend: the held-out score, and where the time goes.

    python benchmarks/sums.py --model MODEL --backend verl [--steps 40] [--set NAME=VALUE ...] [--output FILE]

The agent is one call without a tool. The held-out score is greedy, before and after, with its interval; for each step
the seconds of rollouts and of the update, and tokens a second while rollouts run. `--output` writes all of it as JSON,
with the machine, and a plot beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from openai import OpenAI

import lightning_sdk as lightning
from lightning_sdk.settings import parse

client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1", max_retries=0)
TOLD = ("torch", "transformers", "vllm", "verl", "ray")


def tasks(seed: int, size: int) -> list[dict[str, Any]]:
    """Sums of two numbers of two digits, as reasoning-gym words them."""
    import reasoning_gym  # noqa: PLC0415 - a machine without it can be given `--data`

    made = reasoning_gym.create_dataset("chain_sum", seed=seed, size=size, min_terms=2, max_terms=2, min_digits=2,
                                        max_digits=2)  # fmt: skip
    return [{"question": each["question"], "answer": each["answer"]} for each in made]


@lightning.agent(role="solver", trainable=True)
def solve(task: dict[str, Any]) -> str:
    """One question, one answer."""
    question = f"{task['question']} Answer with the number only."
    reply = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": question}], max_tokens=32
    )
    return reply.choices[0].message.content or ""


@lightning.reward
def correct(task: dict[str, Any], answer: str) -> float:
    """Whether the last number of the answer is the right one."""
    numbers = re.findall(r"-?\d+", answer)
    return float(bool(numbers) and numbers[-1] == task["answer"])


def data(options: argparse.Namespace) -> list[list[dict[str, Any]]]:
    """Tasks to learn from, and held-out ones: made here, or read from where they were made."""
    made = (
        [tasks(1, 8192), tasks(900_000_000, options.tasks)] if not options.data or not options.data.is_dir() else None
    )
    files = [options.data / f"{name}.json" for name in ("train", "held_out")] if options.data else []
    if made is None:
        return [json.loads(file.read_text("utf-8")) for file in files]
    for file, values in zip(files, made, strict=False):
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(values), "utf-8")
    return made


def run(options: argparse.Namespace) -> dict[str, Any]:
    settings = dict(each.partition("=")[::2] for each in options.set)
    train, held_out = data(options)
    began = time.monotonic()
    report = lightning.train(
        solve, train, correct, held_out=held_out, model=options.model,
        backend=options.backend, steps=options.steps, name=options.name, runs=options.runs,
        backend_python=options.backend_python,
        **{"evaluation.tasks": options.tasks, **{name: parse(name, value) for name, value in settings.items()}},
    )  # fmt: skip
    folder = Path(options.runs) / options.name
    steps = [json.loads(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]
    print(report)
    return {
        "benchmark": "sums", "model": Path(options.model).name, "backend": options.backend, "settings": settings,
        "machine": machine(), "seconds": time.monotonic() - began,
        "report": json.loads((folder / "report.json").read_text("utf-8")), "median": medians(steps), "steps": steps,
    }  # fmt: skip


def medians(steps: list[dict[str, Any]]) -> dict[str, float]:
    """Of all steps but the first, which compiles and warms up."""
    names = [name for name in steps[-1] if "seconds" in name or name in {"tokens_per_second", "tokens", "rows"}]
    later = steps[1:] or steps
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
    axes.set(xlabel="step", ylabel="mean reward in training", ylim=(0, 1.02),
             title=f"{result['model']} on {result['backend']}")  # fmt: skip
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="spark", help="as in lightning.train (%(default)s)")
    parser.add_argument("--backend", default="embedded", help="(%(default)s)")
    parser.add_argument("--backend-python", help="python of an environment that holds the backend")
    parser.add_argument("--steps", type=int, default=40, help="updates (%(default)s)")
    parser.add_argument("--tasks", type=int, default=200, help="held-out tasks (%(default)s)")
    parser.add_argument("--data", type=Path, help="folder to read tasks from, or to write them to if it is not there")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    parser.add_argument("--name", default="sums", help="of the run (%(default)s)")
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
