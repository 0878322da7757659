"""One reward for all roles against one for each, on the two roles of `examples/two_roles`: clerk and cashier.

    python benchmarks/two_roles.py [--json] [--steps 40] [--seeds 3] [--plot benchmarks/results/two_roles.png]

Trains `spark` with each reward and each seed on the same tasks, with the same settings; only what the reward returns is
different:

    one    the worth of the bill, for both roles
    sum    the worth of the price and that of the sum, added up, for both roles
    each   a dict: the worth of the price for the clerk, that of the sum for the cashier

Whatever a run was trained with, the same three numbers are measured, from -1 (always wrong) over 0 (never answered) to
1 (always right), on the rollouts of each step and on held-out tasks every so many steps: the bill that the customer
gets, the clerk's price, and the cashier's sum, for which the cashier is also asked where the clerk found no price (on
held-out tasks only). `right_after` and `difference` are shares of right answers on held-out tasks after training, means
over seeds with intervals over tasks, the difference paired by task; every seed's own share is listed too.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import lightning_sdk as lightning
from lightning_hub.statistics.interval import difference, interval
from lightning_sdk.rollouts import reference

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "two_roles" / "agent.py"
KINDS = {"one": "one number for both: the bill", "sum": "one number for both: price + sum", "each": "one for each role"}
STYLES: dict[str, dict[str, Any]] = {
    "one": {"color": "#d9480f"},
    "each": {"color": "#2563eb"},
    "sum": {"color": "#495057", "linestyle": "--"},  # the last: it may lie on another
}
MEASURES = {"bill": "bill (the whole agent)", "clerk": "clerk: the price", "cashier": "cashier: the sum"}
GROUP_SIZE, TASKS_PER_STEP = 8, 8
FEWEST = 8
"""Answers in a round, at least, of which a mean is told."""

Marks = dict[str, float | None]
"""What one rollout is worth by each measure; None for a cashier who was not asked."""


class Measured:
    """The example's agent and one of its rewards, with a record of what every rollout was worth."""

    def __init__(self, shop: ModuleType, kind: str) -> None:
        self._shop, self._kind = shop, kind
        self.training: list[Marks] = []
        """In the order in which rollouts ended; a step begins when the one before is over."""
        self.held_out: dict[int, list[Marks]] = defaultdict(list)
        """Task -> its evaluations, in order."""

    def agent(self, task: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self._shop.order(task)
        if "held_out" in task:
            answer["alone"] = self._shop.add_up(self._shop.bill_of(task["price"], task))
            self.held_out[task["held_out"]].append(self._marks(task, answer))
        else:
            self.training.append(self._marks(task, answer))
        return answer

    def _marks(self, task: dict[str, Any], answer: dict[str, Any]) -> Marks:
        each = self._each(task, answer)
        return {"bill": self._shop.one_for_all(task, answer), "clerk": each["clerk"], "cashier": each.get("cashier")}

    def _each(self, task: dict[str, Any], answer: dict[str, Any]) -> dict[str, float]:
        """The worth of what each role said."""
        each: dict[str, float] = self._shop.one_for_each(task, answer)
        if "held_out" in task:
            each["cashier"] = self._shop.one_for_all(task, {"bill": answer["alone"]})
        return each

    def reward(self, task: dict[str, Any], answer: dict[str, Any]) -> float | dict[str, float]:
        bill, each = self._shop.one_for_all(task, answer), self._each(task, answer)
        whole: dict[str, float | dict[str, float]] = {"one": bill, "sum": sum(each.values()), "each": each}
        return whole[self._kind]


def run(kind: str, seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One training: the marks of each step's rollouts and of each evaluation."""
    shop = reference.module_of(str(EXAMPLE))
    measured = Measured(shop, kind)
    held_out = shop.tasks(seed=900_000_000, size=options.tasks)
    report = lightning.train(
        measured.agent,
        tasks=[task for task in shop.tasks(seed=1, size=1000) if task not in held_out],
        held_out=[task | {"held_out": number} for number, task in enumerate(held_out)],
        reward=measured.reward,
        steps=options.steps,
        seed=seed,
        runs=folder,
        name=f"{kind}-{seed}",
        quiet=True,
        **{
            "rollouts.tasks_per_step": TASKS_PER_STEP,
            "rollouts.group_size": GROUP_SIZE,
            "evaluation.every": options.every,
            "evaluation.tasks": options.tasks,
        },
    )
    size = TASKS_PER_STEP * GROUP_SIZE
    evaluations = [list(each) for each in zip(*(measured.held_out[n] for n in range(options.tasks)), strict=True)]
    if len(measured.training) != size * options.steps:
        sys.exit(f"{kind}, seed {seed}: {len(measured.training)} rollouts, expected {size * options.steps}; run again")
    return {
        "training": [measured.training[start : start + size] for start in range(0, len(measured.training), size)],
        "held_out": evaluations,
        "seconds": report.train_seconds,
        "learning_rate": report.values["facts"]["learning_rate"],
    }


def means(rounds: Sequence[Sequence[Marks]], measure: str) -> list[float | None]:
    """The mean mark of each round; None where hardly anybody was asked."""
    told = [[mark for each in one if (mark := each[measure]) is not None] for one in rounds]
    return [round(statistics.fmean(marks), 4) if len(marks) >= FEWEST else None for marks in told]


def right(runs: Sequence[dict[str, Any]], measure: str) -> list[float]:
    """Share of seeds in which the last answer to each held-out task was right."""
    rounds = zip(*(each["held_out"][-1] for each in runs), strict=True)
    return [statistics.fmean(marks[measure] == 1 for marks in of_task) for of_task in rounds]


def summary(runs: dict[str, list[dict[str, Any]]], options: argparse.Namespace) -> dict[str, Any]:
    """What the result holds of all runs."""
    steps = sorted({0, options.steps, *range(options.every, options.steps, options.every)})
    kinds = {
        kind: {
            "reward": KINDS[kind],
            "right_after": {m: interval(right(of_kind, m)).as_dict() for m in MEASURES},
            "right_after_by_seed": {m: [statistics.fmean(right([each], m)) for each in of_kind] for m in MEASURES},
            "held_out": {m: [means(each["held_out"], m) for each in of_kind] for m in MEASURES},
            "training": {m: [means(each["training"], m) for each in of_kind] for m in MEASURES},
            "train_seconds": [round(each["seconds"], 1) for each in of_kind],
        }
        for kind, of_kind in runs.items()
    }
    against = {
        f"each - {kind}": {m: difference(right(runs[kind], m), right(runs["each"], m)).as_dict() for m in MEASURES}
        for kind in ("one", "sum")
    }
    return {
        "benchmark": "two_roles",
        "difference": against,
        "kinds": kinds,
        "held_out_steps": steps,
        "held_out_tasks": options.tasks,
        "seeds": options.seeds,
        "steps": options.steps,
        "rollouts_per_step": TASKS_PER_STEP * GROUP_SIZE,
        "learning_rate": runs["each"][0]["learning_rate"],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, "
        f"Python {platform.python_version()}",
    }


def draw(path: Path, result: dict[str, Any]) -> None:
    """Upper row: rollouts of training. Lower row: held-out tasks. Means over seeds; bands from lowest to highest."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - takes a second
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(11, 6.2), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(MEASURES), sharex=True, sharey=True)
    rounds = {"training": range(1, result["steps"] + 1), "held_out": result["held_out_steps"]}
    for row, (which, steps) in zip(panels, rounds.items(), strict=True):
        for axes, measure in zip(row, MEASURES, strict=True):
            for kind, style in STYLES.items():
                marker = "o" if which == "held_out" else ""
                _line(axes, steps, result["kinds"][kind][which][measure], KINDS[kind], marker=marker, **style)
            axes.axhline(0, color="#adb5bd", linewidth=0.8, zorder=0)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_ylim(-1.05, 1.05)
    for axes, title in zip(panels[0], MEASURES.values(), strict=True):
        axes.set_title(title, loc="left", fontsize=10)
    panels[0][0].set_ylabel("training rollouts, sampled")
    panels[1][0].set_ylabel("held-out tasks, greedy")
    for axes in panels[1]:
        axes.set_xlabel("step")
    handles, labels = panels[0][0].get_legend_handles_labels()
    title = f"1 right, 0 no answer, -1 wrong. Means of {result['seeds']} seeds, bands from lowest to highest.\n"
    title += f"spark on {result['machine']}"
    figure.legend(handles, labels, loc="outside upper center", ncols=3, frameon=False, fontsize=9, title=title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _line(axes: Any, steps: Sequence[int], seeds: list[list[float | None]], label: str, **style: Any) -> None:
    """The mean over seeds, with a gap where no seed has a value, and the band from the lowest to the highest."""
    at = [[each for each in values if each is not None] or [math.nan] for values in zip(*seeds, strict=True)]
    axes.fill_between(steps, list(map(min, at)), list(map(max, at)), color=style["color"], alpha=0.15, linewidth=0)
    axes.plot(steps, list(map(statistics.fmean, at)), linewidth=1.8, markersize=4, label=label, clip_on=False, **style)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--steps", type=int, default=40, help="updates (%(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="trainings with each reward (%(default)s)")
    parser.add_argument("--every", type=int, default=5, help="steps between evaluations (%(default)s)")
    parser.add_argument("--tasks", type=int, default=100, help="held-out tasks (%(default)s)")
    parser.add_argument("--plot", type=Path, default=ROOT / "benchmarks" / "results" / "two_roles.png")
    options = parser.parse_args()
    say: Callable[..., None] = (lambda *_: None) if options.json else print
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(options.seeds):
            for kind, of_kind in runs.items():
                of_kind.append(run(kind, seed, options, Path(scratch)))
                after = {m: round(statistics.fmean(right(of_kind[-1:], m)), 3) for m in MEASURES}
                say(f"{kind:5} seed {seed}: {after} in {of_kind[-1]['seconds']:.0f} s")
    result = summary(runs, options)
    print(json.dumps(result), flush=True)
    draw(options.plot, result)


if __name__ == "__main__":
    main()
