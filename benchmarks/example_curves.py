"""Held-out scores of a program of `examples/` while it trains, each way of training it with several seeds.

    python benchmarks/example_curves.py text_to_sql --agent-python .venvs/openai2/bin/python [--way WAY] [--seeds 0 1 2]

Runs the program in a process of the frameworks' environment (`example_run.py`) and reads its evaluations. Each training
becomes a line of NAME.jsonl in `benchmarks/results/examples`, in the place of an earlier one of the same way and seed;
trainings from other weights are dropped. NAME.json and its plot are made from all lines: for each way and step the mean
over tasks, each with the mean of the seeds that asked it, with a 95% interval over tasks. A role that is not trained
asks the model that training begins with, which `lightning-sdk serve` serves beside it.

On one GPU, one training at a time, each less than ten minutes (docs/examples.md says how the frameworks get there):

    python benchmarks/example_curves.py calc_x --on verl --model FOLDER --seeds 0 --agent-python PYTHON --out FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import combinations
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from lightning_hub.statistics.interval import difference, interval

ROOT = Path(__file__).resolve().parents[1]
Settings = Mapping[str, object]


class Way(NamedTuple):
    """A way to train a program."""

    arguments: tuple[str, ...] = ()
    settings: Settings = MappingProxyType({})
    """What the program leaves open."""
    needs_provider: bool = False
    """Whether it has roles that are not trained."""


WAYS: dict[str, dict[str, Way]] = {
    "minimal": {"one call": Way(settings={"evaluation.every": 10})},
    "text_to_sql": {
        "writer and rewriter, the checker frozen": Way(("--trained", "writer,rewriter"), needs_provider=True),
        "all roles": Way(("--trained", "all")),
        "the writer alone": Way(("--trained", "writer"), needs_provider=True),
    },
    "calc_x": {"calculator over MCP": Way()},
    "crewai_team": {"solver, the editor frozen": Way(needs_provider=True)},
    "handoffs": {"desk and specialists": Way()},
}
GPU: Settings = {
    "rollouts.tasks_per_step": 32,
    "rollouts.concurrency": 256,
    "rollouts.timeout": 60,
    "optimizer.learning_rate": 2e-5,
    "serving.max_length": 1024,
    "serving.memory": 0.4,
    "save_every": 1000,
}
#: What trains, with the settings that it needs for a model of 135 million parameters on one GPU.
PLACES: dict[str, Settings] = {
    "cpu": {},
    "verl": {
        **GPU,
        "backend": "verl",
        "optimizer.micro_batch_tokens": 65536,
        "actor_rollout_ref.rollout.enforce_eager": "true",
    },
    "vllm": {**GPU, "engine": "vllm", "optimizer.micro_batch_tokens": 8192, "vllm.enforce_eager": "true"},
}
COLORS = ("#2563eb", "#d9480f", "#2b8a3e")

Training = dict[str, Any]
"""A line of NAME.jsonl: the way, the seed, and for each held-out task its score at each of the steps."""


@contextmanager
def serve_model(model: str) -> Iterator[dict[str, str]]:
    """The variables with which a client finds the served model."""
    command = [sys.executable, "-m", "lightning_sdk.cli", "serve", "--model", model, "--json", "--port", "0"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            [*command, "--run", folder], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as server,
    ):
        assert server.stdout is not None
        facts = json.loads(server.stdout.readline())
        try:
            yield {
                "OPENAI_BASE_URL": facts["base_url"],
                "OPENAI_API_KEY": facts["api_key"],
                "OPENAI_MODEL": facts["model"],
            }
        finally:
            server.terminate()


def fingerprint(model: str) -> str:
    """The beginning of the SHA-256 of the weights that training begins with."""
    folder = ROOT / "backends" / "lightning_spark" / "weights" if model == "spark" else Path(model)
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]


def train(name: str, way: str, seed: int, options: argparse.Namespace) -> Training:
    """Train once. A training that reaches the limit of time ends there, and has the evaluations that it made."""
    chosen, start, is_whole = WAYS[name][way], time.monotonic(), True
    with (
        ExitStack() as stack,
        tempfile.TemporaryDirectory() as folder,
        (Path(folder) / "output").open("w+") as output,
    ):
        environment = stack.enter_context(serve_model(options.model)) if chosen.needs_provider else {}
        program = subprocess.Popen(
            command(name, chosen, seed, folder, options),
            cwd=folder,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            program.wait(options.limit)
        except subprocess.TimeoutExpired:
            is_whole = False
            program.terminate()
            program.wait()
        found = Path(folder) / "run" / "evaluations.jsonl"
        looks = [json.loads(line) for line in found.read_text("utf-8").splitlines()] if found.exists() else []
        if not looks or (is_whole and program.returncode):
            output.seek(0)
            raise SystemExit(f"{name}, {way}, seed {seed}: exit code {program.returncode}\n{output.read()[-4000:]}")
    return {
        "way": way,
        "seed": seed,
        "seconds": round(time.monotonic() - start),
        "is_whole": is_whole,
        "steps": [look["step"] for look in looks],
        "scores": {task: [look["scores"].get(task) for look in looks] for task in looks[0]["scores"]},
    }


def command(name: str, way: Way, seed: int, folder: str, options: argparse.Namespace) -> list[str]:
    """The program, in the frameworks' Python."""
    settings = {**way.settings, **PLACES[options.on], "model": options.model, "seed": seed}
    if options.steps:
        settings["steps"] = options.steps
    words = [f"--set={setting}={value}" for setting, value in settings.items()]
    words += [f"--set={each}" for each in options.set]
    program = [options.agent_python, "-W", "ignore", str(ROOT / "benchmarks" / "example_run.py")]
    return [*program, f"--runs={folder}", f"--backend-python={sys.executable}", *words, name, "--", *way.arguments]


