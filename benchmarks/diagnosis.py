"""How often `lightning-sdk check RUN` is right: runs of which it is known whether they are healthy, and what ails them.

    python benchmarks/diagnosis.py [--json] [--seeds 8] [--workers 1] [--without-trained] [--only WORD]

Three sources, which each case names:

    trained    a real training on this machine: `spark` with the embedded engine where answers matter, and the numpy
               policy of the hub's tests where they do not
    recorded   the metrics of a real training, from `tests/hub/recorded`
    simulated  a policy that is a number for each task, with the product's own credit, metrics, evaluation and record

A diagnosis is *right* if it names what is wrong, with its severity, and nothing else, or nothing at all of a healthy
run; *silent* if it misses what is wrong; *wrong* if it says something that is not so. A false alarm is a wrong finding
of a healthy run; its rate has a Wilson interval of 95% over all healthy runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from diagnosis_cases import HEALTHY, SICK, Case, judge, judge_health

from lightning_hub.health.examine import examine
from lightning_hub.statistics.interval import interval

Result = dict[str, Any]


def judge_simulated(case: Case, seeds: Iterable[int]) -> Result:
    """One case with each seed; what is recorded is the same with all of them."""
    outcomes, examples = Counter[str](), []
    for seed in seeds if case.source == "simulated" else (0,):
        health = examine(case.make(seed))
        outcome = judge_health(case, health)
        outcomes[outcome] += 1
        if outcome != "right":
            examples.append({"seed": seed, "found": [str(each) for each in health.findings]})
    return _result(case.name, case.source, case.expected, outcomes, examples)


def judge_trained(training: Any, folder: Path) -> Result:
    """One real training, a `diagnosis_trainings.Training`."""
    values = training.run(folder)
    case = Case(training.name, lambda seed: None, training.expected, training.true, "trained")
    outcome = judge(case, values["findings"])
    if not training.expected and ": worse" in values["summary"]:
        outcome = "wrong"
    found = [f"{each['severity']} {each['kind']}: {each['what']}" for each in values["findings"]]
    examples = [] if outcome == "right" else [{"found": found, "summary": values["summary"]}]
    return _result(training.name, "trained", training.expected, Counter([outcome]), examples)


def _result(
    name: str, source: str, expected: tuple[str, ...], outcomes: Counter[str], examples: list[dict[str, Any]]
) -> Result:
    counts = {outcome: outcomes[outcome] for outcome in ("right", "silent", "wrong")}
    return {"case": name, "source": source, "expected": list(expected), **counts, "not_right": examples[:3]}


def judge_place(place: int, seeds: int) -> Result:
    """The case at this place, which another process has too."""
    return judge_simulated((*HEALTHY, *SICK)[place], range(seeds))


def judge_all(options: argparse.Namespace, folder: Path) -> Iterator[Result]:
    places = [place for place, case in enumerate((*HEALTHY, *SICK)) if options.only in case.name]
    with ProcessPoolExecutor(options.workers) as pool:
        yield from pool.map(judge_place, places, [options.seeds] * len(places))
    if options.without_trained:
        return
    from diagnosis_trainings import TRAININGS  # noqa: PLC0415 - needs torch, the examples and a free machine

    for training in TRAININGS:
        if options.only in training.name:
            yield judge_trained(training, folder)


def summarise(results: Iterable[Result]) -> dict[str, Any]:
    """How often it was right, of healthy and of sick runs; and the rate of false alarms with its interval."""
    found: dict[str, Any] = {}
    for name, of_kind in (
        ("healthy", [r for r in results if not r["expected"]]),
        ("sick", [r for r in results if r["expected"]]),
    ):
        counts = {outcome: sum(each[outcome] for each in of_kind) for outcome in ("right", "silent", "wrong")}
        kinds = Counter(each["source"] for each in of_kind)
        found[name] = {"kinds": len(of_kind), **kinds, "runs": sum(counts.values()), **counts}
    healthy = found["healthy"]
    if healthy["runs"]:
        rate = interval([1.0] * healthy["wrong"] + [0.0] * (healthy["runs"] - healthy["wrong"]))
        found["false_alarms"] = {name: round(getattr(rate, name), 4) for name in ("mean", "low", "high")}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON line and nothing else")
    parser.add_argument("--seeds", type=int, default=8, help="simulated runs of each kind (%(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes for simulated runs (%(default)s)")
    parser.add_argument("--without-trained", action="store_true", help="leave out what has to be trained first")
    parser.add_argument("--only", default="", help="cases with this word in their names")
    options = parser.parse_args()
    began, results = time.monotonic(), []
    with tempfile.TemporaryDirectory() as scratch:
        for result in judge_all(options, Path(scratch)):
            results.append(result)
            if not options.json:
                counts = ", ".join(f"{result[each]} {each}" for each in ("right", "silent", "wrong") if result[each])
                print(f"{result['source']:10} {result['case']:36} {counts}", flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}"
    found = {
        "benchmark": "diagnosis",
        "machine": machine,
        **summarise(results),
        "seeds": options.seeds,
        "seconds": round(time.monotonic() - began),
        "cases": results,
    }
    if options.json:
        print(json.dumps(found))
    else:
        print(json.dumps({name: value for name, value in found.items() if name != "cases"}, indent=1), file=sys.stdout)


if __name__ == "__main__":
    main()
