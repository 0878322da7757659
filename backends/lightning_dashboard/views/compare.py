"""Runs over each other: one metric of each, the settings that differ, and whether one is better on the same tasks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning_dashboard.query import BadQuery, ViewQuery
from lightning_dashboard.run_reader import RunReader
from lightning_dashboard.runs import Runs
from lightning_dashboard.views.series import metrics_by_step
from lightning_hub.evaluation.evaluation import HeldOut
from lightning_hub.statistics.interval import difference
from lightning_hub.statistics.reward_range import TrainingRange, reward_range
from lightning_sdk.results.score import Interval

_MOST_RUNS = 8


def view(runs: Runs, query: ViewQuery) -> dict[str, Any]:
    """The runs that are named, in that order; the first one is what the others are compared with."""
    names = list(dict.fromkeys(query.texts("run")))
    if len(names) > _MOST_RUNS:
        raise BadQuery(f"{len(names)} runs: expected {_MOST_RUNS} at the most")
    found = [runs.open(name) for name in names]
    metric = query.text("metric", "reward_mean")
    steps = [run.steps() for run in found]
    known = dict.fromkeys(name for lines in steps for line in (*lines[:1], *lines[-1:]) for name in line)
    last = [_last_evaluation(run) for run in found]
    return {
        "metrics": [name for name in known if name != "step"],
        "metric": metric,
        "runs": [
            {
                "name": run.name,
                "status": run.status(),
                "curve": metrics_by_step(lines, [metric]),
                "held_out": None if held_out is None else held_out.summary().as_dict() | {"name": held_out.name},
                "difference": None if place == 0 else _difference(last[0], held_out),
            }
            for place, (run, lines, held_out) in enumerate(zip(found, steps, last, strict=True))
        ],
        "settings": _differing_settings(found),
    }


def _last_evaluation(run: RunReader) -> HeldOut | None:
    found = sorted(run.evaluations(), key=lambda each: each.step)
    return found[-1] if found else None


def _difference(first: HeldOut | None, other: HeldOut | None) -> dict[str, Any]:
    """Other minus first, by task, over the tasks that both have a score on."""
    if first is None or other is None:
        return _no_difference("one of them has no held-out score")
    tasks = [task for task in first.scores if task in other.scores]
    if not tasks:
        return _no_difference("they have no held-out task in common")
    before, after = ([each.scores[task] for task in tasks] for each in (first, other))
    given = first.range_given if first.range_given == other.range_given else None
    within = reward_range([*before, *after], given, _training_range(first, other))
    found = difference(before, after, within=within)
    return found.as_dict() | {"verdict": _verdict(found)}


def _no_difference(why: str) -> dict[str, Any]:
    return {"mean": None, "low": None, "high": None, "n": 0, "missing": why, "verdict": ""}


def _verdict(found: Interval) -> str:
    """What the interval of a difference shows; '' where there is none."""
    if found.low is None:
        return ""
    return "better" if found.is_above(0) else "worse" if found.is_below(0) else "no more than chance"


def _training_range(first: HeldOut, other: HeldOut) -> TrainingRange | None:
    """What both saw in training."""
    seen = [each.trained for each in (first, other) if each.trained is not None]
    if not seen:
        return None
    return TrainingRange(
        min(each.low for each in seen), max(each.high for each in seen), sum(each.count for each in seen)
    )


def _differing_settings(runs: Sequence[RunReader]) -> list[dict[str, Any]]:
    """Settings that are not the same in all of them, and each one's value."""
    flat = [run.settings.flat() for run in runs]
    names = dict.fromkeys(name for each in flat for name in each)
    return [
        {"name": name, "values": [_plain(each.get(name)) for each in flat]}
        for name in names
        if len({repr(each.get(name)) for each in flat}) > 1
    ]


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
