"""Held-out scores of a program of `examples/` while it trains, each way of training it with several seeds.

    python benchmarks/example_curves.py text_to_sql --agent-python .venvs/openai2/bin/python

Runs the program as a user does, in a process of the frameworks' environment, and reads its evaluations. The result and
its plot go to `benchmarks/results/examples`: for each way and step the mean over seeds and tasks, with a 95% interval
over tasks, and the mean of each seed. A role that is not trained asks the model that training begins with, which
`lightning-sdk serve` serves beside it.
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning_hub.statistics.interval import difference, interval

ROOT = Path(__file__).resolve().parents[1]
WAYS: dict[str, dict[str, list[str]]] = {
    "text_to_sql": {
        "writer and rewriter, the checker frozen": ["--trained", "writer,rewriter"],
        "all roles": ["--trained", "all"],
        "the writer alone": ["--trained", "writer"],
    },
    "calc_x": {"calculator over MCP": []},
    "crewai_team": {"solver, the editor frozen": []},
    "handoffs": {"desk and specialists": []},
}
NEEDS_PROVIDER = {"writer and rewriter, the checker frozen", "the writer alone", "solver, the editor frozen"}
COLORS = ("#2563eb", "#d9480f", "#2b8a3e")

Scores = dict[int, dict[str, float]]
"""Step -> task -> held-out score of one run."""


@contextmanager
def serve_model(model: str, folder: Path) -> Iterator[dict[str, str]]:
    """The variables with which a client finds the served model."""
    command = [sys.executable, "-m", "lightning_sdk.cli", "serve", "--model", model, "--json", "--port", "0"]
    with subprocess.Popen(
        [*command, "--run", str(folder)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
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


def run(name: str, arguments: Sequence[str], environment: dict[str, str], options: argparse.Namespace) -> Scores:
    """Train once; the score of each held-out task at each evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        program = [options.agent_python, "-W", "ignore", str(ROOT / "examples" / name / "agent.py")]
        given = ["--model", options.model, "--backend-python", sys.executable, *arguments]
        given += ["--steps", str(options.steps)] if options.steps else []
        done = subprocess.run(
            [*program, *given],
            cwd=folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        found = list(Path(folder).glob("runs/*/evaluations.jsonl"))
        if done.returncode or len(found) != 1:
            raise SystemExit(f"{' '.join(program)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        looks = [json.loads(line) for line in found[0].read_text("utf-8").splitlines()]
    return {look["step"]: look["scores"] for look in looks}


def summarise(runs: Sequence[Scores], seconds: Sequence[float]) -> dict[str, Any]:
    """Means over seeds with intervals over tasks, at each step."""
    steps = sorted(set.intersection(*(set(each) for each in runs)))
    by_task = {
        step: [
            statistics.fmean(each[step][task] for each in runs)
            for task in sorted(set.intersection(*(set(each[step]) for each in runs)))
        ]
        for step in steps
    }
    found = {step: interval(values) for step, values in by_task.items()}
    return {
        "steps": steps,
        "mean": [found[step].mean for step in steps],
        "low": [found[step].low for step in steps],
        "high": [found[step].high for step in steps],
        "by_seed": [[statistics.fmean(each[step].values()) for step in steps] for each in runs],
        "change": difference(by_task[steps[0]], by_task[steps[-1]]).as_dict(),
        "seconds": [round(each) for each in seconds],
    }


def draw(path: Path, result: dict[str, Any]) -> None:
    """One line for each way, with its interval."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - takes a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6.4, 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for color, (way, each) in zip(COLORS, result["ways"].items(), strict=False):
        axes.fill_between(each["steps"], each["low"], each["high"], color=color, alpha=0.15, linewidth=0)
        axes.plot(each["steps"], each["mean"], color=color, marker="o", markersize=4, label=way)
    axes.set(ylim=(0, 1.02), xlabel="step", ylabel="held-out tasks")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, title=f"{result['program']}, with 95% intervals over tasks")
    figure.savefig(path)


def save(path: Path, result: dict[str, Any]) -> None:
    """Write the result and its plot, with other ways of an earlier result from the same weights."""
    file = path.with_suffix(".json")
    earlier = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    if {**earlier, "ways": {}} == {**result, "ways": {}}:
        result["ways"] = {**earlier["ways"], **result["ways"]}
    file.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    draw(path.with_suffix(".png"), result)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=WAYS)
    parser.add_argument("--way", help="only this way to train; other ways stay in the result as they are")
    parser.add_argument("--agent-python", default=sys.executable, help="Python that has the program's framework")
    parser.add_argument("--model", default="spark", help="(%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings of each way (%(default)s)")
    parser.add_argument("--steps", type=int, help="updates; the program's own number by default")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "examples")
    options = parser.parse_args()
    options.agent_python = str(Path(options.agent_python).absolute())
    result: dict[str, Any] = {
        "benchmark": "example_curves",
        "program": options.name,
        "model": Path(options.model).name,
        "weights": fingerprint(options.model),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seeds": options.seeds,
        "ways": {},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for way, arguments in WAYS[options.name].items():
            if options.way not in {None, way}:
                continue
            runs, seconds = [], []
            for seed in range(options.seeds):
                start = time.monotonic()
                seeded = [*arguments, "--seed", str(seed)]
                if way in NEEDS_PROVIDER:
                    with serve_model(options.model, Path(folder)) as environment:
                        runs.append(run(options.name, seeded, environment, options))
                else:
                    runs.append(run(options.name, seeded, {}, options))
                seconds.append(time.monotonic() - start)
                print(f"{way}, seed {seed}: {[round(statistics.fmean(s.values()), 3) for s in runs[-1].values()]}")
                result["ways"][way] = summarise(runs, seconds)
                save(options.out / options.name, result)


if __name__ == "__main__":
    main()
