"""Series: metrics of a run by step, chosen by name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning_dashboard.query import BadQuery, ViewQuery
from lightning_dashboard.runs import Runs
from lightning_sdk.results.run_files import StepMetrics

#: Points of one curve: beyond, only every second one is sent, or every third.
MOST_POINTS = 2000
_MOST_NAMES = 200


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """The metrics that are named; without names, what there is to choose from."""
    steps, names = runs.open(query.require("run")).steps(), query.texts("name")
    if len(names) > _MOST_NAMES:
        raise BadQuery(f"{len(names)} names: expected {_MOST_NAMES} at the most")
    known = dict.fromkeys(name for step in steps for name in step if name != "step")
    return {"names": list(known), **metrics_by_step(steps, names)}


def metrics_by_step(steps: Sequence[StepMetrics], names: Iterable[str]) -> dict[str, Any]:
    """The steps that are shown, and for each metric its value in each of them."""
    every = -(-len(steps) // MOST_POINTS) or 1
    shown = [*steps[::every], *([steps[-1]] if every > 1 and (len(steps) - 1) % every else [])]
    return {
        "steps": [step["step"] for step in shown],
        "every": every,
        "series": {name: [step.get(name) for step in shown] for name in names},
    }
