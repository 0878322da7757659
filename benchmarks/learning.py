"""Time until the calculator agent of `make demo` scores 0.9 on held-out tasks, through the whole path.

    python benchmarks/learning.py [--json] [--steps 40] [--every 10] [--keep FOLDER]

Trains `spark` as `examples/calculator` does and evaluates on 200 held-out tasks every so many steps. Seconds are those
of training alone, without start-up and evaluations. The held-out tasks are those of the tuning seed, so that measuring
often does not wear out the demo's own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

import lightning_sdk as lightning
from lightning_sdk.rollouts import reference
from lightning_spark.held_out import TUNING_SEED

EXAMPLE = Path(__file__).parents[1] / "examples" / "calculator" / "agent.py"
GOAL = 0.9


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def run(steps: int, every: int, folder: Path, quiet: bool) -> dict[str, Any]:
    agent = reference.module_of(str(EXAMPLE))
    report = lightning.train(
        agent.solve,
        agent.tasks(seed=1, size=2000),
        agent.correct,
        held_out=agent.tasks(seed=TUNING_SEED, size=200),
        steps=steps,
        runs=folder,
        name="learning",
        quiet=quiet,
        **{"evaluation.every": every},
    )
    seconds = [step["seconds"] for step in lines(report.folder / "metrics.jsonl")]
    scores = [(each["step"], round(each["mean"], 3)) for each in lines(report.folder / "evaluations.jsonl")]
    reached = next((step for step, score in scores if score >= GOAL), None)
    return {
        "benchmark": "learning",
        "seconds_to_0.9": None if reached is None else round(sum(seconds[:reached]), 1),
        "steps_to_0.9": reached,
        "scores": scores,
        "seconds": round(sum(seconds), 1),
        "steps": steps,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--steps", type=int, default=40, help="updates (%(default)s)")
    parser.add_argument("--every", type=int, default=10, help="steps between evaluations (%(default)s)")
    parser.add_argument("--keep", type=Path, help="keep the run in this folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = run(options.steps, options.every, options.keep or Path(scratch), options.json)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
