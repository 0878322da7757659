"""Searches for a better instruction side by side: ours, plain gepa, and the APO of Agent Lightning 0.3.0.

    python -m venv /tmp/apo && /tmp/apo/bin/pip install "agentlightning[apo]==0.3.0"
    python benchmarks/prompt_search.py --model FOLDER --apo-python /tmp/apo/bin/python [--json] [--seeds 5]
        [--budget 300] [--plot benchmarks/results/prompt_search.png]

All of them tune one instruction for the same generated tasks (SQL questions, graded exactly), with the same model, the
same tasks to reflect on (16) and to select with (24), the same seeds, and the same number of rollouts. Without
`--apo-python` the APO of Agent Lightning is left out. At every tenth of the budget, the candidate that a search would
choose then is scored on 100 held-out tasks, which no search sees and which cost it nothing.

The agent's model is sampled at temperature 1, with one draw for each instruction and task, which is the same for all
searches. With `--model simulated` it is a function, declared as such in the result. The reflecting
model is always a double: it adds a sentence from a fixed list to the instruction, helpful or not, and forgets one now
and then, as a draw says that depends on the seed, the instruction and how often it was asked about it. So this compares
how well the searches find out which proposals help, for how many rollouts, and nothing of how texts are worded.

plain gepa: `gepa.optimize` with its defaults and minibatches of 3. APO: the class `APO` of the package with the
settings of its room selector (beam 2, branch 2, 4 tasks a gradient, 10 a validation batch) and as many rounds as the
budget allows; only how it runs a batch of rollouts is ours. Ours: the two algorithms with their default settings.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompt_search_methods import Trace, run_gepa, run_ours
from prompt_search_task import BASE, Judge, SearchTask, make_task, serve

METHODS = ("reflective", "apo", "plain gepa", "Agent Lightning APO")
_APO = Path(__file__).with_name("prompt_search_apo.py")
_POINTS = 10


def run_agent_lightning(python: str, url: str, task: SearchTask, budget: int, seed: int) -> Trace:
    """In a process of its environment, which knows the tasks and the addresses of both models."""
    asked = {"url": url, "base": BASE, "budget": budget, "seed": seed, **task.parts()}
    done = subprocess.run([python, str(_APO)], input=json.dumps(asked), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the APO of Agent Lightning failed:\n{done.stderr[-2000:]}")
    return [(int(rollouts), str(text)) for rollouts, text in json.loads(done.stdout.splitlines()[-1])]


def trace_of(name: str, url: str, task: SearchTask, seed: int, options: argparse.Namespace) -> Trace:
    """What one search chose, while it spent its budget."""
    if name == "plain gepa":
        return run_gepa(url, task, options.budget, seed)
    if name == "Agent Lightning APO":
        return run_agent_lightning(options.apo_python, url, task, options.budget, seed)
    return run_ours(name, url, task, options.budget, seed)


def curve(trace: Trace, judge: Judge, task: SearchTask, budget: int) -> list[float]:
    """The held-out score of what a search would choose, at each point of the budget."""
    grid = [budget * point // _POINTS for point in range(1, _POINTS + 1)]
    chosen = [[text for rollouts, text in trace if rollouts <= at][-1:] or [BASE] for at in grid]
    return [round(judge.score(text, task.held_out), 4) for (text,) in chosen]


def run(options: argparse.Namespace) -> dict[str, Any]:
    judge = Judge(options.model)
    found: dict[str, list[list[float]]] = {name: [] for name in METHODS if name != METHODS[-1] or options.apo_python}
    seeds_before: list[float] = []
    with serve(judge) as url:
        for seed in range(options.seeds):
            task = make_task(seed)
            judge.expect(task)
            seeds_before.append(round(judge.score(BASE, task.held_out), 4))
            for name, rows in found.items():
                rows.append(curve(trace_of(name, url, task, seed, options), judge, task, options.budget))
                if not options.json:
                    print(f"seed {seed}  {name:20} {rows[-1]}", flush=True)
    return {
        "benchmark": "prompt_search",
        "model": judge.name,
        "reflecting_model": "scripted: sentences of a fixed list",
        "budget": options.budget,
        "rollouts": [options.budget * point // _POINTS for point in range(1, _POINTS + 1)],
        "before": seeds_before,
        "held_out": found,
        "mean": {
            name: [round(statistics.fmean(at), 4) for at in zip(*rows, strict=True)] for name, rows in found.items()
        },
        "machine": f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}",
    }


def plot(result: dict[str, Any], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - takes a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    at, before = [0, *result["rollouts"]], statistics.fmean(result["before"])
    for name, rows in result["held_out"].items():
        line = axes.plot(at, [before, *result["mean"][name]], label=name)[0]
        low, high = ([each(values) for each in [kind] for values in zip(*rows, strict=True)] for kind in (min, max))
        axes.fill_between(at, [before, *low], [before, *high], alpha=0.1, color=line.get_color())
    axes.set(xlabel="rollouts spent", ylabel=f"score on 100 held-out tasks, {len(result['before'])} seeds", ylim=(0, 1))
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=150)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="simulated", help="folder of the agent's model, or 'simulated'")
    parser.add_argument("--apo-python", default="", help="Python of an environment with agentlightning[apo]==0.3.0")
    parser.add_argument("--budget", type=int, default=300, help="rollouts of each search (%(default)s)")
    parser.add_argument("--seeds", type=int, default=5, help="repetitions of each search (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--plot", type=Path, help="write the curves as a picture")
    options = parser.parse_args(arguments)
    result = run(options)
    if options.plot:
        plot(result, options.plot)
    print(json.dumps(result))


if __name__ == "__main__":
    sys.exit(main())