def common_steps(trainings: Sequence[Training]) -> list[int]:
    return sorted(set.intersection(*(set(each["steps"]) for each in trainings)))


def curve_of_each_task(trainings: Sequence[Training]) -> dict[str, list[float]]:
    """Task -> its score at each common step, as the mean over the seeds that asked it."""
    steps = common_steps(trainings)
    by_task: dict[str, list[list[float]]] = defaultdict(list)
    for each in trainings:
        for task, scores in each["scores"].items():
            found = [scores[each["steps"].index(step)] for step in steps]
            if None not in found:
                by_task[task].append(found)
    return {task: [statistics.fmean(at) for at in zip(*seeds, strict=True)] for task, seeds in by_task.items()}


def summarise(trainings: Sequence[Training]) -> dict[str, Any]:
    """Means at each step with intervals over tasks."""
    steps, curves = common_steps(trainings), curve_of_each_task(trainings)
    rounds = list(zip(*curves.values(), strict=True))
    found = [interval(each) for each in rounds]
    return {
        "seeds": [each["seed"] for each in trainings],
        "tasks": len(curves),
        "steps": steps,
        "mean": [each.mean for each in found],
        "low": [each.low for each in found],
        "high": [each.high for each in found],
        "change": difference(rounds[0], rounds[-1]).as_dict(),
        "by_seed": [
            [statistics.fmean(at) for at in zip(*curve_of_each_task([each]).values(), strict=True)]
            for each in trainings
        ],
        "seconds": [each["seconds"] for each in trainings],
    }


def compare(by_way: Mapping[str, Sequence[Training]]) -> dict[str, Any]:
    """How far the last scores of two ways are apart, over the tasks that both have."""
    found = {}
    for one, other in combinations(by_way, 2):
        first, second = curve_of_each_task(by_way[one]), curve_of_each_task(by_way[other])
        tasks = sorted(first.keys() & second.keys())
        apart = difference([second[task][-1] for task in tasks], [first[task][-1] for task in tasks])
        found[f"{one} - {other}"] = apart.as_dict()
    return found


def draw(path: Path, result: dict[str, Any]) -> None:
    """One line for each way, with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - takes a second
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(6.4, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for color, (way, each) in zip(COLORS, result["ways"].items(), strict=False):
        axes.fill_between(each["steps"], each["low"], each["high"], color=color, alpha=0.15, linewidth=0)
        axes.plot(each["steps"], each["mean"], color=color, marker="o", markersize=4, label=way)
    axes.set(ylim=(0, 1.02), xlabel="step", ylabel="held-out score")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, title=f"{result['program']}, with 95% intervals over tasks")
    figure.savefig(path)


def save(path: Path, facts: dict[str, Any], new: Training | None) -> None:
    """Add a training to the lines of trainings, and make the result and its plot of all."""
    lines = path.with_suffix(".jsonl")
    kept = [json.loads(line) for line in lines.read_text("utf-8").splitlines()] if lines.is_file() else []
    if new is not None:
        new = {**new, "weights": facts["weights"]}
        kept = [each for each in kept if (each["way"], each["seed"]) != (new["way"], new["seed"])] + [new]
    kept = [each for each in kept if each["weights"] == facts["weights"]]
    kept.sort(key=lambda each: (list(WAYS[facts["program"]]).index(each["way"]), each["seed"]))
    lines.write_text("".join(json.dumps(each) + "\n" for each in kept), "utf-8")
    by_way: dict[str, list[Training]] = defaultdict(list)
    for each in kept:
        by_way[each["way"]].append(each)
    result = {
        **facts,
        "ways": {way: summarise(trainings) for way, trainings in by_way.items()},
        "differences": compare(by_way),
    }
    path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    draw(path.with_suffix(".png"), result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=WAYS)
    parser.add_argument("--way", help="only this way to train")
    parser.add_argument("--agent-python", default=sys.executable, help="Python that has the program's framework")
    parser.add_argument("--on", choices=PLACES, default="cpu", help="what trains (%(default)s)")
    parser.add_argument("--model", default="spark", help="(%(default)s)")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="one training of each way for each")
    parser.add_argument("--steps", type=int, help="updates; the program's own number by default")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="any other setting")
    parser.add_argument("--limit", type=float, help="seconds for each training, which then ends where it is")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "examples")
    options = parser.parse_args()
    options.agent_python = str(Path(options.agent_python).absolute())
    facts = {
        "benchmark": "example_curves",
        "program": options.name,
        "model": Path(options.model).name,
        "weights": fingerprint(options.model),
        "on": options.on,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
    }
    options.out.mkdir(parents=True, exist_ok=True)
    for seed in options.seeds:
        for way in [options.way] if options.way else WAYS[options.name]:
            new = train(options.name, way, seed, options)
            means = [round(statistics.fmean(at), 3) for at in zip(*new["scores"].values(), strict=True)]
            print(f"{way}, seed {seed}: {means} in {new['seconds']} s", flush=True)
            save(options.out / options.name, facts, new)
    if not options.seeds:
        save(options.out / options.name, facts, None)


if __name__ == "__main__":
    main()
